import { readableUserData } from "../../consul/machine/user-data";
import { deepEqual, equal, notEqual, ok, rejects } from "assert/strict";
import { readFileSync } from "fs";
import { join } from "path";
import { parse } from "yaml";
import { grantOwner } from "../../consul/access";
import { appAccess } from "../../components/kubernetes/app-environment";
import { accessorId } from "../../consul/acl";
import { ProgramRun, Registered } from "../../local/program";
import { FixtureProviders, prodServersOutputs, runFixture } from "../../local/fixtures";
import { edit, plain } from "./edit";

const orders = { name: "orders", namespace: "shop", services: ["orders"], kv: { read: ["config/orders/"] } };
const billing = { name: "billing", namespace: "finance", services: ["billing"] };

const run = (settings: Record<string, unknown>, stack: Parameters<typeof runFixture>[0] = "prod") =>
  runFixture(stack, (config) => {
    plain(config);
    for (const [key, value] of Object.entries(settings)) config[`consul:${key}`] = JSON.stringify(value);
  });

type Tree = Readonly<Record<string, unknown>>;
const named = ({ resources }: ProgramRun, name: string): Registered => {
  const found = resources.find((resource) => resource.name === name);
  if (!found) throw new Error(`no resource ${name}: ${resources.map((resource) => resource.name).join(", ")}`);
  return found;
};
const maybe = ({ resources }: ProgramRun, name: string) => resources.find((resource) => resource.name === name);
const metadata = ({ inputs }: Registered) => inputs.metadata as { name: string; namespace: string };
const decode = (value: unknown) => Buffer.from(String(value), "base64").toString();
const data = ({ inputs }: Registered) =>
  Object.fromEntries(Object.entries(inputs.data as Tree).map(([key, value]) => [key, decode(value)]));
const opened = ({ resources }: ProgramRun) =>
  resources.filter(({ name }) => name.startsWith("consul-https-")).map(({ inputs }) => inputs.cidrIp);

describe("applications", () => {
  it("leave nothing in the cluster, and no port open, where there is no list of them", async () => {
    const without = await run({});
    deepEqual(without.outputs.apps?.value, {});
    for (const { name } of without.resources) ok(!/access|consul-snapshot|monitoring/.test(name), name);
    deepEqual(opened(without), ["10.16.250.0/24"]);
  });

  it("may all be taken off the lists in prod: what revokes their tokens and logins stays, and protects nothing", async () => {
    const apiServer = "https://10.16.0.10:6443";
    const accounts = ["consul-access-account", "consul-login-reviewer"];
    const protectedIn = (made: ProgramRun) => accounts.map((name) => named(made, name).options.protect);
    deepEqual(protectedIn(await run({ apps: [orders], logins: { apiServer, namespaces: [{ namespace: "web" }] } })), [
      true,
      true,
    ]);
    const none = await run({ apps: [], logins: { apiServer, namespaces: [] } });
    deepEqual(protectedIn(none), [false, false]);
    ok(named(none, "consul-access-job"));
  });

  it("may be called anything but what this program calls its own Secret", async () => {
    await rejects(run({ apps: [{ ...orders, name: "secrets" }] }), /consul:apps\[0\]\.name: "secrets" - a name that/);
  });

  it("get a token each, as a Secret in their namespace that follows the Job", async () => {
    const made = await run({ apps: [orders, billing] });
    for (const { name, namespace } of [orders, billing]) {
      const secret = named(made, `consul-access-${name}`);
      deepEqual(metadata(secret).namespace, namespace);
      deepEqual(secret.secretInputs, ["data"]);
      ok(secret.options.dependsOn.some((urn) => urn.endsWith("::consul-access-job")));
      const token = {
        namespace,
        secretName: `${name}-consul-token`,
        key: "token",
        accessorId: accessorId(data(secret).token ?? ""),
      };
      deepEqual((made.outputs.apps?.value as Tree)[name], appAccess(token));
    }
    equal(made.outputs.apps?.secret, false);
  });

  it("are made by a Job that holds exactly what is wanted, and the management token as a file", async () => {
    const made = await run({ apps: [orders, billing] });
    const files = data(named(made, "consul-access-secrets"));
    const id = grantOwner({ project: "consul", stack: "prod" }).replace("consul-alicloud:apps:", "");
    const tokens = ["orders", "billing"].map((name) => data(named(made, `consul-access-${name}`)).token ?? "");
    deepEqual(
      Object.keys(files).sort(),
      [
        "management-token",
        `policy.app_${id}_billing.json`,
        `policy.app_${id}_orders.json`,
        ...tokens.map((token) => `token.${accessorId(token)}.json`),
      ].sort(),
    );
    equal(files["management-token"], made.outputs.managementToken?.value);
    const job = named(made, "consul-access-job");
    deepEqual(job.secretInputs, []);
    const text = JSON.stringify(job.inputs);
    ok(text.includes(`{"name":"ACL_OWNER","value":"consul-alicloud:apps:${id}"}`));
    ok(text.includes('{"name":"ACL_FORMER","value":"app_prod_"}'));
    ok(text.includes("https://10.16.190.28:8501 https://10.16.190.40:8501 https://10.16.190.70:8501"));
    for (const secret of [...tokens, String(made.outputs.managementToken?.value)]) ok(!text.includes(secret));
  });

  it("reach servers on ECS from the nodes' networks, which are let in for it", async () => {
    deepEqual(opened(await run({ apps: [] })).sort(), ["10.16.0.0/16", "10.16.250.0/24"]);
  });

  it("have a Job of another name when anything about them changes, and of the same when nothing does", async () => {
    const jobOf = async (apps: unknown[]) => metadata(named(await run({ apps }), "consul-access-job")).name;
    const first = await jobOf([orders]);
    equal(await jobOf([orders]), first);
    const others = [[orders, billing], [{ ...orders, services: ["orders*"] }], [{ ...orders, tokenGeneration: 2 }], []];
    for (const apps of others) notEqual(await jobOf(apps), first, JSON.stringify(apps));
  });

  it("of a new generation have a new token, the old one valid beside it until it is revoked", async () => {
    const tokensOf = async (app: object) => {
      const made = await run({ apps: [app] });
      const valid = Object.keys(data(named(made, "consul-access-secrets"))).filter((file) => file.startsWith("token."));
      return { valid, current: data(named(made, "consul-access-orders")).token ?? "" };
    };
    const first = await tokensOf(orders);
    const second = await tokensOf({ ...orders, tokenGeneration: 2 });
    const third = await tokensOf({ ...orders, tokenGeneration: 2, revokeOldToken: true });
    const file = (token: string) => `token.${accessorId(token)}.json`;
    deepEqual(first.valid, [file(first.current)]);
    deepEqual([...second.valid].sort(), [file(first.current), file(second.current)].sort());
    equal(third.current, second.current);
    deepEqual(third.valid, [file(second.current)]);
  });

  it("are revoked by the Job when the list is emptied, and cannot go with the list before that in prod", async () => {
    const full = await run({ apps: [orders] });
    const empty = await run({ apps: [] });
    deepEqual(Object.keys(data(named(empty, "consul-access-secrets"))), ["management-token"]);
    equal(maybe(empty, "consul-access-orders"), undefined);
    equal(named(full, "consul-access-account").options.protect, true);
    equal(named(empty, "consul-access-account").options.protect, false);
  });

  it("of a stack with agents alone are kept apart from those of the stack that has the servers", async () => {
    const made = await run({ apps: [orders] }, "prod-agents");
    const text = JSON.stringify(named(made, "consul-access-job").inputs);
    ok(text.includes(`"value":"${grantOwner({ project: "consul", stack: "prod-agents" })}"`));
    ok(!text.includes(grantOwner({ project: "consul", stack: "prod" })));
    ok(text.includes("https://10.18.190.28:8501"));
    ok("management-token" in data(named(made, "consul-access-secrets")));
  });
});

describe("backups", () => {
  const bucket = "ops-consul-backups";

  it("are a timer on each server, and nothing else without a bucket", async () => {
    const made = await run({ backups: { everyHours: 4, keep: 10 } });
    const servers = made.resources.filter(({ type }) => type.endsWith(":Instance"));
    equal(servers.length, 3);
    for (const { inputs } of servers) {
      const text = readableUserData(decode(inputs.userData));
      ok(text.includes("snapshot.sh /opt/consul/snapshots 10 4\n"));
      ok(text.includes("OnCalendar=*-*-* 00/4:17:00 UTC"));
      equal(inputs.roleName, undefined);
    }
    ok(!made.resources.some(({ type }) => /:oss|:ram/.test(type)));
  });

  it("go to a bucket that is private, encrypted, versioned and tidied up, and protected in prod", async () => {
    const made = await run({ backups: { bucket, prefix: "prod/", bucketDays: 30 } });
    const { inputs, options } = named(made, "consul-backups");
    equal(inputs.bucket, bucket);
    deepEqual(inputs.serverSideEncryptionRule, { sseAlgorithm: "AES256" });
    deepEqual(inputs.versioning, { status: "Enabled" });
    const rules = inputs.lifecycleRules as Tree[];
    deepEqual(
      rules.map(({ enabled, prefix, expirations }) => ({ enabled, prefix, expirations })),
      [{ enabled: true, prefix: "prod/", expirations: [{ days: 30 }] }],
    );
    deepEqual(rules[0]?.noncurrentVersionExpirations, [{ days: 30 }]);
    equal(inputs.forceDestroy, undefined);
    equal(options.protect, true);
    equal(named(made, "consul-backups-private").inputs.blockPublicAccess, true);
  });

  it("are written by a role that may put objects below the prefix, and no more, from the first boot on", async () => {
    const made = await run({ backups: { bucket, prefix: "prod/" } });
    const policy = JSON.parse(String(named(made, "consul-backups-put").inputs.policyDocument)) as Tree;
    deepEqual(policy.Statement, [
      { Action: ["oss:PutObject"], Effect: "Allow", Resource: [`acs:oss:*:*:${bucket}/prod/*`] },
    ]);
    const role = named(made, "consul-backups-role");
    const trust = JSON.parse(String(role.inputs.assumeRolePolicyDocument)) as { Statement: Tree[] };
    deepEqual(trust.Statement, [
      { Action: "sts:AssumeRole", Effect: "Allow", Principal: { Service: ["ecs.aliyuncs.com"] } },
    ]);
    equal(named(made, "consul-backups-put-attachment").inputs.roleName, role.inputs.roleName);
    for (const { inputs } of made.resources.filter(({ type }) => type.endsWith(":Instance"))) {
      equal(inputs.roleName, role.inputs.roleName);
      ok(
        readableUserData(decode(inputs.userData)).includes(`snapshot.sh /opt/consul/snapshots 28 6 ${bucket} prod/\n`),
      );
    }
  });

  it("use the role that the machines have, where they have one", async () => {
    const made = await runFixture("prod", (config) => {
      config["consul:backups"] = JSON.stringify({ bucket });
      edit(config, "servers", (servers) => (servers.roleName = "ours"));
    });
    equal(maybe(made, "consul-backups-role"), undefined);
    equal(named(made, "consul-backups-put-attachment").inputs.roleName, "ours");
    equal(named(made, "consul-consul-1").inputs.roleName, "ours");
  });

  it("of servers in the cluster are a CronJob with a token of its own and a volume", async () => {
    const made = await run({ backups: { everyHours: 12, keep: 7, volumeSize: "30Gi" } }, "dev");
    const { spec } = named(made, "consul-snapshots").inputs as { spec: Tree };
    equal(spec.schedule, "17 */12 * * *");
    equal(spec.concurrencyPolicy, "Forbid");
    const text = JSON.stringify(spec);
    ok(text.includes('"command":["/bin/sh","/consul/config/snapshot.sh","/consul/snapshots","7","12"]'), text);
    ok(text.includes('"secretName":"consul-snapshots-token"'));
    ok(text.includes("https://consul-api.consul.svc:8501"));
    const id = grantOwner({ project: "consul", stack: "dev" }).replace("consul-alicloud:apps:", "");
    const policy = data(named(made, "consul-access-secrets"))[`policy.app_${id}_consul-snapshots.json`] ?? "";
    ok(String((JSON.parse(policy) as Tree).Rules).includes('acl = "write"'));
    ok(JSON.stringify(named(made, "consul-snapshots-volume").inputs).includes("30Gi"));
  });
});

describe("monitoring", () => {
  it("installs the rules and the dashboard of the repository, where Prometheus and Grafana look", async () => {
    const made = await run({ monitoring: { namespace: "ops", labels: { release: "prometheus" } } });
    const folder = join(__dirname, "..", "..", "monitoring");
    const rules = named(made, "consul-monitoring-rules");
    deepEqual(rules.inputs.spec, parse(readFileSync(join(folder, "rules.yaml"), "utf8")));
    equal(rules.inputs.kind, "PrometheusRule");
    const dashboard = named(made, "consul-monitoring-dashboard");
    equal((dashboard.inputs.data as Tree)["consul.json"], readFileSync(join(folder, "dashboard.json"), "utf8"));
    equal((dashboard.inputs.metadata as { labels: Tree }).labels.grafana_dashboard, "1");
    for (const resource of made.resources.filter(({ name }) => name.startsWith("consul-monitoring-"))) {
      equal(metadata(resource).namespace, "ops", resource.name);
      equal((resource.inputs.metadata as { labels: Tree }).labels.release, "prometheus", resource.name);
    }
  });

  it("lets Prometheus scrape agents and servers with a token that reads metrics", async () => {
    const made = await run({ monitoring: { namespace: "ops" }, backups: {} });
    const token = named(made, "consul-access-consul-metrics");
    deepEqual([metadata(token).name, metadata(token).namespace], ["consul-metrics-token", "ops"]);
    const spec = (name: string) => named(made, name).inputs.spec as Record<string, Tree[]>;
    const agents = spec("consul-monitoring-agent-pods").podMetricsEndpoints ?? [];
    const servers = spec("consul-monitoring-server-monitor").endpoints ?? [];
    for (const endpoint of [...agents, ...servers]) {
      deepEqual(endpoint.authorization, { credentials: { name: "consul-metrics-token", key: "token" } });
    }
    deepEqual(
      [...agents, ...servers].map(({ path, relabelings }) => [path, relabelings]),
      [
        ["/v1/agent/metrics", "consul-agents"],
        ["/v1/agent/metrics", "consul-servers"],
        ["/v1/kv/consul-snapshot/metrics", "consul-snapshots"],
      ].map(([path, job]) => [
        path,
        [
          { targetLabel: "job", replacement: job },
          { targetLabel: "consul_datacenter", replacement: "aly-consul" },
        ],
      ]),
    );
    for (const { scheme, tlsConfig } of servers) {
      equal(scheme, "https");
      equal((tlsConfig as Tree).serverName, "server.aly-consul.consul");
    }
    const { subsets } = named(made, "consul-monitoring-servers-addresses").inputs as { subsets: Tree[] };
    deepEqual(subsets[0]?.addresses, [{ ip: "10.16.190.28" }, { ip: "10.16.190.40" }, { ip: "10.16.190.70" }]);
    deepEqual(opened(made).sort(), ["10.16.0.0/16", "10.16.250.0/24"]);
  });

  it("says what to do where the servers' stack gives names, as servers in a cluster have", async () => {
    const outputs = { ...prodServersOutputs, retryJoin: ["consul-server-0.consul-server.consul.svc"] };
    await rejects(
      runFixture("prod-agents", undefined, new FixtureProviders(outputs)),
      /consul:monitoring\.scrape: .* set consul:monitoring\.scrape: false/,
    );
  });

  it("finds servers in the cluster as pods", async () => {
    const made = await run({ monitoring: {} }, "dev");
    equal(maybe(made, "consul-monitoring-servers-addresses"), undefined);
    const { kind, spec } = named(made, "consul-monitoring-server-pods").inputs;
    equal(kind, "PodMonitor");
    ok(JSON.stringify(spec).includes('"app.kubernetes.io/component":"server"'));
    ok(!JSON.stringify(spec).includes("consul-snapshots"), "no backups, nothing to read about them");
  });

  it("is what is asked for, no more", async () => {
    const made = await run({ monitoring: { rules: false, dashboard: false, scrape: false } });
    deepEqual(
      made.resources.filter(({ name }) => /^consul-(monitoring|access)-/.test(name)),
      [],
    );
  });
});
