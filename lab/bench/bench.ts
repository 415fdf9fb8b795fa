import { existsSync, readFileSync, writeFileSync } from "fs";
import { cpus, loadavg, release, totalmem, type } from "os";
import { join } from "path";
import { defineTask, interruption, showProgress } from "../../local/command";
import { findConsul, wantedConsul } from "../../local/consul-binary";
import { programDir, stackConfig } from "../../local/program";
import type { Progress } from "../../tools/progress";
import { chosen, listed } from "../chosen";
import { benchFailover } from "./failover";
import { benchProgram } from "./program";
import { benchScale } from "./scale";
import type { Measured } from "./measured";
import { benchThroughput } from "./throughput";
import { measureTimeline, timelineTable } from "./timeline";
import { leaderKilled, newService } from "../pictures/plots";
import { Part, writeReport } from "../report";

interface Bench {
  readonly title: string;
  /** Its picture in docs/pictures/, which npm run pictures makes of the results. */
  readonly picture?: string;
  readonly run: () => Promise<Measured>;
}

const progress: Progress = (line, passing) => showProgress(`  ${line}`, passing);
const wantedBinary = wantedConsul(stackConfig("local"));
const consul = () => findConsul(wantedBinary, { progress });

const benches: Readonly<Record<string, Bench>> = {
  program: {
    title: "what the program costs to load and run, per environment",
    run: async () => ({ text: await benchProgram(progress) }),
  },
  failover: {
    title: "start, and loss of the leader, beside the Docker walk-through",
    run: async () => benchFailover(await consul(), progress),
  },
  timeline: {
    title: "writes and lookups per second while the leader is killed, beside the Docker walk-through",
    picture: "leader-killed.svg",
    run: async () => {
      const data = await measureTimeline(await consul(), progress);
      return { text: timelineTable(data), plots: [await leaderKilled(data)], data };
    },
  },
  throughput: {
    title: "requests per second, beside the Docker walk-through",
    run: async () => ({ text: await benchThroughput(await consul(), progress) }),
  },
  scale: {
    title: "1 to 50 agents, 151 to 5,000 services",
    picture: "new-service.svg",
    run: async () => {
      const text = await benchScale(await consul(), progress);
      return { text, plots: [await newService(text)] };
    },
  },
};

/** What `npm run bench` leaves to be looked at in a browser. */
const report = join(programDir, ".local", "bench.html");

/** Where and when something is measured; nothing that says whose machine it is. */
function machine(): string {
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
  const date = new Date().toISOString().slice(0, 10);
  return (
    `${date}: ${cpus().length} cores (${cpus()[0]?.model ?? "unknown"}), ${memory}, ${type()} ${release()}, ` +
    `Node ${process.versions.node}, Consul ${wantedBinary.version}; load before: ${(loadavg()[0] ?? 0).toFixed(1)}`
  );
}

/** Puts the result of a bench into the file in place of its last result, in the order of the benches. */
function keep(name: string, section: string): void {
  const file = join(__dirname, "results.md");
  const old = existsSync(file)
    ? readFileSync(file, "utf8")
        .split(/^(?=## )/m)
        .slice(1)
    : [];
  const of = (one: string) => (one === name ? section : (old.find((text) => text.startsWith(`## ${one}:`)) ?? ""));
  const sections = Object.keys(benches).map((one) => of(one).trimEnd());
  const head = "# What was measured\n\nWritten by `npm run bench -- --write`; each part says where and when.";
  writeFileSync(file, [head, ...sections.filter((text) => text !== "")].join("\n\n") + "\n");
}

export const task = defineTask({
  name: "bench",
  usage: "[-- [OPTION…] NAME…]",
  about: "measures the program, and the clusters that it describes",
  before: listed(benches),
  after: "All of them unless named; .local/bench.html has what came of it, with plots. Ctrl-C stops everything.",
  flags: {
    write: {
      type: "boolean",
      default: false,
      about: "keep the results in lab/bench/, from where npm run pictures has them",
    },
  },
  takesNames: true,
  run: async ({ flags, names, write }) => {
    const wanted = chosen("bench", benches, names);
    // Every node has a process group of its own, and is killed when this process exits.
    void interruption().then(() => process.exit(130));
    const parts: Part[] = [];
    process.setMaxListeners(0); // each cluster has a listener
    for (const [name, { title, picture, run }] of wanted) {
      const where = machine(); // beforehand: later the load is that of the bench itself
      const { text, plots = [], data } = await run();
      const shown = picture === undefined ? "" : `![${title}](../../docs/pictures/${picture})\n\n`;
      const section = `## ${name}: ${title}\n\n${shown}${text}\n\n${where}\n`;
      write(`\n${section}\n`);
      parts.push({ title: `${name}: ${title}`, markdown: `${text}\n\n${where}`, plots });
      if (flags.write) keep(name, section);
      if (flags.write && data !== undefined) {
        writeFileSync(join(__dirname, "data", `${name}.json`), `${JSON.stringify(data)}\n`);
      }
    }
    writeReport(report, "What was measured", parts);
    console.error(`A page with tables and plots: ${report}`);
    if (flags.write) console.error("Pictures of the documents follow with: npm run pictures");
    return 0;
  },
});
