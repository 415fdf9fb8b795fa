import assert from "assert/strict";
import { serverSet } from "../../consul/pod/pod";
import { stackConfig } from "../../local/program";
import { DevCluster, eventually, skipWithoutPods, succeeded, Writer } from "./kube-cluster";

// Each test goes on from where the one before left the cluster.

describe("servers in the cluster that are changed", function () {
  this.timeout(900_000);
  let dev: DevCluster;
  let writer: Writer;
  const secondKeys = {
    "consul:gossip": JSON.stringify({ generation: 2 }),
    "consul:tokens": JSON.stringify({ agentGeneration: 2 }),
  };
  const say = (line: string) => console.log(`      ${line}`);

  before(async function () {
    this.timeout("40m"); // a first build of Consul and CoreDNS
    await skipWithoutPods(this);
    dev = await DevCluster.create();
    await dev.start();
    writer = await dev.writer();
  });

  after(async () => {
    await (dev as DevCluster | undefined)?.world.stop();
  });

  it("are not changed while one is missing, and hold back a stop that comes all the same", async () => {
    const { servers } = dev;
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
    await eventually("the missing one alone is named", async () => {
      const refused = await servers.job("roll", { "600": "5" });
      assert.equal(refused.code, 1);
      assert.match(
        refused.output,
        new RegExp(`the servers were NOT changed: ${serverSet}-${missing} is not a healthy voter`),
      );
    });
    assert.match(succeeded(await servers.job("roll", { none: `${serverSet}-${missing}` })), /all servers are/);
    await servers.start(missing, address);
    await servers.ready([missing]);
    assert.equal((await stop(30)).output, "", "all are there again");
  });

  it("change the gossip key and the agents' token under load, and then the old ones are worth nothing", async () => {
    const { servers, agents } = dev;
    const since = Date.now();
    const [oldKey, oldToken] = [dev.wanted.output("gossipKey"), dev.wanted.output("agentToken")];
    const step = (generation: number, ...alsoAccepted: number[]) =>
      dev.want({
        "consul:gossip": JSON.stringify({ generation, alsoAccepted }),
        "consul:tokens": JSON.stringify({ agentGeneration: 2 }),
      });
    const rollServers = async () => {
      succeeded(await servers.job("roll"));
      await servers.roll(() => true);
      succeeded(await servers.job("acl"));
    };
    const rollAgents = async () => {
      for (const [i, agent] of agents.entries()) {
        await agent.delete();
        agents[i] = await dev.startAgent(agent.name);
        await eventually("the agent is ready", async () => assert.ok(await agents[i]?.isReady()));
      }
    };
    await step(1, 2);
    assert.equal(dev.wanted.output("gossipKey"), oldKey);
    await rollServers();
    // An agent that has not been updated yet keeps its key and its token.
    const early = await servers.job("retire", { "300": "3" });
    assert.equal(early.code, 1);
    assert.match(early.output, /What they need is kept/);
    await step(2, 1);
    assert.notEqual(dev.wanted.output("gossipKey"), oldKey);
    const refused = await servers.job("roll");
    assert.equal(refused.code, 1);
    assert.match(refused.output, /nothing is switched, these nodes do not .* yet: node-\d,node-\d\. Run `pulumi up`/);
    assert.ok((await servers.consul(0, "keyring", "-list-primary")).includes(oldKey));
    await step(1, 2);
    await rollAgents();
    for (const next of [() => step(2, 1), () => step(2)]) {
      await next();
      await rollServers();
      await rollAgents();
    }
    succeeded(await servers.job("retire"));
    const keys = await servers.consul(0, "keyring", "-list");
    assert.ok(!keys.includes(oldKey), keys);
    assert.ok(keys.includes(dev.wanted.output("gossipKey")));
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
    await dev.assertWritten(writer);
  });

  it("become five under load, and three again", async () => {
    const { servers } = dev;
    const since = Date.now();
    const three = dev.wanted;
    const given = JSON.parse(stackConfig("dev")["consul:servers"] ?? "{}") as object;
    await dev.want({ ...secondKeys, "consul:servers": JSON.stringify({ ...given, count: 5 }) });
    succeeded(await servers.job("roll"));
    await Promise.all([3, 4].map((ordinal) => servers.start(ordinal)));
    await servers.ready([3, 4]);
    await servers.roll((ordinal) => ordinal < 3, undefined, [2, 1, 0]);
    succeeded(await servers.job("acl"));
    await eventually("five can spare two", async () => {
      assert.match(await servers.consul(0, "operator", "autopilot", "state"), /Failure Tolerance: +2/);
    });
    assert.match(await servers.consul(0, "operator", "autopilot", "get-config"), /MinQuorum = 5/);

    servers.wanted = three;
    succeeded(await servers.job("roll"));
    // The controller takes away what is too many, and the next one for its new revision, at once.
    await Promise.all([servers.stop(3, "delete"), servers.stop(4, "delete"), servers.roll(() => true)]);
    const peers = await servers.consul(0, "operator", "raft", "list-peers");
    assert.equal(peers.match(/consul-server-\d .* true /g)?.length, 3, peers);
    assert.doesNotMatch(peers, /consul-server-[34]/);
    // The tokens of those that are gone go with them.
    const said = succeeded(await servers.job("acl"));
    assert.deepEqual(said.match(/revoked token Server consul-server-\d/g)?.sort(), [
      "revoked token Server consul-server-3",
      "revoked token Server consul-server-4",
    ]);
    assert.doesNotMatch(await servers.consul(0, "members"), /^consul-server-[34] .* (alive|failed) /m);
    // As a rule half a second. Now and then one write hangs until its client gives it up, after ten.
    say(`longest gap ${writer.longestGap(since).toFixed(2)} s`);
    await dev.assertWritten(writer);
  });
});
