import { deepEqual, equal, match, notEqual, ok } from "assert/strict";
import { ChildProcess, execFileSync, spawn } from "child_process";
import { once } from "events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { programDir } from "../../local/program";
import { onLoopback } from "../../local/supervisor";

interface Overview {
  members: { name: string; role: string; address: string; status: string; pid: number }[];
  ui: string;
  tokenFile: string;
}

describe("npm start", function () {
  this.timeout(600_000);
  let dir: string;
  let running: ChildProcess[];
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "npm-start-"));
    running = [];
  });
  afterEach(async () => {
    for (const child of running) {
      child.kill("SIGTERM");
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    }
    rmSync(dir, { recursive: true, force: true });
  });

  const config = Object.entries(onLoopback("127.25.0")).flatMap(([key, value]) => ["--config", `${key}=${value}`]);

  /** `npm start` as a user has it, in a directory and on addresses of its own. */
  function npmStart(...options: string[]) {
    const args = ["start", "--silent", "--", "--dir", join(dir, "run"), ...config, ...options];
    const child = spawn("npm", args, { cwd: programDir, stdio: ["ignore", "pipe", "pipe"] });
    running.push(child);
    const text = { out: "", error: "" };
    child.stdout.on("data", (data: Buffer) => (text.out += data.toString()));
    child.stderr.on("data", (data: Buffer) => (text.error += data.toString()));
    const ended = once(child, "close").then(([status]) => status as number | null);
    /** Waits until it has printed something. */
    const printed = async (pattern: RegExp) => {
      while (!pattern.test(text.out)) {
        if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}: ${text.out}${text.error}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    };
    return { child, text, ended, printed };
  }

  const alive = (pid: number) => {
    try {
      process.kill(pid, 0);
      return true;
    } catch {
      return false;
    }
  };

  it("--check tells a program what it found, and leaves nothing behind", async () => {
    const { text, ended } = npmStart("--check", "--json");
    equal(await ended, 0, text.error);
    const report = JSON.parse(text.out) as Overview & { ok: boolean; seconds: number; checks: { ok: boolean }[] };
    ok(report.ok && report.seconds > 0);
    deepEqual(
      report.checks.map((check) => check.ok),
      [true, true, true, true, true],
    );
    equal(report.members.length, 6);
    for (const { pid } of report.members) ok(!alive(pid));
    ok(!existsSync(join(dir, "run")));
    match(text.error, /^\+ Start the servers: leader server-\d$/m);
  });

  it("shows members, where the UI and the token are, and commands that work; Ctrl-C ends every node", async () => {
    const { child, text, ended, printed } = npmStart();
    await printed(/Ctrl-C stops every node/);
    const token = readFileSync(join(dir, "run", "management-token"), "utf8");
    match(token, /^[0-9a-f-]{36}$/);
    ok(!(text.out + text.error).includes(token), "the token is on the screen");
    const pids = [
      ...text.out.matchAll(/^(?:server|agent)-\d +(?:leader|server|agent) +127\.25\.0\.\d+ +alive +(\d+)$/gm),
    ];
    equal(pids.length, 6, text.out);
    equal(text.out.match(/ leader /g)?.length, 1);

    const ui = /^UI +(\S+)$/m.exec(text.out)?.[1] ?? "";
    match(await (await fetch(`${ui}/`)).text(), /<title>Consul/);
    const commands = text.out.split("\n").filter((line) => line.includes("CONSUL_HTTP_TOKEN_FILE="));
    equal(commands.length, 2);
    const outputs = commands.map((command) => execFileSync("sh", ["-c", command], { encoding: "utf8" }));
    equal(outputs[0]?.match(/ alive /g)?.length, 6, outputs[0]);
    equal(outputs[1]?.match(/ true /g)?.length, 3, outputs[1]);

    child.kill("SIGINT");
    equal(await ended, 0);
    for (const [, pid] of pids) ok(!alive(Number(pid)));
  });

  it("ends what a supervisor that was killed has left behind, and keeps the keys", async () => {
    const first = npmStart("--json");
    await first.printed(/\n}\n$/);
    const before = JSON.parse(first.text.out) as Overview;
    const token = readFileSync(before.tokenFile, "utf8");
    const { supervisor } = JSON.parse(readFileSync(join(dir, "run", "run.json"), "utf8")) as {
      supervisor: { pid: number };
    };
    process.kill(supervisor.pid, "SIGKILL");
    await first.ended;
    for (const { pid } of before.members) ok(alive(pid));

    const second = npmStart("--json");
    await second.printed(/\n}\n$/);
    match(second.text.error, /ended 6 nodes that an earlier start had left behind/);
    for (const { pid } of before.members) ok(!alive(pid));
    equal(readFileSync(before.tokenFile, "utf8"), token);

    // One that goes without being told, such as a closed window's: npm passes no such signal on.
    const members = (JSON.parse(second.text.out) as Overview).members;
    second.child.kill("SIGKILL");
    await second.ended;
    for (const { pid } of members) ok(!alive(pid));

    const third = npmStart("--reset", "--json");
    await third.printed(/\n}\n$/);
    notEqual(readFileSync(before.tokenFile, "utf8"), token);
  });

  it("says in one line what is wrong, with a status that is not 0", async () => {
    const cases: [string[], NodeJS.ProcessEnv, RegExp][] = [
      [["--nope"], {}, /^start: there is no option --nope \(npm start -- --help\)$/m],
      [["--config", "version"], {}, /^start: --config version: KEY=VALUE is wanted$/m],
      [
        ["--config", "version=1.19"],
        {},
        /^start: 1 wrong setting; nothing was created:\n {2}consul:version: "1.19" - /m,
      ],
      [["--stack", "prod"], {}, /^start: there is no local provider for the function alicloud:/m],
      [
        config,
        { CONSUL_BIN: "/bin/nothing" },
        /^start: CONSUL_BIN=\/bin\/nothing cannot be run \(there is no such file\)/m,
      ],
    ];
    for (const [options, env, message] of cases) {
      const args = ["local/task.js", "local/start", "--dir", join(dir, "run"), ...options];
      const child = spawn("node", args, { cwd: programDir, env: { ...process.env, ...env } });
      let error = "";
      child.stderr.on("data", (data: Buffer) => (error += data.toString()));
      const [status] = (await once(child, "close")) as [number];
      equal(status, /no option|KEY=VALUE/.test(error) ? 2 : 1);
      match(error, message);
      ok(!error.includes("    at "), error);
    }
  });
});
