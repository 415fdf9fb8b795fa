import * as pulumi from "@pulumi/pulumi";
import { describeAgent } from "../components/agent-node";
import { openNodesToServers } from "../components/ecs/network";
import { agentLabels, KubernetesAgents } from "../components/kubernetes/agents";
import { ClusterAccess } from "../components/kubernetes/cluster";
import { ClusterDns } from "../components/kubernetes/dns";
import { LocalNode, localLayout } from "../components/local/nodes";
import { agentNodeId } from "../consul/config";
import { consulImage } from "../consul/pod/image";
import { KubernetesAgentsSettings, LocalAgentsSettings, Settings } from "../settings";
import { Servers } from "./servers";

/** Consul agents, one per node. */
export interface Agents {
  /** Settles once every agent runs what it is to run. */
  readonly ready: pulumi.Output<unknown>;
  /** What is to be put into CoreDNS by hand; empty where `up` does it. */
  readonly dnsSnippet: pulumi.Output<string>;
}

/**
 * What agents of any kind are configured with, beside where their servers are.
 * @param own what their own block of the settings says
 */
export function agentConfig(
  { logLevel, telemetryRetention }: Settings,
  own: Pick<KubernetesAgentsSettings, "leaveOnStop" | "reconnectTimeout" | "extraConfig"> &
    Partial<Pick<KubernetesAgentsSettings, "registerMember" | "recursors" | "listen">>,
) {
  const { leaveOnStop, reconnectTimeout, registerMember = true, recursors = [], listen = [], extraConfig: extra } = own;
  return { logLevel, telemetryRetention, leaveOnStop, reconnectTimeout, registerMember, recursors, listen, extra };
}

/** The agents of the settings, which join the given servers. */
export function createAgents(settings: Settings, servers: Servers, cluster: ClusterAccess | undefined): Agents {
  const { agents } = settings;
  if (agents?.platform === "kubernetes" && cluster) return createKubernetesAgents(settings, agents, servers, cluster);
  if (agents?.platform === "local") describeLocalAgents(settings, agents, servers);
  return { ready: pulumi.output(undefined), dnsSnippet: pulumi.output("") };
}

function createKubernetesAgents(
  settings: Settings,
  agents: KubernetesAgentsSettings,
  servers: Servers,
  { namespace, provider, marks }: ClusterAccess,
): Agents {
  const { datacenter, retryJoin, caCertificate, gossipKeys, agentToken } = servers.outputs;
  const { daemonSet } = new KubernetesAgents(
    "consul-agent",
    {
      settings: agents,
      image: consulImage(settings, agents.image),
      namespace,
      marks,
      config: agentConfig(settings, agents),
      datacenter,
      retryJoin,
      caCertificate,
      gossipKeys,
      agentToken,
      // Servers first: an agent may be older than its servers, not newer.
      dependsOn: servers.ready,
    },
    { providers: [provider] },
  );
  if (agents.nodeSecurityGroupId !== undefined) openNodesToServers(agents.nodeSecurityGroupId, servers.addresses);
  const { snippet } = new ClusterDns(
    "consul-dns",
    { settings: settings.dns, namespace, agents: agentLabels },
    { providers: [provider] },
  );
  return { ready: daemonSet.id, dnsSnippet: snippet };
}

/** Agents as processes on this machine, for `npm start`. */
function describeLocalAgents(settings: Settings, agents: LocalAgentsSettings, servers: Servers): void {
  const { datacenter, retryJoin, caCertificate, gossipKeys, agentToken } = servers.outputs;
  const config = agentConfig(settings, {
    leaveOnStop: false,
    reconnectTimeout: "15m",
    extraConfig: agents.extraConfig,
  });
  for (const { name, address } of agents.nodes) {
    const node = describeAgent(
      { config, datacenter, retryJoin, caCertificate, gossipKeys, agentToken },
      { name, address, id: agentNodeId(name) },
      localLayout(name),
    );
    new LocalNode(name, { node, acl: [] });
  }
}
