import { spawn } from "child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "fs";
import { join } from "path";
import * as pulumi from "@pulumi/pulumi";
import { Cloud, Machine, Outcome } from "../../components/ecs/cloud";
import { QuorumGate } from "../../components/ecs/gate";
import { AclObject } from "../../consul/acl";
import { Command, commandText } from "../../consul/machine/commands";
import { withApi } from "../../consul/scripts";
import { stableJson } from "../../consul/node";
import { Cluster } from "../../local/supervisor";
import { loadSettings } from "../../settings";

/**
 * Local servers as if they were machines of the cloud: commands that would go through Cloud Assistant are run here,
 * word for word but for the addresses and files of a machine.
 */
export class LocalCloud implements Cloud {
  constructor(private readonly cluster: Cluster) {}

  private get aclDir(): string {
    return join(this.cluster.dir, "acl");
  }

  private get servers(): string[] {
    return this.cluster.nodes.filter(({ role }) => role === "server").map(({ name }) => name);
  }

  machines(): Promise<Machine[]> {
    const status = (name: string) => (this.cluster.pid(name) === undefined ? "Stopped" : "Running");
    // One that was never started has no machine.
    const made = this.servers.filter((name) => existsSync(join(this.cluster.dir, name)));
    return Promise.resolve(made.map((name) => ({ id: `i-${name}`, name, status: status(name) })));
  }

  async run(ids: readonly string[], command: Command): Promise<ReadonlyMap<string, Outcome>> {
    const text = commandText(command);
    const outcomes = ids.map(async (id) => [id, await this.shell(id.replace("i-", ""), text)] as const);
    return new Map(await Promise.all(outcomes));
  }

  /** What user data leaves on a machine for the script that keeps policies and tokens. */
  writeAcl(objects: readonly AclObject[]): void {
    rmSync(this.aclDir, { recursive: true, force: true });
    mkdirSync(this.aclDir);
    writeFileSync(join(this.aclDir, "acl.sh"), withApi("scripts/acl.sh"), { mode: 0o700 });
    for (const { file, content } of objects) writeFileSync(join(this.aclDir, file), content, { mode: 0o600 });
  }

  shell(server: string, command: string): Promise<Outcome> {
    const here = command
      .replaceAll("http://127.0.0.1:8500", `http://${this.cluster.node(server).address}:8500`)
      .replaceAll("/etc/consul.management-token", this.cluster.tokenFile)
      .replaceAll("/usr/local/lib/consul/acl.sh", `sh ${join(this.aclDir, "acl.sh")}`)
      .replaceAll("/etc/consul.acl", this.aclDir);
    return new Promise((resolve) => {
      const child = spawn("sh", { stdio: ["pipe", "pipe", "pipe"] });
      let [output, error] = ["", ""];
      child.stdout.on("data", (data) => (output += String(data)));
      child.stderr.on("data", (data) => (error += String(data)));
      child.on("close", (code) =>
        resolve(code === 0 ? { output } : { problem: `exit ${code ?? ""}: ${error}${output}` }),
      );
      child.stdin.end(here);
    });
  }
}

/** `pulumi up` for local nodes: servers one by one through the gate, then agents, then what nobody needs any more. */
export class Rollout {
  private readonly settled: LocalCloud;
  private tags: Readonly<Record<string, string>> = {};
  private files = new Map<string, string>();
  /** Node that is being restarted, if any: its own clients have to wait. */
  resting = "";
  /** Agents of another stack, which has not been updated yet. */
  elsewhere: readonly string[] = [];
  /** How long the gate waits for servers that are not well. */
  waitMinutes = 3;
  /** What each node's turn took: gate, restart and return. */
  readonly seconds: Record<string, number> = {};

  constructor(private readonly cluster: Cluster) {
    this.settled = new LocalCloud(cluster);
    this.tags = this.gate().tags;
    this.files = this.described();
  }

  private described(): Map<string, string> {
    const { nodes, acl, consul } = this.cluster;
    // A machine's user data has policies and tokens too: another token is another user data.
    return new Map(
      nodes.map(({ name, role, files }) => [name, stableJson([files, consul, role === "server" ? acl : []])]),
    );
  }

  private gate(): QuorumGate {
    const { cluster } = this;
    const server = cluster.nodes[0];
    const secrets = JSON.parse(server?.files.find(({ path }) => path.endsWith("secrets.json"))?.content ?? "") as {
      encrypt: string;
    };
    return new QuorumGate({
      cloud: this.settled,
      pause: 500,
      servers: cluster.nodes.filter(({ role }) => role === "server").map(({ name }) => name),
      vpcId: "vpc",
      tag: { key: "consul-datacenter", value: "local" },
      // What the program itself has just read.
      settings: { ...loadSettings(), gate: { waitMinutes: this.waitMinutes, skip: [] } },
      trust: {
        caCertificate: pulumi.output(cluster.caCertificate),
        gossipKey: pulumi.secret(secrets.encrypt),
        agentToken: pulumi.secret(cluster.agentToken),
        managementToken: pulumi.secret(cluster.managementToken),
      },
    });
  }

  /** As a DaemonSet waits: the agent answers with a leader. And it has brought the catalog up to date. */
  private async agentIsBack(name: string): Promise<void> {
    const { cluster } = this;
    const secrets = cluster.node(name).files.find(({ path }) => path.endsWith("secrets.json"))?.content ?? "";
    const { node_meta } = JSON.parse(secrets) as { node_meta: { trust: string } };
    await cluster.until(`${name} is not back`, async () => {
      const leader = await cluster.api(name, null).get<string>("status/leader");
      const { Node } = await cluster.api(name).get<{ Node: { Meta: { trust?: string } } }>(`catalog/node/${name}`);
      if (leader === "" || Node.Meta.trust !== node_meta.trust) throw new Error("its entry in the catalog is old");
    });
  }

  /** Applies changed settings. @throws what the gate throws; what was done before stays, and the next call goes on */
  async up(
    change: Readonly<Record<string, string | undefined>>,
    beforeEach: (node: string) => Promise<void> = () => Promise.resolve(),
  ): Promise<void> {
    const { cluster } = this;
    await cluster.update(change);
    const gate = this.gate();
    const wanted = this.described();
    this.settled.writeAcl(cluster.acl);
    const changed = cluster.nodes
      .filter(({ name }) => this.files.get(name) !== wanted.get(name))
      // A node that is off gets its pod when it is back.
      .filter(({ name, role }) => role === "server" || cluster.pid(name) !== undefined)
      .filter(({ name }) => !this.elsewhere.includes(name));
    for (const { name, role } of changed) {
      await beforeEach(name);
      const began = Date.now();
      if (!this.files.has(name)) {
        cluster.start(name);
      } else if (role === "server") {
        await gate.hook(name).callback({
          ...{ urn: "", id: `i-${name}`, name, type: "" },
          oldInputs: { tags: this.tags, userData: pulumi.secret(this.files.get(name)) },
          newInputs: { tags: gate.tags, userData: pulumi.secret(wanted.get(name)) },
        });
        await cluster.restart(name);
        const outcome = await this.settled.shell(
          name,
          "CONSUL_HTTP_ADDR=http://127.0.0.1:8500 CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token /usr/local/lib/consul/acl.sh /etc/consul.acl",
        );
        if ("problem" in outcome) throw new Error(outcome.problem);
      } else {
        if (this.resting === "") await settle(gate.ready([]));
        this.resting = name;
        await cluster.restart(name);
        await this.agentIsBack(name);
      }
      this.files.set(name, wanted.get(name) ?? "");
      this.seconds[name] = (Date.now() - began) / 1000;
    }
    this.resting = "";
    await settle(gate.ready([]));
    this.tags = gate.tags;
    await settle(gate.retire(pulumi.output("done")));
  }
}

function settle(output: pulumi.Output<void>): Promise<void> {
  return (output as unknown as { promise(): Promise<void> }).promise();
}
