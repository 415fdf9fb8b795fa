import { deepEqual, equal, match, notEqual, ok, rejects } from "assert/strict";
import { execFile } from "child_process";
import { createHash, randomBytes } from "crypto";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { promisify } from "util";
import { appRules, grantObjects, snapshotMetricsKey, snapshotRules } from "../../consul/access";
import { ports } from "../../consul/config";
import { stableJson } from "../../consul/node";
import { Stream } from "../../lab/load";
import { Resolver } from "../../local/dns";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { ask } from "./dns-client";
import { takeSnapshot } from "./snapshots";

const uuid = (n: number) => `f1c70e5a-0000-4000-8000-${String(n).padStart(12, "0")}`;
const orders = { services: ["orders"], kv: { read: ["config/"], write: ["state/"] } };
const servers = ["server-1", "server-2", "server-3"];

describe("snapshots and restore, on a real cluster", function () {
  this.timeout(600_000);
  const directory = mkdtempSync(join(tmpdir(), "consul-restore-"));
  const snapshots = join(directory, "snapshots");
  let cluster: Cluster;

  before(async function () {
    this.timeout(1_800_000); // a first build of Consul
    cluster = await startCluster({ dir: join(directory, "cluster"), config: onLoopback("127.63.0", 3, 2) });
    const grants = [
      { name: "orders", rules: appRules(orders), secrets: [uuid(1)] },
      { name: "consul-snapshots", rules: snapshotRules, secrets: [uuid(2)] },
    ];
    const api = cluster.api(await cluster.leaderName());
    await cluster.applyAcl(grantObjects({ project: "consul", stack: "prod" }, grants));
    for (let i = 0; i < 300; i++) await api.put(`kv/config/${i}`, randomBytes(64).toString("hex"));
    await api.put("catalog/register", {
      ...{ Node: "outside", Address: "10.9.9.9" },
      Service: { Service: "database", Port: 5432 },
    });
    await cluster.until("the token is not known yet", () =>
      cluster.api("agent-1", uuid(1)).put("agent/service/register", { Name: "orders", Port: 80, Tags: ["v1"] }),
    );
    await cluster.until("orders is not in the catalog", async () => {
      equal((await api.get<unknown[]>("catalog/service/orders")).length, 1);
    });
  });

  after(async () => {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  const files = () => readdirSync(snapshots).sort();
  const newest = () => join(snapshots, files().at(-1) ?? "");
  const keys = async (node: string) =>
    (await cluster.api(node).get<{ Key: string; Value: string; CreateIndex: number }[]>("kv/config/?recurse")).map(
      ({ Key, Value, CreateIndex }) => [Key, Value, CreateIndex],
    );

  /** What must be the same afterwards: every key, every service, every policy and token. */
  async function contents(node: string) {
    const api = cluster.api(node);
    const names = Object.keys(await api.get<object>("catalog/services")).sort();
    type Service = { Node: string; ServiceID: string; ServiceTags: string[]; ServicePort: number };
    const services = await Promise.all(names.map((name) => api.get<Service[]>(`catalog/service/${name}`)));
    type Token = { AccessorID: string; SecretID: string; Policies?: { Name: string }[] };
    const tokens = (await api.get<Token[]>("acl/tokens")).map(({ AccessorID, SecretID, Policies = [] }) => ({
      AccessorID,
      SecretID,
      policies: Policies.map(({ Name }) => Name),
    }));
    const policies = (await api.get<{ Name: string; Hash: string }[]>("acl/policies")).map(({ Name, Hash }) => [
      Name,
      Hash,
    ]);
    return {
      keys: createHash("sha256")
        .update(stableJson(await keys(node)))
        .digest("hex"),
      services: services
        .flat()
        .map(({ Node, ServiceID, ServiceTags, ServicePort }) => ({ Node, ServiceID, ServiceTags, ServicePort })),
      tokens: tokens.sort((a, b) => (a.AccessorID < b.AccessorID ? -1 : 1)),
      policies: policies.sort(),
    };
  }

  /** @throws where a server knows of no leader */
  async function leaderOf(server: string): Promise<string> {
    const leader = await cluster.api(server, null).get<string>("status/leader");
    if (leader === "") throw new Error("no leader");
    return leader;
  }

  async function restore(file: string, server: string): Promise<number> {
    const began = Date.now();
    await promisify(execFile)(cluster.consul, ["snapshot", "restore", file], {
      env: {
        CONSUL_HTTP_ADDR: `http://${cluster.node(server).address}:${ports.http}`,
        CONSUL_HTTP_TOKEN_FILE: cluster.tokenFile,
      },
    });
    return (Date.now() - began) / 1000;
  }

  it("are taken by the server that leads, and by no other", async () => {
    const leader = await cluster.leaderName();
    for (const server of servers.filter((name) => name !== leader)) {
      match(await takeSnapshot(cluster, server, snapshots), /nothing to do here, the leader is "127\.63\.0\.1\d:8300"/);
    }
    ok(!readdirSync(directory).includes("snapshots"));
    match(await takeSnapshot(cluster, leader, snapshots), /\.snap, raft index \d{3,}\n$/);
    equal(files().length, 1);
  });

  it("are kept as many as asked for, the newest, and for root's eyes only", async () => {
    const leader = await cluster.leaderName();
    const first = files();
    for (let i = 0; i < 3; i++) {
      await sleep(1000); // names have seconds
      await takeSnapshot(cluster, leader, snapshots, { keep: 3 });
    }
    equal(files().length, 3);
    ok(!files().includes(first[0] ?? ""));
    equal(statSync(newest()).mode & 0o777, 0o600);
    equal(statSync(snapshots).mode & 0o777, 0o700);
  });

  it("say when they were taken, where Prometheus finds it", async () => {
    const text = await cluster.api("agent-1").get<string>(`kv/${snapshotMetricsKey}?raw`);
    const value = (name: string) => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
    ok(Math.abs(value("consul_snapshot_last_success_timestamp_seconds") - Date.now() / 1000) < 60);
    equal(value("consul_snapshot_size_bytes"), statSync(newest()).size);
  });

  it("are taken by the CronJob's pod over HTTPS, through any server, with no more than the token for it", async () => {
    const token = join(directory, "snapshot-token");
    writeFileSync(token, uuid(2), { mode: 0o600 });
    for (const server of servers) {
      const env = {
        CONSUL_HTTP_ADDR: `https://${cluster.node(server).address}:${ports.https}`,
        CONSUL_CACERT: cluster.caFile,
        SNAPSHOT_SERVER: "",
      };
      match(await takeSnapshot(cluster, server, join(directory, server), { token, env }), /\.snap, raft index/);
    }
  });

  it("that fail leave no file that looks like one, and no word of success", async () => {
    const leader = await cluster.leaderName();
    const before = await cluster.api(leader).get(`kv/${snapshotMetricsKey}?raw`);
    const token = join(directory, "wrong-token");
    writeFileSync(token, uuid(1), { mode: 0o600 });
    await rejects(takeSnapshot(cluster, leader, join(directory, "failed"), { token }), /Permission denied/);
    // One that is damaged on its way, as inspection finds it.
    const bin = join(directory, "damaging");
    mkdirSync(bin);
    const damage = 'for last; do :; done; case $2 in save) truncate -s -100 "$last" ;; esac';
    writeFileSync(join(bin, "consul"), `#!/bin/sh\n${cluster.consul} "$@" || exit 1\n${damage}\n`);
    chmodSync(join(bin, "consul"), 0o755);
    const env = { PATH: `${bin}:${process.env.PATH ?? ""}` };
    await rejects(takeSnapshot(cluster, leader, join(directory, "failed"), { env }), /Error verifying|Error reading/);
    // And one that does not arrive in the bucket.
    const unreachable = { METADATA_URL: "http://127.0.0.1:1" };
    await rejects(
      takeSnapshot(cluster, leader, join(directory, "uploads"), { env: unreachable, args: ["bucket", "prefix/"] }),
      /no copy of \S+\.snap in bucket bucket/,
    );
    deepEqual(
      readdirSync(join(directory, "failed")).filter((name) => name.endsWith(".snap")),
      [],
    );
    equal(readdirSync(join(directory, "uploads")).length, 1, "the one on the disk is good, and stays");
    equal(await cluster.api(leader).get(`kv/${snapshotMetricsKey}?raw`), before);
  });

  it("bring everything back after all servers and their disks are lost, agents running on", async () => {
    await takeSnapshot(cluster, await cluster.leaderName(), snapshots);
    const before = await contents(await cluster.leaderName());
    await Promise.all(servers.map((name) => cluster.kill(name)));
    servers.forEach((name) => cluster.wipe(name));

    const began = Date.now();
    servers.forEach((name) => cluster.start(name));
    // New servers are a working cluster with the same keys and tokens, and nothing in it.
    await cluster.leaderName();
    await cluster.applyAcl();
    notEqual((await contents(await cluster.leaderName()).catch(() => undefined))?.keys, before.keys);
    const seconds = await restore(newest(), "server-1");
    await cluster.ready();
    await cluster.registered();
    for (const name of servers) {
      await cluster.until(`${name} differs`, async () => deepEqual(await contents(name), before));
    }
    const total = (Date.now() - began) / 1000;
    console.log(
      `      restored in ${seconds.toFixed(1)} s, everything as before ${total.toFixed(1)} s after the first start`,
    );

    const app = cluster.api("agent-1", uuid(1));
    await cluster.until("the application's token does not work", () => app.put("kv/state/orders", "1"));
    await app.put("agent/service/register", { Name: "orders", Port: 81 });
    for (const name of ["agent-1", "agent-2"]) {
      const { address } = cluster.node(name);
      const { answers } = await ask({ address, port: ports.dns }, "orders.service.consul");
      equal(answers.length, 1, name);
    }
    // Nobody was called impostor: agents and servers are who they were, and a restart finds the same.
    await cluster.restart("agent-2");
    await cluster.restart("server-2");
    await cluster.ready();
  });

  it("are not needed while one server's disk is left: the others start empty and take it over", async () => {
    await cluster.api(await cluster.leaderName()).put("kv/config/newest", "since the last snapshot");
    // A server that restarts and leads again before it has heard of every agent drops what those have registered; the
    // agents bring it back.
    const whole = ["consul-members agent-1", "consul-members agent-2", "orders agent-1"];
    const before = await cluster.until("not everything is registered again", async () => {
      const found = await contents(await cluster.leaderName());
      const registered = found.services.map(({ ServiceID, Node }) => `${ServiceID} ${Node}`);
      deepEqual(registered.filter((entry) => whole.includes(entry)).sort(), whole);
      return found;
    });
    const [survivor = "", ...lost] = [...servers].reverse();
    await Promise.all(servers.map((name) => cluster.kill(name)));
    lost.forEach((name) => cluster.wipe(name));

    const began = Date.now();
    lost.forEach((name) => cluster.start(name));
    await sleep(3000); // two empty servers of three wait for the third
    await rejects(cluster.until("no leader", () => leaderOf("server-1"), 0));
    cluster.start(survivor);
    equal(await cluster.leaderName(), survivor);
    for (const name of servers) {
      await cluster.until(`${name} differs`, async () => deepEqual(await contents(name), before));
    }
    const back = (Date.now() - began) / 1000 - 3;
    // Under their old names the empty servers have new ids, and the leader looks once a minute for what has changed.
    const wanted = [true, true, true, true];
    await cluster.until(
      "not three healthy voters",
      async () => {
        type Health = { Healthy: boolean; Servers: { Voter: boolean }[] };
        const health = await cluster.api(survivor).get<Health>("operator/autopilot/health");
        deepEqual([health.Healthy, ...health.Servers.map(({ Voter }) => Voter)], wanted);
      },
      150,
    );
    const healthy = (Date.now() - began) / 1000 - 3;
    console.log(
      `      everything as before ${back.toFixed(1)} s after the survivor's start, three voters after ${healthy.toFixed(1)} s`,
    );
  });

  it("bring everything back after every machine and every disk is lost", async () => {
    await takeSnapshot(cluster, await cluster.leaderName(), snapshots);
    const before = await contents(await cluster.leaderName());
    const everyone = cluster.nodes.map(({ name }) => name);
    await Promise.all(everyone.map((name) => cluster.kill(name)));
    everyone.forEach((name) => cluster.wipe(name));

    servers.forEach((name) => cluster.start(name));
    await cluster.leaderName();
    await restore(newest(), "server-3");
    // The leader drops nodes that do not run, and what was registered there: that comes back with them.
    const there = ({ services, ...rest }: typeof before) => ({
      ...rest,
      services: services.filter(({ Node }) => !Node.startsWith("agent-")),
    });
    for (const name of servers) {
      await cluster.until(`${name} differs`, async () => deepEqual(there(await contents(name)), there(before)));
    }
    ["agent-1", "agent-2"].forEach((name) => cluster.start(name));
    await cluster.ready();
    // The agent's disk had the application's registration; the application registers again, as at any start.
    await cluster.until("orders cannot register again", () =>
      cluster.api("agent-1", uuid(1)).put("agent/service/register", { Name: "orders", Port: 80, Tags: ["v1"] }),
    );
  });

  it("go back in time under load without one failed lookup", async () => {
    await cluster.until("orders is not found", async () => {
      equal((await cluster.api("agent-2").get<unknown[]>("health/service/orders?passing")).length, 1);
    });
    await takeSnapshot(cluster, await cluster.leaderName(), snapshots);
    await cluster.api("agent-1").put("kv/config/0", "a mistake");

    const resolver = new Resolver();
    const [anyone, writer] = [cluster.api("agent-2", null), cluster.api("agent-1")];
    const { address } = cluster.node("agent-2");
    const acknowledged: { turn: number; began: number; ended: number }[] = [];
    const http = new Stream(20, async () => {
      equal((await anyone.get<unknown[]>("health/service/orders?passing")).length, 1);
    });
    const dns = new Stream(20, async () =>
      equal((await resolver.addresses(address, "orders.service.consul")).length, 1),
    );
    const writes = new Stream(20, async (turn) => {
      const began = Date.now();
      await writer.put(`kv/load/${turn}`, String(turn));
      acknowledged.push({ turn, began, ended: Date.now() });
    });
    await sleep(1000);
    const seconds = await restore(newest(), "server-1");
    const restored = Date.now();
    await sleep(2000);
    const [ofHttp, ofDns, ofWrites] = await Promise.all([http.stop(), dns.stop(), writes.stop()]);
    resolver.close();
    const ends = acknowledged.map(({ ended }) => ended).sort((x, y) => x - y);
    const gap = Math.max(...ends.map((end, i) => end - (ends[i - 1] ?? end)));
    console.log(
      `      ${seconds.toFixed(1)} s; lookups ${ofHttp.total} HTTP, ${ofDns.total} DNS; ` +
        `${ofWrites.total} writes, ${ofWrites.failed} refused, longest gap ${gap} ms`,
    );
    deepEqual([ofHttp.failed, ofHttp.error, ofDns.failed, ofDns.error], [0, "", 0, ""]);
    ok(ofHttp.total > 50 && ofDns.total > 50);
    const after = acknowledged.filter(({ began }) => began > restored);
    ok(after.length > 20);
    for (const { turn } of after) equal(await writer.get(`kv/load/${turn}?raw`), String(turn));
    notEqual(await cluster.api("agent-1").get("kv/config/0?raw"), "a mistake");
    match(readFileSync(cluster.logFile("server-1"), "utf8"), /restore/i);
  });
});
