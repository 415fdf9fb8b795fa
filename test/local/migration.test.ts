import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { ports } from "../../consul/config";
import { stableJson } from "../../consul/node";
import { Api } from "../../local/api";
import { checks } from "../../local/check";
import { NodeProcess } from "../../local/processes";
import { Cluster, onLoopback } from "../../local/supervisor";
import { ask } from "./dns-client";
import { eventually } from "./kube-cluster";
import { Rollout } from "../../lab/rollout";

const prefix = "127.37.0";
const handMade = [1, 2, 3].map((n) => ({ name: `aly-consul-0${n}`, address: `${prefix}.${n}` }));
/** Hosts of the Kubernetes cluster; a hand-made agent has its host's name, ours the name that Kubernetes knows. */
const hosts = [1, 2].map((n) => ({ host: `izbp1-host-${n}`, node: `agent-${n}`, address: `${prefix}.2${n}` }));
const publishedKey = "Qy3w6MjoXVOMvOMSkuj43+buObaHLS8p4JONwvH0RUg=";
const oldManagement = "5eed0000-0000-4000-8000-000000000001";
const oldAgentToken = "5eed0000-0000-4000-8000-000000000002";
const appToken = "5eed0000-0000-4000-8000-000000000003";

/**
 * The consul.json of the hand-made cluster (docs/origins.md), but for what one machine asks: addresses of the loopback
 * instead of an interface and all interfaces, a directory of its own, tokens where its author left his out.
 */
function handMadeConfig(address: string, dataDir: string, tokens: object): Record<string, unknown> {
  return {
    datacenter: "aly-consul",
    addresses: { http: address, dns: address },
    bind_addr: address,
    client_addr: address,
    data_dir: dataDir,
    rejoin_after_leave: true,
    retry_join: handMade.map((server) => server.address),
    verify_incoming: false,
    verify_outgoing: false,
    disable_remote_exec: false,
    encrypt: publishedKey,
    encrypt_verify_incoming: true,
    encrypt_verify_outgoing: true,
    acl: { enabled: true, default_policy: "deny", down_policy: "extend-cache", tokens },
  };
}

/** docs/migration.md, step by step, on a real cluster that starts as the hand-made one. */
describe("moving a hand-made cluster", function () {
  this.timeout(900_000);
  let directory: string;
  let cluster: Cluster;
  const old = new Map<string, NodeProcess>();
  const undo: (() => unknown)[] = [];

  /** The one node whose agent is being replaced right now: its own lookups may fail, nobody else's. */
  let replacing: string | undefined;
  const failures: string[] = [];
  const missed = new Map<string, number>();
  let lookups = 0;

  before(async function () {
    this.timeout(1_800_000);
    directory = mkdtempSync(join(tmpdir(), "consul-migration-"));
    undo.push(() => rmSync(directory, { recursive: true, force: true }));
    cluster = new Cluster({
      dir: join(directory, "new"),
      config: {
        ...onLoopback(prefix, 3, 2),
        "consul:datacenter": "aly-consul",
        "consul:gossip": JSON.stringify({ existingKey: publishedKey }),
        "consul:migration": JSON.stringify({ servers: handMade.map(({ address }) => address) }),
      },
    });
    undo.push(() => cluster.stop());
    // The program and Consul itself; nothing is started yet.
    for (const step of cluster.steps().slice(0, 2)) await step.run(console.error);

    for (const { name, address } of handMade) {
      const tokens = { initial_management: oldManagement, agent: oldAgentToken };
      startOld(name, {
        ...handMadeConfig(address, join(directory, name), tokens),
        node_name: name,
        server: true,
        bootstrap_expect: 3,
      });
    }
    const api = oldApi();
    await cluster.until("the hand-made servers have no leader", async () => match(await api.get("status/leader"), /:/));
    const policy = (Name: string, Rules: string) => api.put("acl/policy", { Name, Rules });
    await cluster.until("the hand-made tokens are not there", async () => {
      await policy("agent", 'node_prefix "" { policy = "write" } service_prefix "" { policy = "read" }');
    });
    await policy("app", 'service_prefix "" { policy = "write" } node_prefix "" { policy = "read" }');
    await policy("read", 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }');
    await api.put("acl/token", { SecretID: oldAgentToken, Policies: [{ Name: "agent" }] });
    await api.put("acl/token", { SecretID: appToken, Policies: [{ Name: "app" }] });
    await api.put("acl/token/00000000-0000-0000-0000-000000000002", { Policies: [{ Name: "read" }] });
    await api.put("kv/user/config/connections", "5");
    for (const { host, address } of hosts) {
      startOld(host, { ...handMadeConfig(address, join(directory, host), { agent: oldAgentToken }), node_name: host });
      const agent = new Api(`http://${address}:${ports.http}`, appToken);
      const service = { ID: `orders-${host}`, Name: "orders", Address: address, Port: 8080 };
      await cluster.until(`${host} takes no registration`, () => agent.put("agent/service/register", service));
    }
    await cluster.until("orders is not found", async () => equal((await addresses(hosts[0]?.address ?? "")).length, 2));
    watch();
  });
  after(async () => {
    for (const step of undo.reverse()) await step();
  });

  function startOld(name: string, config: Record<string, unknown>): void {
    const file = join(directory, `${name}.json`);
    writeFileSync(file, stableJson(config), { mode: 0o600 });
    const log = join(directory, `${name}.log`);
    const started = new NodeProcess(cluster.consul, ["agent", `-config-file=${file}`], directory, log);
    old.set(name, started);
    undo.push(() => started.end("SIGKILL"));
  }
  /** The hand-made servers' API, with their token for everything. */
  const oldApi = (i = 0) => new Api(`http://${handMade[i]?.address ?? ""}:${ports.http}`, oldManagement);
  const raft = async (api: Api) => {
    type Peers = { Servers: { Node: string; ID: string; Voter: boolean; Leader: boolean }[] };
    return (await api.get<Peers>("operator/raft/configuration")).Servers;
  };
  const voters = async (api: Api) =>
    (await raft(api))
      .filter(({ Voter }) => Voter)
      .map(({ Node }) => Node)
      .sort();
  const addresses = async (agent: string) => {
    const { answers } = await ask({ address: agent, port: ports.dns }, "orders.service.consul");
    return answers.flatMap((answer) => (answer.type === "A" ? [answer.data] : []));
  };

  /** Applications on both nodes look up `orders` at the agent of their node, ten times a second, all the time. */
  function watch(): void {
    let stopped = false;
    const watchers = hosts.map(async ({ node, address }) => {
      while (!stopped) {
        await sleep(100);
        lookups += 1;
        const before = replacing;
        const found = await addresses(address).catch((error: unknown) => error as Error);
        if (!(found instanceof Error) && found.length > 0) continue;
        missed.set(node, (missed.get(node) ?? 0) + 1);
        if (before !== node && replacing !== node) {
          failures.push(`${node}: ${found instanceof Error ? found.message : "no instance"}`);
        }
      }
    });
    undo.push(async () => {
      stopped = true;
      await Promise.all(watchers);
    });
  }
  afterEach(() => {
    deepEqual(failures, [], "lookups that failed");
  });

  const allWell = () =>
    cluster.until("not every server is a healthy voter", async () => {
      type Health = { Healthy: boolean; Servers: { Healthy: boolean; Voter: boolean }[] };
      const { Servers } = await cluster.api(await cluster.leaderName()).get<Health>("operator/autopilot/health");
      ok(Servers.length >= 3 && Servers.every(({ Healthy, Voter }) => Healthy && Voter));
    });

  /** What `pulumi up` does from step 5 on, when every node is ours. */
  let rollout: Rollout;
  async function up(change: Readonly<Record<string, string | undefined>>): Promise<void> {
    await rollout.up(change, (node) => {
      replacing = node;
      return Promise.resolve();
    });
    replacing = undefined;
  }

  it("1. our servers join the old ones, with their key, and become voters of the same cluster", async () => {
    for (const name of ["server-1", "server-2", "server-3"]) cluster.start(name);
    const all = [...handMade.map(({ name }) => name), "server-1", "server-2", "server-3"];
    await cluster.until("not all six are voters", async () => deepEqual(await voters(oldApi()), all));
    equal(await oldApi().get("kv/user/config/connections?raw"), "5");
  });

  it("2. leadership goes to one of ours, which makes our tokens; the old ones stay valid", async () => {
    const heir = (await raft(oldApi())).find(({ Node }) => Node === "server-1");
    await oldApi().request("POST", `operator/raft/transfer-leader?id=${heir?.ID ?? ""}`);
    await cluster.applyAcl();
    equal(
      (await cluster.api("server-1").get<{ Description: string }>("acl/token/self")).Description,
      "Initial Management Token",
    );
    equal((await oldApi().get<{ SecretID: string }>("acl/token/self")).SecretID, oldManagement);
  });

  it("3. the old servers leave, one after another, and the hand-made agents go on with ours", async () => {
    for (const [i, { name }] of handMade.entries()) {
      await oldApi(i)
        .put("agent/leave")
        .catch(() => undefined); // it may go before it has answered
      await old.get(name)?.ended;
      await cluster.until(`${name} is still in raft`, async () =>
        ok(!(await voters(cluster.api("server-1"))).includes(name)),
      );
      await allWell();
    }
    deepEqual(await voters(cluster.api("server-1")), ["server-1", "server-2", "server-3"]);
    equal(await cluster.api("server-2").get("kv/user/config/connections?raw"), "5");
    await cluster.update({ "consul:migration": JSON.stringify({}) });
  });

  for (const { host, node, address } of hosts) {
    it(`4. the agent of ${node} is replaced by ours, with its data: its services are registered again by themselves`, async () => {
      replacing = node;
      await old.get(host)?.end("SIGTERM");
      // On Kubernetes this is consul:agents.hostDataPath: the directory of the hand-made agents.
      mkdirSync(join(cluster.dir, node), { recursive: true });
      renameSync(join(directory, host), join(cluster.dir, node, "data"));
      cluster.start(node);
      await cluster.until(`${node} does not answer`, async () => ok((await addresses(address)).length > 0));
      replacing = undefined;
      await cluster.until("orders is not complete", async () => {
        deepEqual(
          (await addresses(address)).sort(),
          hosts.map((one) => one.address),
        );
      });
      await cluster.until("the node has not its new name", async () => {
        const nodes = await cluster.api("server-1").get<{ Node: string; Address: string }[]>("catalog/nodes");
        deepEqual(
          nodes.filter((entry) => entry.Address === address).map(({ Node }) => Node),
          [node],
        );
      });
    });
  }

  it("5. our servers use TLS among themselves, one after another", async () => {
    rollout = new Rollout(cluster);
    await up({ "consul:migration": JSON.stringify({ tls: "use" }) });
  });

  it("6. and then demand it: the hand-made configuration gets in no more", async () => {
    await up({ "consul:migration": undefined });
    const address = `${prefix}.31`;
    startOld("intruder", {
      ...handMadeConfig(address, join(directory, "intruder"), { agent: oldAgentToken }),
      ...{ node_name: "intruder", retry_join: [`${prefix}.11`] },
    });
    // Its agent asks one server after another for 7 s and more before it says that none answers: ten are not enough.
    const intruder = new Api(`http://${address}:${ports.http}`, oldManagement, 60_000);
    const refused = () => rejects(intruder.get("catalog/nodes"), /No known Consul servers|rpc error making call/);
    try {
      await cluster.until("it does not even start", refused);
      await sleep(3000);
      // It knows the gossip key, which was published; RPC is refused all the same, and so it can check no token.
      await refused();
    } finally {
      await old.get("intruder")?.end("SIGTERM");
    }
  });

  it("7. the published gossip key is replaced by one that nobody has seen", async () => {
    const existingKey = publishedKey;
    await up({ "consul:gossip": JSON.stringify({ existingKey, alsoAccepted: [2] }) });
    await up({ "consul:gossip": JSON.stringify({ existingKey, generation: 2, alsoAccepted: [1] }) });
    await up({ "consul:gossip": JSON.stringify({ generation: 2 }) });
    // A node that gossip takes for away just then makes it an error: asked again.
    const rings = await eventually("every node says its keys", () =>
      cluster.api("server-1").get<{ Keys: Record<string, number> }[]>("operator/keyring"),
    );
    const file = cluster.node("server-1").files.find(({ path }) => path.endsWith("secrets.json"))?.content ?? "";
    const { encrypt } = JSON.parse(file) as { encrypt: string };
    ok(encrypt !== publishedKey);
    for (const { Keys } of rings) deepEqual(Object.keys(Keys), [encrypt]);
  });

  it("8. the old tokens are revoked, and what is there is exactly our cluster, with the old one's data", async () => {
    // By now the applications have tokens of consul:apps and have registered with them.
    for (const { address } of hosts) {
      const agent = new Api(`http://${address}:${ports.http}`, cluster.managementToken);
      const host = hosts.find((one) => one.address === address)?.host ?? "";
      await agent.put("agent/service/register", { ID: `orders-${host}`, Name: "orders", Address: address, Port: 8080 });
    }
    const api = cluster.api("server-1");
    const tokens = await api.get<{ AccessorID: string; SecretID: string }[]>("acl/tokens");
    for (const { AccessorID, SecretID } of tokens) {
      if ([oldManagement, oldAgentToken, appToken].includes(SecretID)) await api.delete(`acl/token/${AccessorID}`);
    }
    await rejects(cluster.api("server-1", oldManagement).get("acl/tokens"), /403/);
    equal(await api.get("kv/user/config/connections?raw"), "5");
    await cluster.registered();
    for (const check of checks(cluster)) await check.run(() => undefined);
  });

  it("missed no lookup but those of a node at its own agent while that was replaced", () => {
    ok(lookups > 300, String(lookups));
    console.log(
      `      ${lookups} lookups; missed at a node's own agent while it was replaced: ${JSON.stringify([...missed])}`,
    );
    for (const count of missed.values()) ok(count < 150, `${count} lookups in a row`);
  });
});
