import { deepEqual, equal, match, ok } from "assert/strict";
import { once } from "events";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "fs";
import { createServer, Server } from "http";
import { tmpdir } from "os";
import { delimiter, join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { isDeepStrictEqual } from "util";
import { parseAllDocuments } from "yaml";
import { EnvVar } from "../../components/kubernetes/app-access";
import { appRules, grantObjects } from "../../consul/access";
import { programDir } from "../../local/program";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { buildTool } from "../../tools/build";
import { environmentOf, get, Pod, podEnvironment } from "./pod";

// examples/consul-template as it stands: its containers' commands, as processes, on a real cluster with a token as
// consul:apps makes it. nginx is the machine's own.

const folder = join(programDir, "examples/consul-template");
const prefix = "127.81.0";
const address = `${prefix}.100`;
const tokens = {
  edge: "0de50000-0000-4000-8000-0000000000d1",
  orders: "0de50000-0000-4000-8000-0000000000d2",
  environment: "0de50000-0000-4000-8000-0000000000d3",
};

interface Container {
  readonly name: string;
  readonly command: readonly string[];
  readonly args?: readonly string[];
  readonly env?: EnvVar[];
}
interface Manifest {
  readonly kind: string;
  readonly data: Readonly<Record<string, string>>;
  readonly spec: { template: { spec: { initContainers: Container[]; containers: Container[] } } };
}

const documents = parseAllDocuments(readFileSync(join(folder, "nginx.yaml"), "utf8")).map(
  (document) => document.toJS() as Manifest,
);
const files = documents.find(({ kind }) => kind === "ConfigMap")?.data ?? {};
const pod = documents.find(({ kind }) => kind === "Deployment")?.spec.template.spec;
const container = (name: string): Container => {
  const found = [...(pod?.initContainers ?? []), ...(pod?.containers ?? [])].find((one) => one.name === name);
  ok(found, name);
  return found;
};
/** A machine has nginx where only root looks for programs. */
const PATH = [process.env.PATH, "/usr/sbin"].join(delimiter);

describe("examples/consul-template", function () {
  this.timeout(300_000);
  const dir = mkdtempSync(join(tmpdir(), "consul-template-"));
  const [run, etc] = [join(dir, "run"), join(dir, "etc")];
  const undo: (() => unknown)[] = [() => rmSync(dir, { recursive: true, force: true })];
  const processes: Pod[] = [];
  let cluster: Cluster;
  let program: string;
  let template: Pod;
  let nginx: Pod;

  /** The pod's folders are this test's, and its address is one of the loopback. */
  const here = (text: string) =>
    text
      .replaceAll("/run/edge/consul-template", program)
      .replaceAll("/run/edge", run)
      .replaceAll("/etc/edge", etc)
      .replaceAll("listen 8080", `listen ${address}:8080`)
      .replaceAll("/dev/stdout", join(dir, "access.log"))
      // Twelve attempts, after which it ends by default, are over in 10 s.
      .replaceAll('max_backoff = "10s"', 'max_backoff = "1s"');

  function start(name: string): Pod {
    const { command, args = [], env = [] } = container(name);
    const of = { node: cluster.node("agent-1").address, pod: address, token: tokens.edge };
    const started = new Pod([...command, ...args].map(here), { ...podEnvironment(of, env), PATH });
    processes.push(started);
    return started;
  }

  before(async function () {
    this.timeout(1_800_000); // a first build
    if (!PATH.split(delimiter).some((folder) => existsSync(join(folder, "nginx")))) {
      console.log("      skipped: no nginx is on PATH (Debian: apt-get install nginx-light)");
      return this.skip();
    }
    program = await buildTool("consul-template", console.error);
    for (const folder of [run, etc]) mkdirSync(folder);
    // nginx's workers are nobody.
    chmodSync(dir, 0o755);
    for (const [name, text] of Object.entries(files)) writeFileSync(join(etc, name), here(text));
    cluster = await startCluster({ dir: join(dir, "cluster"), config: onLoopback(prefix, 3, 2) });
    undo.push(() => cluster.stop());
    const rules = {
      edge: appRules({ services: [], kv: { read: ["config/edge/"], write: [] } }),
      orders: appRules({ services: ["orders"], kv: { read: [], write: [] } }),
    };
    const grants = (["edge", "orders"] as const).map((name) => ({ name, rules: rules[name], secrets: [tokens[name]] }));
    await cluster.applyAcl(grantObjects({ project: "consul", stack: "test" }, grants));
  });
  afterEach(function () {
    if (this.currentTest?.state === "failed") for (const { logs } of processes) console.log(logs.slice(-3000));
  });
  after(async () => {
    for (const process of processes.reverse()) await process.end("SIGTERM");
    for (const step of undo.reverse()) await step();
  });

  // Instances: each a server of its own, registered at the second node's agent, as its application would.
  const instances = new Map<string, Server>();
  undo.push(async () => {
    for (const name of [...instances.keys()]) await close(name);
  });
  const registry = () => cluster.api("agent-2", tokens.orders);
  const addressOf = (name: string) => `${prefix}.${110 + name.charCodeAt(0) - "a".charCodeAt(0)}`;

  async function open(name: string): Promise<void> {
    const server = createServer((_, response) => setTimeout(() => response.end(name), 5));
    instances.set(name, server);
    await once(server.listen(9000, addressOf(name)), "listening");
  }
  /** As a crash: connections end at once. */
  async function close(name: string): Promise<void> {
    const server = instances.get(name);
    instances.delete(name);
    await new Promise((closed) => {
      server?.close(closed);
      server?.closeAllConnections();
    });
  }
  const register = (name: string, at = addressOf(name)) =>
    registry().put("agent/service/register", {
      Name: "orders",
      ID: `orders-${name}`,
      Address: at,
      Port: 9000,
      Check: { TTL: "600s", Status: "passing" },
    });
  const deregister = (name: string) => registry().put(`agent/service/deregister/orders-${name}`);
  const check = (name: string, state: "pass" | "fail") => registry().put(`agent/check/${state}/service:orders-${name}`);
  const put = (key: string, value: string) => cluster.api("server-1").put(`kv/config/${key}`, value);

  const rendered = () => readFileSync(join(run, "nginx.conf"), "utf8");
  const servers = () => [...rendered().matchAll(/server (\S+):9000 /g)].map(([, at]) => at).sort();
  const eventually = (problem: string, holds: () => void) =>
    cluster.until(problem, () => Promise.resolve().then(holds));
  const upstream = (...names: string[]) =>
    eventually(`the upstream is not ${names.join(", ")}`, () => {
      deepEqual(servers(), names.map(addressOf));
    });
  const answers = async (times: number) => {
    const seen = new Set<string>();
    for (let i = 0; i < times; i++) {
      const { status, body } = await get(address, "/");
      equal(status, 200, body);
      seen.add(body);
    }
    return [...seen].sort();
  };
  /** How often nginx was told to read its file again. */
  const reloads = () => template.logs.match(/executing command/g)?.length ?? 0;

  /** Four callers, each request on a connection of its own. @returns what ends them, after so many requests */
  function load(): (least?: number) => Promise<{ calls: number; failed: string[] }> {
    const seen = { over: false, calls: 0, failed: [] as string[] };
    const caller = async () => {
      while (!seen.over) {
        seen.calls++;
        const answer = await get(address, "/").catch((error: unknown) => String(error));
        if (typeof answer === "string" || answer.status !== 200) seen.failed.push(JSON.stringify(answer));
      }
    };
    const callers = Promise.all([caller(), caller(), caller(), caller()]);
    return async (least = 0) => {
      while (seen.calls < least) await sleep(50);
      seen.over = true;
      await callers;
      return seen;
    };
  }

  it("takes its environment from what the Consul stack gives", () => {
    const given = environmentOf("edge");
    const { env = [] } = container("consul-template");
    ok(env.length > 2);
    deepEqual(
      env.filter((variable) => !given.some((other) => isDeepStrictEqual(other, variable))),
      [],
    );
  });

  it("renders the instances before nginx starts, and nginx sends requests to each", async () => {
    for (const name of ["a", "b", "c"]) {
      await open(name);
      await register(name);
    }
    template = start("consul-template");
    await eventually("there is no rendering", () => {
      rendered();
    });
    nginx = start("nginx");
    await upstream("a", "b", "c");
    await cluster.until("nginx does not answer", async () => deepEqual(await answers(30), ["a", "b", "c"]));
    equal((await get(address, "/health/ready")).status, 200);
    match(rendered(), /proxy_read_timeout 30s;/);
  });

  it("follows instances and keys under load, and no request fails", async () => {
    const before = reloads();
    const end = load();
    await check("a", "fail");
    const began = Date.now();
    await upstream("b", "c");
    console.log(`      an instance that is critical left after ${((Date.now() - began) / 1000).toFixed(1)} s`);
    await open("d");
    await register("d");
    await upstream("b", "c", "d");
    await deregister("b");
    await upstream("c", "d");
    // As the application does: nobody has its address any more when its port closes.
    await sleep(2000);
    await close("b");
    await put("edge/timeout", "7s");
    await eventually("the key has no effect", () => {
      match(rendered(), /proxy_read_timeout 7s;/);
    });
    await check("a", "pass");
    await upstream("a", "c", "d");
    for (let round = 0; round < 5; round++) {
      await check("d", round % 2 === 0 ? "fail" : "pass");
      await sleep(1500);
    }
    await check("d", "pass");
    await upstream("a", "c", "d");
    deepEqual(await answers(30), ["a", "c", "d"]);
    const { calls, failed } = await end(300);
    console.log(`      ${calls} requests, ${failed.length} failed, ${reloads() - before} reloads`);
    deepEqual(failed, []);
    ok(reloads() - before >= 7, `${reloads() - before} reloads`);
  });

  it("passes a request on where an instance has crashed and Consul does not know it yet", async () => {
    const end = load();
    await sleep(500);
    await close("d");
    await sleep(3000);
    const { failed } = await end(300);
    deepEqual(servers(), ["a", "c", "d"].map(addressOf));
    deepEqual(failed, []);
    await deregister("d");
    await upstream("a", "c");
  });

  it("keeps the rendering before where nginx refuses the new one, also when nginx starts again", async () => {
    await put("edge/timeout", "banana");
    await eventually("nothing is said", () => {
      match(template.logs, /edge: nginx refuses/);
    });
    match(template.logs, /"proxy_read_timeout" directive invalid value/);
    match(rendered(), /proxy_read_timeout 7s;/);
    deepEqual(await answers(20), ["a", "c"]);
    await nginx.end("SIGTERM");
    nginx = start("nginx");
    await cluster.until("nginx does not answer", async () => deepEqual(await answers(20), ["a", "c"]));
    await put("edge/timeout", "9s");
    await eventually("the key has no effect", () => {
      match(rendered(), /proxy_read_timeout 9s;/);
    });
    equal(template.starts, 1);
  });

  it("takes no text for an address that an instance may have registered", async () => {
    await register(
      "e",
      `${addressOf("c")}:9000; } server { listen ${address}:8081; return 200 mine; } upstream other { server 1.1.1.1`,
    );
    await open("f");
    await register("f");
    await upstream("a", "c", "f");
    ok(!rendered().includes("mine"), rendered());
    for (const name of ["e", "f"]) await deregister(name);
    await close("f");
    await upstream("a", "c");
  });

  it("answers 503 where no instance is left, and goes on with the first that is back", async () => {
    for (const name of ["a", "c"]) await check(name, "fail");
    await upstream();
    await cluster.until("nginx does not answer 503", async () => equal((await get(address, "/")).status, 503));
    equal((await get(address, "/health/ready")).status, 200);
    await check("a", "pass");
    await upstream("a");
    await cluster.until("nginx does not answer", async () => deepEqual(await answers(10), ["a"]));
    await check("c", "pass");
    await upstream("a", "c");
  });

  it("renders what was missed while consul-template was not there, and nginx goes on meanwhile", async () => {
    await template.end("SIGKILL");
    await check("a", "fail");
    await sleep(2000);
    deepEqual(await answers(10), ["a", "c"]);
    const before = rendered();
    template = start("consul-template");
    await upstream("c");
    await cluster.until("nginx does not know", async () => deepEqual(await answers(10), ["c"]));
    // As if it had been killed after it rendered and before it told nginx.
    await template.end("SIGKILL");
    writeFileSync(join(run, "nginx.conf"), before);
    template = start("consul-template");
    await upstream("c");
    await check("a", "pass");
    await upstream("a", "c");
  });

  it("goes on with the last rendering while its agent is away, and while its token is unknown", async () => {
    const end = load();
    await cluster.end("agent-1");
    await sleep(20_000);
    deepEqual(servers(), ["a", "c"].map(addressOf));
    cluster.start("agent-1");
    await cluster.ready();
    await check("c", "fail");
    await upstream("a");
    await check("c", "pass");
    await upstream("a", "c");
    const accessor = await cluster.api("agent-1", tokens.edge).get<{ AccessorID: string }>("acl/token/self");
    await cluster.api("server-1").delete(`acl/token/${accessor.AccessorID}`);
    await cluster.until("the token is still known", async () =>
      match(String(await cluster.api("agent-1", tokens.edge).get("catalog/services").catch(String)), /ACL not found/),
    );
    await check("c", "fail");
    await sleep(10_000);
    deepEqual(servers(), ["a", "c"].map(addressOf));
    await check("c", "pass");
    const { calls, failed } = await end();
    console.log(`      ${calls} requests, ${failed.length} failed`);
    deepEqual(failed, []);
    equal(template.starts, 1, "consul-template gave up");
  });

  it("ends upon SIGTERM, as the kubelet asks it to", async () => {
    const interrupted = 12; // consul-template's own status for it
    equal(await template.end("SIGTERM"), interrupted);
  });

  it("gives an application its keys by the environment, and starts it again when one changes", async () => {
    const file = join(dir, "environment.hcl");
    const [server, said] = [join(dir, "server.js"), join(dir, "said.log")];
    // What the shell could take for its own is a value all the same.
    const odd = `it's $HOME "and" \`id\``;
    writeFileSync(
      server,
      `const say = (what) => require("fs").appendFileSync(${JSON.stringify(said)}, what + "\\n");
      say("starts with " + process.env.DB_HOST);
      process.on("SIGTERM", () => setTimeout(() => (say("has ended"), process.exit(0)), 1000));
      setInterval(() => undefined, 1000);`,
    );
    const text = readFileSync(join(folder, "environment.hcl"), "utf8");
    const changed = here(text)
      .replaceAll("/run/orders", dir)
      .replace("node server.js", `node ${server}`)
      .replace('splay = "10s"', 'splay = "1s"');
    writeFileSync(file, changed);
    for (const [name, value] of Object.entries({ "db-host": odd, pool: "5" })) await put(`orders/${name}`, value);
    const grant = { name: "edge", rules: appRules({ services: [], kv: { read: ["config/orders/"], write: [] } }) };
    await cluster.applyAcl(
      grantObjects({ project: "consul", stack: "test" }, [{ ...grant, secrets: [tokens.environment] }]),
    );
    const of = { node: cluster.node("agent-1").address, pod: address, token: tokens.environment };
    const started = new Pod([program, `-config=${file}`], podEnvironment(of));
    processes.push(started);
    const lines = () => readFileSync(said, "utf8").trim().split("\n");
    await eventually("it does not start", () => {
      deepEqual(lines(), [`starts with ${odd}`]);
    });
    await cluster.end("agent-1");
    await sleep(15_000);
    cluster.start("agent-1");
    await cluster.ready();
    equal(lines().length, 1, "it was ended because its agent was away");
    await put("orders/db-host", "second");
    const all = [`starts with ${odd}`, "has ended", "starts with second"];
    await eventually("it does not start again", () => {
      deepEqual(lines(), all);
    });
    await started.end("SIGTERM");
    deepEqual(lines(), [...all, "has ended"]);
    equal(started.starts, 1);
  });

  it("logs nothing of its token", () => {
    const logs = processes.map((one) => one.logs).join("\n");
    match(logs, /executing command/);
    for (const token of Object.values(tokens)) ok(!logs.includes(token));
  });
});
