// `npm test`: the unit, program and local levels. Files of tests run side by side, for most of the local level is waiting;
// the files that measure how long something takes run alone after that. With the argument `system` (`npm run test:system`):
// what takes longest of the local level, side by side, then level system. Plain JavaScript: it only starts mocha.
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
const levels = {
  local: {
    "what the tests run": tools,
    [`side by side, ${jobs} files at a time`]: [
      ...sideBySide(jobs, ...paths([...first, ...rest])),
      ...["test/program/**/*.test.ts", "test/unit/**/*.test.ts"],
    ],
    alone: [mocha, ...paths(alone)],
  },
  system: {
    "what the tests run": [...tools, "system"],
    "the longest files of the local level, side by side": sideBySide(3, ...paths(withSystem)),
    // One after another: a machine of tests takes as much as a machine.
    "machines and clusters": [mocha, "--timeout=900000", "test/system/**/*.test.ts"],
  },
};

async function main(level) {
  let failed = 0;
  for (const [title, args] of Object.entries(levels[level])) {
    console.log(`== ${title}`);
    const child = spawn(process.execPath, args, { cwd: root, stdio: "inherit" });
    let interrupted = false;
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
      process.removeAllListeners(signal).once(signal, () => {
        interrupted = true;
        child.kill("SIGTERM");
      });
    }
    const [status] = await once(child, "exit");
    if (interrupted) return 130;
    failed ||= status ?? 1;
  }
  return failed;
}

main(process.argv[2] ?? "local").then((status) => process.exit(status));
