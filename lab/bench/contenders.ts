import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { ports } from "../../consul/config";
import { ConsulNode, stableJson } from "../../consul/node";
import { Api } from "../../local/api";
import { Observed, healthy, writers } from "../faults";
import { quantile } from "../load";
import { NodeProcess, untilDone } from "../../local/processes";
import { Cluster, onLoopback } from "../../local/supervisor";

/** A cluster of three servers and one agent that is measured beside another one. */
export interface Contender extends Observed {
  readonly managementToken?: string;
  start(name: string): void;
  kill(name: string): Promise<void>;
  stop(): Promise<void>;
}

/** A contender that has just been started from nothing, and the seconds that it took. */
export interface Started {
  readonly contender: Contender;
  /** From the first process to a leader, and to all four nodes in the catalog. */
  readonly leader: number;
  readonly members: number;
}

export type Names = "this program" | "seed 004";
export const contenders: Readonly<Record<Names, (consul: string) => Promise<Started>>> = {
  "this program": startOurs,
  "seed 004": startTheirs,
};

async function startOurs(consul: string): Promise<Started> {
  const cluster = new Cluster({ dir: temporary(), binary: consul, config: onLoopback("127.36.0", 3, 1) });
  let began = 0;
  let leader = 0;
  for (const step of cluster.steps()) {
    if (step.title === "Start the servers") began = Date.now();
    await step.run(() => undefined);
    if (step.title === "Start the servers") leader = (Date.now() - began) / 1000;
  }
  await healthy(cluster);
  return { contender: cluster, leader, members: cluster.startSeconds };
}

async function startTheirs(consul: string): Promise<Started> {
  const cluster = new Seed004(consul);
  const began = Date.now();
  for (const { name } of cluster.nodes) cluster.start(name);
  const leader = await cluster.leaderName().then(() => (Date.now() - began) / 1000);
  await within(120, async () => {
    const passing = await cluster.api("consul_server1").get<{ CheckID: string }[]>("health/state/passing");
    if (passing.filter(({ CheckID }) => CheckID === "serfHealth").length < 4) throw new Error("not every node");
  });
  const members = (Date.now() - began) / 1000;
  await healthy(cluster);
  return { contender: cluster, leader, members };
}

function within<T>(seconds: number, attempt: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + seconds * 1000;
  return untilDone(attempt, (last) => (Date.now() > deadline ? last : undefined));
}

/** The configuration of seed 004, key for key; of a container's address, 0.0.0.0 is the node's own on loopback here. */
class Seed004 implements Contender {
  private readonly dir = temporary();
  private readonly running = new Map<string, NodeProcess>();
  readonly nodes: readonly ConsulNode[];

  constructor(private readonly consul: string) {
    const [a = "", b = "", c = "", d = ""] = [2, 3, 4, 5].map((host) => `127.37.0.${host}`);
    const describe = (name: string, address: string, own: object): ConsulNode => {
      const content = stableJson({
        ...{ datacenter: "dc1", log_level: "INFO", node_name: name, bind_addr: address, client_addr: address, ...own },
        ports: { dns: 8600, http: 8500, https: -1, server: 8300, serf_lan: 8301, serf_wan: 8302 },
        ...{ rejoin_after_leave: true, retry_join: [a, b, c], retry_interval: "30s", reconnect_timeout: "72h" },
      });
      return {
        ...{ name, address, role: "server" in own && own.server === true ? "server" : "agent" },
        files: [{ path: `${name}/${name}_conf.json`, mode: "0644", content, secret: false }],
        command: ["consul", "agent", `-data-dir=${name}/data`, `-config-file=${name}/${name}_conf.json`],
      };
    };
    const server = { server: true, bootstrap_expect: 3, ui: true };
    this.nodes = [
      ...[a, b, c].map((address, i) => describe(`consul_server${i + 1}`, address, server)),
      describe("consul_client1", d, { server: false, ui: false }),
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
    const claim = async ({ name, address }: ConsulNode) => {
      const leader = await new Api(`http://${address}:${ports.http}`, undefined, 1000).get<string>("status/leader");
      if (leader !== `${address}:${ports.rpc}`) throw new Error(`${name} does not lead`);
      return name;
    };
    return within(120, () => Promise.any(servers.map(claim)));
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

/** Kills the leader and starts it again. @returns seconds until a write at some server succeeded */
export async function writeGap(cluster: Contender): Promise<number> {
  await healthy(cluster);
  const leader = await cluster.leaderName();
  const writes = writers(cluster);
  const killed = Date.now();
  await cluster.kill(leader);
  const gap = await writes.succeeds(killed, 120);
  cluster.start(leader);
  await writes.stop();
  return gap;
}

/** A directory that is gone when this process is, or before. */
export function temporary(): string {
  const dir = mkdtempSync(join(tmpdir(), "bench-"));
  process.once("exit", () => rmSync(dir, { recursive: true, force: true, maxRetries: 3 }));
  return dir;
}

/** minimum / median / maximum */
export function spreadOf(values: readonly number[], digits = 1): string {
  return [Math.min(...values), quantile(values), Math.max(...values)].map((value) => value.toFixed(digits)).join(" / ");
}

/** Markdown of a table. */
export function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");
}
