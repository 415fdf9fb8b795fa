import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { DayTwo, keyring } from "./day-two";

describe("day two: the gossip key", function () {
  this.timeout(900_000);
  let day: DayTwo;

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    day = await DayTwo.start("127.50.0");
  });
  after(() => day.end());

  it("rotates the gossip key in one go", async () => {
    const { cluster } = day;
    const before = Object.keys((await keyring(cluster)).Keys);
    await day.under({ "consul:gossip": '{"generation":2}' });
    const { Keys, PrimaryKeys, NumNodes } = await keyring(cluster);
    equal(Object.keys(Keys).length, 1);
    ok(!before.includes(Object.keys(Keys)[0] ?? ""));
    deepEqual([Object.values(PrimaryKeys), NumNodes], [[6], 6]);
  });

  it("goes on with a rotation that was interrupted, and names a node that was away", async () => {
    const { cluster, rollout, said } = day;
    const stop = new Error("interrupted");
    const interrupt = (node: string) => (node === "server-3" ? Promise.reject(stop) : Promise.resolve());
    await rejects(rollout.up({ "consul:gossip": '{"generation":3}' }, interrupt), stop);
    // Two servers have the new key alone, the other nodes both: everybody encrypts with the new one.
    const halfway = await keyring(cluster);
    deepEqual(Object.values(halfway.Keys).sort(), [4, 6]);
    deepEqual(Object.values(halfway.PrimaryKeys), [6]);

    await cluster.end("agent-3");
    await day.under({});
    match(said.at(-1) ?? "", /with an earlier gossip key, token or authority: agent-3\. What they need is kept/);

    // It comes back with the new configuration and finds everybody.
    cluster.start("agent-3");
    await cluster.ready();
    await cluster.registered();
    said.length = 0;
    await rollout.up({});
    ok(!said.some((line) => line.includes("earlier gossip key")));
    const { Keys, PrimaryKeys } = await keyring(cluster);
    deepEqual([Object.values(Keys), Object.values(PrimaryKeys)], [[6], [6]]);
  });

  it("lets a node back in that was away until the old gossip key was gone", async () => {
    const { cluster, rollout } = day;
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
    await rollout.up({ "consul:gossip": '{"generation":4}' });
    deepEqual(Object.values((await keyring(cluster)).Keys), [5]);
    cluster.start("agent-3");
    await cluster.ready();
    deepEqual(Object.values((await keyring(cluster)).Keys), [6]);
  });
});
