import * as pulumi from "@pulumi/pulumi";
import { Cloud } from "../components/ecs/cloud";
import { appEnvironment } from "../components/kubernetes/app-environment";
import { reachCluster } from "../components/kubernetes/cluster";
import { Settings } from "../settings";
import { createAgents } from "./agents";
import { createApplications, imageOf } from "./applications";
import { daysLeft, warnBefore } from "./expiry";
import { machineUserData } from "./machines";
import { ConsulOutputs, outputsVersion } from "./outputs";
import { createServers, serverOutputNames, ServerOutputs } from "./servers";

/**
 * One deployment as the settings describe it: servers, agents, or both.
 * @param cloud the way to the servers' machines, where the servers are on ECS
 */
export function consulStack(settings: Settings, cloud: Cloud): ConsulOutputs {
  // Hooks guard the servers. Before this version a failure of one may be no more than a warning.
  const cli = pulumi.requirePulumiVersion(">=3.238.0");
  const cluster = settings.cluster && reachCluster(settings, settings.cluster);
  const servers = createServers(settings, cloud, cluster);
  const agents = createAgents(settings, servers, cluster);
  const retired = servers.retire(agents.ready);
  const apps = createApplications(settings, servers, cluster);
  const own = Object.fromEntries(serverOutputNames.map((name) => [name, servers.outputs[name]]));
  const { expiry, ...serverOutputs } = own as unknown as ServerOutputs;
  warnBefore(expiry, settings.certificates.warnDays);
  return {
    outputsVersion: pulumi.output(cli.then(() => outputsVersion)),
    environment: pulumi.output(settings.environment),
    ...serverOutputs,
    consulVersion: retired.apply(() => settings.version),
    consulImage: retired.apply(() => imageOf(settings).name),
    appEnvironment: pulumi.output(appEnvironment()),
    apps,
    machineUserData: machineUserData(settings, servers),
    dnsSnippet: agents.dnsSnippet,
    expiry,
    daysLeft: expiry.apply(daysLeft),
  };
}
