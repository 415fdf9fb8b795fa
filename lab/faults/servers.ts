import { setTimeout as sleep } from "timers/promises";
import type { Cluster } from "../../local/supervisor";
import type { Progress } from "../../tools/progress";
import { first, healthy, names, noticed } from "../healthy";
import { reason, Stream, Tally } from "../load";
import { checksum, fill } from "./keys";
import { deregister, Lookups, register, watched, Way, ways, writers } from "./lookups";
import { above, Drill, failed, lookupLimits, seconds, Shown } from "./report";

export interface Outage {
  /** Lookups at the agents while the outage lasted. */
  readonly lookups: Lookups;
  /** Reads of a key with ?stale, through the agents, while the outage lasted. */
  readonly staleReads: Tally;
  /** Writes that began while the outage lasted: from its third second on, when nothing from before is under way. */
  readonly writes: Tally;
  /** Seconds from the beginning of the outage until a write succeeded. */
  readonly writeAfter: number;
  /** What went wrong with the first lookup ever of a service at an agent, at the end of the outage; "" for nothing. */
  readonly firstLookup: Readonly<Record<Way, string>>;
  /** Seconds from the end of the outage until all servers were healthy voters. */
  readonly returned: number;
  readonly keysKept: boolean;
}

/** Does something bad for some seconds, then undoes it. */
async function outage(cluster: Cluster, seconds: number, bad: () => unknown, undo: () => void): Promise<Outage> {
  const before = await fill(cluster);
  const { agents, applications, lookers } = await watched(cluster);
  const fresh = { service: `drill-fresh-${Date.now()}`, at: first(agents) };
  await register(cluster, [fresh]);
  await sleep(1000); // every agent has looked up every service once
  const writes = writers(cluster);
  const reads = new Stream(50, (turn) =>
    cluster.api(first(agents, turn % agents.length)).get(`kv/drill/keys/${turn}?stale`),
  );
  const began = Date.now();
  await bad();
  await sleep(began + seconds * 1000 - Date.now());
  const ask = (way: Way) => lookers.find(way, { ...fresh, at: first(agents, 1) }).then(() => "", reason);
  const [DNS, HTTP] = await Promise.all([ask("DNS"), ask("HTTP")]);
  const over = Date.now();
  const staleReads = reads.stop();
  const lookups = lookers.stop();
  undo();
  const writeAfter = await writes.succeeds(began);
  const written = Date.now();
  const returned = (written - over) / 1000 + (await healthy(cluster));
  await writes.stop();
  const keysKept = (await checksum(cluster)) === before;
  await deregister(cluster, [...applications, fresh]);
  return {
    lookups: await lookups,
    staleReads: await staleReads,
    writes: writes.tally(began + 2000, over),
    writeAfter,
    firstLookup: { DNS, HTTP },
    returned,
    keysKept,
  };
}

/** Freezes the leader: its connections stay open and nothing answers. */
export async function pauseLeader(cluster: Cluster, seconds = 6): Promise<Outage> {
  const leader = await cluster.leaderName();
  return outage(
    cluster,
    seconds,
    () => cluster.pause(leader),
    () => cluster.resume(leader),
  );
}

/** Kills the leader and another server, and starts them again. */
export async function killTwo(cluster: Cluster, seconds = 8): Promise<Outage> {
  const leader = await cluster.leaderName();
  const other = first(names(cluster, "server").filter((name) => name !== leader));
  return outage(
    cluster,
    seconds,
    () => Promise.all([cluster.kill(leader), cluster.kill(other)]),
    () => [leader, other].forEach((name) => cluster.start(name)),
  );
}

export interface DataLoss {
  /** Seconds from the start with an empty disk until the server was a healthy voter with every key. */
  readonly returned: number;
  readonly keysKept: boolean;
}

/** Kills a server, deletes its data, and starts it once the others have noticed: in reality a new disk takes longer. */
export async function loseData(cluster: Cluster): Promise<DataLoss> {
  const before = await fill(cluster);
  const leader = await cluster.leaderName();
  const victim = first(names(cluster, "server").filter((name) => name !== leader));
  await cluster.kill(victim);
  cluster.wipe(victim);
  await noticed(cluster, victim);
  cluster.start(victim);
  const returned = await healthy(cluster);
  return { returned, keysKept: (await checksum(cluster)) === before };
}

export const serversDrill: Drill = {
  title: "A leader freezes, two of three servers are down, a server's data is gone",
  run: showServers,
};

async function showServers(cluster: Cluster, progress: Progress): Promise<Shown> {
  progress("10,000 keys, then the leader is frozen");
  const paused = await pauseLeader(cluster);
  progress("two of three servers are killed");
  const two = await killTwo(cluster);
  progress("a server's data is deleted");
  const loss = await loseData(cluster);
  const row = (what: string, of: (outage: Outage) => string, lost = "") => [what, of(paused), of(two), lost];
  const kept = (yes: boolean) => (yes ? "the same at each server" : "NOT the same");
  const promises = (what: string, outage: Outage) => [
    ...lookupLimits(what, outage.lookups, 0.1),
    [`${what}: keys that changed`, outage.keysKept ? 0 : 1, 0] as const,
  ];
  const notFound = ways.filter((way) => two.firstLookup[way] !== "").length;
  return {
    figures: { paused, two, loss },
    table: [
      ["", "leader frozen, 6 s", "two of three down, 8 s", "data deleted"],
      ...ways.map((way) => row(`lookups at the agents, ${way}`, ({ lookups: of }) => failed(of[way]))),
      row("first lookup ever of a service", ({ firstLookup }) =>
        ways.every((way) => firstLookup[way] === "") ? "found" : "NOT found",
      ),
      row("reads of a key, ?stale, at the agents", ({ staleReads }) => failed(staleReads)),
      row("writes, from the third second on", ({ writes }) => failed(writes)),
      row("a write succeeds after", ({ writeAfter }) => seconds(writeAfter)),
      row("three healthy voters, from the undoing on", ({ returned }) => seconds(returned), seconds(loss.returned)),
      row("10,000 keys", ({ keysKept }) => kept(keysKept), kept(loss.keysKept)),
    ],
    broken: above([
      ...promises("leader frozen", paused),
      ["leader frozen: seconds until a write succeeds", paused.writeAfter, 5],
      ...promises("two servers down", two),
      ["two servers down: ways in which a service is not found that was never looked up before", notFound, 0],
      ["two servers down: writes that were accepted by less than a majority", two.writes.total - two.writes.failed, 0],
      ["two servers back: seconds until there are three healthy voters", two.returned, 15],
      ["data deleted: keys that changed", loss.keysKept ? 0 : 1, 0],
      ["data deleted: seconds until there are three healthy voters", loss.returned, 40],
    ]),
  };
}
