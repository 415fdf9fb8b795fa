import { deepEqual, equal, ok, rejects } from "assert/strict";
import { isNewer } from "../../consul/releases";
import { versionOf } from "../../local/consul-binary";
import { buildTool } from "../../tools/build";
import { Operations } from "./operations";
import { consulOf } from "./kube-cluster";

describe("operations: a new version, another setting, and something wrong beforehand", function () {
  this.timeout(900_000);
  let operations: Operations;
  /** The version in the settings and a binary of it; the cluster begins with one of a minor version earlier. */
  let wanted: string;
  let consul: string;
  let previous: string;

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    previous = await buildTool("consul-previous", console.error);
    consul = await consulOf("local");
    wanted = await versionOf(consul);
    const config = { "consul:version": await versionOf(previous) };
    operations = await Operations.start("127.47.0", { config, binary: previous });
  });
  after(() => operations.end());

  it("takes a new version of Consul, one by one, and no older one after that", async () => {
    const { cluster, rollout } = operations;
    const versions = async () => {
      const members = await cluster.api("server-1").get<{ Name: string; Tags: { build: string } }[]>("agent/members");
      return members.map(({ Tags }) => Tags.build.replace(/:.*/, ""));
    };
    const old = await versions();
    equal(new Set(old).size, 1);
    ok(isNewer(wanted, old[0] ?? ""), `${wanted} after ${old[0] ?? ""}`);
    cluster.consul = consul;
    await operations.under({ "consul:version": wanted });
    deepEqual(await versions(), Array(6).fill(wanted));
    cluster.consul = previous;
    await rejects(rollout.up({ "consul:version": old[0] ?? "" }), /Consul cannot go back from/);
    cluster.consul = consul;
    await rollout.up({ "consul:version": wanted });
    deepEqual(await versions(), Array(6).fill(wanted));
  });

  it("reloads servers and restarts agents for a changed log level, one by one", async () => {
    const { cluster } = operations;
    const order: string[] = [];
    const leaders: string[] = [];
    await operations.under({ "consul:logLevel": "warn" }, async (node) => {
      order.push(node);
      leaders.push(await cluster.leaderName());
    });
    deepEqual(order, ["server-1", "server-2", "server-3", "agent-1", "agent-2", "agent-3"]);
    for (const name of order.slice(0, 3)) ok(!(cluster.logs(name).split("\n").at(-2) ?? "").includes("[INFO]"));
    equal(await cluster.leaderName(), leaders.at(3));
  });

  describe("with something wrong beforehand, touches no server", () => {
    before(() => (operations.rollout.waitMinutes = 0.2));
    after(() => (operations.rollout.waitMinutes = 3));
    const pids = () => ["server-1", "server-2", "server-3"].map((name) => operations.cluster.pid(name));

    it("a server that is stopped", async () => {
      const { cluster, rollout } = operations;
      await cluster.kill("server-2");
      const before = pids();
      await rejects(
        rollout.up({ "consul:telemetryRetention": "400s" }), // this takes a restart: a reload asks nobody
        /server-1 is not updated \(configuration\):\n {2}server-2 \(i-server-2\) is Stopped: start it: `aliyun ecs StartInstance --InstanceId i-server-2`/,
      );
      deepEqual(pids(), before);
      cluster.start("server-2");
    });

    it("a server that is paused", async () => {
      const { cluster, rollout } = operations;
      cluster.pause("server-3");
      const before = pids();
      await rejects(
        rollout.up({}),
        /server-1 is not updated \(configuration\) after .*:\n +server-3 runs, but its Consul does not answer/,
      );
      deepEqual(pids(), before);
      cluster.resume("server-3");
    });

    it("and goes on once that is put right", async () => {
      operations.rollout.waitMinutes = 3;
      await operations.under({});
    });
  });
});
