import type { Cluster } from "../../local/supervisor";
import { healthy, names } from "../healthy";
import { checksum, fill } from "./keys";
import { deregister, known, register } from "./lookups";
import { above, Drill, seconds, Shown } from "./report";

export interface Blackout {
  /** Seconds from the start of all processes to a leader, and to every node and service in the catalog. */
  readonly leader: number;
  readonly complete: number;
  readonly keysKept: boolean;
}

/** Kills every process at once, and starts all. */
export async function killAll(cluster: Cluster): Promise<Blackout> {
  const before = await fill(cluster);
  const applications = names(cluster, "agent").map((at) => ({ service: `drill-${at}`, at }));
  await register(cluster, applications);
  await Promise.all(cluster.nodes.map(({ name }) => cluster.kill(name)));
  const began = Date.now();
  for (const { name } of cluster.nodes) cluster.start(name);
  await cluster.leaderName();
  const leader = (Date.now() - began) / 1000;
  await cluster.ready();
  await known(cluster, applications, true);
  const complete = (Date.now() - began) / 1000;
  await healthy(cluster);
  const keysKept = (await checksum(cluster)) === before;
  await deregister(cluster, applications);
  return { leader, complete, keysKept };
}

export const blackoutDrill: Drill = { title: "All six processes are killed at once", run: showBlackout };

async function showBlackout(cluster: Cluster): Promise<Shown> {
  const figures = await killAll(cluster);
  return {
    figures,
    table: [
      ["a leader after", seconds(figures.leader)],
      ["every node and service in the catalog after", seconds(figures.complete)],
      ["10,000 keys", figures.keysKept ? "the same at each server" : "NOT the same"],
    ],
    broken: above([
      ["seconds until everything is back", figures.complete, 20],
      ["keys that changed", figures.keysKept ? 0 : 1, 0],
    ]),
  };
}
