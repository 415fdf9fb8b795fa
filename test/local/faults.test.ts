import { deepEqual, equal, ok } from "assert/strict";
import { mkdtempSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import * as drills from "../../lab/faults";
import { quantile } from "../../lab/load";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";

/** A cluster and the drills done to it, one after another. */
class Turns {
  private last: Promise<unknown>;

  constructor(private readonly cluster: Promise<Cluster>) {
    this.last = cluster;
  }

  next<T>(drill: (cluster: Cluster) => Promise<T>): Promise<T> {
    const outcome = this.last.then(async () => drill(await this.cluster));
    this.last = outcome.catch(() => undefined); // whoever waits for the outcome is told; the next drill has its turn
    return outcome;
  }
}

/** What `npm run drill` shows, with limits for machines that have other things to do. */
describe("faults", function () {
  this.timeout(600_000);
  const directory = mkdtempSync(join(tmpdir(), "faults-"));
  const crashes: string[] = [];
  const cluster = (prefix: string) =>
    startCluster({
      dir: join(directory, prefix),
      config: onLoopback(prefix),
      onCrash: (reason) => crashes.push(reason),
    });
  const clusters: Promise<Cluster>[] = [];
  // Drills wait most of the time: two clusters are done in half of it.
  let outcomes: ReturnType<typeof begin>;

  function begin() {
    const started = cluster("127.34.0");
    // The program runs once at a time in one process.
    clusters.push(
      started,
      started.then(() => cluster("127.33.0")),
    );
    const [one, other] = clusters.map((of) => new Turns(of)) as [Turns, Turns];
    return {
      atServers: one.next((of) => drills.accident(of, "server")),
      atAgents: one.next((of) => drills.accident(of, "agent")),
      leader: one.next((of) => drills.killLeader(of, 4)),
      paused: one.next((of) => drills.pauseLeader(of, 6)),
      clients: one.next((of) => drills.badClients(of, 60)),
      agents: other.next(restartAgents),
      loss: other.next((of) => drills.loseData(of)),
      two: other.next((of) => drills.killTwo(of, 9)),
      blackout: other.next((of) => drills.killAll(of)),
    };
  }

  /** An agent that leaves may write itself into the catalog once more at once: then nobody sees it leave. Three tries. */
  async function restartAgents(of: Cluster) {
    let outcome = await drills.restartAgents(of);
    for (let tries = 1; outcome.leave === 0 && tries < 3; tries++) outcome = await drills.restartAgents(of);
    return outcome;
  }

  before(() => {
    outcomes = begin();
  });

  after(async () => {
    for (const started of clusters) await (await started).stop();
    rmSync(directory, { recursive: true, force: true });
  });

  /** None fails over DNS or from the agent's memory; of plain ones, which go to a server, a share at most. */
  function assertLookups(lookups: drills.Lookups, plain: number) {
    for (const way of drills.ways) {
      const { failed, total, error } = lookups[way];
      const most = way === "HTTP" ? total * plain : 0;
      ok(failed <= most, `${failed} of ${total} lookups, ${way}, failed; the first: ${error}`);
      ok(total > 30, `only ${total} lookups, ${way}`);
    }
  }

  it("take services and lookups away where services are registered at the servers", async () => {
    const { lookups, updates, lost, services } = await outcomes.atServers;
    equal(services, 151);
    equal(lost, drills.spread[1]);
    for (const way of drills.ways) ok(lookups[way].failed > 0, way);
    ok(updates.failed > 0);
  });

  it("take nothing away where they are registered at the agents", async () => {
    const { lookups, updates, lost, services } = await outcomes.atAgents;
    equal(services, 151);
    equal(lost, 0);
    assertLookups(lookups, 0);
    equal(updates.failed, 0, updates.error);
    ok(updates.total > 100);
  });

  it("of the leader stop writes for seconds, and no lookup", async () => {
    const { gaps, lookups } = await outcomes.leader;
    equal(gaps.length, 4);
    ok(quantile(gaps) < 6 && Math.max(...gaps) < 15, `a write succeeded after ${gaps.join(", ")} s`);
    assertLookups(lookups, 0.025);
  });

  it("of a frozen leader stop no lookup, and lose no key", async () => {
    const { lookups, writeAfter, keysKept } = await outcomes.paused;
    assertLookups(lookups, 0.5); // a plain one at the frozen server waits for it
    ok(writeAfter < 15, `${writeAfter} s`);
    ok(keysKept);
  });

  it("of two servers stop writes, but neither lookups nor stale reads, and lose no key", async () => {
    const { lookups, staleReads, writes, firstLookup, returned, keysKept } = await outcomes.two;
    assertLookups(lookups, 0.2);
    deepEqual(firstLookup, { DNS: "", HTTP: "" });
    ok(staleReads.failed < staleReads.total * 0.2, `${staleReads.failed} of ${staleReads.total}: ${staleReads.error}`);
    ok(writes.total > 0);
    equal(writes.failed, writes.total, "one server accepts a write");
    ok(returned < 60, `${returned} s`);
    ok(keysKept);
  });

  it("of a disk are mended by the other servers", async () => {
    const { returned, keysKept } = await outcomes.loss;
    ok(returned < 90, `${returned} s`);
    ok(keysKept);
  });

  it("of an agent are not seen where it is back in time, and it is never two nodes", async () => {
    const { away, restart, leave, dataLoss } = await outcomes.agents;
    // Gossip gives up a silent node after 5 s or so.
    if (away < 4.5) equal(restart, 0, `away for ${away} s, and missing for ${restart} s`);
    // 6 to 8 s as a rule; less where the agent, still draining, writes itself into the catalog once more.
    ok(leave > 0, "consul leave was not seen");
    ok(dataLoss.registered < 30, `${dataLoss.registered} s`);
    deepEqual(dataLoss.nodes, ["agent-3"]);
    equal(dataLoss.instances, 1);
  });

  it("of everything are over by themselves", async () => {
    const { complete, keysKept } = await outcomes.blackout;
    ok(complete < 60, `${complete} s`);
    ok(keysKept);
  });

  it("of clients are told to them, and nobody else knows them", async () => {
    const refusals = await outcomes.clients;
    equal(refusals.length, 7);
    for (const { what, said, served, seen, gossips } of refusals) {
      ok(said !== "", `${what}: is not refused`);
      ok(!served, `${what}: is given the catalog, or a vote`);
      // Gossip asks for its key and nothing else: who has that is seen, and can do nothing.
      equal(seen, gossips, `${what}: ${seen ? "is" : "is not"} among the members`);
    }
  });

  it("were no surprise: no process ended by itself", () => {
    deepEqual(crashes, []);
  });
});
