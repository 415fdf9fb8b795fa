import { equal, match, ok } from "assert/strict";
import { ChildProcess, spawn } from "child_process";
import { once } from "events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { programDir } from "../../local/program";
import { onLoopback } from "../../local/supervisor";

/** Seconds that a task has to end, on a machine that has other work. */
const patience = 15;

describe("Ctrl-C", function () {
  this.timeout(600_000);
  let directory: string;
  beforeEach(() => (directory = mkdtempSync(join(tmpdir(), "interrupt-"))));
  afterEach(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));

  /** Starts a task as package.json has it. @param env more of its environment, which names all that it starts */
  function run(task: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    const mark = { INTERRUPT_TEST: directory };
    const child = spawn("npm", [...task.split(" "), "--silent", "--", ...args], {
      cwd: programDir,
      env: { ...process.env, ...env, ...mark },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let text = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data: Buffer) => (text += data.toString()));
    const says = async (pattern: RegExp) => {
      while (!pattern.test(text)) {
        ok(child.exitCode === null, `it ended with ${child.exitCode ?? ""}: ${text}`);
        await sleep(50);
      }
    };
    return { child, says, text: () => text };
  }

  /** Processes that a task has started: they have its environment. */
  const left = () =>
    readdirSync("/proc").filter((pid) => {
      try {
        const marked = readFileSync(`/proc/${pid}/environ`, "utf8").includes(`INTERRUPT_TEST=${directory}`);
        return marked && !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
      } catch {
        return false; // gone meanwhile, or no process
      }
    });

  /** Sends the signal, and waits until nothing is left of the task. */
  async function interrupt(child: ChildProcess, text: () => string): Promise<void> {
    const began = Date.now();
    const ended = once(child, "close");
    child.kill("SIGINT");
    const [status] = (await Promise.race([ended, sleep(patience * 1000, ["nothing", "yet"])])) as [number | string];
    equal(status, 130, text());
    while (left().length > 0) {
      ok(Date.now() < began + patience * 1000, `still there: ${left().map(commandLine).join("\n")}`);
      await sleep(100);
    }
  }
  const commandLine = (pid: string) => readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");

  const config = Object.entries(onLoopback("127.95.0")).flatMap(([key, value]) => ["--config", `${key}=${value}`]);

  it("ends npm start while the cluster is started", async () => {
    const { child, says, text } = run("start", ["--dir", join(directory, "run"), ...config]);
    await says(/\+ Start the servers/);
    await interrupt(child, text);
  });

  it("ends a drill in its midst", async () => {
    const { child, says, text } = run("run drill", ["leader"]);
    await says(/1 of 20: a write after/);
    await interrupt(child, text);
  });

  for (const [bench, begun] of [
    ["failover", /start 1 of 5, this program/],
    ["program", /1 of 3/],
  ] as const) {
    it(`ends npm run bench -- ${bench} in its midst`, async () => {
      const { child, says, text } = run("run bench", [bench]);
      await says(begun);
      await interrupt(child, text);
    });
  }

  it("ends the first build of Consul, which has said how long it takes and what is quicker", async () => {
    const path = (process.env.PATH ?? "").split(":").filter((entry) => !entry.includes("consul"));
    const nothingBuilt = {
      PATH: path.join(":"),
      CONSUL_BIN: "",
      XDG_CACHE_HOME: join(directory, "cache"),
      GOCACHE: join(directory, "go"),
    };
    const nowhere = ["--config", "downloadMirror=https://127.95.0.1:49151"];
    const { child, says, text } = run("start", ["--dir", join(directory, "run"), ...config, ...nowhere], nothingBuilt);
    await says(/building github.com\/hashicorp\/consul|not on PATH/);
    await says(/\d+ of \d+ packages compiled for consul/);
    match(text(), /no release from https:\/\/127\.95\.0\.1:49151\S* \(.*ECONNREFUSED/);
    match(text(), /a release is quicker than a build: npm start -- --config downloadMirror=URL .* CONSUL_BIN=FILE/);
    match(text(), /only this once: about \d+ (s|min) on the \d+ cores of this machine/);
    await interrupt(child, text);
    const tools = readdirSync(join(directory, "cache/consul-alicloud/tools"), { encoding: "utf8", recursive: true });
    equal(tools.length, 1, `more than an empty directory is left: ${tools.join(", ")}`);
  });
});
