import { spawn } from "child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "fs";
import { join } from "path";
import * as pulumi from "@pulumi/pulumi";
import { Cloud, Machine, Outcome } from "../../components/ecs/cloud";
import { QuorumGate } from "../../components/ecs/gate";
import { ServerTrust } from "../../components/trust";
import { AclObject } from "../../consul/acl";
import { localLayout } from "../../components/local/nodes";
import { configTags } from "../../components/ecs/change";
import { Command, commandText } from "../../consul/machine/commands";
import { renderUserData, UserData } from "../../consul/machine/user-data";
import { withApi } from "../../consul/scripts";
import { ConsulNode, stableJson } from "../../consul/node";
import { Cluster } from "../../local/supervisor";
import { loadSettings } from "../../settings";

/**
 * Local servers as if they were machines of the cloud: commands that would go through Cloud Assistant are run here,
 * word for word but for the addresses and files of a machine. Only installing, and applying user data, is played.
 */
export class LocalCloud implements Cloud {
  /** User data that was stored, and what each server runs, by name. */
  private readonly stored = new Map<string, string>();
  private readonly running = new Map<string, UserData>();
  /** What was done to each server: reloaded, restarted, unchanged. */
  readonly applied: string[] = [];

  constructor(
    private readonly cluster: Cluster,
    private readonly wanted: (server: string) => UserData,
  ) {}

  private get aclDir(): string {
    return join(this.cluster.dir, "acl");
  }

  private get servers(): string[] {
    return this.cluster.nodes.filter(({ role }) => role === "server").map(({ name }) => name);
  }

  /** Notes that a server was started with what it is to run now, as its unit does. */
  started(server: string): void {
    const userData = this.wanted(server);
    this.running.set(server, userData);
    writeFileSync(this.runsFile(server), `${userData.config} ${userData.start}\n`);
  }

  private runsFile(server: string): string {
    return join(this.cluster.dir, `${server}.runs`);
  }

  machines(): Promise<Machine[]> {
    const status = (name: string) => (this.cluster.pid(name) === undefined ? "Stopped" : "Running");
    // One that was never started has no machine.
    const made = this.servers.filter((name) => existsSync(join(this.cluster.dir, name)));
    return Promise.resolve(made.map((name) => ({ id: `i-${name}`, name, status: status(name) })));
  }

  storeUserData(id: string, userData: string): Promise<void> {
    this.stored.set(id.replace("i-", ""), Buffer.from(userData, "base64").toString());
    return Promise.resolve();
  }

  power(id: string, action: string): Promise<void> {
    return Promise.reject(new Error(`nothing here needs to ${action} ${id}`));
  }

  async run(ids: readonly string[], command: Command): Promise<ReadonlyMap<string, Outcome>> {
    const outcomes = ids.map(async (id) => [id, await this.answer(id.replace("i-", ""), command)] as const);
    return new Map(await Promise.all(outcomes));
  }

  private answer(server: string, command: Command): Promise<Outcome> {
    const [call] = command;
    // The binary is the cluster's: a restart takes it.
    if (call?.script === "machine/install.sh") return Promise.resolve({ output: "" });
    if (call?.script === "machine/apply.sh") return this.apply(server, ...(call.args as [string, string]));
    return this.shell(server, commandText(command));
  }

  /** As converge.sh, for a process. */
  private async apply(server: string, config: string, how: string): Promise<Outcome> {
    const wanted = this.wanted(server);
    if (wanted.config !== config || this.stored.get(server) !== wanted.text) return { problem: "stale", ran: true };
    const before = this.running.get(server);
    let result = "unchanged";
    if (before?.start !== wanted.start) {
      if (how === "reload") return { output: "restart needed\n" };
      await this.cluster.restart(server);
      result = "restarted";
    } else if (before.config !== wanted.config) {
      this.cluster.write(server);
      await this.cluster.api(server).put("agent/reload");
      result = "reloaded";
    }
    this.started(server);
    this.applied.push(`${server} ${result}`);
    const acl = await this.shell(
      server,
      "CONSUL_HTTP_ADDR=http://127.0.0.1:8500 CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token /usr/local/lib/consul/acl.sh /etc/consul.acl",
    );
    return "problem" in acl ? acl : { output: `${result}\n` };
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
      .replaceAll("/etc/consul.acl", this.aclDir)
      .replaceAll("/run/consul.runs", this.runsFile(server))
      .replaceAll("/run/consul.lock", join(this.cluster.dir, `${server}.lock`))
      .replaceAll("=/etc/consul.d", `=${join(this.cluster.dir, localLayout(server).secretDir)}`)
      .replaceAll("systemctl reload consul.service", `kill -HUP ${this.cluster.pid(server) ?? 0}`)
      .replaceAll("systemctl show", "false systemctl show");
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
  readonly cloud: LocalCloud;
  /** Tags of each server's machine, as the engine has committed them. */
  private readonly tags = new Map<string, Readonly<Record<string, string>>>();
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
    this.cloud = new LocalCloud(cluster, (server) => this.userData(server));
    const gate = this.gate();
    for (const { name } of this.servers) {
      this.tags.set(name, this.wantedTags(gate, name));
      this.cloud.started(name);
    }
    this.files = this.described();
  }

  private get servers() {
    return this.cluster.nodes.filter(({ role }) => role === "server");
  }

  private described(): Map<string, string> {
    const { nodes, consul } = this.cluster;
    return new Map(
      nodes.map(({ name, role, files }) => [
        name,
        role === "server" ? this.userData(name).config : stableJson([files, consul]),
      ]),
    );
  }

  /** As the program renders it for a machine. */
  private userData(server: string): UserData {
    const { cluster } = this;
    const { managementToken, acl } = cluster;
    // The unit names the version's own binary.
    const node = cluster.node(server);
    const own = { ...node, command: [cluster.consul, ...node.command.slice(1)] };
    const { version, downloadMirror, downloadSha256 } = loadSettings();
    return renderUserData({
      node: own,
      version,
      downloadMirror,
      downloadSha256,
      diskId: "d-none",
      managementToken,
      acl,
    });
  }

  private wantedTags(gate: QuorumGate, server: string): Readonly<Record<string, string>> {
    return { ...gate.tags, ...configTags(this.userData(server)) };
  }

  private gate(): QuorumGate {
    const { cluster } = this;
    const keyring = this.servers[0]?.files.find(({ path }) => path.endsWith("gossip.keyring"))?.content ?? "";
    return new QuorumGate({
      cloud: this.cloud,
      pause: 500,
      servers: this.servers.map(({ name }) => name),
      vpcId: "vpc",
      tag: { key: "consul-datacenter", value: "local" },
      // What the program itself has just read.
      settings: { ...loadSettings(), gate: { waitMinutes: this.waitMinutes, skip: [] } },
      trust: {
        servers: this.servers.map((server) => this.serverTrust(server)),
        caCertificate: pulumi.output(cluster.caCertificate),
        gossipKeys: pulumi.secret(JSON.parse(keyring) as string[]),
        agentToken: pulumi.secret(cluster.agentToken),
        managementToken: pulumi.secret(cluster.managementToken),
      },
    });
  }

  private serverTrust({ name, files }: ConsulNode): ServerTrust {
    const file = (end: string) => pulumi.secret(files.find(({ path }) => path.endsWith(end))?.content ?? "");
    const [cert, key] = [file("/server.pem"), file("/server-key.pem")];
    return { name, cert, key, agentToken: pulumi.secret("none"), certExpires: pulumi.output("") };
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
    const ready = () =>
      settle(
        gate.ready(
          [],
          this.servers.map(({ name }) => pulumi.secret(this.userData(name))),
        ),
      );
    this.cloud.writeAcl(cluster.acl);
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
        if (role === "server") this.cloud.started(name);
      } else if (role === "server") {
        await this.updateServer(gate, name);
      } else {
        if (this.resting === "") await ready();
        this.resting = name;
        await cluster.restart(name);
        await this.agentIsBack(name);
      }
      this.files.set(name, wanted.get(name) ?? "");
      this.seconds[name] = (Date.now() - began) / 1000;
    }
    this.resting = "";
    await ready();
    await settle(gate.retire(pulumi.output("done")));
  }

  /** What the engine does: the hook, and then the tags. */
  private async updateServer(gate: QuorumGate, name: string): Promise<void> {
    const tags = this.wantedTags(gate, name);
    await gate.hook(name, pulumi.secret(this.userData(name))).callback({
      urn: "",
      id: `i-${name}`,
      name,
      type: "",
      oldInputs: { tags: this.tags.get(name) },
      newInputs: { tags },
    });
    this.tags.set(name, tags);
  }
}

function settle(output: pulumi.Output<void>): Promise<void> {
  return (output as unknown as { promise(): Promise<void> }).promise();
}
