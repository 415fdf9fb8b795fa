import { deepEqual, equal, notEqual, rejects } from "assert/strict";
import { certificateOf } from "../../lab/trust";
import { Operations } from "./operations";

describe("operations: the agents' token, certificates, and agents of another stack", function () {
  this.timeout(900_000);
  let operations: Operations;

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    operations = await Operations.start("127.52.0");
  });
  after(() => operations.end());

  const agentsTokens = async () => {
    const tokens = await operations.cluster
      .api("server-1")
      .get<{ AccessorID: string; Description: string }[]>("acl/tokens");
    return tokens
      .filter(({ Description }) => Description === "Agents [consul-alicloud:agents]")
      .map(({ AccessorID }) => AccessorID);
  };

  it("replaces the agents' token: the new one first, then the roll, then the old one goes", async () => {
    const { cluster } = operations;
    const [old] = await agentsTokens();
    const oldSecret = cluster.agentToken;
    const during: string[][] = [];
    await operations.under({ "consul:tokens": '{"agentGeneration":2}' }, async (node) => {
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
    const { cluster } = operations;
    const serial = async () =>
      Promise.all(
        ["server-1", "server-2", "server-3"].map(async (s) => (await certificateOf(cluster, s)).serialNumber),
      );
    const before = await serial();
    await operations.under({ "consul:certificates": '{"serverDays":366}' });
    for (const [i, now] of (await serial()).entries()) notEqual(now, before[i]);
  });

  it("does not switch to an authority that an agent of another stack does not trust yet", async () => {
    const { cluster, rollout } = operations;
    rollout.elsewhere = ["agent-3"];
    await rollout.up({ "consul:certificates": '{"caGeneration":1,"caAlsoTrusted":[2]}' });
    const leader = await cluster.leaderName();
    rollout.waitMinutes = 0.2;
    const switched = '{"caGeneration":2,"caAlsoTrusted":[1]}';
    await rejects(
      rollout.up({ "consul:certificates": switched }),
      /^Error: server-1 is not updated \(configuration\) after .*:\n +these nodes do not trust the new authority yet: agent-3$/m,
    );
    equal(await cluster.leaderName(), leader);
    rollout.waitMinutes = 3;
    rollout.elsewhere = [];
    await cluster.restart("agent-3");
    await cluster.ready();
    await cluster.registered();
    await rollout.up({ "consul:certificates": switched });
  });
});
