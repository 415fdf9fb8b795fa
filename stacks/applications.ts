import * as pulumi from "@pulumi/pulumi";
import { BackupBucket, trustServiceAccount } from "../components/backup-bucket";
import { AccessTokens, TokenHolder, TokenReference } from "../components/kubernetes/access-tokens";
import { AppAccess } from "../components/kubernetes/app-access";
import { appAccess } from "../components/kubernetes/app-environment";
import { createSharedEnvironment } from "../components/kubernetes/shared-environment";
import { loginConfigMap, LoginReviewer } from "../components/kubernetes/logins";
import { Monitoring } from "../components/kubernetes/monitoring";
import { PodCopies, snapshotAccount, SnapshotCronJob } from "../components/kubernetes/snapshots";
import { appRules, Keeper, metricsRules, snapshotRules } from "../consul/access";
import { AclObject } from "../consul/acl";
import { ports } from "../consul/config";
import { loginMethod, loginObjects } from "../consul/logins";
import { consulImage, PodImage } from "../consul/pod/image";
import { apiService } from "../consul/pod/pod";
import { MonitoringSettings, Settings } from "../settings";
import { ClusterAccess } from "../components/kubernetes/cluster";
import { Servers } from "./servers";

/** What applications need to reach Consul, by their name, for the outputs. */
export type Applications = Record<string, AppAccess>;

/**
 * What is in the cluster besides agents and servers: tokens of applications, snapshots of servers that run there, and
 * what Prometheus and Grafana need.
 * @returns what applications need to reach Consul
 */
export function createApplications(
  settings: Settings,
  servers: Servers,
  cluster: ClusterAccess | undefined,
): pulumi.Output<Applications> {
  if (cluster === undefined) return pulumi.output<Applications>({});
  const { apps = [], monitoring } = settings;
  const image = imageOf(settings);
  const holders = holdersOf(settings, cluster);
  const wanted = settings.apps !== undefined || settings.logins !== undefined || holders.length > 0;
  const access = wanted ? createTokens(settings, holders, servers, cluster, image) : undefined;
  createSnapshots(settings, servers, cluster, image, access?.tokens[snapshotTool]);
  if (monitoring) createMonitoring(settings, monitoring, servers, cluster, access?.tokens[metricsTool]);
  if (settings.agents?.platform === "kubernetes") {
    createSharedEnvironment(
      [...apps, ...(settings.logins?.namespaces ?? [])].map(({ namespace }) => namespace),
      cluster,
    );
  }
  const ways = apps.map(({ name }) => [name, access?.tokens[name]?.apply(appAccess)] as const);
  return pulumi.output(Object.fromEntries(ways)) as pulumi.Output<Applications>;
}

/** The servers' settings, where the servers are in the cluster. */
function serversInCluster({ servers }: Settings) {
  return servers?.platform === "kubernetes" ? servers : undefined;
}

/** The image with Consul, curl and a shell that Jobs run. */
export function imageOf(settings: Settings): PodImage {
  const agents = settings.agents?.platform === "kubernetes" ? settings.agents : undefined;
  return consulImage(settings, serversInCluster(settings)?.image ?? agents?.image);
}

/** Everybody who gets a token: applications, and the tools of this program. */
function holdersOf(settings: Settings, { namespace }: ClusterAccess): TokenHolder[] {
  const { apps = [], backups, monitoring } = settings;
  const holders: TokenHolder[] = apps.map((app) => ({
    name: app.name,
    rules: appRules(app),
    namespace: app.namespace,
    secretName: `${app.name}-consul-token`,
    generation: app.tokenGeneration,
    revokeOld: app.revokeOldToken,
  }));
  if (serversInCluster(settings) && backups) holders.push({ ...tool(snapshotTool, snapshotRules), namespace });
  if (monitoring?.scrape) {
    holders.push({ ...tool(metricsTool, metricsRules), namespace: monitoring.namespace ?? namespace });
  }
  return holders;
}

function createTokens(
  settings: Settings,
  holders: readonly TokenHolder[],
  servers: Servers,
  cluster: ClusterAccess,
  image: PodImage,
): AccessTokens {
  const { serverUrls, caCertificate, managementToken } = servers.outputs;
  const keeper = { project: pulumi.getProject(), stack: pulumi.getStack() };
  const namespaces = settings.logins?.namespaces ?? [];
  const access = new AccessTokens(
    "consul-access",
    {
      holders,
      logins: createLogins(settings, cluster, keeper),
      keeper,
      namespace: cluster.namespace,
      marks: cluster.marks,
      image,
      serverUrls,
      serversInCluster: serversInCluster(settings) !== undefined,
      caCertificate,
      managementToken,
      protect: settings.protect && holders.length + namespaces.length > 0,
    },
    // The Job waits for a leader, not until all servers are well: a leaked token is revoked while a server is lost.
    { providers: [cluster.provider], dependsOn: servers.exist },
  );
  // After the Job, so that whoever can read the name of the auth method can log in with it.
  for (const namespace of new Set(namespaces.map(({ namespace }) => namespace))) {
    const method = loginMethod(keeper);
    loginConfigMap(
      `consul-login-${namespace}`,
      { namespace, method },
      { provider: cluster.provider, dependsOn: access },
    );
  }
  return access;
}

/**
 * What lets service accounts of the cluster log in. With an empty list the reviewer stays, unprotected: the Job ends the
 * logins first, and the reviewer goes once `consul:logins` does.
 */
function createLogins(
  settings: Settings,
  { namespace, provider }: ClusterAccess,
  keeper: Keeper,
): pulumi.Input<readonly AclObject[]> {
  if (settings.logins === undefined) return [];
  const { apiServer = "https://kubernetes.default.svc", namespaces } = settings.logins;
  const { reviewer } = new LoginReviewer(
    "consul-login-reviewer",
    {
      namespace,
      namespaces: [...new Set(namespaces.map(({ namespace }) => namespace))],
      apiServer,
      protect: settings.protect && namespaces.length > 0,
    },
    { providers: [provider] },
  );
  if (namespaces.length === 0) return [];
  return reviewer.apply((reviewer) => loginObjects(keeper, namespaces, reviewer));
}

/** Snapshots of servers in the cluster; those on machines take their own. */
function createSnapshots(
  settings: Settings,
  servers: Servers,
  { namespace, provider, marks }: ClusterAccess,
  image: PodImage,
  token: pulumi.Output<TokenReference> | undefined,
): void {
  const { backups } = settings;
  const inCluster = serversInCluster(settings);
  if (!inCluster || !backups || !token) return;
  new SnapshotCronJob(
    "consul-snapshots",
    {
      snapshots: { everyHours: backups.everyHours, keep: backups.keep },
      copies: createCopies(settings),
      namespace,
      marks,
      image,
      serverUrl: pulumi.interpolate`https://${apiService}.${namespace}.svc:${ports.https}`,
      caCertificate: servers.outputs.caCertificate,
      token,
      volumeSize: backups.volumeSize,
      storageClass: inCluster.storage.class,
      protect: settings.protect,
    },
    { providers: [provider] },
  );
}

/** A bucket for copies of those snapshots; undefined where none is asked for. */
function createCopies({ backups, cluster, datacenter, region, protect }: Settings): PodCopies | undefined {
  if (backups?.bucket === undefined) return undefined;
  const { bucket, prefix, rrsa, bucketDays: days } = backups;
  if (!cluster || !region || !rrsa) throw new Error("settings with a bucket for pods and without a way to it");
  // Other names than those of machines: both are there while servers move up to them.
  const policyName = `consul-${datacenter}-snapshot-pod`;
  const role = {
    name: policyName,
    description: "The pod that takes snapshots of Consul: put them into their bucket",
    trust: trustServiceAccount(rrsa, { namespace: cluster.namespace, name: snapshotAccount }),
  };
  const made = new BackupBucket("consul-backups", { bucket, prefix, days, policyName, role, tags: {}, protect });
  if (!made.roleArn) throw new Error("a bucket for pods without a role of its own");
  return { bucket, prefix, region, roleArn: made.roleArn, providerArn: rrsa.providerArn };
}

function createMonitoring(
  settings: Settings,
  { namespace, labels, rules, dashboard }: MonitoringSettings,
  servers: Servers,
  cluster: ClusterAccess,
  token: pulumi.Output<TokenReference> | undefined,
): void {
  const { datacenter, retryJoin, caCertificate } = servers.outputs;
  new Monitoring(
    "consul-monitoring",
    {
      namespace: namespace ?? cluster.namespace,
      consulNamespace: cluster.namespace,
      labels,
      rules,
      dashboard,
      scrape: token && {
        token,
        datacenter,
        caCertificate,
        serverAddresses: serversInCluster(settings) ? undefined : retryJoin,
        snapshots: settings.backups !== undefined,
      },
    },
    { providers: [cluster.provider] },
  );
}

const snapshotTool = "consul-snapshots";
const metricsTool = "consul-metrics";

/** A tool of this program, as a holder of one token that does not rotate. */
function tool(name: string, rules: readonly string[]) {
  return { name, rules, secretName: `${name}-token`, generation: 1, revokeOld: false };
}
