import * as pulumi from "@pulumi/pulumi";
import { configTags } from "../components/ecs/change";
import { Cloud } from "../components/ecs/cloud";
import { QuorumGate } from "../components/ecs/gate";
import { ServerTrust } from "../components/trust";
import { renderUserData, UserData } from "../consul/machine/user-data";
import { ConsulNode, stableJson } from "../consul/node";
import { Cluster } from "../local/supervisor";
import { loadSettings } from "../settings";
import { LocalCloud } from "./local-cloud";
import { certificatesFrom } from "./trust";

/** `pulumi up` for local nodes: servers one by one through the gate, then agents, then what nobody needs any more. */
export class Rollout {
  readonly cloud: LocalCloud;
  /** Tags and image of each server's machine, as the engine has committed them. */
  private readonly tags = new Map<string, Readonly<Record<string, string>>>();
  private readonly images = new Map<string, string>();
  private files = new Map<string, string>();
  /** Node that is being restarted, if any: its own clients have to wait. */
  resting = "";
  /** Waits until clients have the answers that they asked this agent for: it is about to be restarted. */
  answered: (agent: string) => Promise<void> = () => Promise.resolve();
  /** Agents of another stack, which has not been updated yet. */
  elsewhere: readonly string[] = [];
  /** How long the gate waits for servers that are not well. */
  waitMinutes = 3;
  /** consul:gate.skip */
  skip: readonly string[] = [];
  /** The image of the servers' machines: the provider stops a machine and starts it again for another one. */
  image = "image-1";
  /** What stands between the gate and the cloud. */
  way: (cloud: Cloud) => Cloud = (cloud) => cloud;
  /** What each node's turn took: gate, restart and return. */
  readonly seconds: Record<string, number> = {};

  /** @param cloud of another rollout of the same machines, whose state this one is given */
  constructor(
    private readonly cluster: Cluster,
    cloud?: LocalCloud,
  ) {
    this.cloud = cloud ?? new LocalCloud(cluster, (server) => this.userData(server));
    if (cloud) return;
    const gate = this.gate();
    for (const { name } of this.servers) {
      this.committed(gate, name);
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
      cloud: this.way(this.cloud),
      pause: 500,
      servers: this.servers.map(({ name }) => name),
      vpcId: "vpc",
      tag: { key: "consul-datacenter", value: "local" },
      // What the program itself has just read.
      settings: { ...loadSettings(), gate: { waitMinutes: this.waitMinutes, skip: [...this.skip] } },
      trust: {
        servers: this.servers.map((server) => this.serverTrust(server)),
        certificatesFrom: pulumi.output(certificatesFrom(this.servers.map((server) => certificateIn(server)))),
        caCertificate: pulumi.output(cluster.caCertificate),
        gossipKeys: pulumi.secret(JSON.parse(keyring) as string[]),
        agentToken: pulumi.secret(cluster.agentToken),
        managementToken: pulumi.secret(cluster.managementToken),
      },
    });
  }

  private serverTrust({ name, files }: ConsulNode): ServerTrust {
    const file = (end: string) => pulumi.secret(files.find(({ path }) => path.endsWith(end))?.content ?? "");
    const [cert, key, none] = [file("/server.pem"), file("/server-key.pem"), pulumi.output("")];
    return { name, cert, key, agentToken: pulumi.secret("none"), certFrom: none, certExpires: none };
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

  /**
   * Applies changed settings.
   * @param beforeEach is told of each node before its turn
   * @throws what the gate throws; what was done before stays, and the next call goes on
   */
  async up(
    change: Readonly<Record<string, string | undefined>>,
    beforeEach: (node: string) => Promise<void> = () => Promise.resolve(),
  ): Promise<void> {
    const { cluster } = this;
    await cluster.update(change);
    const gate = this.gate();
    const wanted = this.described();
    this.cloud.writeAcl(cluster.acl);
    const changed = cluster.nodes
      .filter(({ name, role }) => this.files.get(name) !== wanted.get(name) || (role === "server" && this.moves(name)))
      // A node that is off gets its pod when it is back.
      .filter(({ name, role }) => role === "server" || cluster.pid(name) !== undefined)
      .filter(({ name }) => !this.elsewhere.includes(name));
    for (const { name, role } of changed) {
      await beforeEach(name);
      const began = Date.now();
      if (role === "server") await this.server(gate, name);
      else await this.agent(gate, name);
      this.files.set(name, wanted.get(name) ?? "");
      this.seconds[name] = (Date.now() - began) / 1000;
    }
    this.resting = "";
    await this.ready(gate);
    await settle(gate.retire(pulumi.output("done")));
  }

  /** A second `up` of the same settings, which knows what this one knew when it began. Agents roll once for both. */
  twin(): Rollout {
    const twin = new Rollout(this.cluster, this.cloud);
    for (const [name, tags] of this.tags) twin.tags.set(name, tags);
    for (const [name, image] of this.images) twin.images.set(name, image);
    twin.files = new Map(this.files);
    twin.image = this.image;
    twin.waitMinutes = this.waitMinutes;
    return twin;
  }

  /** Servers, and what comes after them, with the settings that another `up` has just read. */
  async serversAgain(): Promise<void> {
    const gate = this.gate();
    for (const { name } of this.servers) await this.server(gate, name);
    await this.ready(gate);
    await settle(gate.retire(pulumi.output("done")));
  }

  private ready(gate: QuorumGate): Promise<void> {
    const wanted = this.servers.map(({ name }) => pulumi.secret(this.userData(name)));
    return settle(gate.ready([], wanted));
  }

  /** The image of each server's machine, in the servers' order. */
  get imagesOfServers(): readonly (string | undefined)[] {
    return this.servers.map(({ name }) => this.images.get(name));
  }

  private moves(server: string): boolean {
    return this.images.get(server) !== this.image;
  }

  /** A machine that is missing is made, without asking anybody, as the engine does. */
  private async server(gate: QuorumGate, name: string): Promise<void> {
    const { cluster } = this;
    if (this.files.has(name)) return this.updateServer(gate, name);
    if (cluster.pid(name) === undefined) cluster.start(name);
    this.cloud.started(name);
    this.committed(gate, name);
  }

  private async agent(gate: QuorumGate, name: string): Promise<void> {
    const { cluster } = this;
    if (!this.files.has(name)) return void cluster.start(name);
    if (this.resting === "") await this.ready(gate);
    this.resting = name;
    await this.answered(name);
    await cluster.restart(name);
    await this.agentIsBack(name);
  }

  /** Machines that the engine no longer finds, with `--refresh`: the next `up` makes them. */
  refresh(): void {
    for (const { name } of this.servers) {
      if (this.cluster.pid(name) === undefined && !this.cloud.has(name)) this.files.delete(name);
    }
  }

  private committed(gate: QuorumGate, name: string): void {
    this.tags.set(name, this.wantedTags(gate, name));
    this.images.set(name, this.image);
  }

  /** What the engine does: the hook, then the provider's part, and then it notes the tags. */
  private async updateServer(gate: QuorumGate, name: string): Promise<void> {
    const tags = this.wantedTags(gate, name);
    await gate.hook(name, pulumi.secret(this.userData(name))).callback({
      urn: "",
      id: `i-${name}`,
      name,
      type: "",
      oldInputs: { tags: this.tags.get(name), imageId: this.images.get(name) },
      newInputs: { tags, imageId: this.image },
    });
    if (this.moves(name)) {
      await this.cluster.restart(name);
      this.cloud.started(name);
    }
    this.committed(gate, name);
  }
}

function certificateIn({ files }: ConsulNode): string {
  return files.find(({ path }) => path.endsWith("/server.pem"))?.content ?? "";
}

function settle(output: pulumi.Output<void>): Promise<void> {
  return (output as unknown as { promise(): Promise<void> }).promise();
}
