import { deepEqual, equal, ok, rejects } from "assert/strict";
import { mkdtempSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import * as pulumi from "@pulumi/pulumi";
import type { ConsulNode } from "../../consul/node";
import type { Member } from "../../local/check";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { consulOf } from "./kube-cluster";
import { Rollout } from "../../lab/rollout";

/**
 * A stack of agents that nobody updates, while its servers' stack goes through the three steps of a new gossip key: its
 * agents restart and are added all the time, and each of them has to get in, with what its own stack has.
 */
describe("a stack that is left behind in a rotation of the gossip key", function () {
  this.timeout(300_000);
  const prefix = "127.48.0";
  let dir: string;
  let cluster: Cluster;
  let rollout: Rollout;
  /** Nodes as the other stack describes them. */
  let otherStack: ReadonlyMap<string, ConsulNode>;
  const said: string[] = [];
  const { info, warn } = pulumi.log;
  const say = (line: string) => Promise.resolve(void said.push(line));
  before(() => Object.assign(pulumi.log, { info: say, warn: say }));
  after(() => Object.assign(pulumi.log, { info, warn }));

  const others = ["agent-2", "agent-3"];
  const gossip = (generation: number, ...alsoAccepted: number[]) => ({
    "consul:gossip": JSON.stringify({ generation, alsoAccepted }),
  });
  type Keyring = { Keys: Record<string, number>; PrimaryKeys: Record<string, number>; NumNodes: number };
  const keyring = () =>
    cluster.until("a node does not say its keys", async () => {
      const [lan] = await cluster.api("server-1").get<Keyring[]>("operator/keyring");
      ok(lan?.NumNodes === cluster.runningNodes.length, JSON.stringify(lan));
      return lan;
    });
  const pids = () => ["server-1", "server-2", "server-3"].map((name) => cluster.pid(name));
  /** The other stack's `up`: what it describes is what the program describes now. */
  const updateOtherStack = () => (otherStack = new Map(cluster.nodes.map((node) => [node.name, node])));

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    dir = mkdtempSync(join(tmpdir(), "gossip-"));
    const binary = await consulOf("local");
    cluster = await startCluster({ dir: join(dir, "run"), config: onLoopback(prefix), binary });
    rollout = new Rollout(cluster);
    // Nodes of the other stack that autoscaling adds one by one.
    const agents = onLoopback(prefix, 3, 7)["consul:agents"] ?? "";
    await cluster.update({ "consul:agents": agents });
    updateOtherStack();
    rollout.elsewhere = [...others, "agent-4", "agent-5", "agent-6", "agent-7"];
  });
  after(async () => {
    await cluster.stop();
    rmSync(dir, { recursive: true });
  });

  /** Starts a node with what the other stack has for it, and sees everybody through it. */
  async function getsIn(name: string, stack = otherStack) {
    await cluster.end(name);
    cluster.start(name, stack.get(name));
    const all = cluster.runningNodes.map((node) => node.name).sort();
    await cluster.until(`${name} is alone`, async () => {
      const members = await cluster.api(name).get<Member[]>("agent/members");
      deepEqual(members.flatMap(({ Name, Status }) => (Status === 1 ? [Name] : [])).sort(), all);
      const seen = await cluster.api("server-1").get<Member[]>("agent/members");
      equal(seen.find((member) => member.Name === name)?.Status, 1);
    });
  }
  /** An agent of the other stack restarts, a server comes back after a crash, and autoscaling adds an agent. */
  async function days(added: string) {
    await getsIn("agent-3");
    await getsIn("server-3", new Map(cluster.nodes.map((node) => [node.name, node])));
    await getsIn(added);
    others.push(added);
    await getsIn("agent-2");
    await cluster.ready();
    await cluster.registered();
  }
  async function blocked(step: Record<string, string>) {
    const [before, started] = [await keyring(), pids()];
    rollout.waitMinutes = 0.2;
    try {
      await rejects(rollout.up(step), (error: Error) => {
        const named = /do not start with the gossip keys for this step yet: ([^:]*): run `pulumi up`/.exec(
          error.message,
        );
        deepEqual(named?.[1]?.split(", ").sort(), [...others].sort(), error.message);
        return true;
      });
    } finally {
      rollout.waitMinutes = 3;
    }
    const now = await keyring();
    deepEqual([now.PrimaryKeys, Object.keys(now.Keys).sort()], [before.PrimaryKeys, Object.keys(before.Keys).sort()]);
    deepEqual(pids(), started);
  }
  /** The other stack's agents roll. */
  async function roll() {
    updateOtherStack();
    for (const name of others) await getsIn(name);
    await cluster.ready();
    await cluster.registered();
  }
  let first = "";
  let second = "";

  it("gets in with the one key, while the next one is made known", async () => {
    const started = pids();
    first = Object.keys((await keyring()).Keys)[0] ?? "";
    await rollout.up(gossip(1, 2));
    const { Keys, PrimaryKeys } = await keyring();
    second = Object.keys(Keys).find((key) => key !== first) ?? "";
    deepEqual([Keys, PrimaryKeys], [{ [first]: 6, [second]: 6 }, { [first]: 6 }]);
    deepEqual(pids(), started);
    await days("agent-4");
  });

  it("is named before anybody switches, and nothing is switched", async () => {
    await blocked(gossip(2, 1));
    await rollout.up(gossip(1, 2));
  });

  it("gets in with the old key first, after everybody has switched", async () => {
    await roll();
    await rollout.up(gossip(2, 1));
    const { Keys, PrimaryKeys } = await keyring();
    deepEqual([Keys, PrimaryKeys], [{ [first]: 7, [second]: 7 }, { [second]: 7 }]);
    await days("agent-5");
    equal((await keyring()).PrimaryKeys[first], 3, "the three encrypt with the old key now");
  });

  it("is named before anybody drops the old key, and nothing is dropped", async () => {
    await blocked(gossip(2));
    await rollout.up(gossip(2, 1));
  });

  it("gets in with both keys, after its servers' stack has dropped the old one, which stays as long as it has it", async () => {
    await roll();
    said.length = 0;
    await rollout.up(gossip(2));
    const late = said.at(-1) ?? "";
    for (const name of others) ok(late.includes(name), late);
    ok(first in (await keyring()).Keys);
    await days("agent-6");
  });

  it("ends the rotation with its own update", async () => {
    await roll();
    await rollout.up({});
    const { Keys, PrimaryKeys, NumNodes } = await keyring();
    deepEqual([Keys, PrimaryKeys, NumNodes], [{ [second]: 9 }, { [second]: 9 }, 9]);
    await days("agent-7");
  });
});
