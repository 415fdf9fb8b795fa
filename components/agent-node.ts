import * as pulumi from "@pulumi/pulumi";
import { AgentConfig, agentNode, Placement } from "../consul/config";
import { ConsulNode, NodeLayout } from "../consul/node";

/** What an agent is told by its own settings, and by the outputs of its servers. */
export interface AgentNodeArgs {
  readonly config: Omit<AgentConfig, "datacenter" | "retryJoin">;
  readonly datacenter: pulumi.Input<string>;
  /** Addresses or names of all servers. */
  readonly retryJoin: pulumi.Input<string[]>;
  readonly caCertificate: pulumi.Input<string>;
  /** Secret: the one that encrypts first. */
  readonly gossipKeys: pulumi.Input<string[]>;
  /** Secret. */
  readonly agentToken: pulumi.Input<string>;
}

/** An agent as a node, with the keys that it needs. */
export function describeAgent(
  { config, datacenter, retryJoin, caCertificate, gossipKeys, agentToken }: AgentNodeArgs,
  placement: Placement,
  layout: NodeLayout,
): pulumi.Output<ConsulNode> {
  return pulumi
    .output({ datacenter, retryJoin, caCertificate, gossipKeys, agentToken })
    .apply(({ datacenter, retryJoin, caCertificate, ...secrets }) =>
      agentNode({ ...config, datacenter, retryJoin }, caCertificate, secrets, placement, layout),
    );
}
