import * as pulumi from "@pulumi/pulumi";
import { appEnvironment } from "../components/kubernetes/app-environment";
import { isNewer } from "../consul/quorum";
import { Settings } from "../settings";
import { createKubernetesAgents, describeLocalAgents } from "./agents";
import { reachCluster } from "../components/kubernetes/cluster";
import { daysLeft, warnBefore } from "./expiry";
import { AppTokens, createOperations } from "./applications";
import { ConsulOutputs, consulOutputs, outputsVersion } from "./outputs";
import { createServers, ServerAccess } from "./servers";

/** One deployment as the settings describe it: servers, agents, or both. */
export function consulStack(settings: Settings): ConsulOutputs {
  // Hooks guard the servers. Before this version a failure of one may be no more than a warning.
  const cli = pulumi.requirePulumiVersion(">=3.238.0");
  const cluster = settings.cluster && reachCluster(settings, settings.cluster);
  const servers = settings.servers ? createServers(settings, settings.servers, cluster) : serversOf(settings);
  if (settings.agents?.platform === "local") describeLocalAgents(settings, settings.agents, servers);
  const dnsSnippet =
    settings.agents?.platform === "kubernetes" && cluster
      ? createKubernetesAgents(settings, settings.agents, servers, cluster)
      : pulumi.output("");
  const settled = servers.settle(dnsSnippet);
  warnBefore(servers.expiry, settings.certificates.warnDays);
  const apps = cluster ? createOperations(settings, servers, cluster) : pulumi.output<AppTokens>({});
  const { gossipKey, agentToken, managementToken, caCertificate, expiry } = servers;
  return {
    outputsVersion: pulumi.output(cli.then(() => outputsVersion)),
    environment: pulumi.output(settings.environment),
    datacenter: pulumi.output(servers.datacenter),
    consulVersion: settled.apply(() => settings.version),
    retryJoin: pulumi.output(servers.retryJoin),
    serverNames: pulumi.output(servers.serverNames),
    serverUrls: pulumi.output(servers.serverUrls),
    caCertificate,
    gossipKey,
    agentToken,
    managementToken,
    appEnvironment: pulumi.output(appEnvironment()),
    apps,
    dnsSnippet,
    expiry,
    daysLeft: expiry.apply(daysLeft),
  };
}

/** Servers that another stack has. */
function serversOf(settings: Settings): ServerAccess {
  if (settings.serversStack === undefined) throw new Error("settings without servers and without serversStack");
  const outputs = consulOutputs(new pulumi.StackReference(settings.serversStack));
  const {
    datacenter,
    retryJoin,
    serverNames,
    serverUrls,
    caCertificate,
    gossipKey,
    agentToken,
    managementToken,
    expiry,
  } = outputs;
  const access = {
    datacenter,
    retryJoin,
    serverNames,
    serverUrls,
    caCertificate,
    gossipKey,
    agentToken,
    managementToken,
  };
  // Their stack says what the servers run once they all do.
  const resources = outputs.consulVersion.apply((servers): pulumi.Resource[] => {
    if (!isNewer(settings.version, servers)) return [];
    throw new pulumi.RunError(
      `consul:version is ${settings.version}, but the servers of ${String(settings.serversStack)} run ${servers}: update that stack first`,
    );
  });
  const settle = (agents: pulumi.Input<unknown>) => pulumi.all([agents]).apply(() => undefined);
  return { ...access, expiry, serverAddresses: [], resources, settle };
}
