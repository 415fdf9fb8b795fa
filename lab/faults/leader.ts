import type { Cluster } from "../../local/supervisor";
import type { Progress } from "../../tools/progress";
import { healthy } from "../healthy";
import { quantile } from "../load";
import { times } from "../pictures/plots";
import { deregister, Lookups, watched, ways, writers } from "./lookups";
import { above, Drill, failed, lookupLimits, seconds, Shown } from "./report";

export interface Failovers {
  /** Seconds from each kill until a write succeeded that began after the kill. */
  readonly gaps: readonly number[];
  /** Seconds from each start of the killed server until all servers were healthy voters. */
  readonly returns: readonly number[];
  readonly lookups: Lookups;
}

/** Kills the leader several times, each time once all servers are healthy voters, with lookups at every agent. */
export async function killLeader(
  cluster: Cluster,
  times: number,
  progress: Progress = () => undefined,
): Promise<Failovers> {
  const { applications, lookers } = await watched(cluster);
  const writes = writers(cluster);
  const gaps: number[] = [];
  const returns: number[] = [];
  await healthy(cluster);
  for (let i = 0; i < times; i++) {
    const leader = await cluster.leaderName();
    const killed = Date.now();
    await cluster.kill(leader);
    gaps.push(await writes.succeeds(killed));
    cluster.start(leader);
    returns.push(await healthy(cluster));
    progress(`${i + 1} of ${times}: a write after ${gaps.at(-1)?.toFixed(1) ?? ""} s`);
  }
  const [lookups] = await Promise.all([lookers.stop(), writes.stop()]);
  await deregister(cluster, applications);
  return { gaps, returns, lookups };
}

export const leaderDrill: Drill = { title: "The leader is killed, twenty times", run: showLeader };

async function showLeader(cluster: Cluster, progress: Progress): Promise<Shown> {
  const figures = await killLeader(cluster, 20, progress);
  const row = (what: string, values: readonly number[]) => [
    what,
    ...[Math.min(...values), quantile(values), Math.max(...values)].map(seconds),
  ];
  return {
    figures,
    table: [
      ["", "best", "median", "worst"],
      row("until a write succeeds", figures.gaps),
      row("from the killed server's start to three healthy voters", figures.returns),
      ...ways.map((way) => [`lookups at the agents, ${way}`, failed(figures.lookups[way]), "", ""]),
    ],
    broken: above([
      ["median of the write gaps", quantile(figures.gaps), 2.5],
      ["worst of the write gaps", Math.max(...figures.gaps), 5],
      ...lookupLimits("leader killed", figures.lookups, 0.025),
    ]),
    plots: [
      await times("The leader killed: each time", {
        "until a write succeeds": figures.gaps,
        "until three healthy voters": figures.returns,
      }),
    ],
  };
}
