import { deepEqual, equal, match, notDeepEqual, notEqual, ok, rejects, throws } from "assert/strict";
import { execFile, spawnSync } from "child_process";
import { X509Certificate } from "crypto";
import { once } from "events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "fs";
import { Agent, get } from "https";
import { connect } from "net";
import { tmpdir } from "os";
import { join } from "path";
import { connect as tlsConnect } from "tls";
import { promisify } from "util";
import { withApi } from "../../consul/scripts";
import { ports } from "../../consul/config";
import { ApiError } from "../../local/api";
import { checks, Member } from "../../local/check";
import { lookup } from "../../local/dns";
import { NodeProcess } from "../../local/processes";
import { LocalProviders } from "../../local/providers";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { eventually } from "./kube-cluster";

const prefix = "127.24.0";
const config = onLoopback(prefix);
const refused = (error: unknown) => error instanceof ApiError && error.status === 403;

describe("a cluster from the program, on this machine", function () {
  this.timeout(600_000);
  let dir: string;
  let cluster: Cluster;
  const crashes: string[] = [];

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    dir = mkdtempSync(join(tmpdir(), "cluster-"));
    const options = { dir: join(dir, "run"), config, onCrash: (reason: string) => void crashes.push(reason) };
    cluster = await startCluster(options, console.error);
  });
  after(async () => {
    await cluster.stop();
    rmSync(dir, { recursive: true });
    deepEqual(crashes, [], "nodes that ended by themselves");
  });
  const file = (path: string) => readFileSync(join(cluster.dir, path), "utf8");

  it("has three voters and three agents, alive and in the catalog", async () => {
    const names = ["server-1", "server-2", "server-3", "agent-1", "agent-2", "agent-3"];
    deepEqual(
      cluster.nodes.map(({ name }) => name),
      names,
    );
    for (const { name } of cluster.nodes) {
      const members = await cluster.api(name).get<Member[]>("agent/members");
      deepEqual(
        members
          .filter(({ Status }) => Status === 1)
          .map(({ Name }) => Name)
          .sort(),
        [...names].sort(),
      );
    }
    const nodes = await cluster.api("agent-1").get<{ Node: string; Address: string }[]>("catalog/nodes");
    deepEqual(
      nodes.map(({ Node, Address }) => [Node, Address]).sort(),
      cluster.nodes.map(({ name, address }) => [name, address]).sort(),
    );
    type Raft = { Servers: { Node: string; Voter: boolean }[] };
    const { Servers } = await cluster.api("server-1").get<Raft>("operator/raft/configuration");
    deepEqual(
      Servers.filter(({ Voter }) => Voter)
        .map(({ Node }) => Node)
        .sort(),
      names.slice(0, 3),
    );
    // What an agent answers may be a moment behind what the last agent has just registered.
    await eventually("every agent has registered what is its own", async () => {
      const members = await cluster.api("agent-2").get<{ Node: string }[]>("catalog/service/consul-members");
      deepEqual(members.map(({ Node }) => Node).sort(), names.slice(3));
    });
  });

  it("passes its own checks, and fails the one whose rule is broken", async () => {
    for (const check of checks(cluster)) await check.run(() => undefined);
    type Policy = { ID: string; Name: string; Rules: string };
    const api = cluster.api(await cluster.leaderName());
    const policy = await api.get<Policy>("acl/policy/name/discovery");
    await api.put(`acl/policy/${policy.ID}`, {
      Name: "discovery",
      Rules: `${policy.Rules}\nkey_prefix "" { policy = "write" }`,
    });
    const check = checks(cluster).find(({ title }) => title.startsWith("A write without a token"));
    try {
      // Nodes keep what a token may do for up to 30 s.
      await cluster.until(
        "the check has not noticed",
        () => rejects(async () => check?.run(() => undefined), /Missing expected rejection/),
        40,
      );
    } finally {
      await cluster.applyAcl();
    }
    equal((await api.get<Policy>("acl/policy/name/discovery")).Rules, policy.Rules);
  });

  describe("TLS", () => {
    const https = (address: string, ca?: string) =>
      new Promise<number | undefined>((resolve, reject) => {
        const agent = new Agent(ca === undefined ? {} : { ca });
        get(`https://${address}:${ports.https}/v1/status/leader`, { agent }, (response) => {
          response.resume();
          resolve(response.statusCode);
        }).on("error", reject);
      });

    it("shows a certificate of this CA to people, and no other is believed", async () => {
      for (const { name, address } of cluster.nodes.filter(({ role }) => role === "server")) {
        equal(await https(address, cluster.caCertificate), 200);
        await rejects(https(address), /unable to verify|self-signed|unable to get/);
        await rejects(https(address, await otherCa()), /unable to verify|self-signed|signature|unable to get/);
        const certificate = new X509Certificate(file(`${name}/secrets/server.pem`));
        ok(certificate.checkIssued(new X509Certificate(cluster.caCertificate)));
        equal(certificate.checkHost(`${name}.server.local.consul`), `${name}.server.local.consul`);
        equal(certificate.checkIP(address), address);
      }
    });

    it("speaks no plain HTTP on the HTTPS port", async () => {
      const answer = await fetch(`http://${prefix}.11:${ports.https}/v1/status/leader`);
      equal(answer.status, 400);
    });

    /** Calls a server on the port of the servers' own protocol, whose first byte says what follows. */
    function call(first: number, tls?: { cert: string; key: string }) {
      const socket = connect(ports.rpc, `${prefix}.11`);
      socket.write(Buffer.from([first]));
      const ends = tls ? [socket, tlsConnect({ socket, rejectUnauthorized: false, ...tls })] : [socket];
      const closed = ends.map((end) => new Promise((resolve) => end.on("error", resolve).on("close", resolve)));
      return { hungUp: Promise.race(closed), end: () => ends.forEach((end) => end.destroy()) };
    }
    const plainRpc = 0;
    const tlsRpc = 3;

    it("lets nobody in on the servers' port without a certificate of this CA", async () => {
      const cert = file("server-2/secrets/server.pem");
      const key = file("server-2/secrets/server-key.pem");
      // A server says nothing to a caller before the first request: one that it takes is not hung up on. Whoever is not
      // taken calls later, and is hung up on before.
      const server = call(tlsRpc, { cert, key });
      let taken = true;
      void server.hungUp.then(() => (taken = false));
      const refused = [call(plainRpc), call(tlsRpc, { cert: "", key: "" }), call(tlsRpc, await strangersCertificate())];
      await Promise.all(refused.map(({ hungUp }) => hungUp));
      ok(taken, "a server of this cluster");
      for (const { end } of [server, ...refused]) end();
    });

    it("gives every agent a certificate of its own, which ends in days", async () => {
      for (const name of ["agent-1", "agent-2", "agent-3"]) {
        match(cluster.logs(name), /automatically upgraded to TLS/);
        ok(!existsSync(join(cluster.dir, name, "secrets", "server.pem")));
        const expiry = await cluster.until("no expiry in the metrics", async () => {
          const metrics = await cluster.api(name).get<string>("agent/metrics?format=prometheus");
          const [, seconds] = /^consul_agent_tls_cert_expiry (\S+)$/m.exec(metrics) ?? [];
          ok(seconds !== undefined, "not yet");
          return Number(seconds);
        });
        ok(expiry > 3600 && expiry <= 73 * 3600, `${expiry} s`);
      }
    });

    /** A CA that has nothing to do with the cluster. */
    async function otherCa(): Promise<string> {
      return (await stranger()).ca;
    }
    async function strangersCertificate() {
      const { cert, key } = await stranger();
      return { cert, key };
    }
    async function stranger() {
      const { runProgram, stackConfig } = await import("../../local/program");
      const run = await runProgram("local", stackConfig("local"), new LocalProviders(join(dir, "stranger.json")));
      const of = (name: string) =>
        run.resources.find((resource) => resource.name === name)?.inputs as {
          node: { files: { path: string; content: string }[] };
        };
      const content = (path: string) =>
        of("server-1").node.files.find((each) => each.path.endsWith(path))?.content ?? "";
      return { ca: content("ca.pem"), cert: content("server.pem"), key: content("server-key.pem") };
    }
  });

  it("lets nobody into its gossip with another key", async () => {
    const home = join(dir, "rogue");
    const { files, command } = cluster.node("agent-1");
    const rogue = (text: string) => text.replaceAll("agent-1", "rogue").replaceAll(`${prefix}.21`, `${prefix}.99`);
    for (const { path, content } of files) {
      const own = rogue(content).replace(
        /"encrypt": "[^"]*"/,
        `"encrypt": "${Buffer.alloc(32, 7).toString("base64")}"`,
      );
      mkdirSync(join(dir, rogue(path), ".."), { recursive: true });
      writeFileSync(join(dir, rogue(path)), own);
    }
    const log = join(home, "consul.log");
    const started = new NodeProcess(cluster.consul, command.slice(1).map(rogue), dir, log);
    try {
      await cluster.until("the rogue does not try", async () => {
        match(readFileSync(log, "utf8"), /Join cluster failed/);
        return Promise.resolve();
      });
      const members = await cluster.api("server-1").get<Member[]>("agent/members");
      ok(!members.some(({ Name }) => Name === "rogue"));
      match(
        cluster.logs("server-1") + cluster.logs("server-2") + cluster.logs("server-3"),
        /No installed keys could decrypt/,
      );
    } finally {
      await started.end("SIGKILL");
    }
  });

  describe("ACLs", () => {
    it("let a caller without a token find services and nothing else", async () => {
      const anyone = cluster.api("agent-1", null);
      ok((await anyone.get<unknown[]>("catalog/nodes")).length >= 6);
      await rejects(anyone.get("kv/some/key"), refused);
      await rejects(anyone.put("kv/some/key", "x"), refused);
      await rejects(anyone.put("agent/service/register", { Name: "web" }), refused);
      await rejects(anyone.get("agent/self"), refused);
      await rejects(anyone.get("acl/tokens"), refused);
      await rejects(cluster.api("agent-1", "11111111-2222-4333-8444-555555555555").get("kv/some/key"), refused);
    });

    it("let an agent's token write agents' nodes and consul-members, not servers, services, keys or tokens", async () => {
      const agent = cluster.api("agent-1", cluster.agentToken);
      await rejects(agent.put("kv/some/key", "x"), refused);
      await rejects(agent.put("agent/service/register", { Name: "web" }), refused);
      await rejects(agent.put("catalog/register", { Node: "server-1", Address: "10.0.0.1" }), refused);
      await rejects(agent.get("acl/tokens"), refused);
      await agent.put("catalog/register", { Node: "some-agent", Address: "10.0.0.1" });
      await agent.put("catalog/deregister", { Node: "some-agent" });
    });

    it("hold the tokens of the program and no others", async () => {
      const tokens = await cluster.api("server-1").get<{ Description: string }[]>("acl/tokens");
      const known = ["Agents", "Initial Management Token", "Requests without a token: discovery only"];
      const servers = ["Server server-1", "Server server-2", "Server server-3"];
      const described = tokens.map(({ Description }) => Description.replace(/ \[consul-alicloud:\w+\]$/, ""));
      deepEqual(described.sort(), [...known, ...servers].sort());
    });

    it("are the same after the servers' own script, which mends what somebody changed", async function () {
      if (spawnSync("curl", ["--version"]).status !== 0) {
        console.error("skipped: acl.sh against a real cluster, there is no curl on this machine");
        this.skip();
      }
      const objects = join(dir, "acl");
      mkdirSync(objects);
      for (const object of cluster.acl) writeFileSync(join(objects, object.file), object.content);
      writeFileSync(join(dir, "acl.sh"), withApi("scripts/acl.sh"));
      const leader = await cluster.leaderName();
      const api = cluster.api(leader);
      const script = async () => {
        const env = {
          PATH: process.env.PATH,
          CONSUL_HTTP_ADDR: api.address,
          CONSUL_HTTP_TOKEN_FILE: cluster.tokenFile,
          ACL_DEADLINE: "20",
        };
        const { stdout } = await promisify(execFile)("sh", [join(dir, "acl.sh"), objects], { env });
        match(stdout, /policies and tokens are in place/);
      };
      const all = async () => {
        const policies = await api.get<{ ID: string }[]>("acl/policies");
        const tokens = await api.get<{ AccessorID: string }[]>("acl/tokens");
        const read = [
          ...policies.map(({ ID }) => api.get<Record<string, unknown>>(`acl/policy/${ID}`)),
          ...tokens.map(({ AccessorID }) => api.get<Record<string, unknown>>(`acl/token/${AccessorID}`)),
        ];
        const entries = await Promise.all(read);
        return entries.map((entry) => JSON.stringify({ ...entry, ModifyIndex: 0, Hash: "" })).sort();
      };
      const before = await all();
      await script();
      deepEqual(await all(), before);

      const { ID } = await api.get<{ ID: string }>("acl/policy/name/agents");
      for (const mend of [script, () => cluster.applyAcl()]) {
        await api.put(`acl/policy/${ID}`, { Name: "agents", Rules: 'key_prefix "" { policy = "write" }' });
        notDeepEqual(await all(), before);
        await mend();
        deepEqual(await all(), before);
      }
    });
  });

  it("answers DNS at every agent, with the port of a service", async () => {
    await cluster.api("agent-1").put("agent/service/register", { Name: "web", Port: 8080 });
    try {
      for (const name of ["agent-1", "agent-2", "agent-3"]) {
        const answer = await cluster.until("no answer", async () => {
          const [first] = await lookup(cluster.node(name).address, "web.service.consul", "SRV");
          ok(first?.type === "SRV", "not yet");
          return first.data;
        });
        equal(answer.port, 8080);
        equal(answer.target, "agent-1.node.local.consul");
      }
    } finally {
      await cluster.api("agent-1").put("agent/service/deregister/web");
    }
  });

  it("shows no secret in an argument list or a log, nor to other users", () => {
    const secrets = [cluster.managementToken, cluster.agentToken];
    for (const { files } of cluster.nodes) {
      for (const { content, secret } of files.filter((each) => each.path.endsWith("secrets.json"))) {
        ok(secret);
        secrets.push(...(content.match(/[0-9a-f-]{36}|[A-Za-z0-9+/]{43}=/g) ?? []));
      }
    }
    ok(new Set(secrets).size === 6, "gossip key, management, agents, three servers");
    for (const { name, files } of cluster.nodes) {
      const argv = readFileSync(`/proc/${cluster.pid(name) ?? 0}/cmdline`, "utf8");
      match(argv, new RegExp(`-node=${name}`));
      for (const secret of secrets) {
        ok(!argv.includes(secret), `${name} has a secret in its arguments`);
        ok(!cluster.logs(name).includes(secret), `${name} has a secret in its log`);
      }
      for (const { path, mode } of files) {
        equal(statSync(join(cluster.dir, path)).mode & 0o777, parseInt(mode, 8), path);
      }
      equal(statSync(join(cluster.dir, name, "secrets")).mode & 0o077, 0);
    }
    for (const path of ["management-token", "state.json", "run.json"]) {
      equal(statSync(join(cluster.dir, path)).mode & 0o777, 0o600);
    }
    equal(file("management-token"), cluster.managementToken);
  });

  describe("changes", () => {
    it("carries on without its leader, and takes it back", async () => {
      const leader = await cluster.leaderName();
      await cluster.kill(leader);
      const next = await cluster.leaderName();
      notEqual(next, leader);
      // An agent's first request may still go to the server that is gone: Consul then answers 500 and takes another.
      await cluster.until("no write succeeds", () => cluster.api("agent-1").put("kv/after", "failover"));
      cluster.start(leader);
      await cluster.ready();
      equal(await cluster.api(leader).get("kv/after?raw"), "failover");
    });

    it("takes in a node that the settings gain, and lets go of one that they lose", async () => {
      await cluster.update(onLoopback(prefix, 3, 4));
      cluster.start("agent-4");
      await cluster.ready();
      const pid = cluster.pid("agent-4") ?? 0;
      await cluster.update(onLoopback(prefix, 3, 3));
      throws(() => process.kill(pid, 0), /ESRCH/);
      throws(() => cluster.node("agent-4"), /there is no node agent-4: server-1, /);
    });
  });
});

describe("starts in one directory, one after another", function () {
  this.timeout(600_000);
  let dir: string;
  let started: Cluster[];
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "starts-"));
    started = [];
  });
  afterEach(async () => {
    for (const cluster of started) await cluster.stop();
    rmSync(dir, { recursive: true, force: true });
  });
  const start = async (directory: string, settings = config, reset = false) => {
    const cluster = await startCluster({ dir: directory, config: settings, reset });
    started.push(cluster);
    return cluster;
  };

  it("have the same keys and data, and a reset forgets them", async () => {
    // A server makes its id up once, in its data; an agent's comes from its name.
    const ids = (cluster: Cluster) =>
      cluster.nodes
        .filter(({ role }) => role === "server")
        .map(({ name }) => readFileSync(join(dir, name, "data", "node-id"), "utf8"));
    const facts = ({ managementToken, agentToken, caCertificate, nodes }: Cluster) =>
      JSON.stringify({ managementToken, agentToken, caCertificate, nodes });

    const first = await start(dir);
    const pids = first.nodes.map(({ name }) => first.pid(name) ?? 0);
    const before = { facts: facts(first), ids: ids(first) };
    await first.api("agent-1").put("kv/some/key", "kept");
    await first.stop();
    for (const pid of pids) throws(() => process.kill(pid, 0), /ESRCH/);
    ok(!existsSync(join(dir, "run.json")));

    const second = await start(dir);
    deepEqual({ facts: facts(second), ids: ids(second) }, before);
    equal(await second.api("agent-2").get("kv/some/key?raw"), "kept");
    await second.stop();

    writeFileSync(join(dir, "mine.txt"), "not of the cluster");
    const third = await start(dir, config, true);
    for (const [i, id] of ids(third).entries()) notEqual(id, before.ids[i]);
    notEqual(third.managementToken, first.managementToken);
    notEqual(third.caCertificate, first.caCertificate);
    await rejects(third.api("agent-2").get("kv/some/key?raw"), /404/);
    await rejects(third.api("agent-2", first.managementToken).get("kv/some/key?raw"), refused);
    ok(existsSync(join(dir, "mine.txt")));
  });

  it("refuse a directory in use, a taken port, and data of other keys, in one line and with nothing left running", async () => {
    const oneLine = (pattern: RegExp) => (error: Error) => {
      match(error.message, pattern);
      ok(!error.message.includes("\n"), error.message);
      return true;
    };
    const here = join(dir, "here");
    const addresses = onLoopback("127.24.1", 3, 1);
    const cluster = await start(here, addresses);
    await rejects(
      start(here, onLoopback("127.24.2", 3, 1)),
      oneLine(/^a cluster runs in .*here already \(process \d+\): end that one, or use --dir$/),
    );
    await rejects(
      start(join(dir, "there"), addresses),
      oneLine(/^127\.24\.1\.\d+:\d+ of (server|agent)-\d is taken: .*change the address$/),
    );
    ok(existsSync(join(here, "run.json")), "the one that runs is not disturbed");
    await cluster.api("agent-1").put("kv/still", "here");
    await cluster.stop();

    rmSync(join(here, "state.json"));
    await rejects(
      start(here, addresses),
      oneLine(/server-1\/data was written with other keys than those in .*state\.json: .*--reset$/),
    );
    const [error] = (await once(connect(ports.http, "127.24.1.11"), "error")) as [NodeJS.ErrnoException];
    equal(error.code, "ECONNREFUSED");
  });
});
