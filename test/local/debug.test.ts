import { deepEqual, equal, match, ok } from "assert/strict";
import { execFileSync, spawn } from "child_process";
import { randomUUID } from "crypto";
import { once } from "events";
import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { perform } from "../../local/command";
import { programDir } from "../../local/program";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { task } from "../../operate/debug";

const config = onLoopback("127.57.0");

describe("npm run debug, on a cluster of this machine", function () {
  this.timeout(600_000);
  const directory = mkdtempSync(join(tmpdir(), "debug-"));
  const dir = join(directory, "run");
  const options = ["--dir", dir, ...Object.entries(config).flatMap(([key, value]) => ["--config", `${key}=${value}`])];
  let cluster: Cluster;

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    cluster = await startCluster({ dir, config }, console.error);
  });
  after(async () => {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  async function run(...args: string[]) {
    let [out, said] = ["", ""];
    const write = (text: string) => void (out += text);
    const code = await perform(task, ["local", ...options, ...args], write, (text) => void (said += text));
    return { code, out, said };
  }
  const temporary = () => readdirSync(tmpdir()).filter((name) => name.startsWith("consul-debug-"));

  it("has logs and state of every server in one archive, and no secret", async () => {
    type State = { resources: Record<string, { outputs: { privateKeyPem?: string; result?: string } }> };
    const { resources } = JSON.parse(readFileSync(join(dir, "state.json"), "utf8")) as State;
    const made = Object.values(resources).flatMap(({ outputs }) => [outputs.privateKeyPem ?? [], outputs.result ?? []]);
    const secrets = [
      cluster.managementToken,
      cluster.agentToken,
      ...made.flat().flatMap((text) => text.split("\n")),
      // Tokens that the program knows nothing of.
      randomUUID(),
      ...Array.from({ length: 3 }, (_, i) =>
        readFileSync(join(dir, `server-${i + 1}`, "secrets", "secrets.json"), "utf8"),
      )
        .join()
        .split('"')
        .filter((text) => /^([0-9a-f-]{36}|[A-Za-z0-9+/]{43}=)$/.test(text)),
    ].filter((text) => text.length > 20 && !text.startsWith("-----"));
    ok(secrets.length > 10);
    for (const secret of secrets) appendFileSync(cluster.logFile("server-1"), `planted "${secret}"\n`);
    const ids = await Promise.all(
      ["server-1", "server-2"].map(async (name) => {
        const self = await cluster.api(name).get<{ Config: { NodeID: string } }>("agent/self");
        return self.Config.NodeID;
      }),
    );

    const file = join(directory, "a.tar.gz");
    const { code, out, said } = await run("--output", file);
    equal(code, 0, said);
    equal(statSync(file).mode & 0o777, 0o600);
    match(out, /^Consul, stack local/);
    ok(out.endsWith(`\n${file}\n`));
    const names = execFileSync("tar", ["-tzf", file], { encoding: "utf8" }).trim().split("\n");
    for (const name of ["contents.txt", "status.txt", "status.json", "machines.json"]) ok(names.includes(`a/${name}`));
    for (const server of ["server-1", "server-2", "server-3"]) {
      for (const part of ["consul.txt", "self.txt", "metrics.txt", "consul.log"]) {
        ok(names.includes(`a/servers/${server}/${part}`), `${server}/${part} of ${names.join(", ")}`);
      }
    }
    const text = execFileSync("tar", ["-xzOf", file], { encoding: "utf8", maxBuffer: 1 << 28 });
    for (const secret of secrets) ok(!text.includes(secret), secret);
    ok((text.match(/planted "\[secret\]"/g) ?? []).length >= secrets.length);
    for (const id of ids) ok(text.includes(id), "a node's id was taken for a secret");
    match(text, /== operator\/raft\/configuration\n\{.*"Servers":/);
    deepEqual(temporary(), []);
  });

  it("has the others where a server is gone, and says who is missing", async () => {
    await cluster.kill("server-3");
    const file = join(directory, "b.tar.gz");
    const { code, out } = await run("--output", file);
    equal(code, 0);
    match(out, /^- server-3: it is Ended$/m);
    match(out, /^servers\/server-2\/consul\.txt$/m);
    match(out, /^servers\/server-3\/consul\.log$/m);
    const again = await run("--output", file);
    equal(again.code, 2);
    match(again.said, /^debug: .*b\.tar\.gz is there already: name another --output\n$/);
  });

  it("leaves nothing after Ctrl-C", async () => {
    const file = join(directory, "c.tar.gz");
    // A server that says nothing: the task is in its midst when the signal comes.
    cluster.pause("server-2");
    const args = ["run", "--silent", "debug", "--", "local", ...options, "--output", file];
    const child = spawn("npm", args, { cwd: programDir, stdio: ["ignore", "pipe", "pipe"], detached: true });
    for await (const data of child.stderr) if (String(data).includes("servers: ")) break;
    process.kill(-(child.pid ?? 0), "SIGINT");
    const [status] = (await once(child, "exit")) as [number];
    cluster.resume("server-2");
    equal(status, 130);
    ok(!existsSync(file) && !existsSync(`${file}.partial`));
    deepEqual(temporary(), []);
  });

  it("ends with 2 where no cluster runs", async () => {
    await cluster.stop();
    const { code, said } = await run("--output", join(directory, "d.tar.gz"));
    equal(code, 2);
    match(said, /debug: no cluster runs in /);
    ok(!existsSync(join(directory, "d.tar.gz")));
  });
});
