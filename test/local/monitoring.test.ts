import { deepEqual, equal, match, ok } from "assert/strict";
import { execFile, spawnSync } from "child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { promisify } from "util";
import { parse } from "yaml";
import { snapshotMetricsKey } from "../../consul/access";
import { ports } from "../../consul/config";
import { stableJson } from "../../consul/node";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { buildTool } from "../../tools/build";
import { section } from "../documents";
import { ask } from "./dns-client";
import { takeSnapshot } from "./snapshots";

const monitoring = join(__dirname, "..", "..", "monitoring");
const text = (name: string) => readFileSync(join(monitoring, name), "utf8");
const rules = (parse(text("rules.yaml")) as { groups: { rules: { alert: string; expr: string }[] }[] }).groups.flatMap(
  (group) => group.rules,
);
interface Panel {
  readonly title: string;
  readonly targets?: { readonly expr: string }[];
}
const panels = (JSON.parse(text("dashboard.json")) as { panels: Panel[] }).panels;
const queries = [
  ...rules.map(({ alert, expr }) => ({ where: `rule ${alert}`, expr })),
  ...panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ where: `panel ${title}`, expr }))),
];

describe("rules and dashboard", function () {
  this.timeout(600_000);
  const directory = mkdtempSync(join(tmpdir(), "consul-monitoring-"));
  let promtool: string;

  before(async function () {
    this.timeout(3_600_000); // a first build of promtool
    promtool = await buildTool("promtool", console.error);
  });

  after(() => rmSync(directory, { recursive: true, force: true }));

  const run = (...args: string[]) => promisify(execFile)(promtool, args, { cwd: monitoring });

  it("are taken by promtool, without a complaint", async () => {
    await run("check", "rules", "--lint=all", "--lint-fatal", "rules.yaml");
  });

  it("fire when they should and only then", async () => {
    await run("test", "rules", "rules.test.yaml");
  });

  it("are tested, each of them, firing and silent", () => {
    type Case = { alertname: string; exp_alerts: unknown[] };
    const { tests } = parse(text("rules.test.yaml")) as { tests: { alert_rule_test: Case[] }[] };
    const cases = tests.flatMap((test) => test.alert_rule_test);
    const names = rules.map(({ alert }) => alert).sort();
    for (const fires of [true, false]) {
      const tested = cases.filter(({ exp_alerts }) => exp_alerts.length > 0 === fires);
      deepEqual([...new Set(tested.map(({ alertname }) => alertname))].sort(), names, fires ? "firing" : "silent");
    }
  });

  it("of the dashboard are queries that Prometheus takes", async () => {
    ok(panels.length > 15);
    const record = queries.map(({ expr }, i) => ({
      record: `query:${i}`,
      expr: expr.replaceAll("$datacenter", "dc1"),
    }));
    const file = join(directory, "queries.yaml");
    writeFileSync(file, stableJson({ groups: [{ name: "queries", rules: record }] }));
    await run("check", "rules", file);
  });
});

describe("metrics of a real cluster", function () {
  this.timeout(600_000);
  const directory = mkdtempSync(join(tmpdir(), "consul-metrics-"));
  let cluster: Cluster;

  before(async function () {
    this.timeout(3_600_000); // a first build of Consul
    cluster = await startCluster({ dir: join(directory, "cluster"), config: onLoopback("127.62.0", 3, 2) });
  });

  after(async () => {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  /** Series as Prometheus would read them: name and labels to value. */
  async function scrape(node: string, path = "agent/metrics?format=prometheus"): Promise<Map<string, number>> {
    const body = await cluster.api(node).get<string>(path);
    const lines = body.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
    return new Map(lines.map((line) => [line.replace(/ \S+$/, ""), Number(/\S+$/.exec(line)?.[0])]));
  }

  const scrapeAll = async (role: "server" | "agent") => {
    const nodes = cluster.runningNodes.filter((node) => node.role === role);
    return Promise.all(nodes.map(async ({ name }) => ({ name, series: await scrape(name) })));
  };

  it("are what rules and dashboard ask for, from servers and agents as they say", async () => {
    const leader = await cluster.leaderName();
    await takeSnapshot(cluster, leader, join(directory, "snapshots"));
    for (const { address } of cluster.runningNodes) {
      await ask({ address, port: ports.dns }, "consul.service.consul");
    }
    await cluster.api("agent-1").put("kv/x", "1");
    await cluster.kill("agent-2"); // for the count of members that were lost
    await cluster.until("the agent is not missed", async () => {
      const lost = (await scrapeAll("server")).flatMap(({ series }) => [...series.keys()]);
      ok(lost.some((series) => series.startsWith("consul_serf_member_failed")));
    });
    cluster.start("agent-2");
    await cluster.ready();

    const snapshots = await scrape(leader, `kv/${snapshotMetricsKey}?raw`);
    const of = async (role: "server" | "agent") => (await scrapeAll(role)).flatMap(({ series }) => [...series.keys()]);
    const [servers, agents] = [[...(await of("server")), ...snapshots.keys()], await of("agent")];
    let asked = 0;
    for (const { where, expr } of queries) {
      for (const [, name = "", selector = ""] of expr.matchAll(/\b(consul_\w+)\b(?:\{([^}]*)\})?/g)) {
        if (name === "consul_datacenter") continue; // a label that the monitors add
        const from = selector.includes('job="consul-agents"') ? agents : servers;
        const quantile = /quantile="[^"]*"/.exec(selector)?.[0] ?? "";
        const there = from.some((series) => series.split("{")[0] === name && series.includes(quantile));
        ok(there, `${where} asks for ${name} ${quantile}, which nobody has`);
        asked += 1;
      }
    }
    ok(asked >= queries.length - 4, `looked at ${asked} names in ${queries.length} queries`);
  });

  it("say on the leader what the rules take from it, and elsewhere nothing that would fire", async () => {
    const leader = await cluster.leaderName();
    // A server writes down every 10 s whether it leads.
    await cluster.until("the metrics do not agree with the leader", async () => {
      for (const { name, series } of await scrapeAll("server")) {
        equal(series.get("consul_server_isLeader"), name === leader ? 1 : 0, name);
        ok((series.get("consul_agent_tls_cert_expiry") ?? 0) > 30 * 86400, name);
        if (name !== leader) continue;
        ok((series.get("consul_mesh_active_root_ca_expiry") ?? 0) > 60 * 86400);
        deepEqual([series.get("consul_autopilot_healthy"), series.get("consul_autopilot_failure_tolerance")], [1, 1]);
      }
    });
    for (const { name, series } of await scrapeAll("agent")) {
      const left = series.get("consul_agent_tls_cert_expiry") ?? 0;
      ok(left > 12 * 3600 && left <= 72 * 3600, `${name}: ${left} s`);
    }
  });

  it("tell within seconds that one server is down, and that there is no leader", async () => {
    const follower = cluster.runningNodes.find(({ name }) => name === "server-1" || name === "server-2")?.name ?? "";
    const leader = await cluster.leaderName();
    const down = follower === leader ? "server-3" : follower;
    await cluster.kill(down);
    await cluster.until("nobody says so", async () => {
      const now = await scrape(leader);
      deepEqual([now.get("consul_autopilot_healthy"), now.get("consul_autopilot_failure_tolerance")], [0, 0]);
    });
    await cluster.kill(leader);
    await cluster.until("somebody still leads", async () => {
      const left = await scrapeAll("server");
      equal(left.length, 1);
      equal(left[0]?.series.get("consul_server_isLeader"), 0);
    });
    cluster.start(down);
    cluster.start(leader);
    await cluster.ready();
  });

  it("are found without Prometheus' operator by the jobs of docs/monitoring.md: every server, every agent", async () => {
    const promtool = await buildTool("promtool");
    const document = readFileSync(join(monitoring, "../docs/monitoring.md"), "utf8");
    let config =
      /^```yaml\n(scrape_configs:[\s\S]*?)^```/m.exec(section(document, "## Without the operator"))?.[1] ?? "";
    const servers = ["10.16.190.28", "10.16.190.40", "10.16.190.70"];
    servers.forEach((address, i) => (config = config.replaceAll(address, cluster.node(`server-${i + 1}`).address)));
    const tokenFile = join(directory, "metrics-token");
    writeFileSync(tokenFile, cluster.managementToken, { mode: 0o600 });
    config = config
      .replaceAll("/etc/prometheus/consul-token", tokenFile)
      .replaceAll("/etc/prometheus/consul-ca.pem", cluster.caFile)
      .replaceAll("server.dc1.consul", `server.${cluster.datacenter}.consul`)
      .replaceAll("datacenter: dc1", `datacenter: ${cluster.datacenter}`);
    ok(config.startsWith("scrape_configs:") && !/10\.16|\/etc\/|dc1/.test(config), config);
    const file = join(directory, "prometheus.yaml");
    writeFileSync(file, config);
    const tool = async (...args: string[]) => (await promisify(execFile)(promtool, args)).stdout;
    match(await tool("check", "config", file), /is valid prometheus config file syntax/);

    type Target = { labels: Record<string, string> };
    const found = async (job: string) => {
      const targets = JSON.parse(await tool("check", "service-discovery", "--timeout=5s", file, job)) as Target[];
      const taken = targets.map(({ labels }) => `${labels.__address__ ?? ""} ${labels.consul_datacenter ?? ""}`);
      deepEqual([...new Set(targets.map(({ labels }) => labels.job))], [job]);
      return [...new Set(taken)].sort();
    };
    const all = (role: string, port: number) =>
      cluster.nodes
        .filter((node) => node.role === role)
        .map(({ address }) => `${address}:${port} ${cluster.datacenter}`);
    deepEqual(await found("consul-agents"), all("agent", ports.http));
    for (const job of ["consul-servers", "consul-snapshots"]) deepEqual(await found(job), all("server", ports.https));
  });

  it("about snapshots are text that promtool takes, over TLS as Prometheus asks for it", async () => {
    const promtool = await buildTool("promtool");
    const { address } = cluster.node("server-1");
    const { stdout } = await promisify(execFile)("curl", [
      "-sSi",
      ...["--cacert", cluster.caFile, "-H", `Authorization: Bearer ${cluster.managementToken}`],
      ...["--connect-to", `server.${cluster.datacenter}.consul:${ports.https}:${address}:${ports.https}`],
      `https://server.${cluster.datacenter}.consul:${ports.https}/v1/kv/${snapshotMetricsKey}?raw=&stale=`,
    ]);
    const [head = "", body = ""] = stdout.split("\r\n\r\n");
    match(head, /^content-type: text\/plain/im, "Prometheus 3 refuses a target that does not say what it sends");
    const checked = spawnSync(promtool, ["check", "metrics"], { input: body, encoding: "utf8" });
    equal(checked.status, 0, checked.stdout + checked.stderr);
    const interval = /^consul_snapshot_interval_seconds (.*)$/m.exec(body)?.[1];
    equal(interval, "21600");
    const taken = Number(/^consul_snapshot_last_success_timestamp_seconds (.*)$/m.exec(body)?.[1]);
    ok(Math.abs(Date.now() / 1000 - taken) < 600);
  });
});
