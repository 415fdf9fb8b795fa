import { equal, match, ok } from "assert/strict";
import { ChildProcess, spawn } from "child_process";
import { once } from "events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { programDir } from "../../local/program";

describe("npm run tour", function () {
  this.timeout(600_000);
  let directory: string;
  before(() => (directory = mkdtempSync(join(tmpdir(), "consul-tour-"))));
  after(() => rmSync(directory, { recursive: true, force: true }));

  function tour(...args: string[]): { child: ChildProcess; text: () => string } {
    let text = "";
    const child = spawn(process.execPath, ["local/task.js", "lab/tour", ...args], {
      cwd: programDir,
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (text += String(data)));
    return { child, text: () => text };
  }
  /** Processes that were started in or for the directory. */
  const left = () =>
    readdirSync("/proc").filter((pid) => {
      if (!/^\d+$/.test(pid)) return false;
      try {
        const { CONSUL_HTTP_ADDR = "", cwd } = Object.fromEntries(
          readFileSync(`/proc/${pid}/environ`, "utf8")
            .split("\0")
            .map((entry) => entry.split(/=(.*)/s).slice(0, 2) as [string, string]),
        ) as Record<string, string>;
        const arguments_ = readFileSync(`/proc/${pid}/cmdline`, "utf8");
        return arguments_.includes("-bind=127.41.0.") || CONSUL_HTTP_ADDR.includes("127.41.0.") || cwd === directory;
      } catch {
        return false; // gone meanwhile, or not ours to see
      }
    });

  it("goes through every stop, shows each command with its answer, and leaves nothing behind", async () => {
    const { child, text } = tour("--yes", "--prefix", "127.41.0", "--dir", directory);
    // Not "exit": what the tour printed may still be on its way then.
    const [code] = (await once(child, "close")) as [number];
    equal(code, 0, text());
    const titles = text().match(/^\d\. .*$/gm) ?? [];
    equal(titles.length, 8);
    // What the Docker walk-through shows, in its order.
    const shown = [
      /^\$ consul members\n(.|\n)*server-1 +127\.41\.0\.11:8301 +alive +server/m,
      /^\$ curl -s http:\/\/127\.41\.0\.21:8500\/v1\/status\/leader\n {2}"127\.41\.0\.1\d:8300"/m,
      /^\$ kill -9 \d+ {3}# (server-\d)\n {2}\1 is gone; server-\d leads, and a write went through [\d.]+ s later/m,
      /^\$ curl -s -X PUT -H @\S+header -d '\{"ID":"userServiceId"/m,
      /^\$ curl -s \S+catalog\/service\/userService \| jq (.|\n)*"ServicePort": 8000/m,
      /^\$ dig @127\.41\.0\.21 -p 8600 userService\.service\.consul A \+short\n {2}127\.0\.0\.1$/m,
      /^\$ consul kv put user\/config\/connections 5\n {2}Success!/m,
      /^\$ consul kv get -detailed user\/config\/connections\n(.|\n)* {2}Value +5$/m,
      /^ {2}greeter-127-41-0-101-8080 is registered and passes its check$/m,
    ];
    let at = 0;
    for (const pattern of shown) {
      const found = pattern.exec(text().slice(at));
      ok(found, `${String(pattern)} is not in the right place of:\n${text()}`);
      at += found.index;
    }
    const token = readFileSync(join(directory, "management-token"), "utf8");
    ok(!text().includes(token));
    equal(statSync(join(directory, "header")).mode & 0o777, 0o600);
    equal(left().length, 0);
  });

  it("stops everything on Ctrl-C, and says so by its exit status", async () => {
    const { child, text } = tour("--yes", "--prefix", "127.41.0", "--dir", directory);
    while (!text().includes("3. The leader fails")) await once(child.stdout as NodeJS.ReadableStream, "data");
    child.kill("SIGINT");
    const [code] = (await once(child, "exit")) as [number];
    equal(code, 130, text());
    equal(left().length, 0);
  });

  it("explains itself, and refuses what it does not know", async () => {
    const help = tour("--help");
    await once(help.child, "exit");
    match(help.text(), /^npm run tour \[-- OPTION…\]/);
    const wrong = tour("--fast");
    const [code] = (await once(wrong.child, "exit")) as [number];
    equal(code, 2);
    match(wrong.text(), /^tour: there is no option --fast/m);
  });
});
