import assert from "assert/strict";
import { createHash } from "crypto";
import { setTimeout as sleep } from "timers/promises";
import { ports } from "../consul/config";
import { ApiError } from "../local/api";
import { reason, Resolver, Stream, Tally } from "./load";
import type { Cluster, Progress } from "../local/supervisor";

// What goes wrong with a Consul cluster, done to a real one. Each drill takes a cluster that is well, measures while it
// breaks it, and leaves it well again; what the figures ought to be is for `npm run drill` and the tests to say.

const quiet: Progress = () => undefined;

/** What of a cluster is looked at; the bench has another one of that kind. */
export type Observed = Pick<Cluster, "api" | "leaderName" | "node" | "nodes">;

function names(cluster: Pick<Cluster, "nodes">, role: "server" | "agent"): string[] {
  return cluster.nodes.filter((node) => node.role === role).map(({ name }) => name);
}

function first<T>(values: readonly T[], index = 0): T {
  const value = values[index];
  assert(value !== undefined, "a drill needs three servers and three agents");
  return value;
}

/** Tries until it works. Unlike the cluster's own, it does not mind that nodes end: that is what drills are for. */
async function eventually<T>(problem: string, attempt: () => Promise<T>, seconds = 60): Promise<T> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (Date.now() > deadline) throw new Error(`${problem} after ${seconds} s: ${reason(error)}`, { cause: error });
    }
    await sleep(50);
  }
}

/** The part of GET /v1/agent/self that tells how far a server's raft is. */
interface Self {
  readonly Stats: { readonly raft: { readonly state: string; readonly commit_index: string; applied_index: string } };
}

interface RaftConfiguration {
  readonly Servers: readonly { readonly ID: string; readonly Node: string; readonly Voter: boolean }[];
}

/**
 * Waits until every server has a vote, follows the same leader and has all that the leader has, by its own account and
 * three times in a row: autopilot's view is up to 2 s old, and a server that is alive may have neither vote nor data.
 * @returns seconds
 */
export async function healthy(cluster: Observed): Promise<number> {
  const began = Date.now();
  const servers = names(cluster, "server");
  let passes = 0;
  await eventually(
    "the servers are not all healthy voters",
    async () => {
      const failed = passes;
      passes = 0;
      const leader = await cluster.leaderName();
      const { Servers } = await cluster.api(leader).get<RaftConfiguration>("operator/raft/configuration");
      const voters = Servers.filter(({ Voter }) => Voter).map(({ Node }) => Node);
      assert.deepEqual([Servers.length, voters.sort()], [servers.length, [...servers].sort()], "voters");
      const { commit_index } = (await cluster.api(leader).get<Self>("agent/self")).Stats.raft;
      for (const name of servers) {
        await eventually(
          `${name} lags behind`,
          async () => {
            const { state, applied_index } = (await cluster.api(name).get<Self>("agent/self")).Stats.raft;
            assert.equal(state, name === leader ? "Leader" : "Follower", name);
            assert(Number(applied_index) >= Number(commit_index), `${applied_index} of ${commit_index}`);
          },
          0.5, // under load a follower is always some milliseconds behind: what counts is that it gets there
        );
        const followed = await cluster.api(name).get<string>("status/leader");
        assert.equal(followed, `${cluster.node(leader).address}:${ports.rpc}`, `the leader of ${name}`);
      }
      passes = failed + 1;
      assert(passes >= 3, "not yet three times in a row");
    },
    120,
  );
  return (Date.now() - began) / 1000;
}

/** How services are looked up: DNS, over HTTP from what the agent knows already, and over HTTP as most clients do. */
export const ways = ["DNS", "HTTP ?cached", "HTTP"] as const;
export type Way = (typeof ways)[number];

/** For each way what came of it; a lookup that does not find what is well has failed. */
export type Lookups = Readonly<Record<Way, Tally>>;

/** Looks up services in each way. */
class Lookers {
  private readonly resolver = new Resolver();
  private streams: readonly Stream[] = [];

  constructor(private readonly cluster: Cluster) {}

  /** Looks one up every so many milliseconds, until stopped. */
  begin(milliseconds: number, next: (turn: number) => Application): void {
    this.streams = ways.map((way) => new Stream(milliseconds, async (turn) => this.find(way, next(turn))));
  }

  /** @throws where the lookup fails, or finds nothing */
  async find(way: Way, { service, at }: Application): Promise<void> {
    const found = await (way === "DNS"
      ? this.resolver.addresses(this.cluster.node(at).address, `${service}.service.consul`)
      : this.cluster
          .api(at, null)
          .get<unknown[]>(`health/service/${service}?passing${way === "HTTP ?cached" ? "&cached" : ""}`));
    assert(found.length > 0, `${service} is not found at ${at}`);
  }

  async stop(): Promise<Lookups> {
    const tallies = await Promise.all(this.streams.map((stream) => stream.stop()));
    this.resolver.close();
    return Object.fromEntries(ways.map((way, i) => [way, tallies[i]])) as Lookups;
  }
}

/** A service of a drill, and the node where it is registered, or looked up. */
interface Application {
  readonly service: string;
  readonly at: string;
}

/** A check that an application feeds, as Spring Cloud's `heartbeat.enabled` does. */
const heartbeat = { TTL: "30s", Status: "passing" };

/** Registers services, with a check where one is given, and waits until they are in the catalog. */
async function register(cluster: Cluster, applications: readonly Application[], Check?: object): Promise<void> {
  const one = ({ service, at }: Application) =>
    cluster.api(at).put("agent/service/register", { ID: service, Name: service, Port: 8080, Check });
  await Promise.all(applications.map(one));
  await known(cluster, applications, true);
}

async function deregister(cluster: Cluster, applications: readonly Application[]): Promise<void> {
  const one = ({ service, at }: Application) => cluster.api(at).put(`agent/service/deregister/${service}`);
  await Promise.all(applications.map(one));
  await known(cluster, applications, false);
}

async function known(cluster: Cluster, applications: readonly Application[], wanted: boolean): Promise<void> {
  await eventually(`services are ${wanted ? "not " : "still "}in the catalog`, async () => {
    const services = await cluster.api(await cluster.leaderName()).get<Record<string, unknown>>("catalog/services");
    const wrong = applications.filter(({ service }) => service in services !== wanted);
    assert.equal(wrong.length, 0, `${wrong.length}, the first is ${wrong[0]?.service ?? ""}`);
  });
}

/** A service at each agent, found everywhere, and what looks them up at every agent. */
async function watched(cluster: Cluster, milliseconds = 50) {
  const agents = names(cluster, "agent");
  const applications = agents.map((at) => ({ service: `drill-${at}`, at }));
  await register(cluster, applications);
  const lookers = new Lookers(cluster);
  // An agent that could not reach a server four times in a row asks for news after 2 s, 4 s, 8 s and so on only: after
  // another drill it may be a while until it knows of services that came since.
  for (const at of agents) {
    for (const { service } of applications) {
      for (const way of ways) await eventually("a service is not found", () => lookers.find(way, { service, at }), 120);
    }
  }
  lookers.begin(milliseconds, (turn) => ({
    at: first(agents, turn % agents.length),
    service: first(applications, Math.floor(turn / agents.length) % applications.length).service,
  }));
  return { agents, applications, lookers };
}

/** Writes at the servers in turn, 40 times a second. */
export function writers(cluster: Observed): Stream {
  const servers = names(cluster, "server");
  return new Stream(25, (turn) => cluster.api(first(servers, turn % servers.length)).put("kv/drill/write", `${turn}`));
}

// --- 1: the accident of seed 000 ------------------------------------------------------------------------------------

/** Services at the first, second and third server of seed 000. */
export const spread = [28, 94, 29] as const;

export interface Accident {
  readonly services: number;
  readonly lookups: Lookups;
  /** Health updates, as the applications send them. */
  readonly updates: Tally;
  /** Services that nobody found any more once the cluster had noticed that the server was gone. */
  readonly lost: number;
  /** How long the server was away. */
  readonly seconds: number;
}

/**
 * Registers 151 services as that team did, straight at the servers, or through the agents; kills the server that had 94
 * of them, and starts it again once the others have noticed. Each service sends a health update every 2 s and looks up
 * others where it is registered.
 */
export async function accident(cluster: Cluster, at: "server" | "agent"): Promise<Accident> {
  const endpoints = names(cluster, at);
  const applications = spread.flatMap((count, i) =>
    Array.from({ length: count }, (_, j) => ({ service: `app-${i + 1}-${j + 1}`, at: first(endpoints, i) })),
  );
  const victim = first(names(cluster, "server"), 1);
  await handOver(cluster, victim); // what an election does is the second drill
  await register(cluster, applications, heartbeat);
  const pace = 2000 / applications.length;
  const application = (turn: number) => first(applications, turn % applications.length);
  const updates = new Stream(pace, (turn) => {
    const { service, at: endpoint } = application(turn);
    return cluster.api(endpoint).put(`agent/check/pass/service:${service}`);
  });
  // 64 and 151 have no factor in common: in time everybody looks up everybody.
  const lookers = new Lookers(cluster);
  lookers.begin(pace * 3, (turn) => ({
    at: application(turn).at,
    service: application(turn * 64).service,
  }));
  await sleep(2000);

  const killed = Date.now();
  await cluster.kill(victim);
  await noticed(cluster, victim);
  const survivor = first(endpoints.filter((name) => name !== victim));
  const sweep = await Promise.allSettled(
    applications.map(({ service }) => lookers.find("HTTP", { service, at: survivor })),
  );
  const seconds = (Date.now() - killed) / 1000;
  const [lookups, sent] = await Promise.all([lookers.stop(), updates.stop()]);
  cluster.start(victim);
  await healthy(cluster);
  await deregister(cluster, applications);
  const lost = sweep.filter(({ status }) => status === "rejected").length;
  return { services: sweep.length, lookups, updates: sent, lost, seconds };
}

/** Waits until the cluster takes a node for dead. */
async function noticed(cluster: Cluster, node: string): Promise<void> {
  await eventually(`nobody notices that ${node} is gone`, async () => {
    const checks = await cluster.api(await cluster.leaderName()).get<{ Status: string }[]>(`health/node/${node}`);
    assert(
      checks.some(({ Status }) => Status === "critical"),
      "it is healthy",
    );
  });
}

/** Makes sure that a server does not lead. */
async function handOver(cluster: Cluster, server: string): Promise<void> {
  const leader = await cluster.leaderName();
  if (leader !== server) return;
  const { Servers } = await cluster.api(leader).get<RaftConfiguration>("operator/raft/configuration");
  const other = Servers.find(({ Node }) => Node !== server);
  await cluster.api(leader).request("POST", `operator/raft/transfer-leader?id=${other?.ID ?? ""}`);
  await eventually(`${server} leads still`, async () => assert.notEqual(await cluster.leaderName(), server));
  await healthy(cluster);
}

// --- 2: the leader --------------------------------------------------------------------------------------------------

export interface Failovers {
  /** Seconds from each kill until a write succeeded that was begun after it. */
  readonly gaps: readonly number[];
  /** Seconds from each start of the killed server until all servers were healthy voters. */
  readonly returns: readonly number[];
  readonly lookups: Lookups;
}

/** Kills the leader as often as told, each time once all servers are healthy voters, with lookups at every agent. */
export async function killLeader(cluster: Cluster, times: number, progress = quiet): Promise<Failovers> {
  const { applications, lookers } = await watched(cluster);
  const writes = writers(cluster);
  const gaps: number[] = [];
  const returns: number[] = [];
  await healthy(cluster);
  for (let i = 0; i < times; i++) {
    const leader = await cluster.leaderName();
    const killed = Date.now();
    await cluster.kill(leader);
    gaps.push(await writes.succeeds(killed));
    cluster.start(leader);
    returns.push(await healthy(cluster));
    progress(`${i + 1} of ${times}: a write after ${gaps.at(-1)?.toFixed(1) ?? ""} s`);
  }
  const [lookups] = await Promise.all([lookers.stop(), writes.stop()]);
  await deregister(cluster, applications);
  return { gaps, returns, lookups };
}

// --- 3: a server paused, its data deleted, two of three down ---------------------------------------------------------

const keyCount = 10_000;
const batch = 64; // Consul's limit of operations in one transaction

/** Writes 10,000 keys, where they are not there yet. @returns their checksum, the same at every server */
export async function fill(cluster: Cluster): Promise<string> {
  const agents = names(cluster, "agent");
  const there = await cluster.api(first(agents)).get<string[]>("kv/drill/keys/?keys&separator=").catch(unlessMissing);
  if (there?.length !== keyCount) {
    const keys = Array.from({ length: keyCount }, (_, i) => `drill/keys/${i}`);
    while (keys.length > 0) {
      const set = (Key: string) => ({ KV: { Verb: "set", Key, Value: Buffer.from(Key).toString("base64") } });
      await cluster.api(first(agents)).put("txn", keys.splice(0, batch).map(set));
    }
  }
  return checksum(cluster);
}

function unlessMissing(error: unknown): undefined {
  if (!(error instanceof ApiError && error.status === 404)) throw error;
}

/** Waits until every server, asked for its own copy, has the same keys. @returns SHA-256 of them and their indexes */
export async function checksum(cluster: Cluster): Promise<string> {
  type Pair = Record<"Key" | "Value", string> & Record<"CreateIndex" | "ModifyIndex", number>;
  return eventually("the servers do not have the same keys", async () => {
    const sums = new Set<string>();
    for (const name of names(cluster, "server")) {
      const pairs = await cluster.api(name).get<Pair[]>("kv/drill/keys/?recurse&stale");
      assert.equal(pairs.length, keyCount, name);
      const lines = pairs.map((pair) => [pair.Key, pair.Value, pair.CreateIndex, pair.ModifyIndex].join(" ")).sort();
      sums.add(createHash("sha256").update(lines.join("\n")).digest("hex"));
    }
    assert.equal(sums.size, 1, "different checksums");
    return first([...sums]);
  });
}

export interface Outage {
  /** Lookups at the agents while it lasted. */
  readonly lookups: Lookups;
  /** Reads of a key with ?stale, through the agents, while it lasted. */
  readonly staleReads: Tally;
  /** Writes that were begun while it lasted: from the second second on, when whatever was under way is over. */
  readonly writes: Tally;
  /** Seconds from its beginning until a write succeeded. */
  readonly writeAfter: number;
  /** What went wrong with the first lookup ever of a service at an agent, at the end of it; "" for nothing. */
  readonly firstLookup: Readonly<Record<Way, string>>;
  /** Seconds from its end until all servers were healthy voters. */
  readonly returned: number;
  readonly keysKept: boolean;
}

/** Does something bad for some seconds, then undoes it. */
async function outage(cluster: Cluster, seconds: number, bad: () => unknown, undo: () => void): Promise<Outage> {
  const before = await fill(cluster);
  const { agents, applications, lookers } = await watched(cluster);
  const fresh = { service: `drill-fresh-${Date.now()}`, at: first(agents) };
  await register(cluster, [fresh]);
  await sleep(1000); // everything has been looked up once
  const writes = writers(cluster);
  const reads = new Stream(50, (turn) =>
    cluster.api(first(agents, turn % agents.length)).get(`kv/drill/keys/${turn}?stale`),
  );
  const began = Date.now();
  await bad();
  await sleep(began + seconds * 1000 - Date.now());
  const ask = (way: Way) => lookers.find(way, { ...fresh, at: first(agents, 1) }).then(() => "", reason);
  const [DNS, cached, HTTP] = await Promise.all([ask("DNS"), ask("HTTP ?cached"), ask("HTTP")]);
  const over = Date.now();
  const staleReads = reads.stop();
  const lookups = lookers.stop();
  undo();
  const writeAfter = await writes.succeeds(began);
  await healthy(cluster);
  const returned = (Date.now() - over) / 1000;
  await writes.stop();
  const keysKept = (await checksum(cluster)) === before;
  await deregister(cluster, [...applications, fresh]);
  return {
    lookups: await lookups,
    staleReads: await staleReads,
    writes: writes.tally(began + 2000, over),
    writeAfter,
    firstLookup: { DNS, "HTTP ?cached": cached, HTTP },
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

/** Kills a server, deletes its data, and starts it once the others have noticed: a new disk takes longer than that. */
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

// --- 4: agents ------------------------------------------------------------------------------------------------------

export interface AgentRestarts {
  /** Seconds from the agent's stop until it answered again: the gap, and its own start. */
  readonly away: number;
  /** Seconds for which a service of the restarted agent, with heartbeats, was missing from discovery. */
  readonly restart: number;
  /** The same for one with an HTTP check of 10 s: Consul takes checks for critical at each start, until they pass. */
  readonly restartHttp: number;
  /** As the first, but with `consul leave` before the stop, as done by hand. */
  readonly leave: number;
  /** An agent that was killed and had lost its data. */
  readonly dataLoss: {
    /** Seconds from its start until a service that was registered anew was in the catalog. */
    readonly registered: number;
    /** Nodes that were ever seen under its address, by name, and the most instances of its service at one time. */
    readonly nodes: readonly string[];
    readonly instances: number;
  };
}

/** Restarts an agent as the DaemonSet does, a second by hand, and kills a third and deletes its data; all at a time. */
export async function restartAgents(cluster: Cluster, gap = 3): Promise<AgentRestarts> {
  const [kept = "", left = "", lost = ""] = names(cluster, "agent");
  const [a, b, c] = [kept, left, lost].map((at) => ({ service: `drill-${at}`, at })) as [
    Application,
    Application,
    Application,
  ];
  const checked = { service: "drill-http", at: kept };
  const leader = await cluster.leaderName();
  await register(cluster, [a], heartbeat);
  await register(cluster, [b, c]); // a heartbeat while its agent leaves can bring a service back
  const HTTP = `http://${cluster.node(leader).address}:${ports.http}/v1/status/leader`;
  await register(cluster, [checked], { HTTP, Interval: "10s", Status: "passing" });
  const beats = new Stream(500, () => cluster.api(kept).put(`agent/check/pass/service:${a.service}`));
  await sleep(1000);
  const instances = (service: string) => cluster.api(leader).get<unknown[]>(`health/service/${service}?passing`);
  const [restart, leave, restartHttp] = [a, b, checked].map(
    ({ service }) => new Stream(50, async () => assert((await instances(service)).length > 0, "missing")),
  ) as [Stream, Stream, Stream];
  const { address } = cluster.node(lost);
  const nodes = new Set<string>();
  let most = 0;
  const look = new Stream(100, async () => {
    const catalog = await cluster.api(leader).get<{ Node: string; Address: string }[]>("catalog/nodes");
    for (const { Node, Address } of catalog) if (Address === address) nodes.add(Node);
    most = Math.max(most, (await instances(c.service)).length);
  });

  const again = async (stopped: Promise<void>, name: string) => {
    await stopped;
    const since = Date.now();
    await sleep(gap * 1000);
    cluster.start(name);
    await eventually(`${name} does not answer`, () => cluster.api(name).get("agent/self"));
    return (Date.now() - since) / 1000;
  };
  // A client takes SIGINT as `consul leave`.
  const others = [again(cluster.end(kept), kept), again(cluster.end(left, "SIGINT"), left)];
  await cluster.kill(lost);
  cluster.wipe(lost);
  const began = Date.now();
  cluster.start(lost);
  // The application registers again, with what it had and something new.
  const anew = [c, { service: "drill-new", at: lost }];
  await eventually(`${lost} takes no registrations`, () => register(cluster, anew));
  const registered = (Date.now() - began) / 1000;
  const [away = 0] = await Promise.all(others);
  await cluster.ready();
  const back = Date.now();
  await Promise.all([restart, leave, restartHttp].map((stream) => stream.succeeds(back)));
  await Promise.all([beats, restart, leave, restartHttp, look].map((stream) => stream.stop()));
  await deregister(cluster, [a, b, checked, ...anew]);
  return {
    away,
    restart: restart.longestFailure(),
    restartHttp: restartHttp.longestFailure(),
    leave: leave.longestFailure(),
    dataLoss: { registered, nodes: [...nodes], instances: most },
  };
}

// --- 5: everything at once ------------------------------------------------------------------------------------------

export interface Blackout {
  /** Seconds from the start of all processes to a leader, and to every node and service in the catalog. */
  readonly leader: number;
  readonly complete: number;
  readonly keysKept: boolean;
}

/** Kills every process at once, and starts all. */
export async function killAll(cluster: Cluster): Promise<Blackout> {
  const before = await fill(cluster);
  const applications = names(cluster, "agent").map((at) => ({ service: `drill-${at}`, at }));
  await register(cluster, applications);
  await Promise.all(cluster.nodes.map(({ name }) => cluster.kill(name)));
  const began = Date.now();
  for (const { name } of cluster.nodes) cluster.start(name);
  await cluster.leaderName();
  const leader = (Date.now() - began) / 1000;
  await cluster.ready();
  await known(cluster, applications, true);
  const complete = (Date.now() - began) / 1000;
  await healthy(cluster);
  const keysKept = (await checksum(cluster)) === before;
  await deregister(cluster, applications);
  return { leader, complete, keysKept };
}
