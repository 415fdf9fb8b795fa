import type { Progress } from "../../tools/progress";
import { quantile } from "../load";
import { times as plotOf } from "../pictures/plots";
import type { Measured } from "./measured";
import { Contender, contenders, markdown, Name, names, ofEach, spreadOf, Started, writeGap } from "./contenders";

const starts = 5;
const kills = 20;

/**
 * `npm run bench -- failover`: time to a leader and to all members, from nothing, and how long writes stop when the
 * leader is killed; this program's cluster and that of the Docker walk-through in turn.
 * @param consul path of the binary
 */
export async function benchFailover(consul: string, progress: Progress): Promise<Measured> {
  const times = ofEach<Omit<Started, "contender">>();
  const running = {} as Record<Name, Contender>;
  for (let i = 1; i <= starts; i++) {
    for (const name of names) {
      const started = await contenders[name](consul);
      times[name].push(started);
      progress(`start ${i} of ${starts}, ${name}: ${started.members.toFixed(1)} s`);
      if (i < starts) await started.contender.stop();
      else running[name] = started.contender;
    }
  }
  const gaps = ofEach<number>();
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
  const row = (what: string, of: (name: Name) => number[]) => {
    const [ours = NaN, theirs = NaN] = names.map((name) => quantile(of(name)));
    return [what, ...names.map((name) => `${spreadOf(of(name))} s`), `1/${(theirs / ours).toFixed(1)}`];
  };
  const text = markdown(
    ["minimum / median / maximum", ...names, "ratio of the medians"],
    [
      row(`nothing to a leader (${starts} times)`, (name) => times[name].map(({ leader }) => leader)),
      row("nothing to all four nodes in the catalog", (name) => times[name].map(({ members }) => members)),
      row(`leader killed, until a write succeeds (${kills} times)`, (name) => gaps[name]),
    ],
  );
  const each = Object.fromEntries(names.map((name) => [name, gaps[name]]));
  return { text, plots: [await plotOf("Leader killed, seconds until a write succeeds: each time", each)] };
}
