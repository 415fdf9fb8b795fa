import { Cloud, Machine, Outcome } from "../components/ecs/cloud";
import { EcsApi } from "../components/ecs/ecs-api";
import { ServerMachines } from "../components/ecs/machines";
import { ports } from "../consul/config";
import { Command, plainCommandText } from "../consul/machine/commands";
import { aclDir, dataMount, etcDir } from "../consul/machine/layout";
import { podLayout, serverPods, serverSet } from "../consul/pod/pod";
import { nodesRunningIn, RunDirectory } from "../local/directory";
import { execute } from "./execute";
import { kubectl, KubectlOptions } from "./kubectl";
import type { Stack } from "./stack";

/** The way to the servers of a stack, wherever they run. */
export interface Servers {
  /** Their names, in the settings' order. */
  readonly names: readonly string[];
  /** Where a server has its things; "" for what there is not. `secrets` are the files and directories with secrets. */
  readonly places: {
    readonly data: string;
    readonly snapshots: string;
    readonly units: string;
    readonly secrets: readonly string[];
  };
  /** The machine, pod or process of each; "Running" is what all are meant to be, "missing" where there is none. */
  list(): Promise<Machine[]>;
  /**
   * Runs a command at each of these machines, as a user that may read everything there.
   * @param seconds how long it may take; 60 unless given
   * @returns by id
   */
  run(machines: readonly Machine[], command: Command, seconds?: number): Promise<ReadonlyMap<string, Outcome>>;
}

export interface WayOptions {
  /** Another way to the machines than the ECS API, for tests. */
  readonly cloud?: Pick<Cloud, "machines" | "run"> | undefined;
  /** The kubectl context of the cluster that has the servers; found by the settings unless given. */
  readonly context?: string | undefined;
}

/** The way to a stack's servers. @throws where the stack has none, with the stack that has them */
export function serversOf(stack: Stack, { cloud, context }: WayOptions = {}): Servers {
  const { servers, serversStack, cluster } = stack.settings;
  switch (servers?.platform) {
    case "ecs":
      return machineServers(stack, servers, cloud ?? new EcsApi(stack.cloud));
    case "kubernetes":
      if (!cluster) throw new Error("settings with servers in a cluster and without the cluster");
      return podServers(servers.count, { ...cluster, context: context ?? cluster.context });
    case "local":
      return processServers(stack, servers.nodes);
    default:
      throw new Error(
        `its servers are in another stack: ask ${serversStack ?? "that one"}, which sees these agents too`,
      );
  }
}

type Nodes = readonly { readonly name: string; readonly address: string }[];

function machineServers(
  { settings }: Stack,
  { nodes, vpcId }: { readonly nodes: Nodes; readonly vpcId: string },
  cloud: Pick<Cloud, "machines" | "run">,
): Servers {
  const names = nodes.map(({ name }) => name);
  const tag = { key: "consul-datacenter", value: settings.datacenter };
  const machines = new ServerMachines({ cloud, servers: names, vpcId, tag });
  return {
    names,
    places: {
      data: dataMount,
      snapshots: settings.backups ? `${dataMount}/snapshots` : "",
      units: "consul*",
      secrets: [etcDir, aclDir],
    },
    list: () => machines.list(),
    run: async (asked, command, seconds = 60) => {
      const ids = asked.map(({ id }) => id);
      return ids.length === 0 ? new Map<string, Outcome>() : cloud.run(ids, command, seconds);
    },
  };
}

interface Pod {
  readonly metadata: { readonly name: string; readonly deletionTimestamp?: string };
  readonly status: {
    readonly phase?: string;
    readonly containerStatuses?: readonly {
      readonly state?: { readonly waiting?: { readonly reason?: string }; readonly terminated?: object };
    }[];
  };
}

function podServers(count: number, cluster: KubectlOptions): Servers {
  const names = serverPods(count, cluster.namespace).map(({ name }) => name);
  return {
    names,
    // The volume of snapshots is the CronJob's alone.
    places: { data: podLayout.dataDir, snapshots: "", units: "", secrets: [podLayout.secretDir] },
    list: async () => {
      const selector = `app.kubernetes.io/name=consul,app.kubernetes.io/component=server`;
      const { items } = JSON.parse(await kubectl(cluster, ["get", "pods", "-l", selector, "-o", "json"])) as {
        items: Pod[];
      };
      return names.map((name) => {
        const pod = items.find(({ metadata }) => metadata.name === name);
        if (pod) return { id: name, name, status: podStatus(pod) };
        return { id: `the StatefulSet ${serverSet} has no pod of this name now`, name, status: "missing" };
      });
    },
    run: (machines, command, seconds = 60) =>
      atEach(machines, async ({ id }) => {
        const args = ["exec", "-i", id, "-c", "consul", "--", "sh"];
        return kubectl(cluster, args, { input: plainCommandText(command), seconds });
      }),
  };
}

/** Running, or what it is instead, such as CrashLoopBackOff. */
function podStatus({ metadata, status: { phase = "Unknown", containerStatuses = [] } }: Pod): string {
  const [state] = containerStatuses.map((container) => container.state);
  if (metadata.deletionTimestamp !== undefined) return "Terminating";
  if (state?.terminated !== undefined) return "Terminated";
  return state?.waiting?.reason ?? phase;
}

function processServers({ directory = "", name: stack }: Stack, nodes: Nodes): Servers {
  const { tokenFile } = new RunDirectory(directory);
  return {
    names: nodes.map(({ name }) => name),
    // Its disk is the whole machine's.
    places: { data: "", snapshots: "", units: "", secrets: [] },
    list: () => {
      const running = nodesRunningIn(directory);
      if (!running) return Promise.reject(new Error(`no cluster runs in ${directory}: npm start -- --stack ${stack}`));
      const status = (name: string) => (running.has(name) ? "Running" : "Ended");
      return Promise.resolve(nodes.map(({ name }) => ({ id: `process of ${name}`, name, status: status(name) })));
    },
    run: (machines, command, seconds = 60) =>
      atEach(machines, ({ name }) => {
        const address = nodes.find((node) => node.name === name)?.address ?? "";
        const env = {
          PATH: process.env.PATH,
          CONSUL_HTTP_ADDR: `http://${address}:${ports.http}`,
          CONSUL_HTTP_TOKEN_FILE: tokenFile,
        };
        return execute("sh", [], { input: plainCommandText(command), seconds, env });
      }),
  };
}

async function atEach(machines: readonly Machine[], run: (machine: Machine) => Promise<string>) {
  const outcome = (machine: Machine): Promise<Outcome> =>
    run(machine).then(
      (output) => ({ output }),
      (error: unknown) => ({ problem: (error as Error).message }),
    );
  return new Map(await Promise.all(machines.map(async (machine) => [machine.id, await outcome(machine)] as const)));
}
