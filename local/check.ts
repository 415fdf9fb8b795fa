import assert from "assert/strict";
import { ApiError } from "./api";
import { lookup } from "./dns";
import type { Cluster, Step } from "./supervisor";

/** A member of the gossip pool as the API gives it; status 1 is alive. */
export interface Member {
  readonly Name: string;
  readonly Addr: string;
  readonly Status: number;
  readonly Tags: Readonly<Record<string, string>>;
}

/** What `npm start -- --check` asks of a running cluster. Each step throws where the cluster is not as it should be. */
export function checks(cluster: Cluster): Step[] {
  const agents = cluster.nodes.filter(({ role }) => role === "agent");
  const here = agents[0]?.name ?? "";
  const there = agents[1] ?? agents[0];
  const elsewhere = agents.at(-1);
  assert(there && elsewhere, "a cluster without agents cannot be checked");
  const service = `check-${process.pid}`;
  // A change at one node takes a moment to reach the others.
  const eventually = <T>(problem: string, attempt: () => Promise<T>) => cluster.until(problem, attempt, 20);

  return [
    {
      title: "Every member is alive, as every node sees it",
      run: () =>
        eventually("not every member is alive", async () => {
          for (const { name } of cluster.nodes) {
            const members = await cluster.api(name).get<Member[]>("agent/members");
            const alive = members.filter(({ Status }) => Status === 1).map(({ Name }) => Name);
            assert.deepEqual(alive.sort(), cluster.nodes.map((node) => node.name).sort(), `as ${name} sees it`);
          }
          return `${cluster.nodes.length} members`;
        }),
    },
    {
      title: "There is one leader, as every node sees it",
      run: () =>
        eventually("there is not one leader", async () => {
          const apis = cluster.nodes.map(({ name }) => cluster.api(name, null));
          const leaders = new Set(await Promise.all(apis.map((api) => api.get<string>("status/leader"))));
          assert.equal(leaders.size, 1, `several leaders: ${[...leaders].join(", ")}`);
          const [leader = ""] = leaders;
          assert.notEqual(leader, "", "no leader");
          return leader;
        }),
    },
    {
      title: `A service registered at ${here} is found at ${there.name} over HTTP`,
      run: async () => {
        await cluster.api(here).put("agent/service/register", { Name: service, Port: 8080 });
        return eventually(`${service} is not found`, async () => {
          type Entry = { Service: { Port: number }; Node: { Address: string } };
          const path = `health/service/${service}?passing`;
          const [found] = await cluster.api(there.name, null).get<Entry[]>(path);
          assert(found, "no such service yet");
          assert.equal(found.Service.Port, 8080);
          assert.equal(found.Node.Address, cluster.node(here).address);
          return `${found.Node.Address}:${found.Service.Port}`;
        });
      },
    },
    {
      title: `The service is found at ${elsewhere.name} over DNS`,
      run: () =>
        eventually(`${service} has no address`, async () => {
          const [answer] = await lookup(elsewhere.address, `${service}.service.consul`, "A");
          assert(answer?.type === "A", "no address yet");
          assert.equal(answer.data, cluster.node(here).address);
          await cluster.api(here).put(`agent/service/deregister/${service}`);
          return `${answer.name} is ${answer.data}`;
        }),
    },
    {
      title: "A write without a token is refused",
      run: async () => {
        const api = cluster.api(here, null);
        const refused = (error: unknown) => error instanceof ApiError && error.status === 403;
        await assert.rejects(api.put("kv/check", "x"), refused);
        await assert.rejects(api.put("agent/service/register", { Name: service }), refused);
        return "403";
      },
    },
  ];
}
