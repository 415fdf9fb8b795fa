import { deepEqual, equal, match, ok } from "assert/strict";
import { createSocket } from "dgram";
import { decode, encode } from "dns-packet";
import { once } from "events";
import { mkdtempSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { ports } from "../../consul/config";
import { stubDomain } from "../../components/kubernetes/stub-domain";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { coreDnsPort, startCoreDns } from "./coredns";
import { ask, Reply } from "./dns-client";

/** A real CoreDNS with the stub domain, in front of a real agent. */
describe("DNS for pods", function () {
  this.timeout(600_000);
  const prefix = "127.31.0";
  const resolver = { address: `${prefix}.53`, port: coreDnsPort };
  let cluster: Cluster;
  const asked: string[] = [];

  before(async function () {
    this.timeout(1_800_000); // a first build of CoreDNS and Consul
    const directory = mkdtempSync(join(tmpdir(), "consul-dns-"));
    undo.push(() => rmSync(directory, { recursive: true, force: true }));
    cluster = await startCluster({ dir: join(directory, "cluster"), config: onLoopback(prefix, 3, 1) });
    undo.push(() => cluster.stop());

    // What the cluster's CoreDNS asks for every other name.
    const upstream = createSocket("udp4");
    undo.push(() => upstream.close());
    upstream.on("message", (message, from) => {
      const { id, questions } = decode(message);
      const name = questions?.[0]?.name ?? "";
      asked.push(name);
      const answers = [{ type: "A" as const, name, ttl: 60, data: "192.0.2.7" }];
      upstream.send(encode({ type: "response", id, questions, answers }), from.port, from.address);
    });
    upstream.bind(15_354, `${prefix}.54`);
    await once(upstream, "listening");

    undo.push(await startCoreDns(directory, resolver.address, `${prefix}.21`, `${prefix}.54:15354`));
    await cluster.until("CoreDNS does not answer", async () => void (await ask(resolver, "www.example.com")));
  });

  // Each undone by what made it, so that a failed start leaves nothing behind either.
  const undo: (() => unknown)[] = [];
  after(async () => {
    for (const step of undo.reverse()) await step();
  });

  const register = (name: string) =>
    cluster.api("agent-1").put("agent/service/register", { Name: name, Port: 8080, Address: "10.0.0.9" });
  /** Asks until the answer is as wanted, and gives back how long that took. */
  async function until(name: string, wanted: (reply: Reply) => boolean): Promise<number> {
    const began = Date.now();
    await cluster.until(`${name} is not answered as wanted`, async () => ok(wanted(await ask(resolver, name))));
    return (Date.now() - began) / 1000;
  }
  const addresses = ({ answers }: Reply) => answers.flatMap((answer) => (answer.type === "A" ? [answer.data] : []));

  it("finds a service by name, with its port, over UDP and TCP, for no longer than the agents allow", async () => {
    await register("web");
    await until("web.service.consul", (reply) => addresses(reply)[0] === "10.0.0.9");
    for (const protocol of ["udp", "tcp"] as const) {
      const { rcode, answers } = await ask(resolver, "web.service.consul", "A", protocol);
      equal(rcode, "NOERROR");
      const [answer] = answers;
      ok(answer?.type === "A" && answer.ttl !== undefined && answer.ttl <= 5, JSON.stringify(answer));
    }
    const [srv] = (await ask(resolver, "web.service.consul", "SRV", "tcp")).answers;
    ok(srv?.type === "SRV");
    equal(srv.data.port, 8080);
    deepEqual(addresses(await ask(resolver, "agent-1.node.consul")), [`${prefix}.21`]);
  });

  it("finds a service that was asked for before it was there", async () => {
    equal((await ask(resolver, "late.service.consul")).rcode, "NXDOMAIN");
    await register("late");
    // 1 s that CoreDNS remembers "no such name", and what the servers need to hear of it.
    const took = await until("late.service.consul", (reply) => reply.rcode === "NOERROR");
    ok(took < 5, `${took} s`);
  });

  it("leaves every other name to the resolver that had it before, and never asks an agent", async () => {
    asked.length = 0;
    deepEqual(addresses(await ask(resolver, "consul.example.com")), ["192.0.2.7"]);
    deepEqual(asked, ["consul.example.com"]);
    asked.length = 0;
    equal((await ask(resolver, "none.service.consul")).rcode, "NXDOMAIN");
    deepEqual(asked, []);
    equal((await ask({ address: `${prefix}.21`, port: ports.dns }, "www.example.com")).rcode, "REFUSED");
  });

  it("answers what it knew while the agent of its node restarts, and says so of what it did not", async () => {
    await until("web.service.consul", (reply) => reply.rcode === "NOERROR");
    await cluster.end("agent-1");
    await sleep(6000); // past the TTL: a kept answer would not do
    deepEqual(addresses(await ask(resolver, "web.service.consul")), ["10.0.0.9"]);
    equal((await ask(resolver, "other.service.consul")).rcode, "SERVFAIL");
    cluster.start("agent-1");
    await until("other.service.consul", (reply) => reply.rcode === "NXDOMAIN");
  });

  it("goes on answering from one server when the others are gone: reads may be stale", async () => {
    await register("steady");
    await until("steady.service.consul", (reply) => reply.rcode === "NOERROR");
    const leader = await cluster.leaderName();
    const others = ["server-1", "server-2", "server-3"].filter((name) => name !== leader);
    await Promise.all([leader, others[0] ?? ""].map((name) => cluster.kill(name)));
    await sleep(15_000);
    // Past the time for which a server without a leader counts as up to date by its own account (10 s elsewhere), and
    // past the time in which the agent finds out which servers are gone.
    await until("steady.service.consul", (reply) => addresses(reply)[0] === "10.0.0.9");
    const agent = { address: `${prefix}.21`, port: ports.dns };
    for (let i = 0; i < 5; i++) deepEqual(addresses(await ask(agent, "steady.service.consul")), ["10.0.0.9"]);
  });

  it("tells a person where the block goes", () => {
    match(stubDomain({ address: "10.96.0.53", port: 53 }), /^consul:53 \{\n[^]*forward \. 10\.96\.0\.53\n[^]*\}\n$/);
  });
});
