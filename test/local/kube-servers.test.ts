import assert from "assert/strict";
import { serverSet } from "../../consul/pod/pod";
import { runProgram, stackConfig } from "../../local/program";
import { apiName, clusterProviders, consulOf, eventually, namespace, Servers, Wanted, Writer } from "./kube-cluster";
import { Finished, Pod, podsUnavailable, World } from "./pods";

// The pods of Pulumi.dev.yaml as the program describes them, started as a kubelet starts them, with keys, certificates and
// tokens as the real providers make them. Each test goes on from where the one before left the cluster.

describe("servers in the cluster, started as a kubelet starts them", function () {
  this.timeout("5m");
  const backing = clusterProviders();
  const config = stackConfig("dev");
  let world: World;
  let wanted: Wanted;
  let servers: Servers;
  let agents: Pod[];
  let writer: Writer;

  const describeWith = async (settings: Readonly<Record<string, string>> = {}) =>
    new Wanted(await runProgram("dev", { ...config, ...settings }, backing));
  const token = () => wanted.output("managementToken");
  const say = (line: string) => console.log(`      ${line}`);
  const ok = ({ code, output }: Finished) => {
    assert.equal(code, 0, output);
    return output;
  };

  before(async function () {
    this.timeout("40m"); // a first build of Consul and CoreDNS
    const reason = await podsUnavailable();
    if (reason !== undefined) {
      console.error(`skipped: ${reason}`);
      return this.skip();
    }
    const consul = await consulOf("dev");
    wanted = await describeWith();
    world = await World.start(consul, [apiName]);
    for (const n of [0, 1, 2, 3, 4]) await world.addNode(`node-${n}`);
    servers = new Servers(world, wanted);
  });

  after(async () => {
    await (world as World | undefined)?.stop();
  });

  it("become a cluster when all three start at once", async () => {
    assert.match(ok(await servers.job("roll")), /no server answers, nothing to be careful with/);
    await Promise.all(servers.ordinals.map((ordinal) => servers.start(ordinal)));
    const seconds = await servers.ready(servers.ordinals);
    say(`ready after ${seconds.toFixed(1)} s`);
    const peers = await servers.consul(0, "operator", "raft", "list-peers");
    assert.equal(peers.match(/consul-server-\d .* true /g)?.length, 3, peers);
  });

  it("get their policies and tokens from the Job, as often as it runs", async () => {
    for (const run of [1, 2]) {
      assert.match(ok(await servers.job("acl")), /policies and tokens are in place/, `run ${run}`);
    }
    const tokens = await servers.consul(0, "acl", "token", "list");
    for (const what of ["Agents", ...servers.ordinals.map((n) => `Server ${serverSet}-${n}`)]) {
      assert.match(tokens, new RegExp(`Description: +${what}\n`));
    }
    // The servers register themselves with tokens of their own: none of them is turned away any more.
    await eventually("the servers are in the catalog", async () => {
      const nodes = await servers.consul(0, "catalog", "nodes", "-service=consul");
      assert.equal(nodes.match(/consul-server-\d/g)?.length, 3, nodes);
    });
  });

  it("are joined by agents on the same cluster without any setting", async () => {
    agents = await Promise.all(["agent-0", "agent-3"].map(startAgent));
    await eventually("the agents are ready", async () => {
      for (const agent of agents) assert.ok(await agent.isReady(), agent.log().slice(-1000));
    });
    await eventually("all are alive", async () => {
      const members = await servers.consul(0, "members");
      assert.equal(members.match(/ alive /g)?.length, 5, members);
    });
  });

  it("are the ones that the outputs speak of", async () => {
    const agent = agents[1];
    assert.ok(agent);
    const ca = "/consul/config/ca.pem";
    assert.equal(ok(await agent.exec(["cat", ca])), wanted.output("caCertificate"));
    const get = async (url: string) => ok(await agent.exec(["curl", "-sS", "--cacert", ca, `${url}/v1/status/leader`]));
    const urls = wanted.outputList("serverUrls");
    assert.equal(urls.length, 3);
    for (const url of [...urls, `https://consul-api.${namespace}.svc:8501`]) {
      assert.match(await get(url), /^"10\..*:8300"$/);
    }
    assert.deepEqual(wanted.outputList("serverNames"), ["consul-server-0", "consul-server-1", "consul-server-2"]);
  });

  it("have nothing in their containers that is not theirs", async () => {
    const pod = servers.get(1);
    assert.equal(ok(await pod.exec(["id", "-u"])), "100\n");
    assert.equal(ok(await pod.exec(["sh", "-c", "grep CapBnd /proc/self/status"])).trim(), "CapBnd:\t0000000000000000");
    assert.equal(ok(await pod.exec(["sh", "-c", "cat /proc/1/comm"])), "consul\n", "SIGTERM reaches Consul itself");
    const files = ok(await pod.exec(["sh", "-c", "cd /consul/secrets && stat -c '%n %a %g' *"]))
      .trim()
      .split("\n");
    assert.deepEqual(files, [
      "gossip.keyring 440 1000",
      "management-token 440 1000",
      "secrets.json 440 1000",
      "server-key.pem 440 1000",
      "server.pem 440 1000",
    ]);
    const certificate = ok(
      await pod.exec(["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", "/consul/secrets/server.pem"]),
    );
    assert.match(certificate, /DNS:consul-server-1\.consul-server\.consul\.svc,/);
    assert.doesNotMatch(certificate, /consul-server-[02]/);
    for (const path of ["/consul/config/x", "/consul/secrets/x", "/x", "/usr/x"]) {
      assert.notEqual((await pod.exec(["touch", path])).code, 0, path);
    }
    const { output } = await pod.exec(["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"]);
    for (const secret of [token(), wanted.output("gossipKey")]) assert.ok(!output.includes(secret));
  });

  it("give snapshots, although their root file system is read-only", async () => {
    assert.match(await servers.consul(1, "snapshot", "save", "/tmp/test.snap"), /Saved and verified snapshot/);
  });

  it("are not ready while they are strangers to raft or see no leader", async () => {
    const pod = servers.get(0);
    const ready = async (address: string, api = "http://127.0.0.1:8500") =>
      (await pod.exec(["env", `CONSUL_HTTP_ADDR=${api}`, "sh", "/consul/config/ready.sh", address])).code;
    assert.equal(await ready(pod.address), 0);
    assert.notEqual(await ready("10.244.9.9"), 0, "another address");
    assert.notEqual(await ready(pod.address, "http://127.0.0.1:1"), 0, "nobody listens");
  });

  it("go one after another under load: leadership handed over, nothing lost, one with another address", async function () {
    this.timeout("5m");
    writer = new Writer(world, agents[1]?.address ?? "", token());
    await eventually("writes succeed", () => assert.ok(writer.acknowledged.length > 10));
    const since = Date.now();
    // A changed setting: new names of ConfigMap and Secret, a new pod from the old data.
    servers.wanted = wanted = await describeWith({ "consul:logLevel": "info" });
    assert.match(ok(await servers.job("roll")), /all servers are healthy voters/);
    await servers.roll((ordinal) => ordinal !== 1, say);
    const gap = writer.longestGap(since);
    say(`${writer.acknowledged.length} writes, ${writer.errors} errors, longest gap ${gap.toFixed(2)} s`);
    assert.ok(gap < 2, `longest gap ${gap} s`);
    await allWritten();
  });

  it("are not changed while one is missing, and hold back a stop that comes all the same", async () => {
    const missing = (await servers.leader()) === 2 ? 1 : 2;
    const address = servers.get(missing).address;
    await servers.stop(missing, "kill");
    const pod = servers.get(await servers.leader());
    const stop = (seconds: number) =>
      pod.exec(["env", `BEFORE_STOP_DEADLINE=${seconds}`, "sh", "/consul/config/before-stop.sh", pod.address]);
    await eventually("autopilot has noticed", async () => {
      const { output } = await pod.exec(["sh", "-c", "consul members; consul operator autopilot state"]);
      assert.match(output, / failed [^]*Failure Tolerance: +0/);
    });
    const since = Date.now();
    assert.match((await stop(5)).output, /this server stops although another one is missing/);
    assert.ok(Date.now() - since >= 4000);
    // Nor does `up` touch anything then, unless it is told that this is the repair.
    const refused = await servers.job("roll", { "600": "5" });
    assert.equal(refused.code, 1);
    assert.match(
      refused.output,
      new RegExp(`the servers were NOT changed: ${serverSet}-${missing} is not a healthy voter`),
    );
    assert.match(ok(await servers.job("roll", { "600": "5", none: `${serverSet}-${missing}` })), /all servers are/);
    await servers.start(missing, address);
    await servers.ready([missing]);
    assert.equal((await stop(30)).output, "", "all are there again");
  });

  it("change the gossip key and the agents' token under load, and then the old ones are worth nothing", async function () {
    this.timeout("15m");
    const since = Date.now();
    const [oldKey, oldToken] = [wanted.output("gossipKey"), wanted.output("agentToken")];
    const step = async (generation: number, ...alsoAccepted: number[]) => {
      servers.wanted = wanted = await describeWith({
        "consul:gossip": JSON.stringify({ generation, alsoAccepted }),
        "consul:tokens": JSON.stringify({ agentGeneration: 2 }),
      });
    };
    const rollServers = async () => {
      ok(await servers.job("roll"));
      await servers.roll(() => true);
      ok(await servers.job("acl"));
    };
    const rollAgents = async () => {
      for (const [i, agent] of agents.entries()) {
        await agent.delete();
        agents[i] = await startAgent(agent.name);
        await eventually("the agent is ready", async () => assert.ok(await agents[i]?.isReady()));
      }
    };
    await step(1, 2);
    assert.equal(wanted.output("gossipKey"), oldKey);
    await rollServers();
    // An agent that has not been updated yet keeps its key and its token.
    const early = await servers.job("retire", { "300": "3" });
    assert.equal(early.code, 1);
    assert.match(early.output, /What they need is kept/);
    await step(2, 1);
    assert.notEqual(wanted.output("gossipKey"), oldKey);
    const refused = await servers.job("roll");
    assert.equal(refused.code, 1);
    const [late] = /nothing is switched, .* yet: [^.]*/.exec(refused.output) ?? [refused.output];
    for (const { name } of agents) assert.ok(late.includes(name), late);
    assert.ok((await servers.consul(0, "keyring", "-list-primary")).includes(oldKey));
    await step(1, 2);
    await rollAgents();
    for (const next of [() => step(2, 1), () => step(2)]) {
      await next();
      await rollServers();
      await rollAgents();
    }
    ok(await servers.job("retire"));
    const keys = await servers.consul(0, "keyring", "-list");
    assert.ok(!keys.includes(oldKey), keys);
    assert.ok(keys.includes(wanted.output("gossipKey")));
    const used = await servers
      .get(0)
      .exec([
        "env",
        "-u",
        "CONSUL_HTTP_TOKEN_FILE",
        `CONSUL_HTTP_TOKEN=${oldToken}`,
        "consul",
        "acl",
        "token",
        "read",
        "-self",
      ]);
    assert.match(used.output, /ACL not found/);
    say(`longest gap ${writer.longestGap(since).toFixed(2)} s`);
    await allWritten();
  });

  it("become five under load, and three again", async function () {
    this.timeout("5m");
    const since = Date.now();
    const three = wanted;
    const gossip = { "consul:gossip": JSON.stringify({ generation: 2 }) };
    const tokens = { "consul:tokens": JSON.stringify({ agentGeneration: 2 }) };
    const given = JSON.parse(config["consul:servers"] ?? "{}") as object;
    const five = await describeWith({ ...gossip, ...tokens, "consul:servers": JSON.stringify({ ...given, count: 5 }) });
    servers.wanted = wanted = five;
    ok(await servers.job("roll"));
    await Promise.all([3, 4].map((ordinal) => servers.start(ordinal)));
    await servers.ready([3, 4]);
    await servers.roll((ordinal) => ordinal < 3, undefined, [2, 1, 0]);
    ok(await servers.job("acl"));
    await eventually("five can spare two", async () => {
      assert.match(await servers.consul(0, "operator", "autopilot", "state"), /Failure Tolerance: +2/);
    });
    assert.match(await servers.consul(0, "operator", "autopilot", "get-config"), /MinQuorum = 5/);

    servers.wanted = wanted = three;
    ok(await servers.job("roll"));
    // The controller takes away what is too many, and the next one for its new revision, at once.
    await Promise.all([servers.stop(3, "delete"), servers.stop(4, "delete"), servers.roll(() => true)]);
    const peers = await servers.consul(0, "operator", "raft", "list-peers");
    assert.equal(peers.match(/consul-server-\d .* true /g)?.length, 3, peers);
    assert.doesNotMatch(peers, /consul-server-[34]/);
    assert.doesNotMatch(await servers.consul(0, "members"), /^consul-server-[34] .* (alive|failed) /m);
    // As a rule half a second. Now and then one write hangs until its client gives it up, after ten.
    say(`longest gap ${writer.longestGap(since).toFixed(2)} s`);
    await allWritten();
  });

  it("come back by themselves when all have lost power and get other addresses", async function () {
    this.timeout("5m");
    const since = Date.now();
    await Promise.all(servers.ordinals.map((ordinal) => servers.stop(ordinal, "kill")));
    await Promise.all(servers.ordinals.map((ordinal) => servers.start(ordinal)));
    const seconds = await servers.ready(servers.ordinals, 180);
    await eventually("writes succeed again", () =>
      assert.ok((writer.acknowledged.at(-1)?.at ?? 0) > since + seconds * 1000),
    );
    say(`ready after ${seconds.toFixed(1)} s, longest gap ${writer.longestGap(since).toFixed(1)} s`);
    await eventually("the agents find them again", async () => {
      for (const agent of agents) assert.ok(await agent.isReady());
      const members = await servers.consul(0, "members");
      assert.equal(members.match(/ alive /g)?.length, 5, members);
    });
    await allWritten();
  });

  function startAgent(name: string) {
    const { agent, objects } = wanted;
    return world.startPod({ name, namespace, spec: agent, objects, node: name.replace("agent", "node") });
  }

  /** Every write that was acknowledged is there. */
  async function allWritten() {
    const { acknowledged } = writer;
    const known = acknowledged.slice();
    const keys = new Set((await servers.consul(0, "kv", "get", "-keys", "-separator=", "written/")).trim().split("\n"));
    assert.deepEqual(
      known.filter(({ key }) => !keys.has(key)),
      [],
    );
  }
});
