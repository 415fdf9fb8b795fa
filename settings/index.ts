import * as pulumi from "@pulumi/pulumi";
import { z } from "zod";
import { cidrContains, firstAndLast, isCidr, isIpv4, toNumber } from "./ip";
import { serverPods } from "../consul/pod/pod";

/** One thing wrong with the settings: the key, its value as given, and what would be accepted. */
export interface Mistake {
  readonly key: string;
  readonly value: unknown;
  readonly accepted: string;
}

/** Every mistake of the settings at once; thrown before any resource exists. */
export class SettingsError extends pulumi.RunError {
  constructor(readonly mistakes: readonly Mistake[]) {
    const lines = mistakes.map(({ key, value, accepted }) => `  consul:${key}: ${show(value)} - ${accepted}`);
    super(
      `${mistakes.length} wrong setting${mistakes.length === 1 ? "" : "s"}; nothing was created:\n${lines.join("\n")}`,
    );
    this.name = "SettingsError";
  }
}

// --- kinds of values ------------------------------------------------------------------------------------------------

const text = (accepted: string, pattern = /\S/) =>
  z.string({ error: accepted }).refine((value) => pattern.test(value), { error: accepted });
const oneOf = <const T extends readonly [string, ...string[]]>(...values: T) =>
  z.enum(values, { error: `one of ${values.join(", ")}` });
const whole = (min: number, max: number, unit = "") => {
  const accepted = `a whole number from ${min} to ${max}${unit}`;
  return z
    .number({ error: accepted })
    .int({ error: accepted })
    .min(min, { error: accepted })
    .max(max, { error: accepted });
};
const flag = z.boolean({ error: "true or false" });
const duration = (accepted = "a duration such as 30s, 15m or 8h") => text(accepted, /^([1-9]\d*(\.\d+)?(ms|s|m|h))+$/);
/** A name that is one DNS label, since Consul answers for it as <name>.node.<datacenter>.consul. */
const label = text(
  "lower-case letters, digits and dashes, at most 63, such as consul-1",
  /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
);
const ipv4 = z.string({ error: "an IPv4 address such as 10.16.190.28" }).refine(isIpv4, {
  error: "an IPv4 address such as 10.16.190.28",
});
const cidr = z
  .string({ error: "a CIDR such as 10.16.0.0/16" })
  .refine(isCidr, { error: "a CIDR with its host bits zero, such as 10.16.0.0/16" })
  .refine((value) => value !== "0.0.0.0/0", { error: "a network of yours: the whole world is never let in" });
const cloudId = (prefix: string, what: string) =>
  text(`${what}, ${prefix}-...`, new RegExp(`^${prefix}-[A-Za-z0-9]+$`));
const quantity = (example: string) => text(`a Kubernetes quantity such as ${example}`, /^\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?$/);

// --- pods -----------------------------------------------------------------------------------------------------------

const image = text(
  "an image with a tag or digest that stays, such as registry-vpc.cn-hangzhou.aliyuncs.com/ops/consul:1.22.7",
  /^(?!.*:latest$)[^\s:@]+(:\d+\/[^\s:@]+)?(:[^\s:@/]+|@sha256:[0-9a-f]{64})$/,
);

const toleration = z.strictObject({
  key: z.string().optional(),
  operator: oneOf("Exists", "Equal").optional(),
  value: z.string().optional(),
  effect: oneOf("NoSchedule", "PreferNoSchedule", "NoExecute").optional(),
});

const resources = (usual: { cpu: string; memory: string; memoryLimit: string }) =>
  z.strictObject({
    requests: z
      .strictObject({ cpu: quantity("200m").default(usual.cpu), memory: quantity("256Mi").default(usual.memory) })
      .prefault({}),
    limits: z
      .strictObject({ cpu: quantity("1").optional(), memory: quantity("1Gi").default(usual.memoryLimit) })
      .prefault({}),
  });

// --- servers --------------------------------------------------------------------------------------------------------

const serverCountAccepted = "3 or 5 servers: an odd number, so that a majority is left when one fails";
const oddNumber = (count: number) => count === 3 || count === 5;

const disk = z.strictObject({
  /** ESSD category. */
  category: oneOf("cloud_essd", "cloud_auto", "cloud_essd_entry").default("cloud_essd"),
  /** GiB. */
  size: whole(20, 32768, " (GiB)").default(100),
  /** Only for cloud_essd; PL0 of 100 GiB gives about 3,000 IOPS. */
  performanceLevel: oneOf("PL0", "PL1", "PL2", "PL3").default("PL0"),
  /** KMS key that encrypts the disk; the account's service key where none is given. */
  kmsKeyId: text("the id of a KMS key").optional(),
});

const ecsServer = z.strictObject({
  /** Consul node name, and the machine's host name. */
  name: label,
  zone: text("a zone of the region such as cn-hangzhou-h", /^[a-z]+-[a-z0-9-]+$/),
  vswitchId: cloudId("vsw", "a vSwitch of that zone"),
  /** The vSwitch's CIDR; given, the address is checked against it. */
  vswitchCidr: cidr.optional(),
  /** Fixed private address: agents join it, certificates name it. */
  address: ipv4,
});

const ecsServers = z.strictObject({
  platform: z.literal("ecs"),
  nodes: z.array(ecsServer, { error: serverCountAccepted }),
  vpcId: cloudId("vpc", "the VPC of the vSwitches"),
  /** A pinned image whose cloud-init reads user data from this cloud; see metadataTokens. */
  imageId: text("the id of an image, pinned, such as ubuntu_24_04_x64_20G_alibase_20260615.vhd"),
  instanceType: text("an ECS instance type such as ecs.g7.large", /^ecs\.[a-z0-9-]+\.[a-z0-9-]+$/).default(
    "ecs.g7.large",
  ),
  systemDisk: z
    .strictObject({
      category: oneOf("cloud_essd", "cloud_auto", "cloud_essd_entry").default("cloud_essd"),
      size: whole(20, 2048, " (GiB)").default(40),
    })
    .prefault({}),
  dataDisk: disk.prefault({}),
  /** Who may talk to the servers. */
  allowedCidrs: z.strictObject({
    /** Networks of the nodes that run agents: RPC and gossip (8300, 8301). */
    nodes: z
      .array(cidr, { error: "the CIDRs of the agents' nodes" })
      .min(1, { error: "at least one CIDR: the agents' nodes" }),
    /** Networks from which people reach the HTTPS API and UI (8501). */
    api: z.array(cidr, { error: "a list of CIDRs" }).default([]),
  }),
  /** required: only token requests reach the metadata service, which needs cloud-init >= 23.2.2 in the image. */
  metadataTokens: oneOf("required", "optional").default("required"),
  /** RAM role of the machines. */
  roleName: text("the name of a RAM role").optional(),
  /** Key pair for SSH; without one nobody can log in, and no rule opens port 22 either way. */
  keyName: text("the name of a key pair").optional(),
  tags: z.record(z.string(), z.string({ error: "text" }), { error: "a map of tag names to values" }).default({}),
  /** Serve the web interface over HTTPS to allowedCidrs.api. */
  ui: flag.default(false),
  /** Refuse to replace or delete machines, disks and the CA key; on in prod unless set. */
  protect: flag.optional(),
});

const localNode = z.strictObject({
  name: label,
  address: ipv4.refine((value) => !isIpv4(value) || value.startsWith("127."), {
    error: "a loopback address, 127.x.y.z",
  }),
});

const localServers = z.strictObject({
  platform: z.literal("local"),
  nodes: z.array(localNode, { error: serverCountAccepted }),
  ui: flag.default(true),
});

const ingress = z.strictObject({
  class: text("an IngressClass of the cluster").default("nginx"),
  host: text(
    "a host name such as consul.dev.example.com",
    /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
  ),
  /** The host's certificate: people type tokens into that page. */
  tlsSecret: text("the name of a TLS Secret in consul:cluster.namespace", /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/),
  /** Who is let in. */
  sourceRanges: z.array(cidr, { error: "the CIDRs of those who may see it" }).min(1, {
    error: "at least one CIDR: without any, everybody who reaches the Ingress would be let in",
  }),
  /** Instead of those for the nginx class; docs/in-cluster.md has those for ALB. */
  annotations: z.record(z.string(), z.string({ error: "text" }), { error: "a map of annotations" }).optional(),
});

const kubernetesServers = z.strictObject({
  platform: z.literal("kubernetes"),
  count: z.literal([3, 5], { error: serverCountAccepted }).default(3),
  /** Image with Consul; default hashicorp/consul at consul:version. */
  image: image.optional(),
  resources: resources({ cpu: "250m", memory: "256Mi", memoryLimit: "1Gi" }).prefault({}),
  storage: z
    .strictObject({
      /** One that binds with the pod: another makes the disk in a zone of its own choice. */
      class: text("a StorageClass of the cluster").default("alicloud-disk-topology-alltype"),
      /** ReadWriteMany for a class of shared storage (NAS). */
      accessMode: oneOf("ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany").default("ReadWriteOnce"),
      /** For each server; 20Gi is the least that this cloud's ESSD come in. May grow later. */
      size: quantity("20Gi").default("20Gi"),
      /** Keep claims, and the namespace they are in, when servers or the stack are taken away. */
      keep: flag.default(true),
      /** A directory on an NFS server (NAS) for all, instead of a class. It must be writable for uid 100, gid 1000. */
      nfs: z
        .strictObject({
          server: text("a host name or address of an NFS server"),
          path: text("an absolute path", /^\/\S*$/).default("/"),
          /** NFS 4: with version 3 and nolock, raft's own lock would not be seen by other nodes. */
          mountOptions: z
            .array(text("a mount option"), { error: "a list of mount options" })
            .default(["vers=4.0", "noresvport"]),
        })
        .optional(),
    })
    .prefault({}),
  /** The web interface: off, or true for whoever forwards a port, or with an Ingress. */
  ui: z
    .preprocess(
      (value) => (value === true ? {} : value === false ? undefined : value),
      z.strictObject({ ingress: ingress.optional() }, { error: "true, false, or { ingress: ... }" }).optional(),
    )
    .optional(),
  nodeSelector: z.record(z.string(), z.string({ error: "text" }), { error: "a map of node labels" }).default({}),
  tolerations: z.array(toleration, { error: "a list of tolerations" }).default([]),
  priorityClassName: text("a PriorityClass").default("system-cluster-critical"),
});

const servers = z.discriminatedUnion("platform", [ecsServers, kubernetesServers, localServers], {
  error: "a platform: ecs, kubernetes or local",
});

// --- agents ---------------------------------------------------------------------------------------------------------

const kubernetesAgents = z.strictObject({
  platform: z.literal("kubernetes").default("kubernetes"),
  /** Image with Consul; default hashicorp/consul at consul:version. */
  image: image.optional(),
  resources: resources({ cpu: "100m", memory: "128Mi", memoryLimit: "512Mi" }).prefault({}),
  /** Which taints the agents tolerate; all by default, since an agent belongs on every node. */
  tolerations: z.array(toleration, { error: "a list of tolerations" }).default([{ operator: "Exists" }]),
  priorityClassName: text("a PriorityClass").default("system-node-critical"),
  updatePace: z
    .strictObject({
      /** Agents that may be down at once: a number, or a share of the nodes. */
      maxUnavailable: z
        .union([z.number().int().min(1), z.string().regex(/^[1-9]\d?%$/)], {
          error: "a number from 1, or a share such as 10%",
        })
        .default(1),
      /** Seconds an agent must be ready before the next one goes. */
      minReadySeconds: whole(0, 3600, " (seconds)").default(10),
    })
    .prefault({}),
  /** Directory of each node for the agent's data: a restarted pod is then the same Consul node. */
  hostDataPath: text("an absolute path on the nodes", /^\/[^\s]+$/).default("/var/lib/consul-agent"),
  /** Leave before stopping, as the hand-made agents did: the node's services go missing for 6-8 s at each restart. */
  leaveOnStop: flag.default(false),
  /** How long a node that is gone stays in the catalog. */
  reconnectTimeout: duration().default("15m"),
  /** Register consul-members on each node, for monitoring. */
  registerMember: flag.default(true),
  /** Resolvers for names outside Consul's domain. */
  recursors: z.array(ipv4, { error: "a list of IPv4 addresses" }).default([]),
  /** Merged last into the agents' configuration. It is stored in a ConfigMap: no secrets. */
  extraConfig: z.record(z.string(), z.unknown(), { error: "a map of Consul settings" }).default({}),
  /** The nodes' security group, where rules for gossip from the servers are to be added to it. */
  nodeSecurityGroupId: cloudId("sg", "the security group of the cluster's nodes").optional(),
});

const localAgents = z.strictObject({
  platform: z.literal("local"),
  nodes: z.array(localNode, { error: "a list of agents" }).min(1, { error: "at least one agent" }),
});

const agents = z.preprocess(
  // Agents run in Kubernetes unless they say otherwise.
  (value) => (isRecord(value) && value.platform === undefined ? { ...value, platform: "kubernetes" } : value),
  z.discriminatedUnion("platform", [kubernetesAgents, localAgents], { error: "a platform: kubernetes or local" }),
);

const cluster = z.strictObject({
  /** An ACK cluster: its kubeconfig is asked for with the credentials of this run. */
  ackClusterId: text("the id of an ACK cluster").optional(),
  /** Content of a kubeconfig; set it with --secret. */
  kubeconfig: text("the content of a kubeconfig").optional(),
  /** A context of the kubeconfig of whoever runs this; kubeconfig may be given with it. */
  context: text("the name of a context").optional(),
  /** Namespace for all that this program puts into the cluster. */
  namespace: label.default("consul"),
  /** Create the namespace; off where somebody else owns it. */
  createNamespace: flag.default(true),
});

const dns = z.strictObject({
  /**
   * How pods get names below .consul. patch: `up` adds the stub domain as a key of its own to a ConfigMap that CoreDNS
   * imports, and `destroy` takes it away. snippet: the output dnsSnippet says what to put where by hand.
   */
  coredns: oneOf("patch", "snippet").default("snippet"),
  /** For patch: the ConfigMap, its namespace and the key; the Corefile must import it, as `import custom/*.server` does. */
  configMap: text("the name of a ConfigMap that exists and that CoreDNS imports").default("coredns-custom"),
  configMapNamespace: label.default("kube-system"),
  key: text("a key of its own, such as consul.server; never Corefile, which is not ours alone", /^[-._a-zA-Z0-9]+$/)
    .refine((key) => key !== "Corefile", { error: "a key of its own, such as consul.server; never Corefile" })
    .default("consul.server"),
  /** Port that the cluster's CoreDNS listens on, as its Corefile has it. */
  port: whole(1, 65535).default(53),
  /** Fixed cluster IP of the Service consul-dns: CoreDNS is told the address, so a Service made anew had better keep it. */
  clusterIp: ipv4.optional(),
});

// --- day two --------------------------------------------------------------------------------------------------------

/** A service, or a prefix of services; never one that would let an application pose as the Consul servers. */
const serviceName = text(
  "a service of the application's own, or a prefix with * at its end, such as orders or orders-*; not consul itself",
  /^(?!consul$|(c|co|con|cons|consu|consul)\*$)[A-Za-z0-9][A-Za-z0-9_.-]*\*?$/,
);
const keyPrefixes = z
  .array(text("a prefix of keys such as config/orders/, without quotes or a slash in front", /^[^\s"\\/][^\s"\\]*$/), {
    error: "a list of prefixes of keys",
  })
  .default([]);

const app = z.strictObject({
  /** Names its policy, its token and its Secret, <name>-consul-token. */
  name: label.refine((name) => !name.startsWith("consul-"), { error: "a name that does not begin with consul-" }),
  /** Namespace that gets the Secret; the application's own, which exists already. */
  namespace: label,
  /** Services it registers: names, or prefixes that end with *. It finds every service anyway. */
  services: z.array(serviceName, { error: "a list of services" }).default([]),
  /** Prefixes of keys it reads, and of keys it writes (and reads). */
  kv: z.strictObject({ read: keyPrefixes, write: keyPrefixes }).prefault({}),
  /** More rules in Consul's policy language. */
  policy: text("rules in Consul's policy language").optional(),
  /** Raise by one to have a new token; the one before stays valid beside it. */
  tokenGeneration: whole(1, 1000).default(1),
  /** Revoke the token of the generation before: once the application runs with the new one; at once for a leak. */
  revokeOldToken: flag.default(false),
});

const backups = z.strictObject({
  /** Hours between snapshots, counted from midnight UTC. */
  everyHours: z.literal([1, 2, 3, 4, 6, 8, 12, 24], { error: "one of 1, 2, 3, 4, 6, 8, 12, 24 (hours)" }).default(6),
  /** Snapshots kept on each server's data disk, or on the volume of the CronJob. */
  keep: whole(1, 1000).default(28),
  /** Bucket to be made for copies: private, encrypted, versioned. For servers on ECS. */
  bucket: text(
    "the name of a new OSS bucket: 3 to 63 lower-case letters, digits and dashes, not taken by anybody",
    /^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/,
  ).optional(),
  /** Where in the bucket; the machines may put objects there and nowhere else. */
  prefix: text("a path that ends with a slash, such as consul/", /^([A-Za-z0-9_.-]+\/)+$/).default("consul/"),
  /** Days after which the bucket drops a copy. */
  bucketDays: whole(1, 3650, " (days)").default(90),
  /** Volume of the CronJob that takes the snapshots of servers in the cluster. */
  volumeSize: quantity("20Gi").default("20Gi"),
});

const monitoring = z.strictObject({
  /** Namespace for rules, monitors and dashboard; default consul:cluster.namespace. */
  namespace: label.optional(),
  /** Let Prometheus (its operator's PodMonitor and ServiceMonitor) scrape agents and servers, with a token for it. */
  scrape: flag.default(true),
  /** Install monitoring/rules.yaml as a PrometheusRule. */
  rules: flag.default(true),
  /** Install monitoring/dashboard.json as a ConfigMap that Grafana's sidecar finds. */
  dashboard: flag.default(true),
  /** Labels by which Prometheus picks its monitors and rules, such as release: kube-prometheus-stack. */
  labels: z.record(z.string(), z.string({ error: "text" }), { error: "a map of labels" }).default({}),
});

// --- the whole ------------------------------------------------------------------------------------------------------

export const schema = z.strictObject({
  environment: oneOf("prod", "staging", "dev", "local"),
  datacenter: label,
  version: text(
    "a Consul version from 1.20.0, before 2.0, such as 1.22.7 (2.x has not been proven with this program)",
    /^1\.(2[0-9]|[3-9][0-9])\.\d+$/,
  ),
  downloadMirror: text(
    "a URL below which <version>/consul_<version>_linux_<arch>.zip is found",
    // It stands in a systemd unit: nothing that a unit or a shell reads as anything but itself, and no credentials.
    /^https?:\/\/[\w.:~+-]+(\/[\w.~+-]+)*\/?$/,
  ),
  downloadSha256: z.string().refine((value) => value === "" || /^[0-9a-f]{64}$/.test(value), {
    error: "the SHA-256 of the zip in hex, or nothing: then SHA256SUMS of the mirror is used",
  }),
  logLevel: oneOf("trace", "debug", "info", "warn", "error"),
  raftMultiplier: whole(1, 10),
  telemetryRetention: duration("a duration such as 360s, at least twice the scrape interval"),
  gossip: z
    .strictObject({
      /** Raise by one to have a new gossip key. */
      generation: whole(1, 1000).default(1),
      /** Days after which a new key is due. */
      lifetimeDays: whole(1, 3650, " (days)").default(365),
      /**
       * The key of a hand-made cluster that is moved here, instead of the first one of this program; set it with
       * --secret. Take it away and raise the generation to have a key that nobody has seen: docs/migration.md.
       */
      existingKey: text(
        "a gossip key: 16, 24 or 32 bytes in base64",
        /^([A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{32}|[A-Za-z0-9+/]{22}==)$/,
      ).optional(),
    })
    .prefault({}),
  certificates: z
    .strictObject({
      /** Generation of the certificate authority that signs. A new one goes in three steps, docs/operations.md. */
      caGeneration: whole(1, 1000).default(1),
      /** Generations that are trusted besides: the next one before it signs, the last one until nobody uses it. */
      caAlsoTrusted: z.array(whole(1, 1000), { error: "a list of generations such as [2]" }).default([]),
      caDays: whole(30, 7300, " (days)").default(3650),
      serverDays: whole(2, 3650, " (days)").default(365),
      /** A server certificate with fewer days left is renewed by the next `pulumi up`. */
      renewDays: whole(1, 365, " (days)").default(60),
      /** Below this many days left, of a certificate, the authority or the gossip key, each preview warns. */
      warnDays: whole(1, 365, " (days)").default(30),
    })
    .prefault({}),
  tokens: z
    .strictObject({
      /** Raise by one to have a new token for the agents. */
      agentGeneration: whole(1, 1000).default(1),
    })
    .prefault({}),
  /** Before servers are changed, and when `up` ends: docs/operations.md. */
  gate: z
    .strictObject({
      /** How long to wait for the other servers, and at the end for all, to be healthy voters. */
      waitMinutes: whole(1, 240, " (minutes)").default(10),
      /** Servers to update without asking: one that is down and that this update repairs. Empty it afterwards. */
      skip: z.array(label, { error: "a list of servers' names" }).default([]),
    })
    .prefault({}),
  /** While a hand-made cluster is moved here, and not after: docs/migration.md. */
  migration: z
    .strictObject({
      /** Addresses of its servers. Ours join them and take over; the list is empty once they have left. */
      servers: z.array(ipv4, { error: "a list of the old servers' addresses" }).default([]),
      /** TLS of our servers. offer: whoever wants it has it. use: they use it themselves. After that it is demanded. */
      tls: oneOf("offer", "use").default("offer"),
    })
    .optional(),
  cluster: cluster.optional(),
  servers: servers.optional(),
  /** Another stack that has the servers: organization/project/stack. */
  serversStack: text("a stack, organization/project/stack", /^[^\s/]+\/[^\s/]+\/[^\s/]+$/).optional(),
  agents: agents.optional(),
  dns: dns.prefault({}),
  /**
   * Applications and what each may do: a policy, a token, a Secret. Who is taken off the list is revoked. Keep an empty
   * list where there were applications: without the key nobody is left to revoke what is still there.
   */
  apps: z.array(app, { error: "a list of applications" }).optional(),
  backups: backups.optional(),
  monitoring: monitoring.optional(),
});

type Deep<T> = T extends (infer U)[]
  ? readonly Deep<U>[]
  : T extends object
    ? { readonly [K in keyof T]: Deep<T[K]> }
    : T;

export type Settings = Deep<z.output<typeof schema>> & { readonly protect: boolean };
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
export type BackupsSettings = NonNullable<Settings["backups"]>;
export type MonitoringSettings = NonNullable<Settings["monitoring"]>;

/**
 * Checks settings as they were given (the values of `consul:*`, structured) and fills in defaults. The values of keys
 * that are secret are left out of what is reported.
 * @throws SettingsError with every mistake there is.
 */
export function parseSettings(
  given: Readonly<Record<string, unknown>>,
  isSecret: (key: string) => boolean = () => false,
): Settings {
  const parsed = schema.safeParse(given);
  const found = [
    ...(parsed.error ? parsed.error.issues.flatMap((issue) => fromIssue(issue, given)) : []),
    ...crossChecks(given),
  ];
  const mistakes = found.map((mistake) => (secretKey(mistake.key) ? { ...mistake, value: "[secret]" } : mistake));
  if (mistakes.length > 0 || !parsed.success) throw new SettingsError(mistakes);
  const data = parsed.data;
  const wanted = data.servers?.platform === "ecs" ? data.servers.protect : undefined;
  return deepFreeze({ ...data, protect: wanted ?? data.environment === "prod" });

  function secretKey(key: string): boolean {
    return key.endsWith("kubeconfig") || isSecret(/^\w+/.exec(key)?.[0] ?? "");
  }
}

/** Rules between settings. They look at what was given, so that they are reported together with everything else. */
function crossChecks(given: Readonly<Record<string, unknown>>): Mistake[] {
  const found: Mistake[] = [];
  const wrong = (key: string, value: unknown, accepted: string) => void found.push({ key, value, accepted });
  const { servers, serversStack, agents, cluster } = given;

  if (servers !== undefined && serversStack !== undefined) {
    wrong(
      "serversStack",
      serversStack,
      "either consul:servers (this stack creates them) or consul:serversStack, not both",
    );
  } else if (servers === undefined && serversStack === undefined) {
    if (agents !== undefined) {
      wrong("agents", agents, "agents need servers: give consul:servers or consul:serversStack");
    } else wrong("servers", undefined, "a consul:servers block, or consul:serversStack with consul:agents");
  } else if (serversStack !== undefined && agents === undefined) {
    wrong("serversStack", serversStack, "a consul:agents block beside it: this stack would be empty");
  }

  const inCluster = isRecord(agents) && (agents.platform ?? "kubernetes") === "kubernetes";
  if (inCluster || (isRecord(servers) && servers.platform === "kubernetes")) {
    const ways = isRecord(cluster)
      ? ["ackClusterId", "kubeconfig", "context"].filter((key) => cluster[key] !== undefined)
      : [];
    const accepted =
      "how to reach the cluster: one of ackClusterId, kubeconfig, context (kubeconfig and context may go together)";
    if (ways.length === 0 || (ways.length > 1 && ways.includes("ackClusterId"))) wrong("cluster", cluster, accepted);
  }
  if (isRecord(servers) && isRecord(agents) && (servers.platform === "local") !== (agents.platform === "local")) {
    wrong("agents.platform", agents.platform ?? "kubernetes", "local agents with local servers, and only with them");
  }
  if (servers === undefined && isRecord(agents) && agents.platform === "local") {
    wrong("agents.platform", "local", "kubernetes: local agents are for local servers in the same stack");
  }

  if (given.dns !== undefined && !inCluster) {
    wrong("dns", given.dns, "consul:agents in Kubernetes beside it: their DNS is what it is about");
  }
  if (servers === undefined && isRecord(agents) && agents.nodeSecurityGroupId !== undefined) {
    const accepted = "only in the stack that has the servers: their addresses are not known here before they are read";
    wrong("agents.nodeSecurityGroupId", agents.nodeSecurityGroupId, accepted);
  }
  if (isRecord(servers) && servers.platform === "kubernetes") checkServersInCluster(servers);

  const serverNodes = nodesOf(servers);
  if (isRecord(servers) && Array.isArray(servers.nodes) && !oddNumber(serverNodes.length)) {
    wrong("servers.nodes", `${serverNodes.length} servers`, serverCountAccepted);
  }
  const named = new Map<string, string>();
  const addressed = new Map<string, string>();
  const all = [
    ...serverNodes.map((node, i) => ({ node, key: `servers.nodes[${i}]` })),
    ...nodesOf(agents).map((node, i) => ({ node, key: `agents.nodes[${i}]` })),
  ];
  for (const { node, key } of all) {
    unique(named, node.name, `${key}.name`, "another name");
    unique(addressed, node.address, `${key}.address`, "another address");
  }
  for (const [i, node] of serverNodes.entries()) checkAddress(node, `servers.nodes[${i}].address`);

  const dataDisk = isRecord(servers) && isRecord(servers.dataDisk) ? servers.dataDisk : {};
  const level = typeof dataDisk.performanceLevel === "string" ? dataDisk.performanceLevel : "PL0";
  const smallest = { PL2: 461, PL3: 1261 }[level] ?? 20;
  if (Number(dataDisk.size ?? 100) < smallest) {
    wrong("servers.dataDisk.size", dataDisk.size ?? 100, `at least ${smallest} GiB for ${level}`);
  }
  const certificates = isRecord(given.certificates) ? given.certificates : {};
  if (Number(certificates.renewDays ?? 60) >= Number(certificates.serverDays ?? 365)) {
    wrong("certificates.renewDays", certificates.renewDays ?? 60, "fewer days than certificates.serverDays");
  }
  const alsoTrusted = Array.isArray(certificates.caAlsoTrusted) ? (certificates.caAlsoTrusted as unknown[]) : [];
  if (new Set([certificates.caGeneration ?? 1, ...alsoTrusted]).size !== alsoTrusted.length + 1) {
    wrong("certificates.caAlsoTrusted", alsoTrusted, "other generations than caGeneration, each one once");
  }
  const skip = isRecord(given.gate) && Array.isArray(given.gate.skip) ? (given.gate.skip as unknown[]) : [];
  const pods =
    isRecord(servers) && servers.platform === "kubernetes" ? serverPods(servers.count === 5 ? 5 : 3, "") : [];
  for (const name of skip.filter((name) => ![...serverNodes, ...pods].some((server) => server.name === name))) {
    const accepted = pods.length > 0 ? pods.map(({ name }) => name).join(", ") : "names of consul:servers.nodes";
    wrong("gate.skip", name, accepted);
  }
  checkMigration();
  checkDayTwo();
  return found;

  function checkMigration() {
    const { migration, gossip } = given;
    if (migration !== undefined && !isRecord(servers)) {
      wrong("migration", migration, "only in the stack that has the servers: they are what takes over");
    }
    const old = isRecord(migration) && Array.isArray(migration.servers) ? migration.servers : [];
    if (old.length > 0 && isRecord(migration) && migration.tls === "use") {
      wrong("migration.tls", "use", "offer, as long as there are migration.servers: they know nothing of TLS");
    }
    for (const [i, address] of old.entries()) unique(addressed, address, `migration.servers[${i}]`, "another address");
    if (isRecord(gossip) && gossip.existingKey !== undefined && Number(gossip.generation ?? 1) !== 1) {
      wrong("gossip.existingKey", "[secret]", "nothing, once gossip.generation is raised: that is how it is replaced");
    }
  }

  function checkServersInCluster({ storage, ui }: Record<string, unknown>) {
    if (isRecord(agents) && agents.nodeSecurityGroupId !== undefined) {
      const accepted = "only with servers on ECS: those in the cluster have no addresses of their own";
      wrong("agents.nodeSecurityGroupId", agents.nodeSecurityGroupId, accepted);
    }
    if (isRecord(storage) && storage.nfs !== undefined) {
      for (const key of ["class", "accessMode"].filter((key) => storage[key] !== undefined)) {
        wrong(`servers.storage.${key}`, storage[key], "either this or servers.storage.nfs, not both");
      }
      if (storage.keep === false) {
        wrong("servers.storage.keep", false, "true: what is on an NFS server is never deleted by this program");
      }
    }
    const ingress = isRecord(ui) ? ui.ingress : undefined;
    if (!isRecord(ingress)) return;
    if (given.environment === "prod") {
      const namespace = isRecord(cluster) && typeof cluster.namespace === "string" ? cluster.namespace : "consul";
      wrong(
        "servers.ui.ingress",
        ingress.host,
        "ui: true. In prod no Ingress: whoever reaches it sees every service and can try tokens. " +
          `Run \`kubectl -n ${namespace} port-forward consul-server-0 8500\` and open http://localhost:8500/ui`,
      );
    }
    if ((ingress.class ?? "nginx") !== "nginx" && ingress.annotations === undefined) {
      const accepted =
        "nginx, or servers.ui.ingress.annotations beside it: how this class speaks HTTPS to the servers and limits who is let in (docs/in-cluster.md)";
      wrong("servers.ui.ingress.class", ingress.class, accepted);
    }
  }

  function checkDayTwo() {
    const { apps, backups, monitoring } = given;
    for (const [key, value, what] of [
      ["apps", apps, "the Secrets with their tokens"],
      ["monitoring", monitoring, "Prometheus and Grafana"],
    ] as const) {
      if (value !== undefined && cluster === undefined) {
        wrong(key, value, `consul:cluster beside it: ${what} are in Kubernetes`);
      }
    }
    const names = new Map<string, string>();
    if (Array.isArray(apps)) {
      apps.filter(isRecord).forEach(({ name }, i) => unique(names, name, `apps[${i}].name`, "another name"));
    }
    if (!isRecord(backups)) return;
    const platform = isRecord(servers) ? servers.platform : undefined;
    if (platform === undefined || platform === "local") {
      wrong("backups", backups, "only in the stack that has the servers, on ECS or in the cluster");
    } else if (platform !== "ecs" && backups.bucket !== undefined) {
      wrong(
        "backups.bucket",
        backups.bucket,
        "only for servers on ECS, whose machines have a RAM role to write it with",
      );
    }
  }

  function unique(seen: Map<string, string>, value: unknown, key: string, accepted: string) {
    if (typeof value !== "string") return;
    const first = seen.get(value);
    if (first !== undefined) wrong(key, value, `${accepted}: ${first} has this one already`);
    else seen.set(value, key);
  }

  function checkAddress(node: Record<string, unknown>, key: string) {
    const { address, vswitchCidr } = node;
    if (typeof address !== "string" || !isIpv4(address) || typeof vswitchCidr !== "string" || !isCidr(vswitchCidr)) {
      return;
    }
    const [first, last] = firstAndLast(vswitchCidr);
    const n = toNumber(address);
    if (!cidrContains(vswitchCidr, address)) wrong(key, address, `an address inside its vSwitch, ${vswitchCidr}`);
    // The cloud keeps the network address, the gateways and the broadcast address (reference/alicloud.md §1).
    else if (n < first + 3 || n > last - 3) {
      wrong(
        key,
        address,
        `not one of the first three or last three addresses of ${vswitchCidr}: the cloud keeps those`,
      );
    }
  }
}

function nodesOf(block: unknown): Record<string, unknown>[] {
  return isRecord(block) && Array.isArray(block.nodes) ? block.nodes.filter(isRecord) : [];
}

function fromIssue(issue: z.core.$ZodIssue, given: unknown): Mistake[] {
  const path = issue.path as (string | number)[];
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({
      key: keyName([...path, key]),
      value: valueAt(given, [...path, key]),
      accepted: "no such setting; see the table of settings in the README (a typo?)",
    }));
  }
  const value = valueAt(given, path);
  return [{ key: keyName(path), value, accepted: value === undefined ? `missing: ${issue.message}` : issue.message }];
}

function keyName(path: readonly (string | number)[]): string {
  return path.map((part, i) => (typeof part === "number" ? `[${part}]` : i === 0 ? part : `.${part}`)).join("");
}

function valueAt(value: unknown, path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((at, key) => (at as Record<string | number, unknown> | undefined)?.[key], value);
}

/** What is shown of a wrong value: short, and nothing of a kubeconfig. */
function show(value: unknown): string {
  if (value === undefined) return "not set";
  const shown = JSON.stringify(value, (key, v: unknown) => (key === "kubeconfig" ? "[secret]" : v));
  return shown.length > 80 ? `${shown.slice(0, 77)}...` : shown;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function deepFreeze<T>(value: T): T {
  if (value !== null && typeof value === "object") {
    Object.values(value).forEach(deepFreeze);
    Object.freeze(value);
  }
  return value;
}

/**
 * Reads the settings of the running stack. The only place that touches Pulumi's configuration.
 * @throws SettingsError
 */
export function loadSettings(): Settings {
  const given: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(pulumi.runtime.allConfig())) {
    if (key.startsWith("consul:")) given[key.slice("consul:".length)] = structured(key.slice("consul:".length), value);
  }
  // The engine names the secret keys here, and nowhere else where a program can ask for all of them.
  const secret = new Set(JSON.parse(process.env.PULUMI_CONFIG_SECRET_KEYS ?? "[]") as string[]);
  return parseSettings(given, (key) => secret.has(`consul:${key}`));
}

/** What the program needs to reach the ECS API by itself, next to the alicloud provider. */
export interface CloudConfig {
  readonly region: string;
  /** host:port, where it is not the region's own. */
  readonly endpoint?: string | undefined;
  readonly accessKey?: string | undefined;
  readonly secretKey?: string | undefined;
  readonly securityToken?: string | undefined;
  readonly assumeRole?: { readonly roleArn: string; readonly sessionName?: string } | undefined;
}

/** The alicloud provider's own configuration and environment, read as it reads them (reference/alicloud.md §6). */
export function loadCloudConfig(): CloudConfig {
  const given = pulumi.runtime.allConfig();
  const variable = (...names: string[]) => names.map((name) => process.env[name]).find((value) => value);
  const first = (key: string, ...names: string[]) => given[`alicloud:${key}`] ?? variable(...names);
  const endpoints = JSON.parse(given["alicloud:endpoints"] ?? "[]") as { ecs?: string }[];
  const assumeRole = given["alicloud:assumeRole"];
  return {
    region: first("region", "ALICLOUD_REGION", "ALIBABA_CLOUD_REGION") ?? "cn-beijing",
    endpoint: endpoints[0]?.ecs ?? variable("ALIBABA_CLOUD_ENDPOINT_ECS", "ECS_ENDPOINT"),
    accessKey: first("accessKey", "ALICLOUD_ACCESS_KEY", "ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABACLOUD_ACCESS_KEY_ID"),
    secretKey: first(
      "secretKey",
      "ALICLOUD_SECRET_KEY",
      "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
      "ALIBABACLOUD_ACCESS_KEY_SECRET",
    ),
    securityToken: first(
      "securityToken",
      "ALICLOUD_SECURITY_TOKEN",
      "ALIBABA_CLOUD_SECURITY_TOKEN",
      "ALIBABACLOUD_SECURITY_TOKEN",
    ),
    assumeRole: assumeRole === undefined ? undefined : (JSON.parse(assumeRole) as CloudConfig["assumeRole"]),
  };
}

/** Pulumi hands every value over as text; what is not text by its schema is JSON. */
function structured(key: string, value: string): unknown {
  const field = (schema.shape as Record<string, z.ZodType>)[key];
  if (field === undefined || field instanceof z.ZodString || field instanceof z.ZodEnum) return value;
  if (field instanceof z.ZodOptional && field.unwrap() instanceof z.ZodString) return value;
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return value;
  }
}
