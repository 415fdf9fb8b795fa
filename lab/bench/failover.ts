import { quantile } from "../load";
import { Contender, contenders, markdown, Names, spreadOf, writeGap } from "./contenders";

type Progress = (line: string) => void;
const names = Object.keys(contenders) as Names[];

/**
 * `npm run bench -- failover`: time to a leader and to all members, from nothing, and how long writes stop when the
 * leader is killed; this program's cluster and that of seed 004 in turn.
 */
export async function benchFailover(consul: string, progress: Progress, starts = 5, kills = 20): Promise<string> {
  const times = { "this program": [], "seed 004": [] } as Record<Names, { leader: number; members: number }[]>;
  const running = {} as Record<Names, Contender>;
  for (let i = 1; i <= starts; i++) {
    for (const name of names) {
      const started = await contenders[name](consul);
      times[name].push(started);
      progress(`start ${i} of ${starts}, ${name}: ${started.members.toFixed(1)} s`);
      if (i < starts) await started.contender.stop();
      else running[name] = started.contender;
    }
  }
  const gaps: Record<Names, number[]> = { "this program": [], "seed 004": [] };
  try {
    for (let i = 1; i <= kills; i++) {
      for (const name of names) {
        gaps[name].push(await writeGap(running[name]));
        progress(`kill ${i} of ${kills}, ${name}: ${gaps[name].at(-1)?.toFixed(1) ?? ""} s`);
      }
    }
  } finally {
    for (const name of names) await running[name].stop();
  }
  const row = (what: string, of: (name: Names) => number[]) => {
    const [ours = NaN, theirs = NaN] = names.map((name) => quantile(of(name)));
    return [what, ...names.map((name) => `${spreadOf(of(name))} s`), `1/${(theirs / ours).toFixed(1)}`];
  };
  return markdown(
    ["minimum / median / maximum", ...names, "ratio of the medians"],
    [
      row(`nothing to a leader (${starts} times)`, (name) => times[name].map(({ leader }) => leader)),
      row("nothing to all four nodes in the catalog", (name) => times[name].map(({ members }) => members)),
      row(`leader killed, until a write succeeds (${kills} times)`, (name) => gaps[name]),
    ],
  );
}
