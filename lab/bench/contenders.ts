import { mkdtempSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { Cluster, onLoopback } from "../../local/supervisor";
import { writers } from "../faults/lookups";
import { eventually, healthy, Observed } from "../healthy";
import { quantile } from "../load";
import { WalkThrough } from "./walk-through";

/** A cluster of three servers and one agent that is measured beside another cluster. */
export interface Contender extends Observed {
  readonly managementToken?: string;
  start(name: string): void;
  kill(name: string): Promise<void>;
  stop(): Promise<void>;
}

/** A contender that has just been started from nothing. */
export interface Started {
  readonly contender: Contender;
  /** Seconds from the first process to a leader. */
  readonly leader: number;
  /** Seconds from the first process to all four nodes in the catalog. */
  readonly members: number;
}

export type Name = "this program" | "the Docker walk-through";

/** Starts a contender from nothing, by its name. @param consul path of the binary */
export const contenders: Readonly<Record<Name, (consul: string) => Promise<Started>>> = {
  "this program": startOurs,
  "the Docker walk-through": startTheirs,
};
export const names = Object.keys(contenders) as Name[];

/** An empty list for each contender. */
export function ofEach<T>(): Record<Name, T[]> {
  return { "this program": [], "the Docker walk-through": [] };
}

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
  const cluster = new WalkThrough(consul, temporary());
  const began = Date.now();
  for (const { name } of cluster.nodes) cluster.start(name);
  const leader = await cluster.leaderName().then(() => (Date.now() - began) / 1000);
  await eventually(
    "not every node is in the catalog",
    async () => {
      const passing = await cluster.api("consul_server1").get<{ CheckID: string }[]>("health/state/passing");
      if (passing.filter(({ CheckID }) => CheckID === "serfHealth").length < 4) throw new Error("not all four");
    },
    120,
  );
  const members = (Date.now() - began) / 1000;
  await healthy(cluster);
  return { contender: cluster, leader, members };
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
