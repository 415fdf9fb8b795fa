import { rmSync } from "fs";
import { join } from "path";
import { aligned, defineTask, showProgress, untilInterrupted } from "../local/command";
import { programDir } from "../local/program";
import { Cluster, onLoopback } from "../local/supervisor";
import { markdown } from "./bench/contenders";
import { chosen, listed } from "./chosen";
import { accidentDrill } from "./faults/accident";
import { agentsDrill } from "./faults/agents";
import { clientsDrill } from "./faults/bad-clients";
import { blackoutDrill } from "./faults/blackout";
import { leaderDrill } from "./faults/leader";
import { Drill, Shown } from "./faults/report";
import { serversDrill } from "./faults/servers";
import { matrixFlags, matrixHelp, runMatrix } from "./matrix/command";
import { Part, writeReport } from "./report";

/** Every drill by the name that the command takes, in the order in which they are done. */
const drills: Readonly<Record<string, Drill>> = {
  accident: accidentDrill,
  leader: leaderDrill,
  servers: serversDrill,
  agents: agentsDrill,
  blackout: blackoutDrill,
  clients: clientsDrill,
};

/** What `npm run drill` leaves to be looked at in a browser. */
const report = join(programDir, ".local", "drill.html");

const passing = (line: string) => showProgress(line, true);

async function drillAll(names: readonly string[], json: boolean): Promise<number> {
  const wanted = chosen("drill", drills, names);
  const cluster = new Cluster({
    dir: join(programDir, ".local", "drill"),
    config: onLoopback("127.23.0"),
    reset: true,
    onCrash: (reason) => console.error(reason),
  });
  const work = async () => {
    for (const step of cluster.steps()) {
      passing(step.title);
      await step.run(showProgress);
    }
    const shown: Record<string, Shown> = {};
    for (const [name, drill] of wanted) {
      passing(drill.title);
      shown[name] = await drill.run(cluster, (line) => passing(`${drill.title}: ${line}`));
      passing("");
      if (!json) console.log(`\n${drill.title}\n\n${asText(shown[name])}`);
    }
    const parts = Object.entries(shown).map(([name, part]) => asPart(drills[name]?.title ?? name, part));
    writeReport(report, "What still works while something is broken", parts);
    const broken = Object.values(shown).flatMap((drill) => drill.broken);
    const seconds = Math.round(process.uptime());
    const figures = Object.fromEntries(Object.entries(shown).map(([name, drill]) => [name, drill.figures]));
    if (json) console.log(JSON.stringify({ ok: broken.length === 0, seconds, broken, drills: figures }, null, 2));
    else if (broken.length === 0) console.log(`\nEvery promise is kept, ${seconds} s`);
    else console.log(`\n${broken.length} promises are broken, ${seconds} s; logs: ${cluster.dir}/*/consul.log`);
    return broken.length === 0 ? 0 : 1;
  };
  const outcome = await untilInterrupted(cluster, work);
  if (typeof outcome === "number") console.error(`A page with tables and plots: ${report}`);
  if (outcome === 0) rmSync(cluster.dir, { recursive: true });
  if (typeof outcome === "number") return outcome;
  console.error(`${outcome}: every node is stopped; logs are in ${cluster.dir}`);
  return 130;
}

function asPart(title: string, { table: [head = [], ...rows], broken, plots = [] }: Shown): Part {
  const promises = broken.map((promise) => `BROKEN: ${promise}`);
  return { title, markdown: [markdown(head, rows), ...promises].join("\n\n"), plots };
}

function asText({ table, broken }: Shown): string {
  return [...aligned(table).map((row) => `  ${row}`), ...broken.map((promise) => `  BROKEN: ${promise}`)].join("\n");
}

export const task = defineTask({
  name: "drill",
  usage: "[-- [OPTION…] NAME…]",
  about: "breaks a cluster on this machine on purpose and shows what still works",
  before: `${listed(drills)}

${matrixHelp}`,
  after: `All of them unless named; .local/drill.html has what came of it, with plots.
About four minutes on two idle cores. Exit status 1 where a promise is not kept.
Ctrl-C stops everything. CONSUL_BIN names the consul to run; else it is looked for, downloaded or built.`,
  flags: {
    json: {
      type: "boolean",
      default: false,
      about: "one JSON object on standard output at the end, progress on standard error",
    },
    ...matrixFlags,
  },
  takesNames: true,
  run: ({ flags, names }) =>
    names[0] === "matrix" && names.length === 1 ? runMatrix(flags) : drillAll(names, flags.json),
});
