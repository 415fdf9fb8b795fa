import { z } from "zod";
import { serverPods } from "../consul/pod/pod";
import { agents } from "./agents";
import { apps } from "./apps";
import { backups, rrsaCluster } from "./backups";
import { cluster, dns, wayIntoCluster } from "./cluster";
import { Json } from "./json-schema";
import { logins } from "./logins";
import { machines } from "./machines";
import { Judge, mistakesOf, Path, rule, SettingsError } from "./mistakes";
import { maintenance } from "./maintenance";
import { monitoring } from "./monitoring";
import { gate, migration, servers } from "./servers";
import { suggestion } from "./suggestion";
import { certificates, gossip, tokens } from "./trust";
import { consulVersion, duration, imageRegistry, label, oneOf, text, whole } from "./values";

/** Every setting. Settings outside a block have their defaults in Pulumi.yaml. */
const blocks = z.strictObject({
  environment: oneOf("prod", "staging", "dev", "local").describe(
    "what the stack is for; `prod` protects machines, disks and the CA key",
  ),
  datacenter: label.describe("name of the Consul datacenter"),
  version: consulVersion.describe("version of Consul on servers and agents: docs/settings.md#which-version"),
  downloadMirror: text(
    "a URL below which <version>/consul_<version>_linux_<arch>.zip is found",
    // The URL stands in a systemd unit: no character that a unit or a shell interprets, and no credentials.
    /^https?:\/\/[\w.:~+-]+(\/[\w.~+-]+)*\/?$/,
  ).describe(
    "URL from which servers on ECS fetch Consul; <version>/consul_<version>_linux_<arch>.zip and its SHA256SUMS are below it",
  ),
  downloadSha256: z
    .string()
    .refine((value) => value === "" || /^[0-9a-f]{64}$/.test(value), {
      error: "the SHA-256 of the zip in hex, or nothing: then SHA256SUMS of the mirror is used",
    })
    .describe("SHA-256 of the zip in hex; empty means that the mirror's SHA256SUMS decides"),
  imageRegistry: imageRegistry.describe(
    "registry and namespace where pods get their image, <imageRegistry>/consul:<version>; the default is on Docker Hub",
  ),
  imageDigest: z
    .string()
    .refine((value) => value === "" || /^sha256:[0-9a-f]{64}$/.test(value), {
      error: "the digest of the image at this version, sha256:<64 hex digits>, or nothing",
    })
    .describe("digest of that image, sha256:...; empty means that the registry's tag decides"),
  imagePullSecrets: z
    .array(text("the name of a Secret", /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/), { error: "a list of names of Secrets" })
    .default([])
    .describe("Secrets in `cluster.namespace` by which nodes pull the image"),
  logLevel: oneOf("trace", "debug", "info", "warn", "error").describe("how much servers and agents log"),
  raftMultiplier: whole(1, 10).describe("raft's timing at the servers, from 1 (fast machines, quick failover) to 10"),
  telemetryRetention: duration("a duration such as 360s, at least twice the scrape interval").describe(
    "how long metrics are kept for Prometheus; at least twice its scrape interval",
  ),
  gossip: gossip.prefault({}).describe("the keys of gossip"),
  certificates: certificates.prefault({}).describe("the authority, and the servers' certificates"),
  tokens: tokens.prefault({}).describe("tokens of this program's own nodes"),
  gate: gate.prefault({}).describe("what is asked before servers are changed, and when `up` ends: docs/operations.md"),
  migration: migration.optional().describe("only while a hand-made cluster is moved here: docs/migration.md"),
  cluster: cluster
    .optional()
    .describe("the Kubernetes cluster for agents, for servers as pods, and for the Secrets of applications"),
  servers: servers.optional().describe("the servers: machines, pods or processes"),
  serversStack: text("a stack, organization/project/stack", /^[^\s/]+\/[^\s/]+\/[^\s/]+$/)
    .optional()
    .describe("another stack that has the servers, organization/project/stack, instead of `servers`"),
  agents: agents.optional().describe("the agents; `{}` is enough in Kubernetes"),
  machines: machines
    .optional()
    .describe(
      "agents on machines that are no nodes of the cluster: docs/machines.md. Without the block there is no user data for them",
    ),
  dns: dns.optional().describe("names below .consul in pods: docs/dns.md"),
  apps: apps
    .optional()
    .describe(
      "applications and what each may do: docs/applications.md. Keep an empty list where there were applications",
    ),
  logins: logins
    .optional()
    .describe(
      "applications that get tokens by themselves: docs/applications.md. Keep an empty list where there were some",
    ),
  backups: backups
    .optional()
    .describe("snapshots of the cluster's state: docs/restore.md. Without the block there are none"),
  monitoring: monitoring
    .optional()
    .describe("what Prometheus and Grafana get: docs/monitoring.md. Without the block nothing is installed"),
  maintenance: maintenance
    .optional()
    .describe("when the scheduled pipeline may run `pulumi up`: docs/operations.md. Without the block it never does"),
});
type Blocks = z.output<typeof blocks>;

/** Paths of the servers and agents that are listed one by one. */
function listed({ servers, agents }: Blocks, { sound }: Judge): Path[] {
  return Object.entries({ servers, agents }).flatMap(([name, block]) => {
    if (!block || !sound(name, "platform") || !sound(name, "nodes") || !("nodes" in block)) return [];
    return block.nodes.map((_, i) => [name, "nodes", i]);
  });
}

/** Zones are named after their region: cn-hangzhou-h, ap-southeast-1a. */
function zonesIn(region: string | undefined) {
  return rule<Blocks>(["servers.platform", "servers.nodes"], ({ servers }, { wrong, sound }) => {
    if (region === undefined || servers?.platform !== "ecs") return;
    const accepted = `a zone of alicloud:region, ${region}, such as ${region}${/\d$/.test(region) ? "" : "-"}a`;
    for (const [i, node] of servers.nodes.entries()) {
      const path = ["servers", "nodes", i, "zone"];
      if (!sound(...path)) continue;
      const inRegion = node.zone.startsWith(region) && /^-?[a-z]$/.test(node.zone.slice(region.length));
      if (!inRegion) wrong(path, accepted);
    }
  });
}

/** A pod does not learn from the cloud where it runs, as a machine does. */
function regionKnown(region: string | undefined) {
  return rule<Blocks>(["servers.platform", "backups.bucket"], ({ servers, backups }, { wrong }) => {
    if (region !== undefined || servers?.platform !== "kubernetes" || backups?.bucket === undefined) return;
    wrong(["backups", "bucket"], "alicloud:region beside it, the region of cluster and bucket, such as cn-hangzhou");
  });
}

/** All settings with the rules between blocks; each block's own rules are beside the block. */
export const schema = blocks.check(
  rule([], ({ servers, serversStack, agents, migration }, { wrong }) => {
    if (servers !== undefined && serversStack !== undefined) {
      wrong(["serversStack"], "either consul:servers (this stack creates them) or consul:serversStack, not both");
    } else if (servers === undefined && serversStack === undefined) {
      if (agents !== undefined) wrong(["agents"], "agents need servers: give consul:servers or consul:serversStack");
      else wrong(["servers"], "a consul:servers block, or consul:serversStack with consul:agents");
    } else if (serversStack !== undefined && agents === undefined) {
      wrong(["serversStack"], "a consul:agents block beside it: this stack would be empty");
    }
    if (migration !== undefined && servers === undefined) {
      wrong(["migration"], "only in the stack that has the servers: they are what takes over");
    }
  }),
  rule(["downloadMirror", "downloadSha256"], ({ downloadMirror, downloadSha256 }, { wrong }) => {
    const accepted =
      "https://..., or consul:downloadSha256 beside it: over http whoever is on the way can replace the zip and its SHA256SUMS";
    if (downloadMirror.startsWith("http:") && downloadSha256 === "") wrong(["downloadMirror"], accepted);
  }),
  rule([], ({ servers, agents, cluster, apps, logins, monitoring }, { wrong }) => {
    if (cluster !== undefined) return;
    if (agents?.platform === "kubernetes" || servers?.platform === "kubernetes") wrong(["cluster"], wayIntoCluster);
    const accepted = (what: string) => `consul:cluster beside it: ${what} are in Kubernetes`;
    if (apps !== undefined) wrong(["apps"], accepted("the Secrets with their tokens"));
    if (logins !== undefined) wrong(["logins"], accepted("the service accounts that log in"));
    if (monitoring !== undefined) wrong(["monitoring"], accepted("Prometheus and Grafana"));
  }),
  rule(["servers.platform"], ({ servers, machines }, { wrong }) => {
    if (machines === undefined || servers === undefined || servers.platform === "ecs") return;
    wrong(
      ["machines"],
      "only with servers on ECS, this stack's own or those of consul:serversStack: machines join by address",
    );
  }),
  rule(["servers.platform", "logins.apiServer"], ({ servers, logins }, { wrong }) => {
    if (!logins || logins.apiServer !== undefined || servers?.platform === "kubernetes") return;
    const accepted = "https://<address>:<port> of the cluster's API server, as the Consul servers reach it";
    wrong(["logins", "apiServer"], accepted);
  }),
  rule(["agents.platform"], ({ servers, agents, dns }, { wrong }) => {
    if (servers === undefined && agents?.platform === "local") {
      wrong(["agents", "platform"], "kubernetes: local agents are for local servers in the same stack");
    }
    if (dns !== undefined && agents?.platform !== "kubernetes") {
      wrong(["dns"], "consul:agents in Kubernetes beside it: their DNS is what it is about");
    }
  }),
  rule(["servers.platform", "agents.platform"], ({ servers, agents }, { wrong }) => {
    if (servers && agents && (servers.platform === "local") !== (agents.platform === "local")) {
      wrong(["agents", "platform"], "local agents with local servers, and only with them");
    }
    if (agents?.platform !== "kubernetes" || agents.nodeSecurityGroupId === undefined) return;
    const group = ["agents", "nodeSecurityGroupId"];
    if (!servers) {
      wrong(group, "only in the stack that has the servers: their addresses are not known here before they are read");
    } else if (servers.platform === "kubernetes") {
      wrong(group, "only with servers on ECS: those in the cluster have no addresses of their own");
    }
  }),
  rule([], (all, judge) => {
    const nodes = listed(all, judge);
    const old = judge.sound("migration", "servers") ? (all.migration?.servers ?? []) : [];
    const names = nodes.map((path) => [...path, "name"]);
    const addresses = nodes.map((path) => [...path, "address"]);
    judge.unique("another name", names);
    judge.unique("another address", [...addresses, ...old.map((_, i) => ["migration", "servers", i])]);
  }),
  rule(["gate.skip", "servers.platform", "servers.nodes", "servers.count"], ({ servers, gate }, { sound, wrong }) => {
    const pods = servers?.platform === "kubernetes" ? serverPods(servers.count, "") : [];
    const nodes = servers && "nodes" in servers ? servers.nodes.filter((_, i) => sound("servers", "nodes", i)) : [];
    const known = new Set([...pods, ...nodes].map(({ name }) => name));
    const accepted = pods.map(({ name }) => name).join(", ") || "names of consul:servers.nodes";
    for (const [i, name] of gate.skip.entries()) {
      if (sound("gate", "skip", i) && !known.has(name)) wrong(["gate", "skip"], accepted, name);
    }
    // Pods take all names for "none has ever run"; a Job asks them before it believes that.
    const spared = Math.floor((nodes.length - 1) / 2);
    if (servers?.platform !== "ecs" || new Set(gate.skip.filter((name) => known.has(name))).size <= spared) return;
    wrong(
      ["gate", "skip"],
      `at most ${spared} of ${nodes.length} servers: without the others there is no majority, and so no leader; docs/restore.md brings back those that are lost`,
    );
  }),
  rule(["servers.platform", "backups"], ({ servers, backups }, { wrong }) => {
    if (!backups) return;
    if (!servers || servers.platform === "local") {
      wrong(["backups"], "only in the stack that has the servers, on ECS or in the cluster");
    } else if (backups.rrsa !== undefined && (servers.platform === "ecs" || backups.bucket === undefined)) {
      wrong(
        ["backups", "rrsa"],
        "only beside backups.bucket with servers in Kubernetes: machines have a role of their own",
      );
    } else if (servers.platform === "kubernetes" && backups.bucket !== undefined && backups.rrsa === undefined) {
      const accepted =
        "backups.rrsa beside it, providerArn and issuerUrl of the cluster's OIDC provider: a pod has no other way to a RAM role (docs/restore.md)";
      wrong(["backups", "bucket"], accepted);
    }
  }),
  rule(["backups.rrsa", "cluster.ackClusterId"], ({ backups, cluster }, { wrong }) => {
    const id = backups?.rrsa && rrsaCluster(backups.rrsa.providerArn);
    if (id === undefined || cluster?.ackClusterId === undefined || id === cluster.ackClusterId) return;
    wrong(
      ["backups", "rrsa", "providerArn"],
      `the provider of consul:cluster.ackClusterId, ack-rrsa-${cluster.ackClusterId}`,
    );
  }),
  rule(["environment", "servers.ui.ingress.host"], ({ environment, servers, cluster: into }, { wrong }) => {
    const ingress = servers?.platform === "kubernetes" ? servers.ui?.ingress : undefined;
    if (environment !== "prod" || !ingress) return;
    const namespace = into?.namespace ?? cluster.shape.namespace.parse(undefined);
    const accepted =
      "ui: true. In prod no Ingress: whoever reaches it sees every service and can try tokens. " +
      `Run \`kubectl -n ${namespace} port-forward consul-server-0 8500\` and open http://localhost:8500/ui`;
    wrong(["servers", "ui", "ingress"], accepted, ingress.host);
  }),
);

/** Every setting as JSON Schema, the keys without `consul:` in front. Rules between settings are not in it. */
export function jsonSchema(): Json {
  return z.toJSONSchema(schema, { io: "input", target: "draft-7" });
}

type Deep<T> = T extends (infer U)[]
  ? readonly Deep<U>[]
  : T extends object
    ? { readonly [K in keyof T]: Deep<T[K]> }
    : T;

/** Settings that were checked, with every default filled in. Frozen. */
export type Settings = Deep<
  Omit<Blocks, "dns"> & { dns: z.output<typeof dns>; protect: boolean; region: string | undefined }
>;
export type ServersSettings = NonNullable<Settings["servers"]>;
export type EcsServersSettings = Extract<ServersSettings, { platform: "ecs" }>;
export type KubernetesServersSettings = Extract<ServersSettings, { platform: "kubernetes" }>;
export type LocalServersSettings = Extract<ServersSettings, { platform: "local" }>;
export type AgentsSettings = NonNullable<Settings["agents"]>;
export type KubernetesAgentsSettings = Extract<AgentsSettings, { platform: "kubernetes" }>;
export type LocalAgentsSettings = Extract<AgentsSettings, { platform: "local" }>;
export type ClusterSettings = NonNullable<Settings["cluster"]>;
export type DnsSettings = Settings["dns"];
export type AppSettings = NonNullable<Settings["apps"]>[number];
export type LoginsSettings = NonNullable<Settings["logins"]>;
export type BackupsSettings = NonNullable<Settings["backups"]>;
export type MaintenanceSettings = NonNullable<Settings["maintenance"]>;
export type MonitoringSettings = NonNullable<Settings["monitoring"]>;

/**
 * Checks settings as they were given (the values of `consul:*`, structured) and fills in defaults. The values of keys
 * that are secret are left out of what is reported.
 * @param region of the cloud, where the configuration names one: zones are checked against the region, and pods told it
 * @throws SettingsError with every mistake there is.
 */
export function parseSettings(
  given: Readonly<Record<string, unknown>>,
  isSecret: (key: string) => boolean = () => false,
  region?: string,
): Settings {
  const { data, error } = schema.check(zonesIn(region), regionKnown(region)).safeParse(given);
  if (error) {
    const settings = jsonSchema();
    throw new SettingsError(mistakesOf(error, given, isSecret, (block, key) => suggestion(block, key, settings)));
  }
  const protect = data.servers?.platform === "ecs" ? data.servers.protect : undefined;
  return deepFreeze({
    ...data,
    dns: data.dns ?? dns.parse({}),
    protect: protect ?? data.environment === "prod",
    region,
  });
}

function deepFreeze<T>(value: T): T {
  if (value !== null && typeof value === "object") {
    Object.values(value).forEach(deepFreeze);
    Object.freeze(value);
  }
  return value;
}
