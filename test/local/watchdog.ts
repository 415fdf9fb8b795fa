import { spawn } from "child_process";
import { randomBytes } from "crypto";
import { once } from "events";
import { basename } from "path";

// What every run of mocha loads beside the tests, see .mocharc.json.

/**
 * Consul's nodes are processes of their own, so that a test can kill whatever started them. They would also outlive a
 * run of the tests that is killed itself. Each run therefore has a mark in its environment, which everything that the
 * tests start inherits, and a watchdog in a session of its own. When mocha has ended, however that was, the watchdog's
 * standard input ends too; the watchdog then kills every process that has the mark. It does so on Linux, by /proc.
 */
const mark = "CONSUL_TEST_RUN";
const watch = `
  cat >/dev/null
  marked() { grep -lzxs "$1" /proc/[0-9]*/environ | cut -d/ -f3; }
  pids=$(marked "$1")
  [ -z "$pids" ] || echo "ended what tests have left behind: $(ps -o args= -p "$(echo $pids | tr ' ' ,)")" >&2
  while pids=$(marked "$1"); [ -n "$pids" ]; do kill -9 $pids 2>/dev/null; sleep 0.1; done`;

let unleash = () => Promise.resolve();

export function mochaGlobalSetup(): void {
  const id = `${process.pid}-${randomBytes(8).toString("hex")}`;
  const watchdog = spawn("sh", ["-c", watch, "sh", `${mark}=${id}`], {
    stdio: ["pipe", "ignore", "inherit"],
    detached: true,
    env: { ...process.env, [mark]: undefined },
  });
  const ended = once(watchdog, "exit");
  // An interrupted run side by side ends once mocha has nothing to wait for any more: the watchdog must not be it.
  watchdog.unref();
  unleash = async () => {
    watchdog.ref();
    watchdog.stdin.end();
    await ended;
  };
  process.env[mark] = id;
}

export async function mochaGlobalTeardown(): Promise<void> {
  await unleash();
}

/** The file whose tests run now. */
let running = "";

/** With files side by side, what a test prints comes between the reports of other files: it says where it is from. */
function prefixed(print: (line: string) => void) {
  return (...words: unknown[]) => {
    for (const line of words.map(String).join(" ").split("\n")) print(`${running}: ${line.trim()}`);
  };
}

export const mochaHooks: Mocha.RootHookObject = {};
if (process.env.MOCHA_WORKER_ID !== undefined) {
  Object.assign(console, { log: prefixed(console.log), error: prefixed(console.error) });
  mochaHooks.beforeAll = function (this: Mocha.Context) {
    running = basename(this.test?.parent?.suites[0]?.file ?? "", ".test.ts");
  };
}
