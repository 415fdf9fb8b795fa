import * as pulumi from "@pulumi/pulumi";
import { AccessTokens, TokenHolder, TokenReference } from "../components/kubernetes/access-tokens";
import { Monitoring } from "../components/kubernetes/monitoring";
import { SnapshotCronJob } from "../components/kubernetes/snapshots";
import { appRules, metricsRules, snapshotRules } from "../consul/access";
import { ports } from "../consul/config";
import { apiService } from "../consul/pod/pod";
import { BackupsSettings, MonitoringSettings, Settings } from "../settings";
import { ClusterAccess } from "../components/kubernetes/cluster";
import { ServerAccess } from "./servers";

/** Tokens of applications by their name, for the outputs. */
export type AppTokens = Record<string, TokenReference>;

/** What is in the cluster besides agents and servers: tokens of applications, and what Prometheus and Grafana need. */
export function createOperations(
  settings: Settings,
  servers: ServerAccess,
  cluster: ClusterAccess,
): pulumi.Output<AppTokens> {
  const { apps, backups, monitoring } = settings;
  const inCluster = settings.servers?.platform === "kubernetes" ? settings.servers : undefined;
  const agentImage = settings.agents?.platform === "kubernetes" ? settings.agents.image : undefined;
  const image = inCluster?.image ?? agentImage ?? `hashicorp/consul:${settings.version}`;
  const namespace = monitoring?.namespace ?? cluster.namespace;
  const holders: TokenHolder[] = (apps ?? []).map((app) => ({
    name: app.name,
    rules: appRules(app),
    namespace: app.namespace,
    secretName: `${app.name}-consul-token`,
    generation: app.tokenGeneration,
    revokeOld: app.revokeOldToken,
  }));
  if (inCluster && backups) holders.push({ ...tool("consul-snapshots", snapshotRules), namespace: cluster.namespace });
  if (monitoring?.scrape) holders.push({ ...tool("consul-metrics", metricsRules), namespace });
  const access = apps !== undefined || holders.length > 0 ? createTokens() : undefined;
  const snapshotToken = access?.tokens["consul-snapshots"];
  if (inCluster && backups && snapshotToken) createSnapshots(backups, inCluster.storage.class, snapshotToken);
  if (monitoring) createMonitoring(monitoring, access?.tokens["consul-metrics"]);
  const tokens = (apps ?? []).map(({ name }) => [name, access?.tokens[name]] as const);
  return pulumi.output(Object.fromEntries(tokens)) as pulumi.Output<AppTokens>;

  function createTokens(): AccessTokens {
    return new AccessTokens(
      "consul-access",
      {
        holders,
        stack: pulumi.getStack(),
        namespace: cluster.namespace,
        image,
        serverUrls: servers.serverUrls,
        serversInCluster: inCluster !== undefined,
        caCertificate: servers.caCertificate,
        managementToken: servers.managementToken,
        protect: settings.protect,
      },
      { providers: [cluster.provider], dependsOn: servers.resources },
    );
  }

  function createSnapshots(wanted: BackupsSettings, storageClass: string, token: pulumi.Output<TokenReference>) {
    const { namespace } = cluster;
    new SnapshotCronJob(
      "consul-snapshots",
      {
        snapshots: { everyHours: wanted.everyHours, keep: wanted.keep },
        namespace,
        image,
        serverUrl: pulumi.interpolate`https://${apiService}.${namespace}.svc:${ports.https}`,
        caCertificate: servers.caCertificate,
        token,
        volumeSize: wanted.volumeSize,
        storageClass,
        protect: settings.protect,
      },
      { providers: [cluster.provider] },
    );
  }

  function createMonitoring(
    { labels, rules, dashboard }: MonitoringSettings,
    token: pulumi.Output<TokenReference> | undefined,
  ) {
    const { datacenter, retryJoin, caCertificate } = servers;
    new Monitoring(
      "consul-monitoring",
      {
        namespace,
        consulNamespace: cluster.namespace,
        labels,
        rules,
        dashboard,
        scrape: token && {
          token,
          datacenter,
          caCertificate,
          serverAddresses: inCluster ? undefined : retryJoin,
          snapshots: settings.backups !== undefined,
        },
      },
      { providers: [cluster.provider] },
    );
  }
}

/** A tool of this program: its token is one of a kind. */
function tool(name: string, rules: readonly string[]) {
  return { name, rules, secretName: `${name}-token`, generation: 1, revokeOld: false };
}
