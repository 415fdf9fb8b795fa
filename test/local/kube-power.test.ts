import assert from "assert/strict";
import { serverSet } from "../../consul/pod/pod";
import { DevCluster, eventually, skipWithoutPods, succeeded } from "./kube-cluster";

describe("servers in the cluster that lose power", function () {
  this.timeout(900_000);
  let dev: DevCluster;
  const say = (line: string) => console.log(`      ${line}`);

  before(async function () {
    this.timeout("40m"); // a first build of Consul and CoreDNS
    await skipWithoutPods(this);
    dev = await DevCluster.create();
    await dev.start();
  });

  after(async () => {
    await (dev as DevCluster | undefined)?.world.stop();
  });

  it("come back by themselves when all have lost power and get other addresses", async () => {
    const { servers, agents } = dev;
    const writer = await dev.writer();
    const since = Date.now();
    await Promise.all(servers.ordinals.map((ordinal) => servers.stop(ordinal, "kill")));
    // `up` changes nothing while none answers, unless it is told that this is the repair of all.
    const refused = await servers.job("roll", { "600": "1" });
    assert.equal(refused.code, 1);
    assert.match(refused.output, /the servers were NOT changed: no server answers/);
    const all = servers.ordinals.map((ordinal) => `${serverSet}-${ordinal}`).join(",");
    assert.match(succeeded(await servers.job("roll", { none: all })), /gate\.skip names every server/);
    await Promise.all(servers.ordinals.map((ordinal) => servers.start(ordinal)));
    const seconds = await servers.ready(servers.ordinals);
    await eventually("writes succeed again", () =>
      assert.ok((writer.acknowledged.at(-1)?.at ?? 0) > since + seconds * 1000),
    );
    say(`ready after ${seconds.toFixed(1)} s, longest gap ${writer.longestGap(since).toFixed(1)} s`);
    await eventually("the agents find them again", async () => {
      for (const agent of agents) assert.ok(await agent.isReady());
      const members = await servers.consul(0, "members");
      assert.equal(members.match(/ alive /g)?.length, 5, members);
    });
    await dev.assertWritten(writer);
  });
});
