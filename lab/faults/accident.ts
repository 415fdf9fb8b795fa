import assert from "assert/strict";
import { setTimeout as sleep } from "timers/promises";
import type { Cluster } from "../../local/supervisor";
import type { Progress } from "../../tools/progress";
import { eventually, first, healthy, names, noticed } from "../healthy";
import { Stream, Tally } from "../load";
import { failures } from "../pictures/plots";
import { deregister, heartbeat, Lookers, Lookups, register, ways } from "./lookups";
import { above, Drill, failed, lookupLimits, seconds, Shown } from "./report";

/** Services at the first, second and third server of the hand-made cluster. */
export const spread = [28, 94, 29] as const;

export interface Accident {
  readonly services: number;
  readonly lookups: Lookups;
  /** Health updates, as the applications send them. */
  readonly updates: Tally;
  /** Services that nobody found any more, once the cluster had noticed that the server was gone. */
  readonly lost: number;
  /** How long the server was away. */
  readonly seconds: number;
}

/**
 * Registers 151 services straight at the servers, as the hand-made cluster had it, or through the agents. Kills the server
 * that had 94 of the services, and starts it again once the other servers have noticed. Each service sends a health
 * update every 2 s, and looks up other services at the node where it is registered.
 */
export async function accident(cluster: Cluster, at: "server" | "agent"): Promise<Accident> {
  const endpoints = names(cluster, at);
  const applications = spread.flatMap((count, i) =>
    Array.from({ length: count }, (_, j) => ({ service: `app-${i + 1}-${j + 1}`, at: first(endpoints, i) })),
  );
  const victim = first(names(cluster, "server"), 1);
  await handOver(cluster, victim); // an election is the experiment of leader.ts
  await register(cluster, applications, heartbeat);
  const pace = 2000 / applications.length;
  const application = (turn: number) => first(applications, turn % applications.length);
  const updates = new Stream(pace, (turn) => {
    const { service, at: endpoint } = application(turn);
    return cluster.api(endpoint).put(`agent/check/pass/service:${service}`);
  });
  // 64 and 151 have no factor in common: in time every service looks up every other one.
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
  const away = (Date.now() - killed) / 1000;
  const [lookups, sent] = await Promise.all([lookers.stop(), updates.stop()]);
  cluster.start(victim);
  await healthy(cluster);
  await deregister(cluster, applications);
  const lost = sweep.filter(({ status }) => status === "rejected").length;
  return { services: sweep.length, lookups, updates: sent, lost, seconds: away };
}

/** Makes sure that a server does not lead. */
async function handOver(cluster: Cluster, server: string): Promise<void> {
  const leader = await cluster.leaderName();
  if (leader !== server) return;
  type Raft = { Servers: { ID: string; Node: string }[] };
  const { Servers } = await cluster.api(leader).get<Raft>("operator/raft/configuration");
  const other = Servers.find(({ Node }) => Node !== server);
  await cluster.api(leader).request("POST", `operator/raft/transfer-leader?id=${other?.ID ?? ""}`);
  await eventually(`${server} leads still`, async () => assert.notEqual(await cluster.leaderName(), server));
  await healthy(cluster);
}

export const accidentDrill: Drill = {
  title: "A server dies that 94 of 151 services were registered at",
  run: showAccident,
};

async function showAccident(cluster: Cluster, progress: Progress): Promise<Shown> {
  progress("registered at the servers");
  const old = await accident(cluster, "server");
  progress("registered at the nodes' agents");
  const now = await accident(cluster, "agent");
  const row = (what: string, figure: (of: Accident) => string) => [what, figure(old), figure(now)];
  return {
    figures: { atServers: old, atAgents: now },
    table: [
      ["", "at the servers, as by hand", "at the agents"],
      row("services, away for", (of) => `${of.services}, ${seconds(of.seconds)}`),
      ...ways.map((way) => row(`lookups, ${way}`, (of) => failed(of.lookups[way]))),
      row("health updates", (of) => failed(of.updates)),
      row("services lost", (of) => `${of.lost} of ${of.services}`),
    ],
    broken: above([
      ...lookupLimits("at the agents", now.lookups, 0),
      ["at the agents: failed health updates", now.updates.failed, 0],
      ["at the agents: lost services", now.lost, 0],
      ["at the servers: services that are found in spite of all", spread[1] - old.lost, 0],
    ]),
    plots: [
      await failures(
        "Requests that failed while the server was away",
        [...ways, "health updates" as const].flatMap((kind) =>
          [
            { place: "at the servers", of: old },
            { place: "at the agents", of: now },
          ].map(({ place, of }) => ({ kind, place, ...(kind === "health updates" ? of.updates : of.lookups[kind]) })),
        ),
      ),
    ],
  };
}
