import { mkdirSync, writeFileSync } from "fs";
import { join } from "path";
import { ports } from "../../consul/config";
import { ConsulNode, stableJson } from "../../consul/node";
import { Api, leaderAmong } from "../../local/api";
import { NodeProcess } from "../../local/processes";
import { eventually } from "../healthy";
import type { Contender } from "./contenders";

/** What the configurations of all four nodes say. */
const common = {
  datacenter: "dc1",
  log_level: "INFO",
  ports: { dns: 8600, http: 8500, https: -1, server: 8300, serf_lan: 8301, serf_wan: 8302 },
  rejoin_after_leave: true,
  retry_interval: "30s",
  reconnect_timeout: "72h",
};

/**
 * The cluster of a Docker walk-through that this program replaces: three servers and a client without TLS, ACLs and
 * gossip encryption. Its configuration is taken over key for key, but for one thing: a container binds to 0.0.0.0, and
 * a node here to its own loopback address.
 */
export class WalkThrough implements Contender {
  private readonly running = new Map<string, NodeProcess>();
  readonly nodes: readonly ConsulNode[];

  /**
   * @param consul path of the binary
   * @param dir where the nodes keep their data
   */
  constructor(
    private readonly consul: string,
    private readonly dir: string,
  ) {
    const addresses = [2, 3, 4].map((host) => `127.37.0.${host}`);
    const describe = (name: string, address: string, role: "server" | "agent", own: object): ConsulNode => {
      const content = stableJson({
        ...common,
        node_name: name,
        bind_addr: address,
        client_addr: address,
        retry_join: addresses,
        ...own,
      });
      return {
        name,
        address,
        role,
        files: [{ path: `${name}/${name}_conf.json`, mode: "0644", content, secret: false }],
        command: ["consul", "agent", `-data-dir=${name}/data`, `-config-file=${name}/${name}_conf.json`],
      };
    };
    const server = { server: true, bootstrap_expect: 3, ui: true };
    this.nodes = [
      ...addresses.map((address, i) => describe(`consul_server${i + 1}`, address, "server", server)),
      describe("consul_client1", "127.37.0.5", "agent", { server: false, ui: false }),
    ];
    process.once("exit", this.killAll);
  }

  node(name: string): ConsulNode {
    const node = this.nodes.find((one) => one.name === name);
    if (!node) throw new Error(`there is no node ${name}`);
    return node;
  }

  api(name: string): Api {
    return new Api(`http://${this.node(name).address}:${ports.http}`);
  }

  leaderName(): Promise<string> {
    const servers = this.nodes.filter(({ name, role }) => role === "server" && this.running.has(name));
    return eventually("the servers have no leader", () => leaderAmong(servers), 120);
  }

  start(name: string): void {
    mkdirSync(join(this.dir, name), { recursive: true });
    const { files, command } = this.node(name);
    for (const { path, content } of files) writeFileSync(join(this.dir, path), content);
    const log = join(this.dir, name, "log");
    this.running.set(name, new NodeProcess(this.consul, command.slice(1), this.dir, log));
  }

  async kill(name: string): Promise<void> {
    await this.running.get(name)?.end("SIGKILL");
    this.running.delete(name);
  }

  async stop(): Promise<void> {
    await Promise.all([...this.running.keys()].map((name) => this.kill(name)));
    process.off("exit", this.killAll);
  }

  private readonly killAll = () => this.running.forEach((one) => one.signal("SIGKILL"));
}
