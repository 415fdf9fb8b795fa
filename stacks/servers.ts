import * as pulumi from "@pulumi/pulumi";
import { BackupBucket, trustMachines } from "../components/backup-bucket";
import { Cloud } from "../components/ecs/cloud";
import { EcsServers } from "../components/ecs/servers";
import { ClusterAccess } from "../components/kubernetes/cluster";
import { KubernetesServers } from "../components/kubernetes/servers";
import { LocalNode, localLayout } from "../components/local/nodes";
import { Trust } from "../components/trust";
import { ports, ServerConfig } from "../consul/config";
import { serverPodNames, serverPods } from "../consul/pod/pod";
import { isNewer } from "../consul/releases";
import {
  EcsServersSettings,
  KubernetesServersSettings,
  LocalServersSettings,
  ServersSettings,
  Settings,
} from "../settings";
import { ConsulOutputs, consulOutputs } from "./outputs";

/** The outputs that say where the servers are and how to speak to them, of this stack or of another one. */
export const serverOutputNames = [
  "datacenter",
  "retryJoin",
  "serverNames",
  "serverUrls",
  "caCertificate",
  "gossipKey",
  "gossipKeys",
  "agentToken",
  "managementToken",
  "expiry",
] as const satisfies readonly (keyof ConsulOutputs)[];

export type ServerOutputs = Pick<ConsulOutputs, (typeof serverOutputNames)[number]>;

/** Consul servers, wherever they come from. */
export interface Servers {
  readonly outputs: ServerOutputs;
  /** Addresses, where this stack knows them beforehand. */
  readonly addresses: readonly string[];
  /** What has to be there before anybody asks the servers for something; where this stack makes them. */
  readonly exist: pulumi.Output<pulumi.Resource[]>;
  /** The same, once every server is well and runs what it is to run. */
  readonly ready: pulumi.Output<pulumi.Resource[]>;
  /** Takes away gossip keys and agents' tokens that no node needs any more, after something; says when. */
  retire(after: pulumi.Output<unknown>): pulumi.Output<void>;
}

/** The servers of the settings: made by this stack, or read from another one's outputs. */
export function createServers(settings: Settings, cloud: Cloud, cluster: ClusterAccess | undefined): Servers {
  const { servers } = settings;
  if (servers === undefined) return serversOfAnotherStack(settings);
  const places = placesOf(servers, settings.cluster?.namespace ?? "");
  const hosts = places.map(({ host }) => host);
  const trust = new Trust("consul-trust", { ...settings, servers: places });
  const config = serverConfig(settings, servers, hosts);
  return {
    outputs: {
      datacenter: pulumi.output(settings.datacenter),
      retryJoin: pulumi.output(hosts),
      serverNames: pulumi.output(places.map(({ name }) => name)),
      serverUrls: pulumi.output(hosts.map((host) => `https://${host}:${ports.https}`)),
      caCertificate: trust.caCertificate,
      gossipKey: trust.gossipKey,
      gossipKeys: trust.gossipKeys,
      agentToken: trust.agentToken,
      managementToken: trust.managementToken,
      expiry: pulumi.output({
        ca: trust.caExpires,
        serverCertificate: trust.serverCertificateExpires,
        gossipKey: trust.gossipDue,
      }),
    },
    addresses: places.flatMap(({ addresses }) => addresses),
    ...platform(),
  };

  function platform(): Pick<Servers, "exist" | "ready" | "retire"> {
    switch (servers?.platform) {
      case "ecs": {
        const machines = createEcsServers(settings, servers, config, trust, cloud);
        return { exist: machines.exist, ready: machines.ready, retire: (after) => machines.retire(after) };
      }
      case "kubernetes": {
        const pods = createKubernetesServers(settings, servers, config, trust, cluster);
        return { exist: pods.ready, ready: pods.ready, retire: (after) => pods.retire(after) };
      }
      case "local":
        describeLocalServers(servers, config, trust);
    }
    return nothingToDo;
  }
}

/** For servers that are not this stack's to change, and for those that run here. */
const nothingToDo: Pick<Servers, "exist" | "ready" | "retire"> = {
  exist: pulumi.output<pulumi.Resource[]>([]),
  ready: pulumi.output<pulumi.Resource[]>([]),
  retire: (after) => after.apply(() => undefined),
};

function serversOfAnotherStack({ serversStack, version }: Settings): Servers {
  if (serversStack === undefined) throw new Error("settings without servers and without serversStack");
  const outputs = consulOutputs(new pulumi.StackReference(serversStack));
  // The other stack says what its servers run once they all do.
  const ready = outputs.consulVersion.apply((servers): pulumi.Resource[] => {
    if (!isNewer(version, servers)) return [];
    throw new pulumi.RunError(
      `consul:version is ${version}, but the servers of ${serversStack} run ${servers}: update that stack first`,
    );
  });
  return { ...nothingToDo, outputs, addresses: [], exist: ready, ready };
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

function serverConfig(settings: Settings, servers: ServersSettings, hosts: readonly string[]): ServerConfig {
  return {
    datacenter: settings.datacenter,
    logLevel: settings.logLevel,
    retryJoin: hosts,
    telemetryRetention: settings.telemetryRetention,
    raftMultiplier: settings.raftMultiplier,
    serverCount: hosts.length,
    ui: servers.platform === "kubernetes" ? servers.ui !== undefined : servers.ui,
    grpc: servers.grpc,
    localAddress: "127.0.0.1",
    extra: servers.extraConfig,
    joinFirst: settings.migration?.servers ?? [],
    tls: settings.migration?.tls,
  };
}

function createKubernetesServers(
  deployment: Settings,
  settings: KubernetesServersSettings,
  config: ServerConfig,
  trust: Trust,
  cluster: ClusterAccess | undefined,
): KubernetesServers {
  if (!cluster || !deployment.cluster) throw new Error("settings with servers in a cluster and without the cluster");
  const pods = serverPods(settings.count, deployment.cluster.namespace);
  const { namespace, keeper, provider, marks } = cluster;
  return new KubernetesServers(
    "consul-server",
    { settings, config, deployment, namespace, pods, trust, marks, keeper },
    { providers: [provider] },
  );
}

function createEcsServers(
  deployment: Settings,
  settings: EcsServersSettings,
  config: ServerConfig,
  trust: Trust,
  cloud: Cloud,
): EcsServers {
  const { protect, backups, datacenter } = deployment;
  const copies = backups?.bucket === undefined ? undefined : { bucket: backups.bucket, prefix: backups.prefix };
  const bucket =
    backups &&
    copies &&
    new BackupBucket("consul-backups", {
      ...copies,
      days: backups.bucketDays,
      policyName: `consul-${datacenter}-snapshots`,
      role: settings.roleName ?? {
        name: `consul-${datacenter}-servers`,
        description: "Consul servers: put snapshots into their bucket",
        trust: trustMachines,
      },
      tags: settings.tags,
      protect,
    });
  return new EcsServers("consul", {
    settings,
    config,
    deployment,
    trust,
    cloud,
    snapshots: backups && { everyHours: backups.everyHours, keep: backups.keep, copies },
    roleName: bucket?.roleName ?? settings.roleName,
    // Each has something in the cluster that talks to the servers themselves.
    apiForNodes: [deployment.apps, deployment.logins, deployment.monitoring].some((block) => block !== undefined),
  });
}

function describeLocalServers(servers: LocalServersSettings, config: ServerConfig, trust: Trust): void {
  for (const { name, address } of servers.nodes) {
    // All nodes share one loopback here, so plain HTTP is on the node's own address.
    const own = { ...config, localAddress: address };
    new LocalNode(name, { node: trust.serverNode(name, own, { name, address }, localLayout(name)), acl: trust.acl });
  }
}
