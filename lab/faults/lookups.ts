import assert from "assert/strict";
import { Resolver } from "../../local/dns";
import type { Cluster } from "../../local/supervisor";
import { eventually, first, names, Observed } from "../healthy";
import { Stream, Tally } from "../load";

// Services and the clients that look them up, for every experiment.

/** How services are looked up. */
export const ways = ["DNS", "HTTP"] as const;
export type Way = (typeof ways)[number];

/** For each way what came of it; a lookup that finds nothing has failed. */
export type Lookups = Readonly<Record<Way, Tally>>;

/** Looks up services in each way. */
export class Lookers {
  private readonly resolver = new Resolver();
  private streams: readonly Stream[] = [];

  constructor(private readonly cluster: Cluster) {}

  /** Looks up a service in each way every so many milliseconds, until stopped. */
  begin(milliseconds: number, next: (turn: number) => Application): void {
    this.streams = ways.map((way) => new Stream(milliseconds, async (turn) => this.find(way, next(turn))));
  }

  /** @throws where the lookup fails, or finds nothing */
  async find(way: Way, { service, at }: Application): Promise<void> {
    const found = await (way === "DNS"
      ? this.resolver.addresses(this.cluster.node(at).address, `${service}.service.consul`)
      : this.cluster.api(at, null).get<unknown[]>(`health/service/${service}?passing`));
    assert(found.length > 0, `${service} is not found at ${at}`);
  }

  async stop(): Promise<Lookups> {
    const tallies = await Promise.all(this.streams.map((stream) => stream.stop()));
    this.resolver.close();
    return Object.fromEntries(ways.map((way, i) => [way, tallies[i]])) as Lookups;
  }
}

/** A service, and the node where it is registered, or looked up. */
export interface Application {
  readonly service: string;
  readonly at: string;
}

/** A check that an application feeds, as Spring Cloud's `heartbeat.enabled` does. */
export const heartbeat = { TTL: "30s", Status: "passing" };

/** Registers services, each with a check where one is given, and waits until they are in the catalog. */
export async function register(cluster: Cluster, applications: readonly Application[], Check?: object): Promise<void> {
  const one = ({ service, at }: Application) =>
    cluster.api(at).put("agent/service/register", { ID: service, Name: service, Port: 8080, Check });
  await Promise.all(applications.map(one));
  await known(cluster, applications, true);
}

export async function deregister(cluster: Cluster, applications: readonly Application[]): Promise<void> {
  const one = ({ service, at }: Application) => cluster.api(at).put(`agent/service/deregister/${service}`);
  await Promise.all(applications.map(one));
  await known(cluster, applications, false);
}

/** Waits until services are in the catalog, or are not. */
export async function known(cluster: Cluster, applications: readonly Application[], wanted: boolean): Promise<void> {
  await eventually(`services are ${wanted ? "not " : "still "}in the catalog`, async () => {
    const services = await cluster.api(await cluster.leaderName()).get<Record<string, unknown>>("catalog/services");
    const wrong = applications.filter(({ service }) => service in services !== wanted);
    assert.equal(wrong.length, 0, `${wrong.length}, the first is ${wrong[0]?.service ?? ""}`);
  });
}

/** Registers a service at each agent, waits until every agent finds it, and begins to look it up at all of them. */
export async function watched(cluster: Cluster) {
  const agents = names(cluster, "agent");
  const applications = agents.map((at) => ({ service: `drill-${at}`, at }));
  await register(cluster, applications);
  const lookers = new Lookers(cluster);
  // An agent that could not reach a server four times in a row asks again after 2 s, 4 s, 8 s and so on: after another
  // experiment it may take an agent a while to learn of new services.
  for (const at of agents) {
    for (const { service } of applications) {
      for (const way of ways) await eventually("a service is not found", () => lookers.find(way, { service, at }), 120);
    }
  }
  lookers.begin(50, (turn) => ({
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
