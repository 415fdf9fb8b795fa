import { Agent, request, RequestOptions } from "http";
import { ports } from "../../consul/config";
import { Resolver } from "../../local/dns";
import { quantile } from "../load";
import { Contender, contenders, markdown, Name, names, ofEach, spreadOf } from "./contenders";

const clients = 32;
const rounds = 3;

interface Load {
  readonly rate: number;
  /** Milliseconds below which 99 of 100 requests were answered. */
  readonly p99: number;
}

/** Runs 32 clients, each with one request at a time. @throws where any request fails */
async function load(seconds: number, attempt: () => Promise<unknown>): Promise<Load> {
  const took: number[] = [];
  const began = performance.now();
  const client = async () => {
    while (performance.now() < began + seconds * 1000) {
      const at = performance.now();
      await attempt();
      took.push(performance.now() - at);
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  return { rate: took.length / ((performance.now() - began) / 1000), p99: quantile(took, 0.99) };
}

/**
 * `npm run bench -- throughput`: requests per second and the slowest in a hundred, at an agent and straight at a server;
 * this program's cluster (TLS, ACLs, encrypted gossip) and that of the Docker walk-through (none of these) in turn.
 * @param consul path of the binary
 * @returns Markdown
 */
export async function benchThroughput(consul: string, progress: (line: string) => void): Promise<string> {
  const running = {} as Record<Name, Contender>;
  const results = new Map<string, Record<Name, Load[]>>();
  try {
    for (const name of names) running[name] = (await contenders[name](consul)).contender;
    for (const name of names) await registerWeb(running[name]);
    for (let round = 1; round <= rounds; round++) {
      for (const name of names) {
        for (const { what, attempt } of await measures(running[name])) {
          await load(0.5, attempt);
          const result = await load(3, attempt);
          const all = results.get(what) ?? ofEach<Load>();
          all[name].push(result);
          results.set(what, all);
          progress(`round ${round} of ${rounds}, ${name}, ${what}: ${result.rate.toFixed(0)} per second`);
        }
      }
    }
  } finally {
    resolver.close();
    connections.destroy();
    for (const contender of Object.values(running)) await contender.stop();
  }
  const rows = [...results].map(([what, of]) => [
    what,
    ...names.flatMap((name) => [
      spreadOf(
        of[name].map(({ rate }) => rate),
        0,
      ),
      spreadOf(of[name].map(({ p99 }) => p99)),
    ]),
  ]);
  const head = names.flatMap((name) => [`${name}: per second`, `${name}: p99, ms`]);
  return `${clients} clients, one Node process; minimum / median / maximum of ${rounds} rounds of 3 s\n\n${markdown(["", ...head], rows)}`;
}

async function registerWeb(cluster: Contender): Promise<void> {
  const agent = cluster.nodes.find(({ role }) => role === "agent")?.name ?? "";
  for (const ID of ["web-1", "web-2", "web-3"]) {
    await cluster.api(agent).put("agent/service/register", { ID, Name: "web", Port: 80 });
  }
  await cluster.api(agent).put("kv/bench/read", "x".repeat(100));
}

interface Measure {
  readonly what: string;
  readonly attempt: () => Promise<unknown>;
}

async function measures(cluster: Contender): Promise<Measure[]> {
  const leader = await cluster.leaderName();
  const agent = cluster.nodes.find(({ role }) => role === "agent");
  const follower = cluster.nodes.find(({ name, role }) => role === "server" && name !== leader);
  return [...at(agent?.address ?? "", "at the agent"), ...at(follower?.address ?? "", "at a server")];

  function at(host: string, place: string): Measure[] {
    const headers = cluster.managementToken === undefined ? {} : { "X-Consul-Token": cluster.managementToken };
    const http = (method: string, path: string, body = "") =>
      ask({ agent: connections, method, host, port: ports.http, path: `/v1/${path}`, headers }, body);
    const lookup = "health/service/web?passing";
    let turn = 0;
    return [
      { what: `KV writes ${place}`, attempt: () => http("PUT", `kv/bench/${turn++ % 1000}`, "x".repeat(100)) },
      { what: `KV reads ${place}`, attempt: () => http("GET", "kv/bench/read") },
      { what: `lookups, HTTP, ${place}`, attempt: () => http("GET", lookup) },
      { what: `lookups, DNS, ${place}`, attempt: () => resolver.addresses(host, "web.service.consul") },
    ];
  }
}

const connections = new Agent({ keepAlive: true, maxSockets: clients });
const resolver = new Resolver();

/** One request, as cheap for the client as Node has it. @throws where the answer is not 200 */
function ask(options: RequestOptions, body: string): Promise<void> {
  return new Promise((answered, reject) => {
    const sent = request(options, (response) => {
      response.resume().once("end", () => {
        if (response.statusCode === 200) answered();
        else reject(new Error(`${options.method ?? ""} ${options.path ?? ""}: ${response.statusCode ?? ""}`));
      });
    });
    sent.once("error", reject).end(body);
  });
}
