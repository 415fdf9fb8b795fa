import assert from "assert/strict";
import { setTimeout as sleep } from "timers/promises";
import { assess, passes, Sample, sampleOf, told, Verdict } from "../consul/quorum";
import { Api, ApiError } from "../local/api";
import { untilDone } from "../local/processes";
import type { Cluster } from "../local/supervisor";
import { reason } from "./load";

/** What an experiment needs of a cluster; the bench has clusters that this program does not describe. */
export type Observed = Pick<Cluster, "api" | "leaderName" | "node" | "nodes">;

/** The names of all servers, or of all agents. */
export function names(cluster: Pick<Cluster, "nodes">, role: "server" | "agent"): string[] {
  return cluster.nodes.filter((node) => node.role === role).map(({ name }) => name);
}

/** The value at an index. @throws where there is none */
export function first<T>(values: readonly T[], index = 0): T {
  const value = values[index];
  assert(value !== undefined, "an experiment needs three servers and three agents");
  return value;
}

/** Tries until it works. Nodes may end meanwhile, which the cluster's own `until` takes for a failure. */
export function eventually<T>(problem: string, attempt: () => Promise<T>, seconds = 120): Promise<T> {
  const deadline = Date.now() + seconds * 1000;
  return untilDone(attempt, (last) => {
    if (Date.now() < deadline) return undefined;
    return new Error(`${problem} after ${seconds} s: ${reason(last)}`, { cause: last });
  });
}

/** What all servers say at one moment. */
interface Look {
  readonly at: number;
  readonly samples: readonly Sample[];
}

/**
 * Waits until the servers are well by the product's own judgement (`assess`) and stay so for some seconds.
 * @param seconds how long; longer than autopilot takes from one view of the servers to the next unless given, since a
 *   server that has just come back is still well in autopilot's view from before
 * @returns seconds until they became well
 * @throws after 120 s: what `assess` finds wrong
 */
export async function healthy(cluster: Observed, seconds: number = passes.seconds): Promise<number> {
  const began = Date.now();
  const servers = names(cluster, "server");
  const judged = (looks: readonly Look[]): Verdict =>
    assess(servers.map((name, i) => ({ name, view: { samples: looks.map(({ samples }) => first(samples, i)) } })));
  const looks: Look[] = [];
  for (;;) {
    const at = Date.now();
    looks.push({ at, samples: await Promise.all(servers.map((name) => look(cluster.api(name)))) });
    let verdict = judged(looks);
    while (!verdict.ok && looks.length > passes.samples) {
      looks.shift();
      verdict = judged(looks);
    }
    const since = first(looks).at;
    if (verdict.ok && at - since > seconds * 1000) return (since - began) / 1000;
    if (!verdict.ok && at - began > 120_000) {
      throw new Error(`the servers are not well: ${verdict.reasons.map(told).join("; ")}`);
    }
    await sleep(100);
  }
}

/** Waits until the cluster takes a node for dead. */
export async function noticed(cluster: Observed, node: string): Promise<void> {
  await eventually(`nobody notices that ${node} is gone`, async () => {
    const checks = await cluster.api(await cluster.leaderName()).get<{ Status: string }[]>(`health/node/${node}`);
    assert(
      checks.some(({ Status }) => Status === "critical"),
      "it is healthy",
    );
  });
}

const nothing: Sample = { leader: null, health: null, raft: null, members: null, self: null, runs: "", minQuorum: 0 };

/** What consul/machine/quorum.sh prints of one look at a server, asked over HTTP in the same order. */
async function look(api: Api): Promise<Sample> {
  type Members = { Name: string; Status: number; Tags: { role: string } }[];
  const leader = await answer<string>(api, "status/leader");
  if (leader === null) return nothing;
  const [health, raft, members] = await Promise.all([
    answer<NonNullable<Sample["health"]>>(api, "operator/autopilot/health"),
    answer<NonNullable<Sample["raft"]>>(api, "operator/raft/configuration"),
    answer<Members>(api, "agent/members"),
  ]);
  // The server's own state comes last: it must have what the leader had before.
  const self = await answer<{ Stats: { raft: NonNullable<Sample["self"]> } }>(api, "agent/self");
  const servers = members?.filter(({ Tags }) => Tags.role === "consul") ?? null;
  const account = self?.Stats.raft ?? null;
  return sampleOf({ leader, health, raft, members: servers, self: account, runs: "", minQuorum: 0 });
}

/** An answer, or null for none. Autopilot answers 429 where something is amiss, with the same body as otherwise. */
async function answer<T>(api: Api, path: string): Promise<T | null> {
  try {
    return await api.get<T>(path);
  } catch (error) {
    return error instanceof ApiError && error.body.startsWith("{") ? (JSON.parse(error.body) as T) : null;
  }
}
