import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { ChildProcess, execFile, spawn } from "child_process";
import { once } from "events";
import { mkdtempSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { promisify } from "util";
import { appRules, grantObjects } from "../../consul/access";
import { ports } from "../../consul/config";
import { programDir } from "../../local/program";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { podEnvironment } from "./pod";

const example = join(programDir, "examples/stack-typescript");
const port = 8080;
const tokens = {
  orders: "0de50000-0000-4000-8000-000000000001",
  "orders-config": "0de50000-0000-4000-8000-000000000002",
  shop: "0de50000-0000-4000-8000-000000000003",
};

/** The example's application, as processes, with the environment and the tokens that its pods would have. */
describe("the example's application", function () {
  this.timeout(600_000);
  const prefix = "127.35.0";
  let cluster: Cluster;
  let logs = "";
  const undo: (() => unknown)[] = [];

  before(async function () {
    this.timeout(1_800_000);
    const directory = mkdtempSync(join(tmpdir(), "consul-app-"));
    undo.push(() => rmSync(directory, { recursive: true, force: true }));
    cluster = await startCluster({ dir: directory, config: onLoopback(prefix, 3, 2) });
    undo.push(() => cluster.stop());
    // What consul:apps of the Consul stack makes for the example; see its README.
    const grant = (name: keyof typeof tokens, services: string[], read: string[], write: string[]) => ({
      name,
      rules: appRules({ services, kv: { read, write } }),
      secrets: [tokens[name]],
    });
    const grants = [
      grant("orders", ["orders"], ["config/orders/"], []),
      grant("orders-config", [], [], ["config/orders/"]),
      grant("shop", ["shop"], ["config/shop/"], []),
    ];
    await cluster.applyAcl(grantObjects({ project: "consul", stack: "test" }, grants));
  });
  after(async () => {
    for (const step of undo.reverse()) await step();
  });

  /** Starts the application as a pod with this address on a node. */
  async function start(name: keyof typeof tokens, node: string, pod: string): Promise<ChildProcess> {
    const env = podEnvironment({ node: cluster.node(node).address, pod, token: tokens[name] });
    const child = spawn(process.execPath, [join(example, "app/server.js")], {
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        PATH: process.env.PATH,
        ...env,
        SERVICE_NAME: name,
        PORT: String(port),
        DNS_SERVER: `${cluster.node(node).address}:${ports.dns}`,
      },
    });
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (logs += String(text)));
    undo.push(() => child.kill("SIGKILL"));
    await cluster.until(`${name} does not listen`, () => get(pod, "/health/live"));
    return child;
  }

  async function get(pod: string, path: string): Promise<Record<string, unknown>> {
    const answer = await fetch(`http://${pod}:${port}${path}`, { signal: AbortSignal.timeout(10_000) });
    const body = (await answer.json()) as Record<string, unknown>;
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${JSON.stringify(body)}`);
    return body;
  }
  const instances = async (node: string) => {
    const found = await cluster
      .api(node, null)
      .get<{ Service: { Address: string } }[]>("health/service/orders?passing");
    return found.map(({ Service }) => Service.Address).sort();
  };
  /** The command of the example's Job, with the real consul. */
  async function configure(app: keyof typeof tokens, text?: string): Promise<void> {
    const child = promisify(execFile)(
      cluster.consul,
      ["kv", "put", "config/orders/data", text ?? `@${join(example, "orders.yaml")}`],
      { env: podEnvironment({ node: cluster.node("agent-1").address, pod: "", token: tokens[app] }) },
    );
    await child;
  }
  const orders = [`${prefix}.101`, `${prefix}.102`] as const;
  const shop = `${prefix}.103`;
  let running: ChildProcess[] = [];

  it("is alive but not ready without its configuration, and then reads what the Job put there", async () => {
    const first = await start("orders", "agent-1", orders[0]);
    await get(orders[0], "/health/live");
    await rejects(get(orders[0], "/health"), /503 .*no configuration yet/);
    await configure("orders-config");
    await cluster.until("the configuration is not read", () => get(orders[0], "/health"));
    equal((await get(orders[0], "/")).greeting, "hello from the configuration");
    running = [first];
  });

  it("follows a change of its configuration while it runs", async () => {
    await configure("orders-config", "greeting: changed\n");
    await cluster.until("the change is not read", async () => equal((await get(orders[0], "/")).greeting, "changed"));
  });

  it("may read its configuration and register itself, and no more", async () => {
    await rejects(configure("orders"), /403/);
    const api = (token: string) => cluster.api("agent-1", token);
    await rejects(api(tokens.orders).put("agent/service/register", { Name: "shop" }), /403/);
    equal(
      await api(tokens.shop)
        .get("kv/config/orders/data")
        .catch((e: unknown) => (e as { status: number }).status),
      403,
    );
  });

  it("is found by another application on another node, over HTTP and over DNS", async () => {
    running.push(await start("orders", "agent-2", orders[1]));
    running.push(await start("shop", "agent-2", shop));
    await cluster.until("not both are found", async () => deepEqual(await instances("agent-2"), [...orders]));
    const found = await get(shop, "/find/orders");
    deepEqual((found.instances as { address: string }[]).map(({ address }) => address).sort(), [...orders]);
    equal((found.answer as { name: string }).name, "orders");
    await cluster.until("DNS does not know both", async () => {
      // Reads may be stale: the server that answers this one may be a moment behind.
      const resolved = (await get(shop, "/resolve/orders")) as { addresses: string[]; ports: number[] };
      deepEqual([...resolved.addresses].sort(), [...orders]);
      deepEqual(resolved.ports, [port, port]);
    });
  });

  it("registers again where its agent has lost it, and through a restart of the agent", async () => {
    await cluster.api("agent-1").put("agent/service/deregister/orders-127-35-0-101-8080");
    await cluster.until("it is not gone", async () => deepEqual(await instances("agent-2"), [orders[1]]));
    await cluster.until("it is not back", async () => deepEqual(await instances("agent-2"), [...orders]));
    await cluster.restart("agent-1");
    await cluster.ready();
    await cluster.until("it is not found again", async () => deepEqual(await instances("agent-2"), [...orders]));
  });

  it("deregisters on SIGTERM and stops only when nobody has its address any more: no caller is refused", async () => {
    const [first] = running;
    ok(first);
    let calls = 0;
    const until = { stopped: false };
    const failures: string[] = [];
    const caller = (async () => {
      // A caller that keeps what DNS said for as long as it may: five seconds.
      for (let known: string[] = [], since = 0; !until.stopped; calls++) {
        if (Date.now() - since > 5000) {
          known = ((await get(shop, "/resolve/orders")) as { addresses: string[] }).addresses;
          since = Date.now();
        }
        for (const address of known) {
          await get(address, "/").catch((error: unknown) => failures.push(`${address}: ${String(error)}`));
        }
        await sleep(50);
      }
    })();
    await sleep(1000);
    const exited = once(first, "exit");
    first.kill("SIGTERM");
    await cluster.until("it does not stop", () => rejects(get(orders[0], "/health"), /503 .*stopping/));
    await cluster.until("it is still found", async () => deepEqual(await instances("agent-2"), [orders[1]]));
    ok(first.exitCode === null, "it stopped at once");
    deepEqual(await exited, [0, null]);
    await sleep(1000);
    until.stopped = true;
    await caller;
    deepEqual(failures, []);
    ok(calls > 20);
    match(logs, /SIGTERM: deregistering orders-127-35-0-101-8080/);
  });

  it("logs nothing of its token", () => {
    for (const token of Object.values(tokens)) ok(!logs.includes(token));
    ok(logs.includes("registered orders-"));
  });
});
