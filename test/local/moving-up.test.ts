import assert from "assert/strict";
import { basename, join } from "path";
import { createInterface } from "readline";
import { readableUserData } from "../../consul/machine/user-data";
import { withApi } from "../../consul/scripts";
import { ProgramRun, runProgram, stackConfig } from "../../local/program";
import {
  apiName,
  clusterProviders,
  consulOf,
  eventually,
  namespace,
  Servers,
  skipWithoutPods,
  Wanted,
} from "./kube-cluster";
import { Finished, Pod, PodSpec, World } from "./pods";

// docs/moving-up.md, step by step: from the servers of Pulumi.dev.yaml to machines, in a stack of their own.

/** A machine as its user data makes it, the operating system aside: started like a pod on the host's network. */
function machine(userData: string): { spec: PodSpec; configMaps: Map<string, Record<string, string>> } {
  const files = [...userData.matchAll(/^put (\S+) \d+ \w+ <<'END_OF_FILE'\n([^]*?)^END_OF_FILE$/gm)].map(
    ([, path = "", content = ""]) => ({ path, content }),
  );
  const inDirectory = (directory: string) =>
    Object.fromEntries(
      files.filter(({ path }) => path.startsWith(directory)).map(({ path, content }) => [basename(path), content]),
    );
  const unit = files.find(({ path }) => path.endsWith("/consul.service"))?.content ?? "";
  const [, ...words] = /^ExecStart=(.*)$/m.exec(unit)?.[1]?.split(" ") ?? [];
  const volumes = ["/etc/consul.d", "/etc/consul.acl"].map((path) => ({
    path,
    name: basename(path),
    data: inDirectory(`${path}/`),
  }));
  return {
    configMaps: new Map(volumes.map(({ name, data }) => [name, data])),
    spec: {
      hostNetwork: true,
      securityContext: { runAsUser: 100, runAsGroup: 1000, fsGroup: 1000 },
      containers: [
        {
          name: "consul",
          command: ["consul", ...words],
          volumeMounts: [
            ...volumes.map(({ name, path }) => ({ name, mountPath: path })),
            { name: "data", mountPath: "/opt/consul/data" },
            { name: "tmp", mountPath: "/tmp" },
          ],
        },
      ],
      volumes: [
        ...volumes.map(({ name }) => ({ name, configMap: { name, defaultMode: 0o444 } })),
        { name: "tmp", emptyDir: {} },
      ],
    },
  };
}

describe("moving up from servers in the cluster to machines", function () {
  this.timeout(600_000);
  const serversStack = "organization/consul/dev-servers";
  // Each stack has backups of its own, with a bucket of its own.
  const devFile = stackConfig("dev");
  for (const key of ["consul:backups", "alicloud:region"]) Reflect.deleteProperty(devFile, key);
  const dev: Record<string, string> = {
    ...devFile,
    "consul:apps": JSON.stringify([
      { name: "orders", namespace: "shop", services: ["orders"], kv: { read: ["config/orders/"], write: [] } },
    ]),
  };
  const stacks: Record<string, ProgramRun["outputs"]> = {};
  const devProviders = clusterProviders(stacks);
  let world: World;
  let below: Wanted;
  let pods: Servers;
  let agents: Pod[];
  let above: ProgramRun;
  let machines: Pod[];
  let addresses: string[];
  let appToken: string;

  const ok = ({ code, output }: Finished) => {
    assert.equal(code, 0, output);
    return output;
  };
  const startAgent = (wanted: Wanted, name: string) =>
    world.startPod({
      name,
      namespace,
      spec: wanted.agent,
      objects: wanted.objects,
      node: name.replace("agent", "node"),
    });
  /** A request to an agent, as an application on its node makes it: status and body. */
  const ask = async (agent: Pod | undefined, path: string, token: string, put?: string) => {
    const sent = put === undefined ? [] : ["-X", "PUT", "-d", put];
    const url = `http://${agent?.address ?? ""}:8500/v1/${path}`;
    const answer = await world.run("curl", [
      "-sS",
      ...sent,
      "-H",
      `X-Consul-Token: ${token}`,
      "-w",
      "\n%{http_code}",
      url,
    ]);
    const [, body = "", status = ""] = /^([^]*)\n(\d+)$/.exec(answer) ?? [];
    return { body, status: Number(status) };
  };
  /** consul in the container of a server in the cluster, speaking to the machines. */
  const upstairs = (token: string, ...words: string[]) => {
    const options = [
      `-http-addr=https://${addresses[0] ?? ""}:8501`,
      "-ca-file=/tmp/new-ca.pem",
      `-token-file=${token}`,
    ];
    const file = words.filter((word) => word.startsWith("/"));
    const command = words.filter((word) => !word.startsWith("/"));
    return pods.get(0).exec(["consul", ...command, ...options, ...file]);
  };
  /** What consul-acl.service does on a machine. */
  const acl = async () => {
    const [pod] = machines;
    assert.ok(pod);
    ok(await pod.exec(["sh", "-c", "cat >/tmp/token"], { input: String(above.outputs.managementToken?.value) }));
    const environment = [
      "CONSUL_HTTP_ADDR=http://127.0.0.1:8500",
      "CONSUL_HTTP_TOKEN_FILE=/tmp/token",
      "ACL_DEADLINE=60",
    ];
    return pod.exec(["env", ...environment, "sh", "-s", "--", "/etc/consul.acl"], {
      input: withApi("scripts/acl.sh"),
    });
  };

  before(async function () {
    this.timeout("40m"); // a first build of Consul and CoreDNS
    await skipWithoutPods(this);
    world = await World.start(await consulOf("dev"), [apiName]);
    for (const n of [0, 1, 2, 3]) await world.addNode(`node-${n}`);
  });

  after(async () => {
    await (world as World | undefined)?.stop();
  });

  it("begins with an application that is registered and has a configuration", async () => {
    below = new Wanted(await runProgram("dev", dev, devProviders));
    pods = new Servers(world, below);
    await Promise.all(pods.ordinals.map((ordinal) => pods.start(ordinal)));
    await pods.ready(pods.ordinals);
    ok(await pods.job("acl"));
    ok(await pods.job("access"));
    agents = await Promise.all(["agent-0", "agent-3"].map((name) => startAgent(below, name)));
    await eventually("the agents are ready", async () => {
      for (const agent of agents) assert.ok(await agent.isReady());
    });
    const secret = below.objects.secrets.get("orders-consul-token");
    appToken = Buffer.from(secret?.token ?? "", "base64").toString();
    const management = below.output("managementToken");
    assert.equal((await ask(agents[0], "kv/config/orders/db", management, "orders-db")).status, 200);
    const registration = JSON.stringify({ Name: "orders", Port: 8080 });
    assert.deepEqual(await ask(agents[0], "agent/service/register", appToken, registration), { body: "", status: 200 });
    await eventually("it is found", () => found(agents[1]));
  });

  it("makes machines in a stack of their own, beside what is there", async () => {
    const { "consul:servers": ofProd = "" } = stackConfig("prod");
    const config: Record<string, string> = { ...devFile, "consul:servers": ofProd };
    delete config["consul:agents"];
    delete config["consul:cluster"];
    above = await runProgram("dev-servers", config, clusterProviders());
    stacks[serversStack] = above.outputs;
    const instances = above.resources.filter(({ type }) => type === "alicloud:ecs/instance:Instance");
    addresses = instances.map(({ inputs }) => String(inputs.privateIp));
    machines = await Promise.all(
      instances.map(async ({ inputs }) => {
        const name = String(inputs.hostName);
        await world.addNode(name, String(inputs.privateIp));
        const { spec, configMaps } = machine(
          readableUserData(Buffer.from(String(inputs.userData), "base64").toString()),
        );
        const claims = { data: join(world.directory, "claims", name) };
        return world.startPod({
          name,
          namespace,
          spec,
          objects: { configMaps, secrets: new Map() },
          node: name,
          claims,
        });
      }),
    );
    assert.equal(machines.length, 3);
    assert.match(ok(await acl()), /policies and tokens are in place/);
    for (const secret of ["gossipKey", "managementToken", "agentToken", "caCertificate"]) {
      assert.notEqual(above.outputs[secret]?.value, below.output(secret));
    }
  });

  it("takes a snapshot below and restores it above", async () => {
    ok(await pods.get(0).exec(["consul", "snapshot", "save", "/tmp/up.snap"]));
    const input = (name: string) => String(above.outputs[name]?.value);
    ok(await pods.get(0).exec(["sh", "-c", "cat >/tmp/new-ca.pem"], { input: input("caCertificate") }));
    ok(await pods.get(0).exec(["sh", "-c", "umask 077; cat >/tmp/new-token"], { input: input("managementToken") }));
    assert.match(ok(await upstairs("/tmp/new-token", "snapshot", "restore", "/tmp/up.snap")), /Restored snapshot/);
    // The tokens above are those from below now. The management token of above is made again by itself; the machines'
    // and the agents' tokens by their script.
    const tokens = ok(await upstairs("/tmp/new-token", "acl", "token", "list"));
    assert.match(tokens, /Description: +Server consul-server-0 \[/);
    assert.doesNotMatch(tokens, /Description: +Server consul-1 \[/);
    assert.match(ok(await acl()), /policies and tokens are in place/);
    assert.match(ok(await upstairs("/tmp/new-token", "acl", "token", "list")), /Description: +Server consul-1 \[/);
  });

  it("moves the agents over in one go: the application stays registered, with its token and its configuration", async () => {
    const agentSettings = JSON.parse(dev["consul:agents"] ?? "{}") as Record<string, unknown>;
    const config: Record<string, string> = {
      ...dev,
      "consul:serversStack": serversStack,
      "consul:agents": JSON.stringify({ ...agentSettings, updatePace: { maxUnavailable: "99%" } }),
    };
    delete config["consul:servers"];
    const after = new Wanted(await runProgram("dev", config, devProviders));
    const lookups = new Lookups(world, agents[1]?.address ?? "");
    await eventually("lookups succeed", () => assert.ok(lookups.succeeded > 5));
    const since = Date.now();
    agents = await Promise.all(
      agents.map(async (agent) => {
        await agent.delete();
        return startAgent(after, agent.name);
      }),
    );
    await eventually("the agents are ready", async () => {
      for (const agent of agents) assert.ok(await agent.isReady(), agent.log().slice(-1500));
    });
    await eventually("the application is found", () => found(agents[1]));
    await eventually("lookups go on", () => assert.ok(lookups.last > since));
    console.log(`      no lookup succeeded for ${lookups.longestGap(since).toFixed(1)} s`);
    assert.ok(lookups.longestGap(since) < 30);
    lookups.stop();
    assert.deepEqual(await ask(agents[0], "kv/config/orders/db?raw", appToken), { body: "orders-db", status: 200 });
    assert.equal((await ask(agents[0], "kv/config/billing/db?raw", appToken)).status, 403);
    // Nothing is left of the way it went: the Job that keeps the applications' tokens speaks to the machines now.
    pods.wanted = after;
    ok(await pods.job("access"));
  });

  it("leaves nothing of the old servers in the catalog once they are gone", async () => {
    await Promise.all([...pods.pods.keys()].map((ordinal) => pods.stop(ordinal, "delete")));
    const token = String(above.outputs.managementToken?.value);
    await eventually("they are gone from the catalog", async () => {
      const { body } = await ask(agents[1], "catalog/nodes", token);
      const names = (JSON.parse(body) as { Node: string }[]).map(({ Node }) => Node).sort();
      assert.deepEqual(names, ["consul-1", "consul-2", "consul-3", "node-0", "node-3"]);
    });
    await found(agents[1]);
  });

  /** The application is found by another one, without a token, at its own node. */
  async function found(agent: Pod | undefined) {
    const { body } = await ask(agent, "health/service/orders?passing", "");
    const entries = JSON.parse(body) as { Node: { Node: string } }[];
    assert.deepEqual(
      entries.map(({ Node }) => Node.Node),
      ["node-0"],
    );
  }
});

/** Looks the application up through an agent, ten times a second. */
class Lookups {
  private readonly times: number[] = [];
  private readonly child;

  constructor(world: World, address: string) {
    const program = `
      process.stdout.on("error", () => process.exit());
      const url = "http://" + process.argv[1] + ":8500/v1/health/service/orders?passing";
      setInterval(async () => {
        try {
          const response = await fetch(url, { signal: AbortSignal.timeout(2000) });
          if (response.ok && (await response.json()).length === 1) console.log("found");
        } catch {}
      }, 100);`;
    this.child = world.spawn(process.execPath, ["-e", program, address]);
    if (!this.child.stdout) throw new Error("no output");
    createInterface(this.child.stdout).on("line", () => this.times.push(Date.now()));
  }

  get succeeded(): number {
    return this.times.length;
  }

  get last(): number {
    return this.times.at(-1) ?? 0;
  }

  /** In seconds. */
  longestGap(since: number): number {
    const times = [since, ...this.times.filter((at) => at >= since)];
    return Math.max(...times.slice(1).map((at, i) => at - (times[i] ?? at))) / 1000;
  }

  stop() {
    this.child.stdout?.destroy();
    this.child.kill();
  }
}
