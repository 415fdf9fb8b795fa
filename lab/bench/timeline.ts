import { setTimeout as sleep } from "timers/promises";
import { Resolver } from "../../local/dns";
import type { Progress } from "../../tools/progress";
import { eventually, healthy } from "../healthy";
import { Stream } from "../load";
import { Contender, contenders, markdown, Name, names, spreadOf } from "./contenders";

/** How often the leader is killed in each cluster. */
const kills = 3;
/** Seconds that are shown before the kill, and after it. */
const [before, after] = [5, 20];
/** Milliseconds between two requests of a kind, and the length of an interval that answers are counted in. */
const pace = 25;
const interval = 500;

/** What clients of one cluster saw of one kill. */
export interface Timeline {
  readonly cluster: Name;
  readonly kill: number;
  /** Answers per second in each interval of half a second, the first of them five seconds before the kill. */
  readonly writes: readonly number[];
  readonly lookups: readonly number[];
  /** Seconds of the longest time without an answer. */
  readonly writeGap: number;
  readonly lookupGap: number;
}

/** The middle of an interval, in seconds since the kill. @param i its place in `writes` and `lookups` */
export function secondOf(i: number): number {
  return -before + ((i + 0.5) * interval) / 1000;
}

/**
 * `npm run bench -- timeline`: writes and lookups over DNS per second at an agent, while the leader is killed and stays
 * away; this program's cluster and that of the Docker walk-through in turn.
 * @param consul path of the binary
 */
export async function measureTimeline(consul: string, progress: Progress): Promise<Timeline[]> {
  const timelines: Timeline[] = [];
  for (const cluster of names) {
    const { contender } = await contenders[cluster](consul);
    try {
      for (let kill = 1; kill <= kills; kill++) {
        timelines.push({ cluster, kill, ...(await watchKill(contender)) });
        progress(
          `${cluster}, kill ${kill} of ${kills}: ${timelines.at(-1)?.writeGap.toFixed(1) ?? ""} s without a write`,
        );
      }
    } finally {
      await contender.stop();
    }
  }
  return timelines;
}

async function watchKill(cluster: Contender) {
  const agent = cluster.nodes.find(({ role }) => role === "agent");
  if (!agent) throw new Error("a cluster without an agent has no clients");
  const api = cluster.api(agent.name);
  const resolver = new Resolver();
  const lookup = async () => {
    const found = await resolver.addresses(agent.address, "web.service.consul");
    if (found.length === 0) throw new Error("web is not found");
  };
  await api.put("agent/service/register", { Name: "web", Port: 80 });
  await eventually("web is not found", lookup);
  await healthy(cluster);
  const leader = await cluster.leaderName();
  const writes = new Stream(pace, (turn) => api.put("kv/bench/timeline", `${turn}`));
  const lookups = new Stream(pace, lookup);
  // One second more: the first answers take longer.
  await sleep((before + 1) * 1000);
  const killed = Date.now();
  await cluster.kill(leader);
  await sleep(after * 1000);
  const [from, to] = [killed - before * 1000, killed + after * 1000];
  await Promise.all([writes.stop(), lookups.stop()]);
  resolver.close();
  cluster.start(leader);
  const count = ((before + after) * 1000) / interval;
  return {
    writes: writes.rates(from, count, interval),
    lookups: lookups.rates(from, count, interval),
    writeGap: writes.longestGap(from, to),
    lookupGap: lookups.longestGap(from, to),
  };
}

/** The longest times without an answer as Markdown. */
export function timelineTable(timelines: readonly Timeline[]): string {
  const row = (what: string, gap: (of: Timeline) => number) => [
    what,
    ...names.map((name) => `${spreadOf(timelines.filter(({ cluster }) => cluster === name).map(gap))} s`),
  ];
  return markdown(
    [`longest time without an answer at the agent, leader killed ${kills} times: minimum / median / maximum`, ...names],
    [row("writes", ({ writeGap }) => writeGap), row("lookups over DNS", ({ lookupGap }) => lookupGap)],
  );
}
