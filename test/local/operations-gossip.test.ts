import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { readFileSync } from "fs";
import { join } from "path";
import { keyring } from "../../lab/trust";
import { Operations } from "./operations";

describe("operations: the gossip key", function () {
  this.timeout(900_000);
  let operations: Operations;

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    operations = await Operations.start("127.50.0");
  });
  after(() => operations.end());

  const gossip = (generation: number, ...alsoAccepted: number[]) => ({
    "consul:gossip": JSON.stringify({ generation, alsoAccepted }),
  });

  it("is the only one again after a step that was given up half-way", async () => {
    const { cluster, rollout } = operations;
    const [old] = Object.keys((await keyring(cluster)).Keys);
    const stop = new Error("interrupted");
    const interrupt = (node: string) => (node === "server-2" ? Promise.reject(stop) : Promise.resolve());
    await rejects(rollout.up(gossip(1, 2), interrupt), stop);
    deepEqual(Object.values((await keyring(cluster)).Keys), [6, 6]);
    await rollout.up(gossip(1));
    deepEqual((await keyring(cluster)).Keys, { [old ?? ""]: 6 });
  });

  /** A first step that is killed when it has called the cloud in some way, before any server's tag says so. */
  async function killedAfter(call: "run" | "storeUserData", change: Record<string, string>): Promise<void> {
    const { rollout } = operations;
    const killed = new Error("killed");
    rollout.way = (cloud) => ({
      machines: (...args) => cloud.machines(...args),
      power: (...args) => cloud.power(...args),
      storeUserData: async (...args) => {
        await cloud.storeUserData(...args);
        if (call === "storeUserData") throw killed;
      },
      run: async (ids, command, ...args) => {
        const outcomes = await cloud.run(ids, command, ...args);
        if (call === "run" && command[0]?.script === "machine/apply.sh") throw killed;
        return outcomes;
      },
    });
    await rejects(rollout.up(change), killed);
    rollout.way = (cloud) => cloud;
  }

  it("is the only one again after a first step that was killed before any tag, and reverted; so is the agents' token", async () => {
    const { cluster, rollout } = operations;
    const [old] = Object.keys((await keyring(cluster)).Keys);
    await killedAfter("storeUserData", gossip(1, 2));
    deepEqual(Object.values((await keyring(cluster)).Keys), [6, 6]);
    await rollout.up(gossip(1));
    deepEqual((await keyring(cluster)).Keys, { [old ?? ""]: 6 });

    const agents = async () => {
      const tokens = await cluster.api("server-1").get<{ Description: string; AccessorID: string }[]>("acl/tokens");
      return tokens.filter(({ Description }) => Description.startsWith("Agents ")).map(({ AccessorID }) => AccessorID);
    };
    const before = await agents();
    await killedAfter("run", { "consul:tokens": '{"agentGeneration":2}' });
    equal((await agents()).length, 2);
    await rollout.up({ "consul:tokens": '{"agentGeneration":1}' });
    deepEqual(await agents(), before);
    deepEqual([before.length, operations.said.some((line) => line.includes("earlier gossip key"))], [1, false]);
  });

  it("is replaced in three steps, none of which may be left out", async () => {
    const { cluster, rollout } = operations;
    const servers = () => ["server-1", "server-2", "server-3"].map((name) => cluster.pid(name));
    const before = servers();
    const [old] = Object.keys((await keyring(cluster)).Keys);
    await rejects(rollout.up(gossip(2)), /no node knows gossip key 2 yet/);
    await operations.under(gossip(1, 2));
    const both = await keyring(cluster);
    deepEqual([Object.values(both.Keys), both.PrimaryKeys], [[6, 6], { [old ?? ""]: 6 }]);
    await rejects(rollout.up(gossip(2)), /the nodes still start with gossip key 1/);
    await operations.under(gossip(2, 1));
    const switched = await keyring(cluster);
    deepEqual(Object.values(switched.Keys), [6, 6]);
    ok(!((old ?? "") in switched.PrimaryKeys));
    deepEqual(Object.values(switched.PrimaryKeys), [6]);
    await operations.under(gossip(2));
    const { Keys, PrimaryKeys, NumNodes } = await keyring(cluster);
    deepEqual([Keys, NumNodes], [switched.PrimaryKeys, 6]);
    deepEqual(PrimaryKeys, switched.PrimaryKeys);
    deepEqual(servers(), before, "no server was restarted for a key");
  });

  it("goes on with a step that was interrupted, and names a node that was away", async () => {
    const { cluster, rollout, said } = operations;
    const stop = new Error("interrupted");
    const interrupt = (node: string) => (node === "server-3" ? Promise.reject(stop) : Promise.resolve());
    await rollout.up(gossip(2, 3));
    await rejects(rollout.up(gossip(3, 2), interrupt), stop);
    const halfway = await keyring(cluster);
    deepEqual([Object.values(halfway.Keys), Object.values(halfway.PrimaryKeys)], [[6, 6], [6]]);

    await cluster.end("agent-3");
    await operations.under({});
    match(said.at(-1) ?? "", /with an earlier gossip key, token or authority: agent-3\. What they need is kept/);

    // It comes back with the new configuration and finds everybody.
    cluster.start("agent-3");
    await cluster.ready();
    await cluster.registered();
    said.length = 0;
    await rollout.up({});
    await rollout.up(gossip(3));
    ok(!said.some((line) => line.includes("earlier gossip key")));
    const { Keys, PrimaryKeys } = await keyring(cluster);
    deepEqual([Object.values(Keys), Object.values(PrimaryKeys)], [[6], [6]]);
  });

  it("lets a node back in that was away until the old gossip key was gone", async () => {
    const { cluster, rollout } = operations;
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
    deepEqual(Object.values((await keyring(cluster)).Keys), [5]);
    // What the node remembers is the key that is gone.
    const remembers = readFileSync(join(cluster.dir, "agent-3/data/serf/local.keyring"), "utf8");
    const [remembered] = JSON.parse(remembers) as [string];
    ok(!(remembered in (await keyring(cluster)).Keys));
    cluster.start("agent-3");
    await cluster.ready();
    deepEqual(Object.values((await keyring(cluster)).Keys), [6]);
  });
});
