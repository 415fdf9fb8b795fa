import { ChildProcess } from "child_process";
import { writeFileSync } from "fs";
import { join, relative } from "path";
import { createInterface } from "readline/promises";
import { ports } from "../consul/config";
import { defineTask, showProgress, untilInterrupted } from "../local/command";
import { programDir } from "../local/program";
import { Cluster, onLoopback } from "../local/supervisor";
import { stops } from "./tour/stops";

/** The first lines of an answer, and how many more there are: an answer is to be read, not scrolled past. */
function shortened(text: string, most = 24): string {
  const lines = text.split("\n");
  const rest = lines.length - most;
  return [...lines.slice(0, most), ...(rest > 0 ? [`… ${rest} lines more`] : [])].map((line) => `  ${line}`).join("\n");
}

interface TourOptions {
  /** Do not stop at each step. */
  readonly yes: boolean;
  readonly prefix: string;
  readonly dir: string;
}

async function tour({ yes, prefix, dir }: TourOptions): Promise<number> {
  const cluster = new Cluster({
    dir,
    reset: true,
    config: onLoopback(prefix, 3, 1),
    onCrash: (reason) => console.error(reason),
  });
  const children: ChildProcess[] = [];
  const walk = async () => {
    for (const step of cluster.steps()) {
      const said = await step.run((line, passing) => showProgress(`  ${line}`, passing));
      console.error(`+ ${step.title}${said ? `: ${said}` : ""}`);
    }
    writeFileSync(join(cluster.dir, "header"), `X-Consul-Token: ${cluster.managementToken}\n`, { mode: 0o600 });
    const file = relative(process.cwd(), cluster.tokenFile) || cluster.tokenFile;
    console.log(`\nFor another terminal, here:\n  alias consul=${cluster.consul}`);
    console.log(`  export CONSUL_HTTP_ADDR=http://${prefix}.21:${ports.http} CONSUL_HTTP_TOKEN_FILE=${file}`);
    const all = stops(cluster, await cluster.leaderName(), (child) => children.push(child));
    for (const [i, { title, text, commands }] of all.entries()) {
      await pause(yes);
      console.log(`\n${i + 1}. ${title}\n${text}`);
      for (const { shown, run } of commands) {
        console.log(`\n$ ${typeof shown === "string" ? shown : shown()}`);
        console.log(shortened(await run()));
      }
    }
    console.log("\nThat was the tour. `npm start` gives you a cluster that stays.");
    return 0;
  };
  try {
    const outcome = await untilInterrupted(cluster, walk);
    return typeof outcome === "number" ? outcome : 130;
  } finally {
    for (const child of children) child.kill("SIGKILL");
  }
}

async function pause(yes: boolean): Promise<void> {
  if (yes || !process.stdin.isTTY) return;
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  // Ctrl-C reaches the terminal first here.
  terminal.once("SIGINT", () => process.emit("SIGINT"));
  await terminal.question("\nEnter to go on ").finally(() => terminal.close());
}

export const task = defineTask({
  name: "tour",
  about: "a walk through a cluster of three servers and one client, on this machine",
  before: `Starts its own cluster, shows each command and its answer, and stops at each step until you press Enter. Every command
can be typed into another terminal as it stands there.`,
  flags: {
    yes: { type: "boolean", default: false, about: "do not stop: for tests, and where there is no terminal" },
    prefix: {
      type: "string",
      value: "A.B.C",
      default: "127.40.0",
      about: "loopback network of its nodes, 127.40.0 unless given",
    },
    dir: {
      type: "string",
      value: "DIRECTORY",
      default: join(programDir, ".local/tour"),
      about: "keep keys, data and logs there instead of .local/tour",
    },
  },
  run: ({ flags }) => tour(flags),
});
