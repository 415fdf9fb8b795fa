import { readFileSync } from "fs";
import { setTimeout as sleep } from "timers/promises";
import { Api } from "../../local/api";
import { Cluster, onLoopback } from "../../local/supervisor";
import { names } from "../healthy";
import { markdown, spreadOf, temporary } from "./contenders";

const prefix = "127.38.0";
const agentCounts = [1, 11, 50];
const serviceCounts = [151, 1000, 5000];
/** How many agents start at a time. */
const batch = 5;
/** How many services are registered to see how long it takes until every agent knows them. */
const probes = 10;

/**
 * `npm run bench -- scale`: three servers with 1, 11 and 50 agents and 151, 1,000 and 5,000 services: how long it takes
 * until every agent sees a new service, the memory of an agent, and the CPU of the servers at rest.
 * @param consul path of the binary
 * @returns Markdown
 */
export async function benchScale(consul: string, progress: (line: string) => void): Promise<string> {
  const rows: string[][] = [];
  for (const agents of agentCounts) {
    const cluster = new Cluster({ dir: temporary(), binary: consul, config: onLoopback(prefix, 3, 1) });
    try {
      for (const step of cluster.steps()) await step.run(() => undefined);
      // A few at a time: fifty processes that start at once keep two cores busy for too long.
      for (let count = 1 + batch; count < agents + batch; count += batch) {
        const before = new Set(cluster.runningNodes.map(({ name }) => name));
        await cluster.update(onLoopback(prefix, 3, Math.min(count, agents)));
        for (const { name } of cluster.nodes) if (!before.has(name)) cluster.start(name);
        await cluster.ready();
        progress(`${Math.min(count, agents)} of ${agents} agents`);
      }
      await cluster.registered();
      let registered = 0;
      for (const services of serviceCounts) {
        await register(cluster, registered, services);
        registered = services;
        progress(`${agents} agents, ${services} services`);
        rows.push([`${agents}`, services.toLocaleString("en"), ...(await measure(cluster))]);
      }
    } finally {
      await cluster.stop();
    }
  }
  const head = ["agents", "services", "until every agent sees a new service, ms", "memory of an agent, MB"];
  return `minimum / median / maximum\n\n${markdown([...head, "memory of a server, MB", "CPU of all servers at rest"], rows)}`;
}

/** Registers services from one number to another, spread over the agents, and waits until all are in the catalog. */
async function register(cluster: Cluster, from: number, to: number): Promise<void> {
  const agents = names(cluster, "agent");
  let next = from;
  const worker = async () => {
    for (let i = next++; i < to; i = next++) {
      const body = { Name: `service-${i}`, Port: 8080, Check: { TTL: "24h", Status: "passing" } };
      await cluster.api(agents[i % agents.length] ?? "").put("agent/service/register", body);
    }
  };
  await Promise.all(Array.from({ length: 16 }, worker));
  await cluster.until(
    "not every service is in the catalog",
    async () => {
      const services = await cluster.api(await cluster.leaderName()).get<Record<string, unknown>>("catalog/services");
      const found = Object.keys(services).filter((name) => name.startsWith("service-")).length;
      if (found < to) throw new Error(`${found} of ${to}`);
    },
    300,
  );
}

async function measure(cluster: Cluster): Promise<string[]> {
  const times: number[] = [];
  for (let i = 0; i < probes; i++) times.push(await seenEverywhere(cluster, `probe-${Date.now()}`));
  await sleep(10_000); // until the servers are done with what was registered
  const servers = names(cluster, "server");
  const cpu = () => servers.reduce((sum, name) => sum + cpuSeconds(cluster, name), 0);
  const [before, began] = [cpu(), performance.now()];
  await sleep(20_000);
  const share = ((cpu() - before) / (performance.now() - began)) * 100_000;
  const memory = (nodes: readonly string[]) => {
    const each = nodes.map((name) => megabytes(cluster, name));
    return spreadOf(each, 0);
  };
  return [spreadOf(times, 0), memory(names(cluster, "agent")), memory(servers), `${share.toFixed(1)} % of a core`];
}

/** Registers a service at one agent while every agent waits for it. @returns milliseconds until the last one has it */
async function seenEverywhere(cluster: Cluster, service: string): Promise<number> {
  const agents = names(cluster, "agent");
  const waits = await Promise.all(agents.map((name) => waitFor(cluster.api(name, null), service)));
  await sleep(300);
  const began = performance.now();
  const seen = waits.map((wait) => wait().then(() => performance.now() - began));
  await sleep(200); // until every question has arrived
  const registered = performance.now() - began;
  await cluster.api(agents[0] ?? "").put("agent/service/register", { Name: service, Port: 8080 });
  const last = Math.max(...(await Promise.all(seen)));
  await cluster.api(agents[0] ?? "").put(`agent/service/deregister/${service}`);
  return last - registered;
}

/** Asks for a service that is not there yet. @returns a function that waits for the service, by blocking queries */
async function waitFor(api: Api, service: string): Promise<() => Promise<void>> {
  const ask = async (index: string) => {
    const response = await fetch(`${api.address}/v1/health/service/${service}?passing&wait=60s&index=${index}`);
    const found = (await response.json()) as unknown[];
    return { found: found.length > 0, index: response.headers.get("x-consul-index") ?? "1" };
  };
  let { index } = await ask("0");
  return async () => {
    for (let found = false; !found;) ({ found, index } = await ask(index));
  };
}

/** CPU seconds that a node's process has used. */
function cpuSeconds(cluster: Cluster, name: string): number {
  const stat = readFileSync(`/proc/${cluster.pid(name) ?? 0}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  return (Number(stat[11]) + Number(stat[12])) / 100; // user and system time, in ticks of 10 ms
}

/** Memory that a node's process occupies. */
function megabytes(cluster: Cluster, name: string): number {
  const status = readFileSync(`/proc/${cluster.pid(name) ?? 0}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
}
