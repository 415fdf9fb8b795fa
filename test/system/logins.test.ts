import * as k8s from "@kubernetes/client-node";
import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { ChildProcess, execFile, spawn } from "child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "fs";
import { stat } from "fs/promises";
import { tmpdir } from "os";
import { delimiter, dirname, join } from "path";
import { promisify } from "util";
import { parseAllDocuments } from "yaml";
import { loginMethod } from "../../consul/logins";
import { withApi } from "../../consul/scripts";
import { Api, ApiError } from "../../local/api";
import { FixtureProviders, prodServersOutputs, runFixture } from "../../local/fixtures";
import { programDir, Registered } from "../../local/program";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { plain } from "../program/edit";
import { Kube, startKubeOrSkip } from "./kube";
import { isKubernetesObject, Manifest } from "./kube-objects";

// consul:logins from end to end: what the program makes, in a real API server; the Job's script against a real Consul
// cluster; real tokens of service accounts, reviewed by the API server.

const method = loginMethod({ project: "consul", stack: "prod" });
const orders = { namespace: "shop", kv: { read: ["config/shop/"], write: ["state/shop/"] } };
const billing = { namespace: "pay", serviceAccounts: ["billing", "ledger"], kv: { read: ["config/pay/"] } };
const reports = { namespace: "reports", services: ["reports", "reports-*"] };
const app = { name: "old-way", namespace: "shop", services: ["old-way"] };

/** Hands out the token that Kubernetes has really made. */
class WithToken extends FixtureProviders {
  constructor(private readonly data: Readonly<Record<string, string>>) {
    super(prodServersOutputs);
  }

  override resource(args: Parameters<FixtureProviders["resource"]>[0]) {
    const made = super.resource(args);
    const { type } = args.inputs as { type?: string };
    if (type !== "kubernetes.io/service-account-token" || this.data.token === undefined) return made;
    return { ...made, state: { ...made.state, data: this.data } };
  }
}

describe("logins with the token of a service account", function () {
  this.timeout(300_000);
  const directory = mkdtempSync(join(tmpdir(), "consul-logins-"));
  let kube: Kube;
  let core: k8s.CoreV1Api;
  let cluster: Cluster;
  /** What Kubernetes has put into the reviewer's Secret. */
  let data: Readonly<Record<string, string>> = {};

  before(async function () {
    kube = await startKubeOrSkip(this);
    core = kube.kubeconfig.makeApiClient(k8s.CoreV1Api);
    cluster = await startCluster({ dir: join(directory, "cluster"), config: onLoopback("127.58.0", 3, 1) });
    for (const key of ["config/shop/db", "config/pay/db"]) await cluster.api("server-1").put(`kv/${key}`, key);
  });

  after(async () => {
    await (cluster as Cluster | undefined)?.stop();
    await (kube as Kube | undefined)?.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  /** What the program makes of these settings, with the token that Kubernetes has made. */
  async function described(namespaces: readonly object[]): Promise<readonly Registered[]> {
    const apiServer = kube.kubeconfig.getCurrentCluster()?.server;
    const change = (config: Record<string, string>) => {
      plain(config);
      config["consul:apps"] = JSON.stringify([app]);
      config["consul:logins"] = JSON.stringify({ apiServer, namespaces });
    };
    return (await runFixture("prod", change, new WithToken(data))).resources;
  }

  /** Runs the Job's script as the Job does, with the Job's files. @returns what it says */
  async function apply(namespaces: readonly object[]): Promise<string> {
    const resources = await described(namespaces);
    const secret = resources.find(({ name }) => name === "consul-access-secrets");
    const objects = mkdtempSync(join(directory, "objects-"));
    for (const [name, value] of Object.entries((secret?.inputs as { data: Record<string, string> }).data)) {
      writeFileSync(join(objects, name), Buffer.from(value, "base64"), { mode: 0o600 });
    }
    const job = resources.find(({ name }) => name === "consul-access-job");
    const owner = /"name":"ACL_OWNER","value":"([^"]*)"/.exec(JSON.stringify(job?.inputs))?.[1];
    const script = join(directory, "acl.sh");
    writeFileSync(script, withApi("scripts/acl.sh"));
    const { stdout } = await promisify(execFile)("sh", [script, objects], {
      env: {
        PATH: process.env.PATH,
        CONSUL_HTTP_ADDR: cluster.api("server-1").address,
        CONSUL_HTTP_TOKEN_FILE: cluster.tokenFile,
        ACL_OWNER: owner,
        ACL_DEADLINE: "60",
      },
    });
    return stdout;
  }

  const account = (namespace: string, name: string, annotations: Record<string, string> = {}): Manifest => ({
    apiVersion: "v1",
    kind: "ServiceAccount",
    metadata: { name, namespace, annotations },
  });
  const annotation = "consul.hashicorp.com/service-name";

  /** A token of a service account, as the kubelet asks for one. */
  async function identity(namespace: string, name: string): Promise<string> {
    const spec = Object.assign(new k8s.V1TokenRequestSpec(), { audiences: [], expirationSeconds: 600 });
    const body = Object.assign(new k8s.AuthenticationV1TokenRequest(), { spec });
    const { status } = await core.createNamespacedServiceAccountToken({ name, namespace, body });
    ok(status?.token);
    return status.token;
  }

  const login = (BearerToken: string, AuthMethod = method) =>
    cluster
      .api("agent-1", null)
      .request<{ SecretID: string; AccessorID: string }>(
        "POST",
        "acl/login",
        JSON.stringify({ AuthMethod, BearerToken }),
      );
  const loginAs = async (namespace: string, name: string) => login(await identity(namespace, name));
  /** The secret of a token that a login made, once the agent knows the token. */
  async function secretOf(namespace: string, name: string): Promise<string> {
    const { SecretID } = await loginAs(namespace, name);
    // A follower that the agent asks may not know the token for a second.
    for (const path of ["acl/token/self", "agent/services"]) {
      await cluster.until("the token is not known", () => cluster.api("agent-1", SecretID).get(path));
    }
    return SecretID;
  }
  /** The agent's API with such a token. */
  const as = async (namespace: string, name: string): Promise<Api> =>
    cluster.api("agent-1", await secretOf(namespace, name));

  const refusedWith = (status: number, text: RegExp) => (error: unknown) => {
    ok(error instanceof ApiError, String(error));
    equal(error.status, status, error.message);
    match(error.body, text);
    return true;
  };
  const denied = (what: Promise<unknown>) => rejects(what, refusedWith(403, /Permission denied|ACL not found/));
  const register = (Name: string) => ["agent/service/register", { Name, Port: 80 }] as const;

  it("need what the program makes: a real API server takes it without a warning, and fills in the reviewer's token", async () => {
    const ours = (await described([orders, billing, reports]))
      .filter(isKubernetesObject)
      .filter(({ name }) => name.startsWith("consul-login-"))
      .map(({ inputs }) => inputs as unknown as Manifest);
    deepEqual([...new Set(ours.map(({ kind }) => kind))].sort(), [
      "ClusterRoleBinding",
      "ConfigMap",
      "Role",
      "RoleBinding",
      "Secret",
      "ServiceAccount",
    ]);
    const namespaces = ["consul", "shop", "pay", "reports", "other"].map((name): Manifest => {
      // The strictest level, for the example.
      const labels = { "pod-security.kubernetes.io/enforce": name === "shop" ? "restricted" : "privileged" };
      return { apiVersion: "v1", kind: "Namespace", metadata: { name, labels } };
    });
    // As Pulumi does it: the Secret names the account, and Kubernetes drops a Secret whose account is not there.
    const first = ours.filter(({ kind }) => kind === "ServiceAccount");
    for (const objects of [[...namespaces, ...first], ours]) deepEqual(await kube.apply(objects), []);
    data = await kube.waitFor("the reviewer's Secret is filled in", async () => {
      const { data } = await core.readNamespacedSecret({ namespace: "consul", name: "consul-login-reviewer-token" });
      ok(data?.token !== undefined && data["ca.crt"] !== undefined);
      return data;
    });
    for (const namespace of ["shop", "pay", "reports"]) {
      const { data } = await core.readNamespacedConfigMap({ namespace, name: "consul-login" });
      deepEqual(data, { method });
    }
  });

  it("are reviewed by an account that may do this, and read the service accounts of these namespaces, and no more", async () => {
    const client = new k8s.KubeConfig();
    client.loadFromOptions({
      clusters: kube.kubeconfig.clusters,
      users: [{ name: "reviewer", token: Buffer.from(data.token ?? "", "base64").toString() }],
      contexts: [{ name: "reviewer", cluster: kube.kubeconfig.clusters[0]?.name, user: "reviewer" }],
      currentContext: "reviewer",
    });
    const review = k8s.KubernetesObjectApi.makeApiClient(client);
    const may = async (verb: string, resource: string, namespace = "", group = "") => {
      const resourceAttributes = { verb, resource, namespace, group };
      const question = { apiVersion: "authorization.k8s.io/v1", kind: "SelfSubjectAccessReview", metadata: {} };
      const asked = await review.create({ ...question, spec: { resourceAttributes } } as k8s.KubernetesObject);
      return (asked as { status?: { allowed: boolean } }).status?.allowed;
    };
    equal(await may("create", "tokenreviews", "", "authentication.k8s.io"), true);
    for (const namespace of ["shop", "pay", "reports"]) equal(await may("get", "serviceaccounts", namespace), true);
    for (const [verb, resource, namespace] of [
      ["get", "serviceaccounts", "other"],
      ["list", "serviceaccounts", "shop"],
      ["create", "serviceaccounts/token", "shop"],
      ["get", "secrets", "shop"],
      ["get", "secrets", "consul"],
      ["get", "configmaps", "shop"],
      ["list", "pods", "shop"],
    ] as const) {
      equal(await may(verb, resource, namespace), false, `${verb} ${resource} in ${namespace}`);
    }
  });

  it("give a service account the service of its own name and its namespace's keys, at once and without another change", async () => {
    equal(await apply([orders, billing, reports]), "consul-acl: policies and tokens are in place\n");
    equal(await apply([orders, billing, reports]), "consul-acl: policies and tokens are in place\n");
    equal((await cluster.api("server-1").get<unknown[]>("acl/binding-rules")).length, 5, "no rule is there twice");
    await kube.apply([account("shop", "orders"), account("shop", "brand-new")]);
    for (const name of ["orders", "brand-new"]) {
      const api = await as("shop", name);
      await api.put(...register(name));
      equal(await api.get("kv/config/shop/db?raw"), "config/shop/db");
      equal(await api.put("kv/state/shop/cursor", "1"), true);
      await denied(api.put(...register("others")));
      await denied(api.get("kv/config/pay/db"));
      await denied(api.put("kv/config/shop/db", "changed"));
      await denied(api.get("acl/tokens"));
      await api.put(`agent/service/deregister/${name}`);
    }
  });

  it("give what is listed to the service accounts that are listed", async () => {
    await kube.apply([
      account("pay", "billing"),
      account("pay", "ledger"),
      account("pay", "stranger"),
      account("reports", "nightly"),
    ]);
    const api = await as("pay", "billing");
    await api.put(...register("billing"));
    equal(await api.get("kv/config/pay/db?raw"), "config/pay/db");
    await denied(api.put(...register("ledger")));
    const nightly = await as("reports", "nightly");
    for (const name of ["reports", "reports-eu"]) await nightly.put(...register(name));
    await denied(nightly.put(...register("nightly")));
  });

  it("end with a logout: the token is refused afterwards", async () => {
    const api = await as("shop", "orders");
    await api.request("POST", "acl/logout");
    await cluster.until("the token still works", () => denied(api.put("kv/state/shop/cursor", "2")));
    await rejects(api.request("POST", "acl/logout"), refusedWith(403, /ACL not found/));
  });

  it("are refused to a service account that is not listed, and in a namespace that is not", async () => {
    await kube.apply([account("other", "orders"), account("other", "billing")]);
    await rejects(loginAs("pay", "stranger"), refusedWith(403, /Permission denied/));
    // The reviewer may not read service accounts there, and says whose it is.
    const elsewhere = /annotation lookup failed: serviceaccounts "orders" is forbidden/;
    await rejects(loginAs("other", "orders"), refusedWith(500, elsewhere));
    await rejects(loginAs("other", "billing"), refusedWith(500, /annotation lookup failed/));
  });

  it("are refused with what is no token, a token of another cluster, one of a service account that is gone, and by no method", async () => {
    await rejects(login("not-a-token"), refusedWith(500, /failed to parse and validate JWT/));
    const real = await identity("shop", "orders");
    const forged = `${real.slice(0, real.lastIndexOf("."))}.${Buffer.alloc(64, 1).toString("base64url")}`;
    await rejects(login(forged), refusedWith(500, /lookup failed: (invalid bearer token|\[?invalid)/));
    await kube.apply([account("shop", "short-lived")]);
    const gone = await identity("shop", "short-lived");
    await kube.remove([account("shop", "short-lived")]);
    await kube.waitFor("its token is refused", () => rejects(login(gone), refusedWith(500, /lookup failed/)));
    await rejects(login(real, "kubernetes"), refusedWith(403, /ACL not found|auth method .* not found/));
  });

  it("make no service account Consul's servers or an agent, whatever its name or annotation", async () => {
    await kube.apply([
      account("shop", "consul"),
      account("shop", "consul-members"),
      account("shop", "liar", { [annotation]: "consul" }),
      account("shop", "shouter", { [annotation]: "Consul" }),
      account("shop", "nameless", { [annotation]: "con sul" }),
    ]);
    for (const name of ["consul", "consul-members", "liar", "shouter"]) {
      const api = await as("shop", name);
      equal(await api.get("kv/config/shop/db?raw"), "config/shop/db");
      for (const service of ["consul", "consul-members", name]) await denied(api.put(...register(service)));
    }
    await rejects(loginAs("shop", "nameless"), refusedWith(500, /bind name/));
  });

  it("trust an annotation for the name, so that only the namespace keeps applications apart", async () => {
    await kube.apply([account("shop", "other", { [annotation]: "orders" })]);
    await (await as("shop", "other")).put(...register("orders"));
    // What is listed is listed by that name too.
    await kube.apply([account("pay", "poser", { [annotation]: "billing" })]);
    await (await as("pay", "poser")).put(...register("billing"));
  });

  it("are revoked for a service account that is taken off the list, and for no other", async () => {
    const [kept, gone, shop] = [
      await secretOf("pay", "billing"),
      await secretOf("pay", "ledger"),
      await secretOf("shop", "orders"),
    ];
    match(
      await apply([orders, { ...billing, serviceAccounts: ["billing"] }, reports]),
      /revoked policy logins of pay\/ledger/,
    );
    await cluster.until("the token still works", () => denied(cluster.api("server-1", gone).get("kv/config/pay/db")));
    for (const secret of [kept, shop]) await cluster.api("server-1", secret).get("acl/token/self");
    await rejects(loginAs("pay", "ledger"), refusedWith(403, /Permission denied/));
    await as("pay", "billing");
  });

  it("change with the settings while their tokens stay", async () => {
    const api = await as("shop", "orders");
    await denied(api.get("kv/config/pay/db"));
    await apply([{ ...orders, kv: { read: ["config/"] } }, billing, reports]);
    await cluster.until("the new right is not there", () => api.get("kv/config/pay/db"));
    await apply([orders, billing, reports]);
  });

  it("work with the example as it stands: token before the application, registration, deregistration, logout", async () => {
    const manifests = parseAllDocuments(readFileSync(join(programDir, "examples/login/orders.yaml"), "utf8")).map(
      (document) => document.toJS() as Manifest,
    );
    deepEqual(await kube.apply(manifests), []);
    const apps = kube.kubeconfig.makeApiClient(k8s.AppsV1Api);
    await kube.waitFor("the Deployment is available", async () => {
      const { status } = await apps.readNamespacedDeployment({ name: "orders", namespace: "shop" });
      equal(status?.availableReplicas, 3);
    });
    const spec = (manifests[1] as unknown as k8s.V1Deployment).spec?.template.spec;
    const run = join(directory, "run");
    for (const name of ["consul", "identity"]) mkdirSync(join(run, name), { recursive: true });
    writeFileSync(join(run, "identity/token"), await identity("shop", "orders"));
    const tokenFile = join(run, "consul/token");
    const own = { POD_NAME: "orders-1", POD_IP: "10.0.0.1", CONSUL_HTTP_ADDR: cluster.api("agent-1").address };
    const started: ChildProcess[] = [];
    /** A container's script, where the pod's directory is one of this test's. */
    const start = (container: k8s.V1Container | undefined, environment: Record<string, string>) => {
      ok(container);
      const script = container.args?.[0]?.replaceAll("/run/", `${run}/`) ?? "";
      const PATH = [dirname(cluster.consul), process.env.PATH].join(delimiter);
      // A process group, as a container ends all of its processes: the script's `sleep` outlives the script.
      const options = { env: { PATH, ...own, ...environment }, stdio: "inherit", detached: true } as const;
      const child = spawn("sh", ["-c", script], options);
      started.push(child);
      return child;
    };
    const stop = (child: ChildProcess) =>
      new Promise((resolve) => {
        child.once("exit", resolve);
        child.kill("SIGTERM");
      });
    try {
      const sidecar = start(spec?.initContainers?.[0], { CONSUL_LOGIN_METHOD: method });
      await cluster.until("there is no token", () => stat(tokenFile));
      equal((statSync(tokenFile).mode & 0o777).toString(8), "640");
      const secret = readFileSync(tokenFile, "utf8").trim();
      const application = start(spec?.containers[0], { CONSUL_HTTP_TOKEN_FILE: tokenFile });
      const instances = async () =>
        (await cluster.api("server-1").get<{ ServiceID: string }[]>("catalog/service/orders")).map((i) => i.ServiceID);
      await cluster.until("it is not registered", async () => ok((await instances()).includes("orders-orders-1")));
      await stop(application);
      await cluster.until("it is still registered", async () => ok(!(await instances()).includes("orders-orders-1")));
      // The container that logs in is started anew: the token stays.
      sidecar.kill("SIGKILL");
      const again = start(spec?.initContainers?.[0], { CONSUL_LOGIN_METHOD: method });
      await new Promise((resolve) => setTimeout(resolve, 500));
      equal(readFileSync(tokenFile, "utf8").trim(), secret);
      await cluster.api("server-1", secret).get("acl/token/self");
      await stop(again);
      await denied(cluster.api("server-1", secret).get("acl/token/self"));
    } finally {
      for (const { pid } of started) if (pid !== undefined) endGroup(pid);
    }
  });

  it("leave no method, rule, policy or token behind when nobody may log in any more, and applications' tokens stay", async () => {
    const secret = await secretOf("shop", "orders");
    const said = await apply([]);
    match(said, /revoked method logins, stack prod, project consul/);
    await cluster.until("the token still works", () =>
      denied(cluster.api("server-1", secret).get("kv/config/shop/db")),
    );
    const all = async <T>(path: string) => cluster.api("server-1").get<T[]>(`acl/${path}`);
    deepEqual(await all("auth-methods"), []);
    deepEqual(await all("binding-rules"), []);
    equal(
      (await all<{ AuthMethod?: string }>("tokens")).filter(({ AuthMethod }) => AuthMethod !== undefined).length,
      0,
    );
    equal((await all<{ Name: string }>("policies")).filter(({ Name }) => Name.startsWith("login_")).length, 0);
    equal((await all<{ Description: string }>("tokens")).filter((t) => t.Description.startsWith("old-way,")).length, 1);
    await rejects(loginAs("shop", "orders"), refusedWith(403, /ACL not found|not found/));
  });

  it("say what is wrong where the API server cannot be reached", async () => {
    const body = { Name: "lost", Type: "kubernetes", Config: configOf("https://127.0.0.1:1") };
    await cluster.api("server-1").put("acl/auth-method", body);
    await rejects(login(await identity("shop", "orders"), "lost"), refusedWith(500, /connection refused/));
  });

  const configOf = (Host: string) => ({
    Host,
    CACert: Buffer.from(data["ca.crt"] ?? "", "base64").toString(),
    ServiceAccountJWT: Buffer.from(data.token ?? "", "base64").toString(),
  });
});

/** Ends every process of a group that still runs. */
function endGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // All have ended.
  }
}
