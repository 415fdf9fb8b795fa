import assert from "assert/strict";
import { execFileSync } from "child_process";
import { mkdtempSync, readFileSync, rmSync } from "fs";
import { tmpdir } from "os";
import { delimiter, join } from "path";
import { gunzipSync } from "zlib";
import { Outcome } from "../../components/ecs/cloud";
import { Command } from "../../consul/machine/commands";
import { findConsul } from "../../local/consul-binary";
import { perform } from "../../local/command";
import { stackConfig } from "../../local/program";
import type { Status } from "../../operate/judge";
import { debugTask } from "../../operate/debug";
import { statusTask } from "../../operate/status";
import { fakePulumi } from "../fake-pulumi";
import { plainProd } from "../program/edit";
import { createNetwork, Machine, Network } from "./machine";
import { MachineCloud } from "./machine-cloud";
import { mirrorAddress } from "./machine-services";
import { acceptingProviders, describeProd } from "./prod-servers";
import { machinesOrSkip } from "./rootfs";

// `npm run status -- prod` and `npm run debug -- prod` on machines booted from the program's user data: commands run there
// word for word as Cloud Assistant would run them.

/** Bytes of output that Cloud Assistant keeps of a command. */
const outputLimit = 24 * 1024;

class WatchedCloud extends MachineCloud {
  longest = 0;
  /** All that machines printed, and so the cloud keeps. */
  printed = "";

  override async run(ids: readonly string[], command: Command, seconds?: number) {
    const outcomes: ReadonlyMap<string, Outcome> = await super.run(ids, command, seconds);
    for (const outcome of outcomes.values()) {
      if (!("output" in outcome)) continue;
      this.longest = Math.max(this.longest, outcome.output.length);
      const packed = /^[A-Za-z0-9+/]{60,}=*\n$/.test(outcome.output);
      this.printed += packed ? gunzipSync(Buffer.from(outcome.output, "base64")).toString() : outcome.output;
    }
    return outcomes;
  }
}

describe("npm run status and npm run debug, on machines", function () {
  this.timeout("5m");
  const path = process.env.PATH;
  const directory = mkdtempSync(join(tmpdir(), "consul-status-"));
  const version = stackConfig("prod")["consul:version"] ?? "";
  let net: Network;
  let machines: Machine[] = [];
  let cloud: WatchedCloud;
  let secret = "";

  before(async function () {
    this.timeout("30m");
    await machinesOrSkip(this);
    const { nodes } = JSON.parse(stackConfig("prod")["consul:servers"] ?? "{}") as { nodes: { vswitchCidr: string }[] };
    net = await createNetwork({ vswitches: nodes.map(({ vswitchCidr }) => vswitchCidr) });
    const consul = await findConsul({ version, downloadMirror: "", downloadSha256: "" });
    const config = {
      ...plainProd(),
      "consul:downloadMirror": `http://${mirrorAddress}/consul`,
      "consul:downloadSha256": net.mirror.offer(version, readFileSync(consul)),
      "consul:backups": JSON.stringify({ everyHours: 1 }),
    };
    const { servers, values } = await describeProd(config, acceptingProviders());
    secret = String(values.managementToken);
    fakePulumi(directory, config, values);
    process.env.PATH = `${directory}${delimiter}${path ?? ""}`;
    machines = await Promise.all(
      servers.map(async (server) =>
        net.machine({ ...server, userData: server.text, disk: await net.disk({ ...server, size: 512 }) }),
      ),
    );
    await Promise.all(machines.map((machine) => machine.boot()));
    cloud = new WatchedCloud(machines);
  });
  after(async () => {
    process.env.PATH = path;
    rmSync(directory, { recursive: true });
    await (net as Network | undefined)?.destroy();
  });

  async function run(...args: string[]) {
    let [out, error] = ["", ""];
    const write = (text: string) => void (out += text);
    const code = await perform(statusTask(cloud), ["prod", ...args], write, (text) => void (error += text));
    assert.ok(!out.includes(secret));
    return { code, out, error };
  }
  async function status() {
    const { code, out, error } = await run("--json");
    assert.equal(error, "");
    return { code, ...(JSON.parse(out) as Status) };
  }
  /** Tries until it says so: servers that have just come back are not well at once. */
  async function until(check: (seen: Awaited<ReturnType<typeof status>>) => void, tries = 20) {
    for (; ; tries--) {
      const seen = await status();
      try {
        check(seen);
        return seen;
      } catch (error) {
        if (tries === 0) throw error;
      }
    }
  }
  const machine = (name: string) => machines.find((one) => one.name === name) ?? assert.fail(`no machine ${name}`);

  it("ends with 0 where all is well, with what is on the machines", async () => {
    const { servers, voters, leader, keys } = await until(({ problems, code }) =>
      assert.deepEqual([problems, code], [[], 0]),
    );
    assert.equal(voters, 3);
    assert.ok(servers.some(({ name }) => name === leader));
    for (const { name, id, state, version: runs, certificate, diskFree, mayGoDown } of servers) {
      assert.deepEqual([id, state, runs, mayGoDown], [`i-${name}`, "Running", version, { ok: true, reasons: [] }]);
      assert.equal(certificate?.daysLeft, 364);
      assert.ok(diskFree !== undefined && diskFree > 0.5 && diskFree < 1, String(diskFree));
    }
    assert.deepEqual(
      keys.map(({ what }) => what),
      ["certificate authority 1", "gossip key"],
    );
    const { out } = await run();
    console.log(out.replace(/^/gm, "      "));
    assert.ok(cloud.longest > 1000 && cloud.longest < outputLimit, `${cloud.longest} bytes of output`);
    console.log(`      longest output: ${cloud.longest} bytes of ${outputLimit}`);
  });

  it("knows the last snapshot", async () => {
    assert.equal((await status()).snapshots?.last, undefined);
    for (const one of machines) await one.run("systemctl start consul-snapshot.service");
    const { snapshots, code } = await status();
    assert.equal(code, 0);
    assert.equal(snapshots?.ageHours, 0);
    assert.ok(Math.abs(Date.parse(snapshots.newestFile ?? "") - Date.parse(snapshots.last ?? "")) < 60_000);
  });

  it("names a unit that has failed", async () => {
    await machine("consul-3").exec("systemd-run --unit=consul-broken --wait false");
    const { problems, code } = await status();
    assert.deepEqual(
      [problems, code],
      [["consul-broken.service of consul-3 has failed: `journalctl -u consul-broken.service` there"], 1],
    );
    await machine("consul-3").run("systemctl reset-failed");
  });

  it("has logs and state of every machine in one archive, without a secret, and leaves nothing on a machine", async () => {
    const on = machine("consul-1");
    const files = "find /tmp /var/tmp /run/consul* /root /dev/shm -not -path '*/systemd-private*' | sort";
    const secretFiles = "/etc/consul.management-token /etc/consul.d/secrets.json /etc/consul.d/server-key.pem";
    // What a careless operator, or a program, has in the journal.
    await on.run(`systemd-run --wait --unit=consul-planted cat ${secretFiles} /etc/consul.acl/*`);
    const planted = await on.run(`cat ${secretFiles} /etc/consul.acl/*`);
    const secrets = [
      ...(planted
        .replace(/"AccessorID": *"[^"]*"/g, "")
        .match(/\b[0-9a-f-]{36}\b|"[A-Za-z0-9+/]{43}="|^[A-Za-z0-9+/=]{40,}$/gm) ?? []),
    ].map((text) => text.replaceAll('"', ""));
    assert.ok(secrets.length > 6, String(secrets.length));
    const journal = await on.journal("consul-planted.service");
    for (const secret of secrets) assert.ok(journal.includes(secret));
    const before = await on.run(files);
    cloud.printed = "";
    cloud.longest = 0;

    const file = join(directory, "a.tar.gz");
    let [out, said] = ["", ""];
    const code = await perform(
      debugTask(cloud),
      ["prod", "--output", file],
      (text) => (out += text),
      (text) => (said += text),
    );
    assert.equal(code, 0, said);
    assert.ok(cloud.longest < outputLimit, `${cloud.longest} bytes of output`);
    console.log(`      longest output: ${cloud.longest} bytes of ${outputLimit}`);
    const text = execFileSync("tar", ["-xzOf", file], { encoding: "utf8", maxBuffer: 1 << 28 });
    for (const secret of secrets) {
      assert.ok(!cloud.printed.includes(secret), "a secret has left the machine");
      assert.ok(!text.includes(secret), "a secret is in the archive");
    }
    assert.match(text, /consul-planted.*\[secret\]|\[secret\]/);
    for (const one of machines) {
      for (const part of ["journal", "boot", "units", "disk", "consul", "self", "metrics"]) {
        assert.match(out, new RegExp(`^servers/${one.name}/${part}\\.txt$`, "m"));
      }
    }
    const of = (part: string) =>
      execFileSync("tar", ["-xzOf", file, `a/servers/consul-1/${part}.txt`], { encoding: "utf8" });
    assert.match(of("journal"), /consul\[\d+\]: .*agent/);
    assert.match(of("units"), /consul\.service - Consul server consul-1/);
    assert.match(of("disk"), /\/opt\/consul/);
    assert.match(of("consul"), /^Consul v[^]*== operator\/raft\/configuration\n\{.*"Servers":/m);
    assert.equal(await on.run(files), before);
  });

  it("names a server whose Consul does not run, although its machine does", async () => {
    await machine("consul-1").run("systemctl stop consul.service");
    const { problems, code } = await status();
    assert.equal(code, 1);
    assert.match(problems.join(), /^consul-1 (has not started its Consul yet|runs, but its Consul does not answer)/);
    await machine("consul-1").run("systemctl start consul.service");
    await until(({ code: now }) => assert.equal(now, 0));
  });

  it("names a second server that was stopped, with the command that starts it, and ends with 1", async () => {
    await cloud.power("i-consul-2", "stop");
    const { code, out } = await run();
    console.log(out.replace(/^/gm, "      "));
    assert.equal(code, 1);
    const said =
      /^- consul-2 \(i-consul-2\) is Stopped: start it: `aliyun ecs StartInstance --InstanceId i-consul-2`$/m;
    assert.match(out, said);
    assert.match(out, /^prod .*NOT WELL, 1 thing is wrong\n/);
    assert.match(out, /^consul-1 may not go down: consul-2 \(i-consul-2\) is Stopped/m);
    await cloud.power("i-consul-2", "start");
    await until(({ code: now }) => assert.equal(now, 0));
  });
});
