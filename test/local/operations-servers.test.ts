import { deepEqual, equal } from "assert/strict";
import { onLoopback } from "../../local/supervisor";
import { Operations } from "./operations";
import { eventually } from "./kube-cluster";

const prefix = "127.51.0";

describe("operations: the number of servers", function () {
  this.timeout(900_000);
  let operations: Operations;

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    operations = await Operations.start(prefix);
  });
  after(() => operations.end());

  it("makes five servers of three, and three of five again", async () => {
    const { cluster, crashes } = operations;
    type Peers = { Servers: { Node: string; Voter: boolean }[] };
    const raft = async () => {
      const { Servers } = await cluster.api("server-1").get<Peers>("operator/raft/configuration");
      return Servers.map(({ Node, Voter }) => `${Node} ${Voter}`).sort();
    };
    const voters = (count: number) => Array.from({ length: count }, (_, i) => `server-${i + 1} true`);
    const servers = (count: number) => ({ "consul:servers": onLoopback(prefix, count)["consul:servers"] ?? "" });
    const order: string[] = [];
    await operations.under(servers(5), (node) => Promise.resolve(void order.push(node)));
    deepEqual(order.slice(0, 5), ["server-1", "server-2", "server-3", "server-4", "server-5"]);
    deepEqual(await raft(), voters(5));

    // As docs/operations.md says: tell autopilot first, then let the servers leave that are too many.
    const autopilot = await cluster.api("server-1").get<object>("operator/autopilot/configuration");
    await cluster.api("server-1").put("operator/autopilot/configuration", { ...autopilot, MinQuorum: 5 });
    for (const name of ["server-4", "server-5"]) {
      await cluster.api(name).put("agent/leave");
      await eventually(`${name} has ended`, () => {
        equal(cluster.pid(name), undefined);
      });
    }
    equal(crashes.splice(0).length, 2);
    await operations.under(servers(3));
    deepEqual(await raft(), voters(3));
  });
});
