// `npm test`: the unit, program and local levels. Files of tests run side by side, for most of the local level is waiting;
// the files that measure how long something takes run alone after that. Plain JavaScript: it only starts mocha.
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
  "day-two-tokens",
  "day-two-gossip",
  "day-two-authority",
  "day-two",
  "restore",
];
/** What these promise is a time: they have the machine for themselves. */
const alone = ["faults", "kube-servers", "dns"];
/** A local cluster needs a third of a core and half a gigabyte as a rule. */
const jobs = Math.min(8, 3 * availableParallelism());

const files = readdirSync(__dirname).filter((name) => name.endsWith(".test.ts"));
const local = (names) =>
  names.map((name) => {
    if (!files.includes(`${name}.test.ts`)) throw new Error(`there is no test/local/${name}.test.ts`);
    return `test/local/${name}.test.ts`;
  });
const rest = files.map((name) => name.replace(".test.ts", "")).filter((name) => ![...first, ...alone].includes(name));
const levels = ["test/program/**/*.test.ts", "test/unit/**/*.test.ts"];
const runs = [["--parallel", `--jobs=${jobs}`, ...local(first), ...local(rest), ...levels], local(alone)];

async function main() {
  let failed = 0;
  for (const args of runs) {
    console.log(
      `== ${args.includes("--parallel") ? `side by side, ${jobs} files at a time` : `alone: ${alone.join(", ")}`}`,
    );
    const mocha = spawn(process.execPath, [join(__dirname, "../../node_modules/mocha/bin/mocha.js"), ...args], {
      cwd: join(__dirname, "../.."),
      stdio: "inherit",
    });
    let interrupted = false;
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
      process.removeAllListeners(signal).once(signal, () => {
        interrupted = true;
        mocha.kill("SIGTERM");
      });
    }
    const [status] = await once(mocha, "exit");
    if (interrupted) return 130;
    failed ||= status ?? 1;
  }
  return failed;
}

main().then((status) => process.exit(status));
