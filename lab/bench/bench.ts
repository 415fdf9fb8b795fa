import { existsSync, readFileSync, writeFileSync } from "fs";
import { cpus, loadavg, release, totalmem, type } from "os";
import { join } from "path";
import { findConsul } from "../../local/consul-binary";
import { stackConfig } from "../../local/program";
import { benchFailover } from "./failover";
import { benchProgram } from "./program";
import { benchScale } from "./scale";
import { benchThroughput } from "./throughput";

interface Bench {
  readonly what: string;
  /** @returns Markdown */
  readonly run: () => Promise<string>;
}

const progress = (line: string) => console.error(`  ${line}`);
const setting = (key: string) => stackConfig("local")[`consul:${key}`] ?? "";
const version = setting("version");
const consul = () =>
  findConsul(
    { version, downloadMirror: setting("downloadMirror"), downloadSha256: setting("downloadSha256") },
    { progress },
  );

const benches: Readonly<Record<string, Bench>> = {
  program: { what: "what the program costs to load and run, per environment", run: () => benchProgram() },
  failover: {
    what: "start, and loss of the leader, beside seed 004",
    run: async () => benchFailover(await consul(), progress),
  },
  throughput: {
    what: "requests per second, beside seed 004",
    run: async () => benchThroughput(await consul(), progress),
  },
  scale: { what: "1 to 50 agents, 151 to 5,000 services", run: async () => benchScale(await consul(), progress) },
};

const help = `npm run bench [-- [--write] NAME…]   all of them unless named; --write keeps them in bench/results.md

${Object.entries(benches)
  .map(([name, { what }]) => `  ${name.padEnd(10)} ${what}`)
  .join("\n")}`;

async function main(): Promise<void> {
  const words = process.argv.slice(2);
  const wanted = words.filter((word) => word !== "--write");
  if (wanted.includes("--help") || wanted.some((name) => !(name in benches))) {
    console.log(help);
    if (!wanted.includes("--help")) process.exitCode = 2;
    return;
  }
  // Nodes have process groups of their own; whoever started them ends them when this process exits.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(130));
  process.setMaxListeners(0); // one for each cluster and each node of seed 004
  for (const [name, { what, run }] of Object.entries(benches)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    const where = machine(); // before the bench itself is its load
    const section = `## ${name}: ${what}\n\n${await run()}\n\n${where}\n`;
    console.log(`\n${section}`);
    if (words.includes("--write")) keep(name, section);
  }
}

/** Where and when something is measured: nothing that says whose machine it is. */
function machine(): string {
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
  const date = new Date().toISOString().slice(0, 10);
  return (
    `${date}: ${cpus().length} cores (${cpus()[0]?.model ?? "unknown"}), ${memory}, ${type()} ${release()}, ` +
    `Node ${process.versions.node}, Consul ${version}; load before: ${(loadavg()[0] ?? 0).toFixed(1)}`
  );
}

/** Puts a bench's result into the file in place of its last one, in the order of the benches. */
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

main().then(
  () => process.exit(),
  (error: unknown) => {
    console.error(error);
    process.exit(1);
  },
);
