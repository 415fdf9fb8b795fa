import { deepEqual, ok } from "assert/strict";
import { createServer, Server } from "https";
import { mkdtempSync, readFileSync, rmSync } from "fs";
import { AddressInfo } from "net";
import { tmpdir } from "os";
import { join } from "path";
import { appRules, grantObjects, metricsRules, snapshotMetricsKey, snapshotRules } from "../../consul/access";
import { loginMethod, loginObjects } from "../../consul/logins";
import { Api, ApiError } from "../../local/api";
import { privateKey, selfSignedCert } from "../../local/certificates";
import { programDir } from "../../local/program";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { section } from "../documents";

// Every cell of the table in docs/applications.md, tried on a real cluster with the tokens that the program makes. The
// login is a real one; the API server that Consul asks whose token it is, is a part of this test. A real API server is in
// test/system/logins.test.ts.

const keeper = { project: "consul", stack: "prod" };
const uuid = (n: number) => `f1c70e5a-0000-4000-8000-${String(n).padStart(12, "0")}`;
const kv = { read: ["config/orders/"], write: ["state/orders/"] };

/** One holder's ways to try something. */
interface Holder {
  /** Different for each, so that nobody writes what is there already: Consul allows that to everybody. */
  readonly name: string;
  /** An agent's API. */
  readonly agent: Api;
  /** A server's. */
  readonly server: Api;
}
type Attempt = (holder: Holder) => Promise<unknown>;

const register = (Name: string): Attempt => {
  return ({ agent }) => agent.put("agent/service/register", { Name, Port: 80 });
};
const get = (path: string): Attempt => {
  return ({ server }) => server.get(path);
};
const put = (path: string, body?: unknown): Attempt => {
  return ({ server }) => server.put(path, body);
};
/** What Consul leaves out of a list that one may not see counts as refused. */
const lists = (path: string, complete: (found: unknown) => boolean): Attempt => {
  return async ({ server }) => {
    if (!complete(await server.get(path))) throw new ApiError(`GET ${path}`, 403, "not all of it is listed");
  };
};
const atLeast = (wanted: number) => (found: unknown) => (found as unknown[]).length >= wanted;
/** Changes what the catalog says of a node, and not where it is. */
const node = (Node: string, Address: string): Attempt => {
  return ({ server, name }) => server.put("catalog/register", { Node, Address, NodeMeta: { "tried-by": name } });
};

/** Each row of the table, by its words. */
const attempts: Readonly<Record<string, Attempt>> = {
  "find every service": lists("health/service/consul", atLeast(3)),
  "find every node": lists("catalog/nodes", atLeast(5)),
  "register its own service, `orders`": register("orders"),
  "register `orders-sidecar-proxy`": register("orders-sidecar-proxy"),
  "register another's service": register("billing"),
  "register `consul-members`": register("consul-members"),
  "register as `consul`": register("consul"),
  "write an agent's entry in the catalog": node("agent-2", "127.59.0.22"),
  "write a server's entry in the catalog": node("server-3", "127.59.0.13"),
  "write the entry of a node that there is not": ({ server, name }) =>
    server.put("catalog/register", { Node: `made-up-${name}`, Address: "10.0.0.1" }),
  "read its configuration, `config/orders/`": get("kv/config/orders/db"),
  "change its configuration": put("kv/config/orders/db", "orders-db"),
  "write its state, `state/orders/`": put("kv/state/orders/cursor", "1"),
  "read another's keys": get("kv/config/billing/db"),
  "list the names of all keys": lists("kv/?keys", (keys) => (keys as string[]).includes("config/billing/db")),
  "read when the last snapshot was taken": get(`kv/${snapshotMetricsKey}`),
  "write when the last snapshot was taken": put(`kv/${snapshotMetricsKey}`, "1"),
  "read metrics": get("agent/metrics?format=prometheus"),
  "read a node's configuration": get("agent/self"),
  "have an agent leave, or put it into maintenance": ({ agent }) => agent.put("agent/maintenance?enable=false"),
  "have a server leave, or put it into maintenance": put("agent/maintenance?enable=false"),
  "take a snapshot": get("snapshot"),
  "read its own token": get("acl/token/self"),
  "list tokens": get("acl/tokens"),
  "make a token": put("acl/token", { Description: "made by a test" }),
  "log out": async ({ server }) => {
    await server.request("POST", "acl/logout");
  },
  "list raft's peers": get("operator/raft/configuration"),
  "list gossip keys": get("operator/keyring"),
  "make a session, for a lock": put("session/create", { Node: "agent-1", TTL: "10s" }),
  "fire an event": put("event/fire/deploy", "x"),
  "make a prepared query": async ({ server }) => {
    await server.request("POST", "query", JSON.stringify({ Name: "orders-query", Service: { Service: "orders" } }));
  },
  "change the mesh's configuration": put("config", { Kind: "service-defaults", Name: "billing", Protocol: "http" }),
};

describe("what a token may do", function () {
  this.timeout(300_000);
  const directory = mkdtempSync(join(tmpdir(), "consul-rights-"));
  let cluster: Cluster;
  let apiServer: Server;
  /** Secrets by the table's columns; null for no token. */
  const holders = new Map<string, string | null>();

  before(async function () {
    this.timeout(1_800_000); // a first build of Consul
    cluster = await startCluster({ dir: join(directory, "cluster"), config: onLoopback("127.59.0", 3, 2) });
    const api = cluster.api("server-1");
    const { server, reviewer } = await startApiServer();
    apiServer = server;
    const rules = { orders: appRules({ services: ["orders"], kv }), metrics: metricsRules, snapshots: snapshotRules };
    const grants = Object.values(rules).map((rules, i) => ({ name: `holder-${i}`, rules, secrets: [uuid(i)] }));
    const login = { namespace: "shop", serviceAccounts: [], kv };
    await cluster.applyAcl([...cluster.acl, ...grantObjects(keeper, grants)]);
    for (const { file, content } of loginObjects(keeper, [login], reviewer).reverse()) {
      const kind = { method: "auth-method", rule: "binding-rule" }[file.split(".")[0] ?? ""] ?? "policy";
      if (kind === "policy") await api.put("acl/policy", content);
      if (kind === "auth-method") await api.put("acl/auth-method", content);
    }
    for (const { file, content } of loginObjects(keeper, [login], reviewer)) {
      if (file.startsWith("rule.")) await api.put("acl/binding-rule", content);
    }
    for (const [key, value] of [
      ["config/orders/db", "orders-db"],
      ["config/billing/db", "billing-db"],
      [snapshotMetricsKey, "0"],
    ] as const) {
      await api.put(`kv/${key}`, value);
    }
    const ofServer = cluster.acl.find(({ content }) => content.includes('"Server server-1 ['))?.content ?? "{}";
    holders
      .set("nobody", null)
      .set("application", uuid(0))
      .set("login", "")
      .set("agents", cluster.agentToken)
      .set("server", (JSON.parse(ofServer) as { SecretID: string }).SecretID)
      .set("`consul-metrics`", uuid(1))
      .set("`consul-snapshots`", uuid(2))
      .set("operator", cluster.managementToken);
  });

  after(async () => {
    await cluster.stop();
    apiServer.close();
    rmSync(directory, { recursive: true, force: true });
  });

  /** Answers for one service account, `orders` in the namespace `shop`, whatever token is shown. */
  async function startApiServer() {
    const key = privateKey({ algorithm: "ECDSA", ecdsaCurve: "P256" }).outputs.privateKeyPem as string;
    const subject = { commonName: "kube-apiserver" };
    const certificate = { privateKeyPem: key, subject, ipAddresses: ["127.59.0.1"], validityPeriodHours: 1 };
    const allowedUses = ["digital_signature", "cert_signing", "server_auth"];
    const made = await selfSignedCert({ ...certificate, allowedUses, isCaCertificate: true }, new Date());
    const cert = made.outputs.certPem as string;
    const server = createServer({ key, cert }, (request, response) => {
      const review = request.method === "POST";
      const user = { username: "system:serviceaccount:shop:orders", uid: "1" };
      const answer = review
        ? { apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", status: { authenticated: true, user } }
        : { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "orders", namespace: "shop" } };
      response.writeHead(review ? 201 : 200, { "content-type": "application/json" }).end(JSON.stringify(answer));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.59.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    return { server, reviewer: { apiServer: `https://127.59.0.1:${port}`, caCertificate: cert, token: jwt } };
  }
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString("base64url");
  /** Consul checks the form; the API server checks the rest. */
  const jwt = `${encode({ alg: "RS256" })}.${encode({ sub: "orders" })}.c2lnbmF0dXJl`;

  async function login(): Promise<string> {
    const body = JSON.stringify({ AuthMethod: loginMethod(keeper), BearerToken: jwt });
    const { SecretID } = await cluster.api("agent-1", null).request<{ SecretID: string }>("POST", "acl/login", body);
    return SecretID;
  }

  /** What a token may do of all attempts. */
  async function tried(name: string, secret: string | null): Promise<Record<string, string>> {
    const token = name === "login" ? await login() : secret;
    const holder = {
      name: name.replaceAll("`", ""),
      agent: cluster.api("agent-1", token),
      server: cluster.api("server-1", token),
    };
    const known = () => Promise.all([holder.agent, holder.server].map((api) => api.get("agent/services")));
    if (token !== null) await cluster.until("the token is not known", known);
    const cells: Record<string, string> = {};
    // The logout ends the token.
    const last = (row: string) => (row === "log out" ? 1 : 0);
    for (const row of Object.keys(attempts).sort((a, b) => last(a) - last(b))) {
      cells[row] =
        (await attempts[row]?.(holder).then(
          () => "yes",
          (error: unknown) => {
            ok(error instanceof ApiError, `${name}, ${row}: ${String(error)}`);
            // A server that refuses a snapshot hangs up at once, now and then before the answer is read.
            ok(
              [401, 403].includes(error.status) || error.message.includes("snapshot: 500 failed to decode"),
              `${name}, ${row}: ${error.message}`,
            );
            return "no";
          },
        )) ?? "";
    }
    return cells;
  }

  it("is what the table in docs/applications.md says, in every cell", async () => {
    const found: Record<string, Record<string, string>> = {};
    for (const [name, secret] of holders) found[name] = await tried(name, secret);
    const names = [...holders.keys()];
    const table = Object.keys(attempts).map((row) => [row, ...names.map((name) => found[name]?.[row] ?? "")]);
    const text = section(readFileSync(join(programDir, "docs/applications.md"), "utf8"), "## What a token may do");
    const written = [...text.matchAll(/^\|(.*)\|$/gm)].map(([, row = ""]) => row.split("|").map((cell) => cell.trim()));
    const [heads = [], , ...rows] = written;
    console.log(`      ${rows.length * (heads.length - 1)} cells`);
    if (process.env.SHOW_RIGHTS) {
      console.log([["", ...names], ...table].map((row) => `| ${row.join(" | ")} |`).join("\n"));
    }
    deepEqual(heads.slice(1), names);
    deepEqual(rows, table);
  });
});
