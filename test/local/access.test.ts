import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { execFile } from "child_process";
import { generateKeyPairSync, randomUUID, sign } from "crypto";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { delimiter, join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { promisify } from "util";
import {
  appRules,
  formerPrefix,
  Grant,
  grantObjects,
  grantOwner,
  Keeper,
  metricsRules,
  snapshotMetricsKey,
  snapshotRules,
} from "../../consul/access";
import { AclObject, accessorId, owners, serverAclObjects } from "../../consul/acl";
import { ports } from "../../consul/config";
import { withApi } from "../../consul/scripts";
import { ApiError } from "../../local/api";
import { pinnedVersion } from "../../local/program";
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

const prod: Keeper = { project: "consul", stack: "prod" };
const clusterB: Keeper = { project: "consul", stack: "prod-cluster-b" };

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
    writeFileSync(join(directory, "acl.sh"), withApi("scripts/acl.sh"));
    await script([orders, billing, metrics, snapshots]);
    await cluster.api("server-1").put("kv/config/orders/db", "orders-db");
    await cluster.api("server-1").put("kv/config/billing/db", "billing-db");
  });

  after(async () => {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  /** What the Job for applications runs, as it runs it. */
  const script = (grants: readonly Grant[], keeper = prod, deadline = 60) =>
    runScript(
      grantObjects(keeper, grants),
      { ACL_OWNER: grantOwner(keeper), ACL_FORMER: formerPrefix(keeper) },
      deadline,
    );

  /** The script against the servers' HTTPS API, in turn. */
  async function runScript(wanted: readonly AclObject[], environment: Record<string, string>, deadline = 60) {
    const objects = mkdtempSync(join(directory, "objects-"));
    for (const { file, content } of wanted) writeFileSync(join(objects, file), content);
    const servers = cluster.nodes.filter(({ role }) => role === "server");
    const { stdout } = await promisify(execFile)("sh", [join(directory, "acl.sh"), objects], {
      env: {
        PATH: [join(directory, "bin"), process.env.PATH].join(delimiter),
        CONSUL_HTTP_ADDR: servers.map(({ address }) => `https://${address}:${ports.https}`).join(" "),
        CONSUL_CACERT: cluster.caFile,
        CONSUL_HTTP_TOKEN_FILE: cluster.tokenFile,
        ACL_DEADLINE: String(deadline),
        ...environment,
      },
    });
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
    match(
      await script([{ ...orders, secrets: [next] }, billing, metrics, snapshots]),
      /revoked token orders, stack prod, project consul /,
    );
    await settled(() => refused(cluster.api("server-1", old).get("kv/config/orders/db")));
    await cluster.api("agent-2", next).get("kv/config/orders/db");
  });

  it("of one that is taken off the list are revoked, on the agents within their cache's 30 s, and no one else's", async () => {
    const elsewhere: Grant = { ...orders, secrets: [uuid(6)] };
    await script([elsewhere], clusterB);
    const handmade = await cluster.api("server-1").put<{ SecretID: string }>("acl/token", { Description: "by hand" });
    await settled(() => as(elsewhere).get("kv/config/orders/db"));
    await settled(() => as(billing).put("agent/service/register", { Name: "billing", Port: 82 }));

    const said = await script([]);
    for (const name of ["orders", "billing", "consul-metrics", "consul-snapshots"]) {
      match(said, new RegExp(`revoked token ${name}, stack prod, project consul `));
      match(said, new RegExp(`revoked policy ${name}, stack prod, project consul `));
    }
    const began = Date.now();
    for (const node of ["server-1", "server-2", "server-3", "agent-1", "agent-2"]) {
      await settled(() => refused(as(billing, node).get("kv/config/billing/db")));
    }
    // What an agent decides by itself, it decides from its cache.
    await settled(() => refused(as(billing).put("agent/service/register", { Name: "billing", Port: 82 })));
    console.log(`      refused everywhere after ${((Date.now() - began) / 1000).toFixed(1)} s`);
    deepEqual(await described("policies", "consul-alicloud:apps:"), ["orders, stack prod-cluster-b, project consul"]);
    await as(elsewhere).get("kv/config/orders/db");
    await cluster.api("server-1", handmade.SecretID).get("acl/token/self");
    equal(await script([]), "consul-acl: policies and tokens are in place\n", "a second run finds nothing to do");
  });

  it("are heeded by an agent whose servers are frozen, past their time in its cache too", async () => {
    await script([billing]);
    const services = () => as(billing).get<object>("agent/services");
    await settled(services);
    await sleep(31_000);
    const servers = ["server-1", "server-2", "server-3"];
    for (const server of servers) cluster.pause(server);
    const began = Date.now();
    const problem = await services().then(() => "", String);
    const seconds = (Date.now() - began) / 1000;
    for (const server of servers) cluster.resume(server);
    equal(problem, "");
    ok(seconds < 1, `${seconds} s`);
    await cluster.ready();
  });

  it("that are revoked pass once more at an agent that was asked for nothing meanwhile, and no further", async () => {
    const services = () => as(billing).get("agent/services");
    await settled(services);
    await sleep(31_000);
    await script([]);
    await services();
    await sleep(1000);
    await refused(services());
  });

  it("are made while the first of the servers is down", async () => {
    await cluster.kill("server-1");
    await script([billing]);
    cluster.start("server-1");
    await cluster.ready();
    await settled(() => as(billing).get("kv/config/billing/db"));
  });

  it("that Consul refuses are named, all of them and with its reason, and keep nothing else from being done", async () => {
    const old = { ...orders, secrets: [uuid(7)] };
    await script([old, billing]);
    await settled(() => as(billing).get("kv/config/billing/db"));
    // A policy that is no policy, before all others in the alphabet; billing is revoked, metrics is new.
    const wrong = { name: "a-wrong-one", rules: ["nonsense {"], secrets: [uuid(8)] };
    const another = { name: "z-wrong-one", rules: ["nonsense {"], secrets: [] };
    const began = Date.now();
    const failure = await script([wrong, another, metrics]).then(
      () => "",
      (error: unknown) => (error as { stderr: string }).stderr,
    );
    ok(Date.now() - began < 30_000, "what Consul refuses for good is not tried again for the 60 s that it may take");
    match(failure, /not all policies and tokens are in place/);
    match(failure, /policy\.app_59bf7e7e3a24831b_a-wrong-one\.json.*Failed to parse ACL rules/);
    match(failure, /policy\.app_59bf7e7e3a24831b_z-wrong-one\.json.*Failed to parse ACL rules/);
    await settled(() => refused(as(old, "server-1").get("kv/config/orders/db")));
    await settled(() => refused(as(billing, "server-1").get("kv/config/billing/db")));
    await settled(() => as(metrics).get("agent/metrics"));
  });

  it("of one that is taken off the list are revoked, and not those of logins that stand beside them in Consul's list", async () => {
    const api = cluster.api("server-1");
    const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const JWTValidationPubKeys = [publicKey.export({ type: "spki", format: "pem" })];
    await api.put("acl/auth-method", { Name: "jwt", Type: "jwt", Config: { JWTValidationPubKeys } });
    await api.put("acl/binding-rule", { AuthMethod: "jwt", BindType: "service", BindName: "orders" });
    const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString("base64url");
    const now = Math.floor(Date.now() / 1000);
    const text = `${encode({ alg: "RS256" })}.${encode({ iat: now, nbf: now - 60, exp: now + 600 })}`;
    const BearerToken = `${text}.${sign("sha256", Buffer.from(text), privateKey).toString("base64url")}`;
    const logins: string[] = [];
    for (let i = 0; i < 20; i++) {
      const login = JSON.stringify({ AuthMethod: "jwt", BearerToken });
      logins.push((await api.request<{ SecretID: string }>("POST", "acl/login", login)).SecretID);
    }
    // Consul lists tokens in the order of their secrets.
    const many = { ...orders, secrets: Array.from({ length: 10 }, () => randomUUID()) };
    await script([many]);
    equal((await script([])).match(/revoked token/g)?.length, many.secrets.length);
    for (const secret of logins) await cluster.api("server-1", secret).get("acl/token/self");
    await api.delete("acl/auth-method/jwt");
  });

  it("of stacks whose names are alike, and of another project, are not revoked by each other", async () => {
    const keepers = ["prod.eu", "prod_eu", "prod-eu"].map((stack) => ({ project: "consul", stack }));
    keepers.push({ project: "platform", stack: "prod-eu" });
    const grants = keepers.map((_, i) => ({ ...orders, secrets: [uuid(10 + i)] }));
    for (const [i, keeper] of keepers.entries()) await script(grants.slice(i, i + 1), keeper);
    for (const grant of grants) await settled(() => as(grant, "server-1").get("kv/config/orders/db"));
    for (const [i, keeper] of keepers.entries()) {
      const said = await script([], keeper);
      equal(said.match(/revoked/g)?.length, 2, said);
      await settled(() => refused(cluster.api("server-1", uuid(10 + i)).get("kv/config/orders/db")));
      for (const grant of grants.slice(i + 1)) await as(grant, "server-1").get("kv/config/orders/db");
    }
  });

  describe("as releases without owners left them", () => {
    /** A policy and its token, by the names of those releases. */
    const former = async (prefix: string, name: string, secret: string) => {
      const api = cluster.api("server-1");
      const Name = `${prefix}${name}`;
      const Rules = rules.orders.join("\n");
      await api.put("acl/policy", { Name, Description: `What ${name} may do; kept by Pulumi`, Rules });
      const ids = { AccessorID: accessorId(secret), SecretID: secret };
      await api.put("acl/token", { ...ids, Description: Name, Local: false, Policies: [{ Name }] });
    };
    const policies = async () => {
      const all = await cluster.api("server-1").get<{ Name: string }[]>("acl/policies");
      return all.flatMap(({ Name }) => (/^app_(prod|staging)/.test(Name) ? [Name] : [])).sort();
    };

    it("get their marks in place, the rest of this stack goes, and nothing of any other", async () => {
      await script([]);
      const [kept, dropped, others] = [uuid(20), uuid(21), uuid(22)];
      await former("app_prod_", "orders", kept);
      await former("app_prod_", "gone", dropped);
      await former("app_prod-cluster-b_", "orders", others);
      await former("app_staging_", "orders", uuid(23));
      await cluster.api("server-1").put("acl/policy", { Name: "app_prod_by-hand", Rules: "" });
      await settled(() => cluster.api("server-1", kept).get("kv/config/orders/db"));

      const moved = { ...orders, secrets: [kept] };
      match(await script([moved]), /revoked token app_prod_gone /);
      deepEqual(await policies(), ["app_prod-cluster-b_orders", "app_prod_by-hand", "app_staging_orders"]);
      await settled(() => refused(cluster.api("server-1", dropped).get("kv/config/orders/db")));
      for (const secret of [kept, others, uuid(23)]) {
        await cluster.api("server-1", secret).get("kv/config/orders/db");
      }
      deepEqual(await described("tokens", grantOwner(prod)), ["orders, stack prod, project consul"]);
      equal(await script([moved]), "consul-acl: policies and tokens are in place\n");
    });

    it("stay where they are another project's, whose stack has the same name", async () => {
      const theirs = uuid(24);
      await former("app_prod_", "orders", theirs);
      await script([{ ...orders, secrets: [uuid(25)] }]);
      await script([]);
      await cluster.api("server-1", theirs).get("kv/config/orders/db");
      ok((await policies()).includes("app_prod_orders"));
    });

    it("are agents' and servers' too", async () => {
      const api = cluster.api("server-1");
      const agents = { Description: "Agents", Policies: [{ Name: "agents" }] };
      const gone = { Description: "Server server-8", NodeIdentities: [{ NodeName: "server-8", Datacenter: "local" }] };
      const other = {
        Description: "Server server-8",
        NodeIdentities: [{ NodeName: "elsewhere", Datacenter: "local" }],
      };
      const [agent, server, unlike] = await Promise.all(
        [agents, gone, other].map((token) => api.put<{ SecretID: string }>("acl/token", token)),
      );
      await runScript(cluster.acl, { ACL_OWNER: owners.agents });
      await runScript(cluster.acl, { ACL_OWNER: owners.servers });
      for (const token of [agent, server]) {
        await refused(cluster.api("server-1", token?.SecretID).get("acl/token/self"));
      }
      await cluster.api("server-1", unlike?.SecretID).get("acl/token/self");
    });
  });

  it("are not taken for agents' when these are retired, whatever they are called", async () => {
    const api = cluster.api("server-1");
    const name = "Agents-of-the-night";
    await api.put("acl/policy", { Name: name, Description: "by hand", Rules: "" });
    const byHand = await api.put<{ SecretID: string }>("acl/token", { Description: name, Policies: [{ Name: name }] });
    const liar = { Description: 'x [consul-alicloud:agents]" y', Policies: [{ Name: name }] };
    const quoted = await api.put<{ SecretID: string }>("acl/token", liar);
    // As after a rotation: the token that agents had before is not among those that are wanted.
    const before = serverAclObjects({ datacenter: "local", version: pinnedVersion, servers: [], agents: [uuid(30)] });
    await runScript(before, {});
    const said = await runScript(cluster.acl, { ACL_OWNER: owners.agents });
    match(said, /revoked token Agents \(/);
    equal(said.match(/revoked/g)?.length, 1, said);
    await refused(cluster.api("server-1", uuid(30)).get("acl/token/self"));
    for (const { SecretID } of [byHand, quoted]) await cluster.api("server-1", SecretID).get("acl/token/self");
    await api.get(`acl/policy/name/${name}`);
  });

  it("of agents write no server's entry in the catalog, in whatever letters its name is written", async () => {
    const agents = cluster.api("agent-1", cluster.agentToken);
    type Entry = { Node: string; ID: string; Address: string };
    const entries = async () =>
      (await cluster.api("server-1").get<Entry[]>("catalog/nodes")).map(({ Node, Address }) => `${Node} ${Address}`);
    const before = await entries();
    const [server] = (await agents.get<Entry[]>("catalog/nodes")).filter(({ Node }) => Node === "server-1");
    for (const Node of ["server-1", "SERVER-1", "Server-1", "sErver-1", "seRver-1", "serveR-1", "\u017ferver-1"]) {
      for (const ID of [undefined, server?.ID]) {
        await refused(agents.put("catalog/register", { Node, ID, Address: "10.6.6.6" }));
      }
      await refused(agents.put("catalog/deregister", { Node }));
      // The long s makes another entry, which would have the server's id.
      if (/^[ -~]*$/.test(Node)) await refused(agents.put("catalog/deregister", { Node, ServiceID: "consul" }));
    }
    deepEqual(await entries(), before);
    // Their own entries they write all the same, whatever begins like a server's name.
    await agents.put("catalog/register", { Node: "server-10", Address: "10.0.0.10" });
    await agents.put("catalog/deregister", { Node: "server-10" });
  });

  it("of servers that are gone are revoked, and never that of a server that runs, not even of one that is down", async () => {
    const gone = serverAclObjects({
      datacenter: "local",
      version: pinnedVersion,
      servers: [{ node: "server-9", secret: uuid(31) }],
      agents: [],
    });
    await runScript(gone, {});
    const own = (node: string) => cluster.acl.find(({ content }) => content.includes(`"Server ${node} [`));
    const forgotten = cluster.acl.filter((object) => object !== own("server-2") && object !== own("server-3"));
    equal(forgotten.length, cluster.acl.length - 2);
    await cluster.kill("server-3");
    const said = await runScript(forgotten, { ACL_OWNER: owners.servers });
    cluster.start("server-3");
    await cluster.ready();
    match(said, /revoked token Server server-9 \(/);
    equal(said.match(/revoked/g)?.length, 1, said);
    await refused(cluster.api("server-1", uuid(31)).get("acl/token/self"));
    for (const server of ["server-2", "server-3"]) {
      const { SecretID } = JSON.parse(own(server)?.content ?? "{}") as { SecretID: string };
      await cluster.api("server-1", SecretID).get("acl/token/self");
    }
  });

  /** What the descriptions of objects say that somebody keeps. */
  async function described(kind: "tokens" | "policies", owner: string): Promise<string[]> {
    const all = await cluster.api("server-1").get<{ Description: string }[]>(`acl/${kind}`);
    return all.flatMap(({ Description }) =>
      Description.includes(`[${owner}`) ? [Description.replace(/ \[.*/, "")] : [],
    );
  }

  it("and the management token are in no argument list", () => {
    const said = readFileSync(curlArguments, "utf8");
    match(said, /acl\/token/);
    for (const secret of [cluster.managementToken, ...Array.from({ length: 31 }, (_, i) => uuid(i + 1))]) {
      ok(!said.includes(secret));
    }
  });
});
