import { deepEqual, equal, ok } from "assert/strict";
import { mkdtempSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { ports } from "../../consul/config";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { coreDnsPort, startCoreDns } from "./coredns";
import { ask, Reply, resolve } from "./dns-client";

/** More instances than one UDP message holds: who asks must get all of them, or hear that there are more. */
describe("DNS for a service with 200 instances", function () {
  this.timeout(600_000);
  const prefix = "127.54.0";
  const name = "many.service.consul";
  const all = Array.from({ length: 200 }, (_, i) => `10.0.1.${i + 1}`).sort();
  const agent = { address: `${prefix}.21`, port: ports.dns };
  const coreDns = { address: `${prefix}.53`, port: coreDnsPort };
  let cluster: Cluster;
  let directory = "";
  const undo: (() => unknown)[] = [];

  before(async function () {
    this.timeout(1_800_000); // a first build of CoreDNS and Consul
    directory = mkdtempSync(join(tmpdir(), "consul-dns-many-"));
    undo.push(() => rmSync(directory, { recursive: true, force: true }));
    cluster = await startCluster({ dir: join(directory, "cluster"), config: onLoopback(prefix, 3, 1) });
    undo.push(() => cluster.stop());
    const register = (Address: string) =>
      cluster
        .api("agent-1")
        .put("agent/service/register", { ID: `many-${Address}`, Name: "many", Port: 8080, Address });
    await Promise.all(all.map(register));
    await cluster.until("not all are found", async () => deepEqual(addresses(await ask(agent, name, "A", "tcp")), all));
  });
  after(async () => {
    for (const step of undo.reverse()) await step();
  });

  const addresses = ({ answers }: Reply) =>
    answers.flatMap((answer) => (answer.type === "A" ? [answer.data] : [])).sort();
  const instances = ({ answers }: Reply) => answers.filter(({ type }) => type === "SRV").length;

  it("follows a service that somebody asked for with ?cached before", async () => {
    const api = cluster.api("agent-1");
    const asked = Array.from({ length: 400 }, (_, i) => `asked-${i}`);
    const inTurn = async (work: (service: string, i: number) => Promise<unknown>) => {
      for (let i = 0; i < asked.length; i += 20) await Promise.all(asked.slice(i, i + 20).map(work));
    };
    const register = (Name: string, Address: string) =>
      api.put("agent/service/register", { ID: `${Name}-${Address}`, Name, Port: 80, Address });
    const known = async (service: string) => addresses(await ask(agent, `${service}.service.consul`, "A", "tcp"));

    await inTurn((service) => register(service, "10.0.2.1"));
    await cluster.until("not all are in the catalog", async () => {
      const services = await api.get<object>("catalog/services?consistent");
      deepEqual(
        asked.filter((service) => !(service in services)),
        [],
      );
    });
    // Some of the clients have given up when the agent has its first answer and begins to follow the service.
    const url = (service: string) => `${api.address}/v1/health/service/${service}?passing&cached`;
    await inTurn((service, i) => fetch(url(service), { signal: AbortSignal.timeout(i) }).catch(() => undefined));
    await inTurn(known);
    await inTurn((service) => register(service, "10.0.2.2"));
    let old = asked;
    await cluster.until("answers are never renewed", async () => {
      const answers = await Promise.all(
        old.map(async (service) => ({ service, count: (await known(service)).length })),
      );
      old = answers.filter(({ count }) => count < 2).map(({ service }) => service);
      deepEqual(old, []);
    });
  });

  it("says over UDP that there are more, with EDNS and without", async () => {
    for (const type of ["A", "SRV"] as const) {
      for (const transport of ["udp", { edns: 1232 }] as const) {
        const reply = await ask(agent, name, type, transport);
        ok(reply.truncated, `${type}, ${JSON.stringify(transport)}: ${reply.answers.length} answers, and not a word`);
        ok(reply.size <= (transport === "udp" ? 512 : transport.edns), `${reply.size} bytes`);
      }
    }
  });

  // A resolver that asks with EDNS and one that asks without: either may be the first that fills CoreDNS' cache.
  for (const [how, edns] of [
    ["without EDNS", undefined],
    ["with EDNS", 1232],
  ] as const) {
    it(`gives all of them to a resolver ${how}, from the agent`, async () => {
      deepEqual(addresses(await resolve(agent, name, "A", edns)), all);
      equal(instances(await resolve(agent, name, "SRV", edns)), all.length);
    });

    it(`gives all of them to a resolver ${how}, through CoreDNS, first asked and from its cache`, async () => {
      // A CoreDNS of its own, which has nothing in its cache.
      const end = await startCoreDns(directory, coreDns.address, agent.address, "127.0.0.1:9");
      try {
        await cluster.until("CoreDNS does not answer", () => ask(coreDns, "none.service.consul", "A", "tcp"));
        for (let i = 0; i < 3; i++) {
          deepEqual(addresses(await resolve(coreDns, name, "A", edns)), all);
          equal(instances(await resolve(coreDns, name, "SRV", edns)), all.length);
        }
        deepEqual(addresses(await ask(coreDns, name, "A", "tcp")), all);
      } finally {
        await end();
      }
    });
  }

  it("sends no node's metadata along: the answer stays short", async () => {
    const reply = await ask(agent, name, "SRV", "tcp");
    deepEqual([...new Set(reply.additionals.map(({ type }) => type))], ["A"]);
    console.log(`      ${all.length} SRV records: ${reply.size} bytes`);
  });
});
