import * as pulumi from "@pulumi/pulumi";
import { renderAgentUserData } from "../consul/machine/agent-user-data";
import { Settings } from "../settings";
import { agentConfig } from "./agents";
import { Servers } from "./servers";

/**
 * User data of machines with an agent, which other stacks make. Empty where the settings have no block for them.
 * Servers first: an agent may be older than its servers, not newer.
 * @returns secret, unless it is empty
 */
export function machineUserData(settings: Settings, servers: Servers): pulumi.Output<string> {
  const { machines, agents, version, downloadMirror, downloadSha256 } = settings;
  // Not secret: `npm run debug` replaces every secret in its texts, and an empty secret is in every text.
  if (machines === undefined) return pulumi.output("");
  const { datacenter, retryJoin, caCertificate, gossipKeys, agentToken } = servers.outputs;
  const text = pulumi
    .all([pulumi.output({ datacenter, retryJoin, caCertificate, gossipKeys, agentToken }), servers.ready])
    .apply(([{ datacenter, retryJoin, caCertificate, ...secrets }]) =>
      renderAgentUserData({
        config: {
          datacenter,
          retryJoin,
          ...agentConfig(settings, { ...machines, extraConfig: agents?.extraConfig ?? {} }),
        },
        ca: caCertificate,
        secrets,
        version,
        downloadMirror,
        downloadSha256,
        dns: machines.dns,
      }),
    );
  return pulumi.secret(text);
}
