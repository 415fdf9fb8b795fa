import * as pulumi from "@pulumi/pulumi";
import { BackupBucket } from "../components/ecs/backup-bucket";
import { EcsServers } from "../components/ecs/servers";
import { KubernetesServers } from "../components/kubernetes/servers";
import { LocalNode, localLayout } from "../components/local/nodes";
import { Trust } from "../components/trust";
import { serverAclObjects } from "../consul/acl";
import { ports, ServerConfig, serverNode } from "../consul/config";
import { serverPodNames, serverPods } from "../consul/pod/pod";
import {
  EcsServersSettings,
  KubernetesServersSettings,
  LocalServersSettings,
  ServersSettings,
  Settings,
} from "../settings";
import { ClusterAccess } from "../components/kubernetes/cluster";

/** What agents, outputs and application stacks need of the servers, wherever these come from. */
export interface ServerAccess {
  readonly datacenter: pulumi.Input<string>;
  readonly retryJoin: pulumi.Input<string[]>;
  /** Addresses, where this stack knows them beforehand. */
  readonly serverAddresses: readonly string[];
  readonly serverNames: pulumi.Input<string[]>;
  readonly serverUrls: pulumi.Input<string[]>;
  readonly caCertificate: pulumi.Output<string>;
  /** Secret. */
  readonly gossipKey: pulumi.Output<string>;
  /** Secret. */
  readonly agentToken: pulumi.Output<string>;
  /** Secret. */
  readonly managementToken: pulumi.Output<string>;
  readonly expiry: pulumi.Output<{ ca: string; serverCertificate: string; gossipKey: string }>;
  /** What has to be there, and well, before anybody asks the servers for something; where this stack makes them. */
  readonly resources: pulumi.Output<pulumi.Resource[]>;
  /** Does what is to be done to the servers once their agents are up to date, and says when. */
  readonly settle: (agents: pulumi.Input<unknown>) => pulumi.Output<void>;
}

/** ServersSettings and the trust they stand on. `cluster` is where those in Kubernetes go. */
export function createServers(
  settings: Settings,
  servers: ServersSettings,
  cluster: ClusterAccess | undefined,
): ServerAccess {
  const places = placesOf(servers, settings.cluster?.namespace ?? "");
  const hosts = places.map(({ host }) => host);
  const config: ServerConfig = {
    datacenter: settings.datacenter,
    logLevel: settings.logLevel,
    retryJoin: hosts,
    telemetryRetention: settings.telemetryRetention,
    raftMultiplier: settings.raftMultiplier,
    serverCount: places.length,
    ui: servers.platform === "kubernetes" ? servers.ui !== undefined : servers.ui,
    localAddress: "127.0.0.1",
    joinFirst: settings.migration?.servers ?? [],
    tls: settings.migration?.tls,
  };
  const trust = new Trust("consul-trust", {
    datacenter: settings.datacenter,
    servers: places,
    gossip: settings.gossip,
    certificates: settings.certificates,
    tokens: settings.tokens,
    protect: settings.protect,
  });

  let resources = pulumi.output<pulumi.Resource[]>([]);
  let settle: ServerAccess["settle"] = (agents) => pulumi.all([agents]).apply(() => undefined);
  if (servers.platform === "ecs") {
    const made = createEcsServers(settings, servers, config, trust);
    resources = made.ready.apply(() => [made]);
    settle = (agents) => made.gate.retire(pulumi.all([made.ready, agents]));
  } else if (servers.platform === "kubernetes") {
    const made = createKubernetesServers(settings, servers, config, trust, cluster);
    resources = pulumi.output([made.ready]);
    settle = made.retire;
  } else describeLocalServers(servers, config, trust);

  const { caCertificate, gossipKey, agentToken, managementToken } = trust;
  const firstExpiry = pulumi
    .all(trust.servers.map(({ certExpires }) => certExpires))
    .apply((times) => [...times].sort()[0] ?? "");
  return {
    datacenter: settings.datacenter,
    retryJoin: hosts,
    serverAddresses: places.flatMap(({ addresses }) => addresses),
    serverNames: places.map(({ name }) => name),
    serverUrls: hosts.map((host) => `https://${host}:${ports.https}`),
    caCertificate,
    gossipKey,
    agentToken,
    managementToken,
    expiry: pulumi.output({ ca: trust.caExpires, serverCertificate: firstExpiry, gossipKey: trust.gossipDue }),
    resources,
    settle,
  };
}

/** Where each server is found, by address or by name, and what its certificate says of it. */
function placesOf(servers: ServersSettings, namespace: string) {
  if (servers.platform === "kubernetes") {
    return serverPods(servers.count, namespace).map((pod) => ({
      ...pod,
      addresses: [],
      dnsNames: serverPodNames(pod, namespace),
    }));
  }
  return servers.nodes.map(({ name, address }) => ({ name, host: address, addresses: [address], dnsNames: [] }));
}

function createKubernetesServers(
  settings: Settings,
  servers: KubernetesServersSettings,
  config: ServerConfig,
  trust: Trust,
  cluster: ClusterAccess | undefined,
) {
  if (!cluster || !settings.cluster) throw new Error("settings with servers in a cluster and without the cluster");
  const pods = serverPods(servers.count, settings.cluster.namespace);
  const { namespace, keeper, provider } = cluster;
  return new KubernetesServers(
    "consul-server",
    { settings: servers, config, stack: settings, namespace, pods, trust, keeper },
    { providers: [provider] },
  );
}

function createEcsServers(settings: Settings, servers: EcsServersSettings, config: ServerConfig, trust: Trust) {
  const { protect, backups, datacenter } = settings;
  const copies = backups?.bucket === undefined ? undefined : { bucket: backups.bucket, prefix: backups.prefix };
  const bucket =
    backups &&
    copies &&
    new BackupBucket("consul-backups", {
      ...copies,
      days: backups.bucketDays,
      datacenter,
      roleName: servers.roleName,
      tags: servers.tags,
      protect,
    });
  return new EcsServers("consul", {
    settings: servers,
    config,
    stack: settings,
    trust,
    snapshots: backups && { everyHours: backups.everyHours, keep: backups.keep, copies },
    roleName: bucket?.roleName ?? servers.roleName,
    // Both have something in the cluster that talks to the servers themselves.
    apiForNodes: settings.apps !== undefined || settings.monitoring !== undefined,
  });
}

function describeLocalServers(servers: LocalServersSettings, config: ServerConfig, trust: Trust): void {
  const serverTokens = pulumi.all(
    trust.servers.map(({ name, agentToken }) => agentToken.apply((secret) => ({ node: name, secret }))),
  );
  const acl = pulumi
    .all([serverTokens, trust.agentToken])
    .apply(([tokens, agents]) =>
      serverAclObjects({ datacenter: config.datacenter, servers: tokens, agents: [agents] }),
    );
  for (const [i, { name, address }] of servers.nodes.entries()) {
    const server = trust.servers[i];
    if (!server) throw new Error(`no certificate was made for server ${name}`);
    const node = pulumi
      .all([trust.caCertificate, trust.gossipKey, server.cert, server.key, trust.managementToken, server.agentToken])
      .apply(([ca, gossipKey, cert, key, managementToken, agentToken]) =>
        serverNode(
          // All nodes share one loopback here, so plain HTTP is on the node's own address.
          { ...config, localAddress: address },
          ca,
          { gossipKey, cert, key, managementToken, agentToken },
          { name, address },
          localLayout(name),
        ),
      );
    new LocalNode(name, { node, acl });
  }
}
