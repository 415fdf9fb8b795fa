import { SecurityGroupRule } from "@pulumi/alicloud/ecs/securityGroupRule";
import * as pulumi from "@pulumi/pulumi";
import { ClusterDns } from "../components/kubernetes/dns";
import { agentLabels, KubernetesAgents } from "../components/kubernetes/agents";
import { LocalNode, localLayout } from "../components/local/nodes";
import { agentNode, agentNodeId, ports } from "../consul/config";
import { KubernetesAgentsSettings, LocalAgentsSettings, Settings } from "../settings";
import { ClusterAccess } from "../components/kubernetes/cluster";
import { ServerAccess } from "./servers";

/**
 * A DaemonSet of agents that join the given servers, and DNS for pods.
 * @returns what is left to be done for the latter, once the agents are up to date
 */
export function createKubernetesAgents(
  settings: Settings,
  agents: KubernetesAgentsSettings,
  servers: ServerAccess,
  cluster: ClusterAccess,
): pulumi.Output<string> {
  const { daemonSet } = new KubernetesAgents(
    "consul-agent",
    {
      settings: agents,
      version: settings.version,
      namespace: cluster.namespace,
      config: {
        logLevel: settings.logLevel,
        telemetryRetention: settings.telemetryRetention,
        leaveOnStop: agents.leaveOnStop,
        reconnectTimeout: agents.reconnectTimeout,
        registerMember: agents.registerMember,
        recursors: agents.recursors,
        extra: agents.extraConfig,
      },
      ...servers,
      // Servers first: an agent may be older than its servers, not newer.
      dependsOn: servers.resources,
    },
    { providers: [cluster.provider] },
  );
  if (agents.nodeSecurityGroupId !== undefined) openNodesToServers(agents.nodeSecurityGroupId, servers.serverAddresses);
  const { namespace, provider } = cluster;
  const { snippet } = new ClusterDns(
    "consul-dns",
    { settings: settings.dns, namespace, agents: agentLabels },
    { providers: [provider] },
  );
  return pulumi.all([snippet, daemonSet.id]).apply(([text]) => text);
}

/** Gossip goes both ways: a cluster's own security group may not let the servers in. */
function openNodesToServers(securityGroupId: string, addresses: readonly string[]): void {
  for (const address of addresses) {
    for (const ipProtocol of ["tcp", "udp"]) {
      new SecurityGroupRule(`consul-nodes-gossip-${ipProtocol}-${address}`, {
        securityGroupId,
        type: "ingress",
        ipProtocol,
        portRange: `${ports.gossip}/${ports.gossip}`,
        cidrIp: `${address}/32`,
        description: "Gossip from a Consul server",
        policy: "accept",
        priority: 1,
        nicType: "intranet",
      });
    }
  }
}

/** Agents as processes on this machine, for `npm start`. */
export function describeLocalAgents(settings: Settings, agents: LocalAgentsSettings, servers: ServerAccess): void {
  for (const { name, address } of agents.nodes) {
    const node = pulumi
      .all([servers.caCertificate, servers.gossipKey, servers.agentToken, servers.retryJoin, servers.datacenter])
      .apply(([ca, gossipKey, agentToken, retryJoin, datacenter]) =>
        agentNode(
          {
            datacenter,
            retryJoin,
            logLevel: settings.logLevel,
            telemetryRetention: settings.telemetryRetention,
            leaveOnStop: false,
            reconnectTimeout: "15m",
            registerMember: true,
            recursors: [],
            extra: {},
          },
          ca,
          { gossipKey, agentToken },
          { name, address, id: agentNodeId(name) },
          localLayout(name),
        ),
      );
    new LocalNode(name, { node, acl: [] });
  }
}
