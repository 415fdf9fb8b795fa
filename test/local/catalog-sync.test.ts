import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { execFile } from "child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "fs";
import { connect, IncomingHttpHeaders } from "http2";
import { tmpdir } from "os";
import { join } from "path";
import { promisify } from "util";
import { parse, parseAllDocuments } from "yaml";
import { appRules, grantObjects } from "../../consul/access";
import { ports } from "../../consul/config";
import { withApi } from "../../consul/scripts";
import { Api, ApiError } from "../../local/api";
import { programDir } from "../../local/program";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { apps } from "../../settings/apps";
import { ask } from "./dns-client";

// What HashiCorp's catalog sync asks of Consul, by the calls in its source (consul-k8s 1.9.11), with the token that
// examples/catalog-sync has, on a real cluster. The sync itself is not here: the module proxy refuses its module.

const prefix = "127.82.0";
const token = "0de50000-0000-4000-8000-0000000000e1";
const addresses = [11, 12, 13].map((last) => `${prefix}.${last}`);
const read = (file: string) => readFileSync(join(programDir, "examples/catalog-sync", file), "utf8");

/** The entry of consul:apps that the example asks for, as its README has it. */
function entry() {
  const [, block = ""] = /```yaml\n([\s\S]*?)```/.exec(read("README.md")) ?? [];
  const [app] = apps.parse((parse(block) as { "consul:apps": unknown })["consul:apps"]);
  ok(app);
  return app;
}

/** The environment and the flags of the example's container. */
function container() {
  type Container = { args: string[]; env: { name: string; value?: string }[] };
  type Deployment = { kind: string; spec: { template: { spec: { containers: [Container] } } } };
  const objects = parseAllDocuments(read("sync.yaml")).map((document) => document.toJS() as Deployment);
  const found = objects.find(({ kind }) => kind === "Deployment")?.spec.template.spec.containers[0];
  ok(found);
  const env = Object.fromEntries(found.env.map(({ name, value = "" }) => [name, value]));
  const flags = Object.fromEntries(
    found.args.map((arg): [string, string] => {
      const [name = "", value = ""] = arg.replace(/^-/, "").split("=");
      return [name, value];
    }),
  );
  return { env, flags };
}

/** One call by gRPC with an empty message. @returns the status, what came, and what went wrong */
function grpc(address: string, method: string, options: { ca: string; token?: string; servername?: string }) {
  const session = connect(`https://${address}:${ports.grpc}`, {
    ca: options.ca,
    servername: options.servername ?? container().env.CONSUL_TLS_SERVER_NAME ?? "",
  });
  return new Promise<{ status: string; message: string; body: string }>((resolve, reject) => {
    session.on("error", reject);
    const call = session.request({
      ":method": "POST",
      ":path": `/hashicorp.consul.${method}`,
      "content-type": "application/grpc",
      te: "trailers",
      ...(options.token === undefined ? {} : { "x-consul-token": options.token }),
    });
    let [status, message, body] = ["", "", ""];
    const end = () => resolve({ status, message, body });
    const said = (headers: IncomingHttpHeaders) => {
      status ||= [headers["grpc-status"]].flat().join();
      message ||= [headers["grpc-message"]].flat().join();
    };
    // A stream does not end by itself: its first message is enough.
    call.on("response", said).on("trailers", said).on("close", end).on("error", reject);
    call.on("data", (chunk: Buffer) => {
      body += chunk.toString("latin1");
      if (method.endsWith("WatchServers")) call.close();
    });
    call.end(Buffer.alloc(5));
  }).finally(() => session.close());
}

const features = "dataplane.DataplaneService/GetSupportedDataplaneFeatures";
const watch = "serverdiscovery.ServerDiscoveryService/WatchServers";

describe("HashiCorp's catalog sync, by its calls", function () {
  this.timeout(120_000);
  const dir = mkdtempSync(join(tmpdir(), "consul-catalog-sync-"));
  const { env, flags } = container();
  const node = flags["consul-node-name"] ?? "";
  let cluster: Cluster;
  let ca = "";
  /** The servers' API, as the sync: over HTTPS with its token there, here by the servers' own loopback. */
  let sync: Api;

  before(async () => {
    const config = onLoopback(prefix, 3, 1);
    config["consul:datacenter"] = env.CONSUL_DATACENTER ?? "";
    const servers = JSON.parse(config["consul:servers"] ?? "") as object;
    config["consul:servers"] = JSON.stringify({ ...servers, grpc: true });
    cluster = await startCluster({ dir: join(dir, "cluster"), config });
    ca = cluster.node("server-1").files.find(({ path }) => path.endsWith("/ca.pem"))?.content ?? "";
    const grant = { name: "catalog-sync", rules: appRules(entry()), secrets: [token] };
    await cluster.applyAcl(grantObjects({ project: "consul", stack: "test" }, [grant]));
    sync = cluster.api("server-1", token);
    await cluster.until("the token is not known", () => sync.get("acl/token/self"));
  });
  after(async () => {
    await (cluster as Cluster | undefined)?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  /** An endpoint of a Service, as the sync registers it. */
  const endpoint = (service: string, address = "10.244.1.7", on = node) => ({
    Node: on,
    Address: "127.0.0.1",
    SkipNodeUpdate: true,
    NodeMeta: { "external-source": "kubernetes" },
    Service: {
      ID: `${service}-${address}`,
      Service: service,
      Address: address,
      Port: 8080,
      Tags: ["k8s"],
      Meta: { "external-source": "kubernetes", "external-k8s-ns": "shop" },
    },
    Check: {
      CheckID: `shop/${service}-${address}`,
      Name: "Kubernetes Readiness Check",
      Type: "kubernetes-readiness",
      Node: on,
      ServiceID: `${service}-${address}`,
      Status: "passing",
    },
  });
  const register = (service: string, address?: string, on?: string) =>
    sync.put("catalog/register", endpoint(service, address, on));
  const denied = (attempt: Promise<unknown>) =>
    rejects(attempt, (error: unknown) => error instanceof ApiError && error.status === 403);
  const found = async (service: string) =>
    (await cluster.api("agent-1", null).get<{ Service: { Address: string } }[]>(`health/service/${service}?passing`))
      .map(({ Service }) => Service.Address)
      .sort();

  it("finds servers by gRPC with TLS and its token, at the port and by the name that the example has", async () => {
    equal(env.CONSUL_GRPC_PORT, String(ports.grpc));
    equal(env.CONSUL_HTTP_PORT, String(ports.https));
    for (const address of addresses) {
      // A server knows a new token once raft has brought the token to that server.
      await cluster.until(`${address} refuses the token`, async () => {
        const { status, message } = await grpc(address, features, { ca, token });
        equal(status, "0", message);
      });
    }
    const { body } = await grpc(`${prefix}.11`, watch, { ca, token });
    for (const address of addresses) ok(body.includes(address), JSON.stringify(body));
  });

  it("is refused there without a token, and where the servers' name is another one", async () => {
    for (const unknown of [undefined, "0de50000-0000-4000-8000-0000000000ee"]) {
      const given = unknown === undefined ? { ca } : { ca, token: unknown };
      for (const method of [features, watch]) match((await grpc(`${prefix}.11`, method, given)).status, /^(7|16)$/);
    }
    await rejects(grpc(`${prefix}.11`, features, { ca, token, servername: "server.dc2.consul" }), /altnames|hostname/i);
  });

  it("registers endpoints, which are found over HTTP and DNS, and takes them away", async () => {
    equal(flags["consul-service-prefix"], "k8s-");
    await register("k8s-web-shop");
    await register("k8s-web-shop", "10.244.1.8");
    await cluster.until("they are not found", async () =>
      deepEqual(await found("k8s-web-shop"), ["10.244.1.7", "10.244.1.8"]),
    );
    const dns = { address: cluster.node("agent-1").address, port: ports.dns };
    const { answers } = await ask(dns, "k8s-web-shop.service.consul");
    equal(answers.length, 2);
    const known = await sync.get<{ Services: { ID: string }[] }>(`catalog/node-services/${node}`);
    deepEqual(known.Services.map(({ ID }) => ID).sort(), ["k8s-web-shop-10.244.1.7", "k8s-web-shop-10.244.1.8"]);
    equal((await sync.get<unknown[]>("catalog/service/k8s-web-shop?tag=k8s")).length, 2);
    await sync.put("catalog/deregister", { Node: node, ServiceID: "k8s-web-shop-10.244.1.8" });
    await cluster.until("it is still found", async () => deepEqual(await found("k8s-web-shop"), ["10.244.1.7"]));
  });

  it("may write nothing else: no other name, no other node, no keys, no tokens", async () => {
    for (const service of ["orders", "consul", "consul-members", "k8s"]) await denied(register(service));
    await denied(register("k8s-web-shop", "10.244.1.9", "made-up"));
    for (const Node of ["agent-1", "server-1"]) {
      await denied(sync.put("catalog/register", { Node, Address: "10.0.0.9" }));
    }
    await denied(sync.put("catalog/deregister", { Node: "agent-1", ServiceID: "consul-members" }));
    await denied(sync.put("kv/config/orders/data", "x"));
    await denied(sync.get("acl/tokens"));
    await denied(sync.get("operator/raft/configuration"));
    deepEqual(await found("k8s-web-shop"), ["10.244.1.7"]);
  });

  it("keeps its entries when the leader changes", async () => {
    const leader = await cluster.leaderName();
    await cluster.end(leader);
    await cluster.until("there is no other leader", async () => ok((await cluster.leaderName()) !== leader));
    cluster.start(leader);
    await cluster.ready();
    deepEqual(await found("k8s-web-shop"), ["10.244.1.7"]);
  });

  it("is no node that a rotation waits for, since it was never started with a key", async () => {
    const script = join(dir, "behind.sh");
    writeFileSync(script, withApi("scripts/behind.sh"));
    await cluster.api("server-1").put("catalog/register", { Node: "of-an-earlier-release", Address: "10.0.0.1" });
    const { stdout } = await promisify(execFile)("sh", [script, '[^"]*'], {
      env: {
        PATH: process.env.PATH,
        CONSUL_HTTP_ADDR: cluster.api("server-1").address,
        CONSUL_HTTP_TOKEN_FILE: cluster.tokenFile,
      },
    });
    const behind = stdout.trim().split("\n");
    ok(behind.includes("of-an-earlier-release"), stdout);
    ok(!behind.includes("agent-1") && !behind.includes(node), stdout);
  });

  it("takes everything away when it is uninstalled", async () => {
    await sync.put("catalog/deregister", { Node: node });
    await cluster.until("it is still found", async () => deepEqual(await found("k8s-web-shop"), []));
  });
});
