// `npm test`: the unit, program and local levels. Files of tests run side by side, for most of the local level is waiting;
// the files that measure how long something takes run alone after that. With the argument `system` (`npm run test:system`):
// level system, and beside its machines what takes longest of the local level. Plain JavaScript: it only starts mocha.
"use strict";
const { spawn } = require("child_process");
const { once } = require("events");
const { readdirSync } = require("fs");
const { availableParallelism } = require("os");
const { join } = require("path");

/** What takes longest is started first: it would be the last to end. */
const first = [
  "migration",
  "kube-changes",
  "operations-tokens",
  "operations-gossip",
  "operations-authority",
  "operations-version",
  "restore",
];
/** Minutes each: `npm run test:system` has them. */
const withSystem = [
  "spring",
  "operations-move",
  "operations-expired",
  "kube-expired",
  "python",
  "go",
  "node",
  "consul-template",
];
/** By hand: ten clusters, three at a time, that take one to seven minutes each. */
const byHand = ["matrix"];
/** What these promise is a time: they have the machine for themselves. */
const alone = ["faults", "kube-servers", "dns", "report"];
/** A local cluster needs a third of a core and half a gigabyte as a rule. */
const jobs = Math.min(8, 3 * availableParallelism());

const root = join(__dirname, "../..");
const mocha = join(root, "node_modules/mocha/bin/mocha.js");
const all = readdirSync(__dirname).flatMap((file) => /^(.*)\.test\.ts$/.exec(file)?.[1] ?? []);
const rest = all.filter((name) => ![...first, ...alone, ...withSystem, ...byHand].includes(name));

function paths(names) {
  const missing = names.filter((name) => !all.includes(name));
  if (missing.length > 0) throw new Error(`not in test/local: ${missing.join(", ")}`);
  return names.map((name) => `test/local/${name}.test.ts`);
}

const tools = ["--require", "sucrase/register/ts", "test/local/tools.ts"];
const sideBySide = (files, ...more) => [mocha, "--parallel", `--jobs=${files}`, ...more];
const oneByOne = (names) => [mocha, "--timeout=900000", ...names.map((name) => `test/system/${name}.test.ts`)];

/** Files of level system that boot machines: one after another, for a machine of tests takes as much as a machine. */
const ofMachines = /^(machine|operate)/;
const system = readdirSync(join(__dirname, "../system")).flatMap((file) => /^(.*)\.test\.ts$/.exec(file)?.[1] ?? []);

/** What each level runs, in this order. Steps with `beside` run at once with those before. */
const levels = {
  local: [
    { title: "what the tests run", args: tools },
    {
      title: `side by side, ${jobs} files at a time`,
      args: [
        ...sideBySide(jobs, ...paths([...first, ...rest])),
        ...["test/program/**/*.test.ts", "test/unit/**/*.test.ts"],
      ],
    },
    { title: "alone", args: [mocha, ...paths(alone)] },
  ],
  system: [
    { title: "what the tests run", args: [...tools, "system"] },
    {
      title: "machines",
      args: oneByOne(system.filter((name) => ofMachines.test(name))),
      beside: [
        { title: "the longest files of the local level, side by side", args: sideBySide(3, ...paths(withSystem)) },
        { title: "clusters and the rest", args: oneByOne(system.filter((name) => !ofMachines.test(name))) },
      ],
    },
  ],
};

const children = new Set();

/** Runs one step. @param quiet its output is shown when it has ended, as a whole. @returns the exit status */
async function run({ title, args }, quiet, during = "") {
  if (!quiet) console.log(`== ${title}`);
  const child = spawn(process.execPath, args, {
    cwd: root,
    stdio: ["inherit", ...(quiet ? ["pipe", "pipe"] : ["inherit", "inherit"])],
  });
  children.add(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (chunk) => (output += chunk));
  const [status] = await once(child, "close");
  children.delete(child);
  if (quiet) console.log(`== ${title}\n${output}${children.size > 0 ? `== ${during}, continued` : ""}`);
  return status ?? 1;
}

async function main(level) {
  let interrupted = false;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(signal, () => {
      interrupted = true;
      for (const child of children) child.kill("SIGTERM");
    });
  }
  let failed = 0;
  for (const { beside = [], ...step } of levels[level]) {
    const others = (async () => {
      for (const other of beside) {
        const status = interrupted ? 0 : await run(other, true, step.title);
        failed ||= status;
      }
    })();
    const status = await run(step, false);
    await others;
    failed ||= status;
    if (interrupted) return 130;
  }
  return failed;
}

main(process.argv[2] ?? "local").then((status) => process.exit(status));
