import assert from "assert/strict";
import { setTimeout as sleep } from "timers/promises";
import { ports } from "../../consul/config";
import type { Cluster } from "../../local/supervisor";
import { eventually, names } from "../healthy";
import { Stream } from "../load";
import { Application, deregister, heartbeat, register } from "./lookups";
import { above, Drill, seconds, Shown } from "./report";

export interface AgentRestarts {
  /** Seconds from the agent's stop until it answered again: the gap, and the start of the process. */
  readonly away: number;
  /** Seconds for which a service of the restarted agent, with heartbeats, was missing from discovery. */
  readonly restart: number;
  /** The same for a service with an HTTP check of 10 s: at each start Consul takes a check for critical until it passes. */
  readonly restartHttp: number;
  /** As `restart`, for an agent that leaves before it stops (`consul leave`), as in the hand-made cluster. */
  readonly leave: number;
  /** An agent that was killed, and started again without its data. */
  readonly dataLoss: {
    /** Seconds from its start until a service that was registered anew was in the catalog. */
    readonly registered: number;
    /** Nodes that were ever seen under its address, by name, and the most instances of its service at one time. */
    readonly nodes: readonly string[];
    readonly instances: number;
  };
}

/**
 * Restarts an agent as the DaemonSet does, lets a second agent leave and start again, kills a third and deletes its data;
 * all at the same time.
 * @param gap seconds from the stop of the first two agents to their start
 */
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
  await register(cluster, [b, c]); // no heartbeats: a heartbeat while the agent leaves can bring its service back
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
  // The application registers its service again, and a new one.
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

export const agentsDrill: Drill = {
  title: "An agent restarts as its pod does, one leaves first, one loses its data",
  run: showAgents,
};

async function showAgents(cluster: Cluster): Promise<Shown> {
  const figures = await restartAgents(cluster);
  const { away, restart, restartHttp, leave, dataLoss } = figures;
  return {
    figures,
    table: [
      [
        `restarted as the DaemonSet does it, away for ${seconds(away)}`,
        `its service is missing for ${seconds(restart)}`,
      ],
      ["… a service with an HTTP check of 10 s, no heartbeats", `is missing for ${seconds(restartHttp)}`],
      ["restarted with `consul leave` first, as by hand", `its service is missing for ${seconds(leave)}`],
      ["killed, its data lost", `a new registration is in the catalog after ${seconds(dataLoss.registered)}`],
      ["names of its address", dataLoss.nodes.join(", ")],
      ["instances of its service at any time", `at most ${dataLoss.instances}`],
    ],
    broken: above([
      // Gossip takes a node for dead after 5 s or so. Where this machine needs that long for a restart, nothing is promised.
      ["seconds without the restarted agent's service", restart, away < 4.5 ? 0 : Infinity],
      ["seconds until an agent without its data registers something", dataLoss.registered, 15],
      ["names of one address", dataLoss.nodes.length, 1],
      ["instances of one service", dataLoss.instances, 1],
    ]),
  };
}
