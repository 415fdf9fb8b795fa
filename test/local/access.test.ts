import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { execFile } from "child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { delimiter, join } from "path";
import { promisify } from "util";
import {
  appRules,
  Grant,
  grantObjects,
  grantPrefix,
  metricsRules,
  snapshotMetricsKey,
  snapshotRules,
} from "../../consul/access";
import { ports } from "../../consul/config";
import { ApiError } from "../../local/api";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";

const uuid = (n: number) => `f1c70e5a-0000-4000-8000-${String(n).padStart(12, "0")}`;
const rules = {
  orders: appRules({
    services: ["orders", "orders-*"],
    kv: { read: ["config/orders/"], write: ["state/orders/"] },
  }),
  billing: appRules({ services: ["billing"], kv: { read: ["config/billing/"], write: [] } }),
};
const orders: Grant = { name: "orders", rules: rules.orders, secrets: [uuid(1)] };
const billing: Grant = { name: "billing", rules: rules.billing, secrets: [uuid(2)] };
const metrics: Grant = { name: "consul-metrics", rules: metricsRules, secrets: [uuid(3)] };
const snapshots: Grant = { name: "consul-snapshots", rules: snapshotRules, secrets: [uuid(4)] };

describe("tokens for applications, on a real cluster", function () {
  this.timeout(600_000);
  const directory = mkdtempSync(join(tmpdir(), "consul-access-"));
  let cluster: Cluster;
  let curlArguments: string;

  before(async function () {
    this.timeout(1_800_000); // a first build of Consul
    cluster = await startCluster({ dir: join(directory, "cluster"), config: onLoopback("127.61.0", 3, 2) });
    // A curl that writes down how it was called, in front of the real one.
    const bin = join(directory, "bin");
    mkdirSync(bin);
    curlArguments = join(directory, "curl-arguments");
    const { stdout: curl } = await promisify(execFile)("sh", ["-c", "command -v curl"]);
    writeFileSync(join(bin, "curl"), `#!/bin/sh\nprintf '%s ' "$@" >>${curlArguments}\nexec ${curl.trim()} "$@"\n`);
    chmodSync(join(bin, "curl"), 0o755);
    await script([orders, billing, metrics, snapshots]);
    await cluster.api("server-1").put("kv/config/orders/db", "orders-db");
    await cluster.api("server-1").put("kv/config/billing/db", "billing-db");
  });

  after(async () => {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  /** What the Job runs, as it runs it: against the servers' HTTPS API, in turn. */
  async function script(grants: readonly Grant[], stack = "prod", deadline = 60): Promise<string> {
    const objects = mkdtempSync(join(directory, "objects-"));
    for (const { file, content } of grantObjects(grantPrefix(stack), grants)) {
      writeFileSync(join(objects, file), content);
    }
    const servers = cluster.nodes.filter(({ role }) => role === "server");
    const { stdout } = await promisify(execFile)(
      "sh",
      [join(__dirname, "..", "..", "consul", "scripts", "acl.sh"), objects],
      {
        env: {
          PATH: [join(directory, "bin"), process.env.PATH].join(delimiter),
          CONSUL_HTTP_ADDR: servers.map(({ address }) => `https://${address}:${ports.https}`).join(" "),
          CONSUL_CACERT: cluster.caFile,
          CONSUL_HTTP_TOKEN_FILE: cluster.tokenFile,
          ACL_PREFIX: grantPrefix(stack),
          ACL_DEADLINE: String(deadline),
        },
      },
    );
    return stdout;
  }

  const as = (grant: Grant | null, node = "agent-1") => cluster.api(node, grant && (grant.secrets[0] ?? ""));
  const refused = async (what: Promise<unknown>) => {
    await rejects(what, (error: unknown) => {
      ok(error instanceof ApiError, String(error));
      // A server that refuses a snapshot hangs up at once, and now and then before the agent has read why.
      const hungUp = error.message.includes("/v1/snapshot: 500 failed to decode response: ");
      ok(error.status === 403 || hungUp, `not refused: ${error.message}`);
      return true;
    });
  };
  /** Until followers and agents have heard of a token: about a second. */
  const settled = <T>(attempt: () => Promise<T>) => cluster.until("the token is not known everywhere", attempt);

  it("register their own services, by name and by prefix, and take them away again", async () => {
    const api = as(orders);
    await settled(() => api.put("agent/service/register", { Name: "orders", Port: 80 }));
    await api.put("agent/service/register", { Name: "orders-worker", Port: 81 });
    await settled(async () => {
      equal((await as(billing, "agent-2").get<unknown[]>("health/service/orders")).length, 1);
    });
    await refused(as(billing).put("agent/service/deregister/orders"));
    await api.put("agent/service/deregister/orders-worker");
  });

  it("register no other service", async () => {
    for (const Name of ["billing", "consul", "consul-members", "order", "ordersx"]) {
      await refused(as(orders).put("agent/service/register", { Name, Port: 80 }));
    }
    const node = { Node: "agent-1", Address: "127.61.0.21" };
    await refused(as(orders).put("catalog/register", { ...node, Service: { Service: "billing", Port: 80 } }));
    await refused(as(orders).put("catalog/register", { Node: "made-up", Address: "10.0.0.1" }));
    await refused(as(orders).put("catalog/deregister", { Node: "agent-2" }));
  });

  it("find every service and every node", async () => {
    ok("consul" in (await as(orders).get<object>("catalog/services")));
    equal((await as(orders).get<unknown[]>("catalog/nodes")).length, 5);
  });

  it("use their own keys and no others", async () => {
    const api = as(orders);
    equal(await api.get("kv/config/orders/db?raw"), "orders-db");
    await refused(api.put("kv/config/orders/db", "changed"));
    await refused(api.delete("kv/config/orders/db"));
    equal(await api.put("kv/state/orders/cursor", "7"), true);
    equal(await api.get("kv/state/orders/cursor?raw"), "7");
    equal(await api.delete("kv/state/orders/cursor"), true);
    await refused(api.get("kv/config/billing/db"));
    await refused(api.put("kv/state/billing/cursor", "7"));
    await refused(api.delete("kv/?recurse"));
    deepEqual(await api.get("kv/config/?keys"), ["config/orders/db"], "not even the names of others' keys");
  });

  it("reach nothing of Consul's own", async () => {
    const api = as(orders);
    for (const path of [
      "acl/tokens",
      "acl/policies",
      "agent/self",
      "agent/metrics",
      "agent/host",
      "operator/raft/configuration",
      "operator/autopilot/health",
      "operator/keyring",
      "snapshot",
      "connect/ca/configuration",
    ]) {
      await refused(api.get(path));
    }
    for (const path of ["agent/leave", "agent/reload", "agent/force-leave/agent-2", "agent/maintenance?enable=true"]) {
      await refused(api.put(path));
    }
    await refused(api.put("acl/token", { Policies: [{ Name: "global-management" }] }));
    await refused(api.put("session/create", { Node: "agent-1" }));
    await refused(api.put("event/fire/deploy", "x"));
  });

  it("are not needed to look services up, and nothing else goes without one", async () => {
    const nobody = as(null);
    equal((await nobody.get<unknown[]>("health/service/consul")).length, 3);
    equal((await nobody.get<unknown[]>("catalog/nodes")).length, 5);
    for (const path of ["kv/config/orders/db", "agent/self", "agent/metrics", "acl/tokens"]) {
      await refused(nobody.get(path));
    }
    await refused(nobody.put("agent/service/register", { Name: "orders", Port: 80 }));
    await refused(nobody.put("kv/x", "1"));
  });

  it("for Prometheus read metrics, with either header, and one key", async () => {
    await cluster.api("server-1").put(`kv/${snapshotMetricsKey}`, "consul_snapshot_size_bytes 1\n");
    for (const node of ["agent-1", "agent-2", "server-1", "server-3"]) {
      match(await settled(() => as(metrics, node).get<string>("agent/metrics?format=prometheus")), /^# HELP/);
      const snapshots = await settled(() => as(metrics, node).get<string>(`kv/${snapshotMetricsKey}?raw&stale`));
      equal(snapshots, "consul_snapshot_size_bytes 1\n");
    }
    const bearer = await fetch(`${as(null).address}/v1/agent/metrics?format=prometheus`, {
      headers: { Authorization: `Bearer ${metrics.secrets[0] ?? ""}` },
    });
    equal(bearer.status, 200);
    const api = as(metrics);
    for (const path of ["kv/config/orders/db", "acl/tokens", "snapshot", "operator/raft/configuration"]) {
      await refused(api.get(path));
    }
    await refused(api.put(`kv/${snapshotMetricsKey}`, "consul_snapshot_size_bytes 2\n"));
    await refused(api.put("agent/service/register", { Name: "orders", Port: 80 }));
    await refused(api.put("agent/leave"));
    deepEqual(await api.get("catalog/services"), {});
  });

  it("for snapshots take one, and read or register nothing else", async () => {
    const api = as(snapshots, "server-1");
    await settled(() => api.get("snapshot"));
    await refused(api.get("kv/config/orders/db"));
    await refused(api.put("agent/service/register", { Name: "orders", Port: 80 }));
    await refused(api.get("operator/raft/configuration"));
    equal(await api.put(`kv/${snapshotMetricsKey}`, "consul_snapshot_size_bytes 3\n"), true);
  });

  it("change what they allow without changing the token", async () => {
    await refused(as(orders).put("kv/extra/orders", "1"));
    const wider = { ...orders, rules: [...orders.rules, 'key "extra/orders" { policy = "write" }'] };
    await script([wider, billing, metrics, snapshots]);
    await settled(() => as(orders).put("kv/extra/orders", "1"));
    await script([orders, billing, metrics, snapshots]);
    await settled(() => refused(as(orders).put("kv/extra/orders", "2")));
  });

  it("of two generations are both valid, until the old one is revoked", async () => {
    const [old, next] = [uuid(1), uuid(5)];
    const both = { ...orders, secrets: [next, old] };
    await script([both, billing, metrics, snapshots]);
    for (const secret of both.secrets) {
      const api = cluster.api("agent-2", secret);
      await settled(() => api.get("kv/config/orders/db"));
    }
    match(await script([{ ...orders, secrets: [next] }, billing, metrics, snapshots]), /revoked token app_prod_orders/);
    await settled(() => refused(cluster.api("server-1", old).get("kv/config/orders/db")));
    await cluster.api("agent-2", next).get("kv/config/orders/db");
  });

  it("of one that is taken off the list are revoked, on the agents within their cache's 30 s, and no one else's", async () => {
    const elsewhere: Grant = { ...orders, secrets: [uuid(6)] };
    await script([elsewhere], "prod-cluster-b");
    const handmade = await cluster.api("server-1").put<{ SecretID: string }>("acl/token", { Description: "by hand" });
    await settled(() => as(elsewhere).get("kv/config/orders/db"));
    await settled(() => as(billing).put("agent/service/register", { Name: "billing", Port: 82 }));

    const said = await script([]);
    for (const name of ["orders", "billing", "consul-metrics", "consul-snapshots"]) {
      match(said, new RegExp(`revoked token app_prod_${name} `));
      match(said, new RegExp(`revoked policy app_prod_${name} `));
    }
    const began = Date.now();
    for (const node of ["server-1", "server-2", "server-3", "agent-1", "agent-2"]) {
      await settled(() => refused(as(billing, node).get("kv/config/billing/db")));
    }
    // What an agent decides by itself, it decides from its cache.
    await settled(() => refused(as(billing).put("agent/service/register", { Name: "billing", Port: 82 })));
    console.log(`      refused everywhere after ${((Date.now() - began) / 1000).toFixed(1)} s`);
    const names = (await cluster.api("server-1").get<{ Name: string }[]>("acl/policies")).map(({ Name }) => Name);
    deepEqual(
      names.filter((name) => name.startsWith("app_")),
      ["app_prod-cluster-b_orders"],
    );
    await as(elsewhere).get("kv/config/orders/db");
    await cluster.api("server-1", handmade.SecretID).get("acl/token/self");
    equal(await script([]), "consul-acl: policies and tokens are in place\n", "a second run finds nothing to do");
  });

  it("are made while the first of the servers is down", async () => {
    await cluster.kill("server-1");
    await script([billing]);
    cluster.start("server-1");
    await cluster.ready();
    await settled(() => as(billing).get("kv/config/billing/db"));
  });

  it("that Consul refuses are named, with its reason", async () => {
    const wrong = { ...orders, rules: ["nonsense {"] };
    await rejects(script([wrong], "prod", 1), /policy\.app_prod_orders\.json.*Failed to parse ACL rules/s);
  });

  it("and the management token are in no argument list", () => {
    const said = readFileSync(curlArguments, "utf8");
    match(said, /acl\/token/);
    for (const secret of [cluster.managementToken, ...[1, 2, 3, 4, 5, 6].map(uuid)]) ok(!said.includes(secret));
  });
});
