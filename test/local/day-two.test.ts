import { deepEqual, equal, match, notEqual, ok, rejects } from "assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { connect, PeerCertificate } from "tls";
import * as pulumi from "@pulumi/pulumi";
import { ports } from "../../consul/config";
import { isNewer } from "../../consul/upgrade";
import { versionOf } from "../../local/consul-binary";
import { Stream } from "../../lab/load";
import { Resolver } from "../../local/dns";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { buildTool } from "../../tools/build";
import { consulOf, eventually } from "./kube-cluster";
import { Rollout } from "./rollout";

const config = onLoopback("127.47.0");

/** Clients that write and look up through the agents all the time, each at an agent that is not being restarted. */
class Load {
  private readonly resolver = new Resolver();
  private readonly acknowledged = new Map<string, string>();
  private readonly times: number[] = [];
  /** Lookups over HTTP that were under way at a server when it stopped, and were asked once more. */
  private again = 0;
  private readonly began = Date.now();
  private readonly streams: Record<"writes" | "lookups" | "dns", Stream>;

  constructor(
    private readonly cluster: Cluster,
    private readonly rollout: Rollout,
  ) {
    this.streams = {
      writes: new Stream(25, async (turn) => {
        const key = `day-two/${this.began}/${turn}`;
        equal(await cluster.api(this.agent(turn)).put(`kv/${key}`, String(turn)), true);
        this.acknowledged.set(key, String(turn));
        this.times.push(Date.now());
      }),
      lookups: new Stream(50, async (turn) => {
        const find = () => cluster.api(this.agent(turn), null).get<object[]>("health/service/web?passing");
        const found = await find().catch((error: unknown) => {
          if (!String(error).includes("rpc error making call")) throw error;
          this.again += 1;
          return find();
        });
        notEqual(found.length, 0, "the service is not there");
      }),
      dns: new Stream(50, async (turn) => {
        const address = cluster.node(this.agent(turn)).address;
        notEqual((await this.resolver.addresses(address, "web.service.consul")).length, 0, "the name is not there");
      }),
    };
  }

  private agent(turn: number): string {
    const running = this.cluster.runningNodes.filter(
      ({ role, name }) => role === "agent" && name !== this.rollout.resting,
    );
    const agents = running.map(({ name }) => name);
    return agents[turn % agents.length] ?? "";
  }

  /**
   * Ends it.
   * @returns one line of what clients saw
   * @throws where a lookup failed, or a write that was acknowledged is not there
   */
  async end(): Promise<string> {
    const { writes, lookups, dns } = this.streams;
    const [written, found, resolved] = [await writes.stop(), await lookups.stop(), await dns.stop()];
    this.resolver.close();
    deepEqual([found.failed, found.error, resolved.failed, resolved.error], [0, "", 0, ""], "lookups that failed");
    // A write that is under way when the leadership moves may be told so; its client tries again.
    ok(written.failed <= 10, JSON.stringify(written));
    // So with a lookup that no agent can answer from memory: one of a thousand, when its server stops at that moment.
    ok(this.again <= 5, `${this.again} lookups over HTTP asked again`);
    type Entry = { Key: string; Value: string };
    const kept = await this.cluster
      .api(await this.cluster.leaderName())
      .get<Entry[]>(`kv/day-two/${this.began}?recurse`);
    const values = new Map(kept.map(({ Key, Value }) => [Key, Buffer.from(Value, "base64").toString()]));
    for (const [key, value] of this.acknowledged) equal(values.get(key), value, `${key} was acknowledged and is lost`);
    const gap = Math.max(...this.times.map((time, i) => time - (this.times[i - 1] ?? time)));
    return [
      `${this.acknowledged.size} writes kept, ${written.failed} to be tried again, longest gap ${(gap / 1000).toFixed(2)} s`,
      `${found.total} lookups over HTTP and ${resolved.total} over DNS, none failed, ${this.again} asked again`,
    ].join("; ");
  }
}

describe("day two, on a cluster of this machine", function () {
  this.timeout(300_000);
  let dir: string;
  let cluster: Cluster;
  let rollout: Rollout;
  /** The version in the settings and a binary of it; the cluster begins with one of a minor version earlier. */
  let wanted: string;
  let consul: string;
  let previous: string;
  const crashes: string[] = [];
  /** What people see: progress and warnings. */
  const said: string[] = [];
  const { info, warn } = pulumi.log;
  before(() => Object.assign(pulumi.log, { info: say, warn: say }));
  after(() => Object.assign(pulumi.log, { info, warn }));
  const say = (line: string) => Promise.resolve(void said.push(line));

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    dir = mkdtempSync(join(tmpdir(), "day-two-"));
    previous = await buildTool("consul-previous", console.error);
    consul = await consulOf("local");
    wanted = await versionOf(consul);
    const onCrash = (reason: string) => void crashes.push(reason);
    const before = { ...config, "consul:version": await versionOf(previous) };
    cluster = await startCluster({ dir: join(dir, "run"), config: before, binary: previous, onCrash });
    rollout = new Rollout(cluster);
    for (const [i, name] of ["agent-1", "agent-2"].entries()) {
      await cluster.api(name).put("agent/service/register", { ID: `web-${i}`, Name: "web", Port: 80 });
    }
    await cluster.until("the service is not there", async () => {
      equal((await cluster.api("agent-3").get<object[]>("health/service/web?passing")).length, 2);
    });
  });
  after(async () => {
    await cluster.stop();
    rmSync(dir, { recursive: true });
    deepEqual(crashes, [], "nodes that ended by themselves");
  });

  /** Applies changed settings under load, and says what it was like. */
  async function under(change: Record<string, string>, beforeEach?: (node: string) => Promise<void>) {
    const load = new Load(cluster, rollout);
    const began = Date.now();
    try {
      await rollout.up(change, beforeEach);
    } catch (error) {
      await load.end();
      throw error;
    }
    const seen = await load.end();
    console.log(`      ${((Date.now() - began) / 1000).toFixed(0)} s; ${seen}`);
  }
  type Keyring = { Keys: Record<string, number>; PrimaryKeys: Record<string, number>; NumNodes: number }[];
  /** The keys of every node. A node that gossip takes for away just then makes it an error: asked again. */
  const keyring = () =>
    eventually("every node says its keys", async () => {
      const [lan] = await cluster.api("server-1").get<Keyring>("operator/keyring");
      ok(lan, "no keyring");
      return lan;
    });
  const agentsTokens = async () => {
    const tokens = await cluster.api("server-1").get<{ AccessorID: string; Description: string }[]>("acl/tokens");
    return tokens.filter(({ Description }) => Description === "Agents").map(({ AccessorID }) => AccessorID);
  };
  /** The certificate that a server shows, checked against what the program says is trusted. */
  const peer = (server: string) =>
    new Promise<PeerCertificate>((resolve, reject) => {
      const to = { host: cluster.node(server).address, port: ports.https, ca: cluster.caCertificate };
      const socket = connect(to, () => {
        resolve(socket.getPeerCertificate());
        socket.destroy();
      });
      socket.on("error", reject);
    });

  it("takes a new version of Consul, one by one, and no older one after that", async () => {
    const versions = async () => {
      const members = await cluster.api("server-1").get<{ Name: string; Tags: { build: string } }[]>("agent/members");
      return members.map(({ Tags }) => Tags.build.replace(/:.*/, ""));
    };
    const old = await versions();
    equal(new Set(old).size, 1);
    ok(isNewer(wanted, old[0] ?? ""), `${wanted} after ${old[0] ?? ""}`);
    cluster.consul = consul;
    await under({ "consul:version": wanted });
    deepEqual(await versions(), Array(6).fill(wanted));
    cluster.consul = previous;
    await rejects(rollout.up({ "consul:version": old[0] ?? "" }), /Consul cannot go back from/);
    cluster.consul = consul;
    await rollout.up({ "consul:version": wanted });
    deepEqual(await versions(), Array(6).fill(wanted));
  });

  it("restarts servers and agents for a changed log level, one by one", async () => {
    const order: string[] = [];
    const leaders: string[] = [];
    await under({ "consul:logLevel": "warn" }, async (node) => {
      order.push(node);
      leaders.push(await cluster.leaderName());
    });
    deepEqual(order, ["server-1", "server-2", "server-3", "agent-1", "agent-2", "agent-3"]);
    for (const name of order.slice(0, 3)) ok(!(cluster.logs(name).split("\n").at(-2) ?? "").includes("[INFO]"));
    equal(await cluster.leaderName(), leaders.at(3));
  });

  const gossip = (generation: number, ...alsoAccepted: number[]) => ({
    "consul:gossip": JSON.stringify({ generation, alsoAccepted }),
  });

  it("replaces the gossip key in three steps, and refuses to leave one out", async () => {
    const servers = () => ["server-1", "server-2", "server-3"].map((name) => cluster.pid(name));
    const before = servers();
    const [old] = Object.keys((await keyring()).Keys);
    await rejects(rollout.up(gossip(2)), /no node knows gossip key 2 yet/);
    await under(gossip(1, 2));
    const both = await keyring();
    deepEqual([Object.values(both.Keys), both.PrimaryKeys], [[6, 6], { [old ?? ""]: 6 }]);
    await rejects(rollout.up(gossip(2)), /the nodes still start with gossip key 1/);
    await under(gossip(2, 1));
    const switched = await keyring();
    deepEqual(Object.values(switched.Keys), [6, 6]);
    ok(!((old ?? "") in switched.PrimaryKeys));
    deepEqual(Object.values(switched.PrimaryKeys), [6]);
    await under(gossip(2));
    const { Keys, PrimaryKeys, NumNodes } = await keyring();
    deepEqual([Keys, NumNodes], [switched.PrimaryKeys, 6]);
    deepEqual(PrimaryKeys, switched.PrimaryKeys);
    deepEqual(servers(), before, "no server was restarted for a key");
  });

  it("goes on with a step that was interrupted, and names a node that was away", async () => {
    await rollout.up(gossip(2, 3));
    const stop = new Error("interrupted");
    const interrupt = (node: string) => (node === "server-3" ? Promise.reject(stop) : Promise.resolve());
    await rejects(rollout.up(gossip(3, 2), interrupt), stop);
    const halfway = await keyring();
    deepEqual([Object.values(halfway.Keys), Object.values(halfway.PrimaryKeys)], [[6, 6], [6]]);

    await cluster.end("agent-3");
    await under({});
    match(said.at(-1) ?? "", /with an earlier gossip key, token or authority: agent-3\. What they need is kept/);

    // It comes back with the new configuration and finds everybody.
    cluster.start("agent-3");
    await cluster.ready();
    await cluster.registered();
    said.length = 0;
    await rollout.up({});
    ok(!said.some((line) => line.includes("earlier gossip key")));
    await rollout.up(gossip(3));
    const { Keys, PrimaryKeys } = await keyring();
    deepEqual([Object.values(Keys), Object.values(PrimaryKeys)], [[6], [6]]);
  });

  it("lets a node back in that was away until the old gossip key was gone", async () => {
    await cluster.end("agent-3");
    await cluster.until("agent-3 is still there", async () => {
      // Once gossip has forgotten it, the leader takes it out of the catalog.
      await cluster
        .api("server-1")
        .put("agent/force-leave/agent-3?prune")
        .catch(() => undefined);
      const nodes = await cluster.api("server-1").get<{ Node: string }[]>("catalog/nodes");
      ok(!nodes.some(({ Node }) => Node === "agent-3"));
    });
    await rollout.up(gossip(3, 4));
    await rollout.up(gossip(4, 3));
    await rollout.up(gossip(4));
    deepEqual(Object.values((await keyring()).Keys), [5]);
    // What the node remembers is the key that is gone.
    const [remembered] = JSON.parse(readFileSync(join(cluster.dir, "agent-3/data/serf/local.keyring"), "utf8")) as [
      string,
    ];
    ok(!(remembered in (await keyring()).Keys));
    cluster.start("agent-3");
    await cluster.ready();
    deepEqual(Object.values((await keyring()).Keys), [6]);
  });

  it("makes five servers of three, and three of five again", async () => {
    type Peers = { Servers: { Node: string; Voter: boolean }[] };
    const raft = async () => {
      const { Servers } = await cluster.api("server-1").get<Peers>("operator/raft/configuration");
      return Servers.map(({ Node, Voter }) => `${Node} ${Voter}`).sort();
    };
    const voters = (count: number) => Array.from({ length: count }, (_, i) => `server-${i + 1} true`);
    const servers = (count: number) => ({ "consul:servers": onLoopback("127.47.0", count)["consul:servers"] ?? "" });
    const order: string[] = [];
    await under(servers(5), (node) => Promise.resolve(void order.push(node)));
    deepEqual(order.slice(0, 5), ["server-1", "server-2", "server-3", "server-4", "server-5"]);
    deepEqual(await raft(), voters(5));

    // docs/operations.md: tell autopilot; those that are to go leave first.
    const autopilot = await cluster.api("server-1").get<object>("operator/autopilot/configuration");
    await cluster.api("server-1").put("operator/autopilot/configuration", { ...autopilot, MinQuorum: 5 });
    for (const name of ["server-4", "server-5"]) {
      await cluster.api(name).put("agent/leave");
      await eventually(`${name} has ended`, () => {
        equal(cluster.pid(name), undefined);
      });
    }
    equal(crashes.splice(0).length, 2);
    await under(servers(3));
    deepEqual(await raft(), voters(3));
  });

  it("replaces the agents' token: the new one first, then the roll, then the old one goes", async () => {
    const [old] = await agentsTokens();
    const oldSecret = cluster.agentToken;
    const during: string[][] = [];
    await under({ "consul:tokens": '{"agentGeneration":2}' }, async (node) => {
      if (node.startsWith("agent")) during.push(await agentsTokens());
    });
    for (const tokens of during) deepEqual([tokens.length, tokens.includes(old ?? "")], [2, true]);
    equal(during.length, 3);
    const now = await agentsTokens();
    deepEqual([now.length, now.includes(old ?? "")], [1, false]);
    notEqual(cluster.agentToken, oldSecret);
    await rejects(cluster.api("server-1", oldSecret).get("catalog/nodes"), /403/);
  });

  it("renews the servers' certificates one by one", async () => {
    const serial = async () =>
      Promise.all(["server-1", "server-2", "server-3"].map(async (s) => (await peer(s)).serialNumber));
    const before = await serial();
    await under({ "consul:certificates": '{"serverDays":366}' });
    for (const [i, now] of (await serial()).entries()) notEqual(now, before[i]);
  });

  it("replaces the certificate authority in three steps, and refuses to leave one out", async () => {
    const issuers = async () =>
      Promise.all(["server-1", "server-2", "server-3"].map(async (s) => (await peer(s)).issuer.CN));
    await rejects(
      rollout.up({ "consul:certificates": '{"caGeneration":2}' }),
      /nobody trusts certificate authority 2 yet/,
    );
    await under({ "consul:certificates": '{"caAlsoTrusted":[2]}' });
    deepEqual(new Set(await issuers()), new Set(["Consul CA 1 local"]));
    await rejects(
      rollout.up({ "consul:certificates": '{"caGeneration":2}' }),
      /still present certificates of authority 1/,
    );
    await under({ "consul:certificates": '{"caGeneration":2,"caAlsoTrusted":[1]}' });
    deepEqual(new Set(await issuers()), new Set(["Consul CA 2 local"]));
    await under({ "consul:certificates": '{"caGeneration":2}' });
    equal(cluster.caCertificate.match(/BEGIN CERTIFICATE/g)?.length, 1);
  });

  it("does not switch to an authority that an agent of another stack does not trust yet", async () => {
    rollout.elsewhere = ["agent-3"];
    await rollout.up({ "consul:certificates": '{"caGeneration":2,"caAlsoTrusted":[3]}' });
    const leader = await cluster.leaderName();
    rollout.waitMinutes = 0.2;
    const switched = '{"caGeneration":3,"caAlsoTrusted":[2]}';
    await rejects(
      rollout.up({ "consul:certificates": switched }),
      /^Error: server-1 is not updated \(userData\) after .*: these nodes do not trust the new authority yet: agent-3\./,
    );
    equal(await cluster.leaderName(), leader);
    rollout.waitMinutes = 3;
    rollout.elsewhere = [];
    await cluster.restart("agent-3");
    await cluster.ready();
    await cluster.registered();
    await rollout.up({ "consul:certificates": switched });
  });

  describe("with something wrong beforehand, touches no server", () => {
    before(() => (rollout.waitMinutes = 0.2));
    after(() => (rollout.waitMinutes = 3));
    const pids = () => ["server-1", "server-2", "server-3"].map((name) => cluster.pid(name));

    it("a server that is stopped", async () => {
      await cluster.kill("server-2");
      const before = pids();
      await rejects(
        rollout.up({ "consul:logLevel": "info" }),
        /server-1 is not updated \(userData\): server-2 \(i-server-2\) is Stopped: start it with `aliyun ecs StartInstance --InstanceId i-server-2`/,
      );
      deepEqual(pids(), before);
      cluster.start("server-2");
    });

    it("a server that is paused", async () => {
      cluster.pause("server-3");
      const before = pids();
      await rejects(
        rollout.up({}),
        /server-1 is not updated \(userData\) after .*: server-3 runs, but its Consul does not answer/,
      );
      deepEqual(pids(), before);
      cluster.resume("server-3");
    });

    it("and goes on once that is put right", async () => {
      rollout.waitMinutes = 3;
      await under({});
    });
  });
});
