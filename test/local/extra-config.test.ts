import { deepEqual, equal, match, rejects } from "assert/strict";
import { execFile } from "child_process";
import { once } from "events";
import { mkdtempSync, rmSync, writeFileSync } from "fs";
import { connect } from "net";
import { tmpdir } from "os";
import { join } from "path";
import { promisify } from "util";
import { ports } from "../../consul/config";
import { consulKeys } from "../../consul/extra-config";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { ask } from "./dns-client";

type Tree = Record<string, unknown>;

/** Servers and agents with more configuration than this program's, on a real cluster. */
describe("extra configuration of a real cluster", function () {
  this.timeout(600_000);
  let directory: string;
  let cluster: Cluster;
  const nodes = onLoopback("127.44.0", 3, 1);
  const config = (key: "consul:servers" | "consul:agents", extraConfig: Tree) => ({
    [key]: JSON.stringify({ ...(JSON.parse(nodes[key] ?? "") as Tree), extraConfig }),
  });
  const ttl = (seconds: number) => ({ dns_config: { service_ttl: { orders: `${seconds}s` } } });

  before(async function () {
    this.timeout(1_800_000); // a first build of Consul
    directory = mkdtempSync(join(tmpdir(), "consul-extra-"));
    cluster = await startCluster({
      dir: join(directory, "cluster"),
      config: {
        ...config("consul:servers", { ...ttl(30), raft_snapshot_threshold: 4096, gossip_lan: { gossip_nodes: 4 } }),
        ...config("consul:agents", { ...ttl(30), http_config: { response_headers: { "X-Rack": "a" } } }),
      },
    });
    for (const name of ["orders", "billing"]) {
      await cluster.api("agent-1").put("agent/service/register", { name, port: 8080 });
    }
  });

  after(async () => {
    await (cluster as Cluster | undefined)?.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  /** Seconds for which a node's DNS lets its answer be kept. */
  const keptFor = (node: string, service: string) =>
    cluster.until(`${service} is not found`, async () => {
      const { answers } = await ask(
        { address: cluster.node(node).address, port: ports.dns },
        `${service}.service.consul`,
      );
      const [answer] = answers;
      if (answer?.type !== "A") throw new Error("no answer");
      return answer.ttl;
    });
  const runs = async (node: string) =>
    (await cluster.api(node).get<{ DebugConfig: Record<string, unknown> }>("agent/self")).DebugConfig;
  const reload = async (node: string) => {
    cluster.write(node);
    await cluster.api(node).put("agent/reload");
  };
  const validate = (content: Tree) => {
    const file = join(directory, "validated.json");
    writeFileSync(file, JSON.stringify(content));
    return promisify(execFile)(cluster.consul, ["validate", file]);
  };

  it("is what Consul runs with, beside all that this program sets", async () => {
    deepEqual([await keptFor("agent-1", "orders"), await keptFor("agent-1", "billing")], [30, 5]);
    deepEqual([await keptFor("server-1", "orders"), await keptFor("server-1", "billing")], [30, 5]);
    const server = await runs("server-1");
    deepEqual([server.RaftSnapshotThreshold, server.GossipLANGossipNodes, server.DNSMaxStale], [4096, 4, "24h0m0s"]);
    const { headers } = await fetch(`http://${cluster.node("agent-1").address}:${ports.http}/v1/status/leader`);
    equal(headers.get("X-Rack"), "a");
  });

  it("takes effect by a reload, where it is a key that Consul reloads", async () => {
    const limits = { http_max_conns_per_client: 1 };
    await cluster.update({ ...config("consul:servers", ttl(40)), ...config("consul:agents", { ...ttl(40), limits }) });
    const before = cluster.pid("server-1");
    for (const node of ["server-1", "agent-1"]) {
      await reload(node);
      deepEqual([await keptFor(node, "orders"), await keptFor(node, "billing")], [40, 5], node);
    }
    equal(cluster.pid("server-1"), before);
    const { address } = cluster.node("agent-1");
    const first = connect(ports.http, address);
    await once(first, "connect");
    const second = connect(ports.http, address);
    await once(second.resume(), "close");
    first.destroy();
  });

  it("is checked by the same command as on a machine, which says what Consul refuses", async () => {
    await validate({ data_dir: directory, server: false, gossip_lan: { gossip_nodes: 4 } });
    await rejects(validate({ data_dir: directory, limits: { rpc_rate: "many" } }), /rpc_rate/);
  });

  it("has no key that Consul does not have: consul/extra-config.ts names those that it has", async () => {
    const all = Object.fromEntries(consulKeys.map((key) => [key, null]));
    await validate({ ...all, data_dir: directory });
    await rejects(validate({ ...all, data_dir: directory, dns_confg: null }), (error: { stderr: string }) => {
      match(error.stderr, /invalid config key dns_confg/);
      return true;
    });
  });
});
