import { deepEqual, equal, match, ok } from "assert/strict";
import { spawnSync } from "child_process";
import { mkdtempSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { healthy } from "../../lab/healthy";
import { perform } from "../../local/command";
import { pinnedVersion, programDir } from "../../local/program";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import type { Status } from "../../operate/judge";
import { task } from "../../operate/status";

const config = onLoopback("127.56.0");

describe("npm run status, on a cluster of this machine", function () {
  this.timeout(600_000);
  const directory = mkdtempSync(join(tmpdir(), "status-"));
  const dir = join(directory, "run");
  const options = ["--dir", dir, ...Object.entries(config).flatMap(([key, value]) => ["--config", `${key}=${value}`])];
  let cluster: Cluster;

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    cluster = await startCluster({ dir, config }, console.error);
    await healthy(cluster);
  });
  after(async () => {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  async function run(...args: string[]) {
    let [out, error] = ["", ""];
    const write = (text: string) => void (out += text);
    const code = await perform(task, ["local", ...options, ...args], write, (text) => void (error += text));
    return { code, out, error };
  }
  const status = async () => {
    const { code, out, error } = await run("--json");
    equal(error, "");
    return { code, ...(JSON.parse(out) as Status) };
  };

  it("ends with 0 where all is well", async () => {
    const { status: code, stdout } = spawnSync("npm", ["run", "--silent", "status", "--", "local", ...options], {
      cwd: programDir,
      encoding: "utf8",
    });
    equal(code, 0, stdout);
    match(stdout, /^local \(datacenter local\): all is well\n/);
    ok(!stdout.includes("\u001b"), "colours without a terminal");
    ok(!stdout.includes(cluster.managementToken));
    const { leader, voters, servers, agents, keys, problems } = await status();
    deepEqual([problems, voters, leader], [[], 3, await cluster.leaderName()]);
    deepEqual(agents, { members: 3, failed: [], otherVersion: [], earlierTrust: [] });
    for (const { version, certificate, mayGoDown } of servers) {
      deepEqual([version, certificate?.daysLeft, mayGoDown.ok], [pinnedVersion, 364, true]);
    }
    deepEqual(
      keys.map(({ daysLeft }) => daysLeft),
      [3649, 364],
    );
  });

  it("names an agent that is gone", async () => {
    await cluster.kill("agent-2");
    await cluster.until("nobody has noticed", async () => {
      const { problems, code } = await status();
      deepEqual([problems, code], [["agents that do not answer: agent-2"], 1]);
    });
    cluster.start("agent-2");
    await cluster.ready();
    await cluster.until("nobody has noticed", async () => equal((await status()).code, 0));
  });

  it("names agents of another token than that of the settings", async () => {
    await cluster.update({ "consul:tokens": JSON.stringify({ agentGeneration: 2 }) });
    const { out, code } = await run("--config", 'consul:tokens={"agentGeneration":2}');
    equal(code, 1);
    match(out, /^- agents with an earlier gossip key, token or authority: agent-1, agent-2, agent-3; run `pulumi up`/m);
    await cluster.update({ "consul:tokens": undefined });
  });

  it("names a server that has ended, and lets none of the others go", async () => {
    await cluster.kill("server-2");
    const { problems, servers, code } = await status();
    deepEqual([problems, code], [["server-2 (process of server-2) is Ended"], 1]);
    deepEqual(
      servers.map(({ state, mayGoDown }) => [state, mayGoDown.ok]),
      [
        ["Running", false],
        ["Ended", false],
        ["Running", false],
      ],
    );
  });

  it("names a server that does not answer although it runs", async () => {
    cluster.start("server-2");
    await healthy(cluster);
    cluster.pause("server-2");
    const { problems, code } = await status();
    cluster.resume("server-2");
    equal(code, 1);
    match(problems.join(), /^server-2 runs, but its Consul does not answer/);
  });

  it("says who is left where there is no leader", async () => {
    for (const name of ["server-2", "server-3"]) await cluster.kill(name);
    const { problems, code, leader } = await status();
    deepEqual([code, leader], [1, undefined]);
    for (const name of ["server-2", "server-3"]) ok(problems.some((problem) => problem.startsWith(name)));
  });

  it("ends with 2 where no cluster runs", async () => {
    await cluster.stop();
    const { code, out, error } = await run();
    deepEqual([code, out], [2, ""]);
    match(error, /^status: no cluster runs in .*: npm start -- --stack local\n$/);
  });
});
