import { SecurityGroup } from "@pulumi/alicloud/ecs/securityGroup";
import { SecurityGroupRule } from "@pulumi/alicloud/ecs/securityGroupRule";
import * as pulumi from "@pulumi/pulumi";
import { ports } from "../../consul/config";
import { EcsServersSettings } from "../../settings";

export interface NetworkArgs {
  readonly settings: Pick<EcsServersSettings, "vpcId" | "nodes" | "allowedCidrs" | "grpc">;
  readonly datacenter: string;
  /** Let the nodes' networks reach the HTTPS API: for what runs in the cluster and needs the servers' own answers. */
  readonly apiForNodes: boolean;
  readonly tags: Readonly<Record<string, string>>;
  /** Called before a change of the group, in previews too: the group is changed before any server is. */
  readonly beforeUpdate: pulumi.ResourceHook;
}

/** A rule that lets a network in; what is left out of `Allowed` is the same for every rule. */
interface Allowed {
  readonly securityGroupId: pulumi.Input<string>;
  readonly ipProtocol: "tcp" | "udp";
  readonly port: number;
  readonly cidrIp: string;
  readonly description: string;
}

/** The servers' security group: who reaches which port. Nothing else gets in, and there is no public address. */
export function createSecurityGroup(
  name: string,
  args: NetworkArgs,
  opts: pulumi.CustomResourceOptions,
): SecurityGroup {
  const { settings, datacenter, apiForNodes, tags, beforeUpdate } = args;
  const group = new SecurityGroup(
    `${name}-sg`,
    {
      securityGroupName: `consul-${datacenter}-servers`,
      description: "Consul servers: RPC and gossip from servers and agents, HTTPS from the API networks",
      vpcId: settings.vpcId,
      // Members get no way around the rules below.
      innerAccessPolicy: "Drop",
      tags,
    },
    { ...opts, hooks: { beforeUpdate: [beforeUpdate] } },
  );
  const allow = (what: string, ipProtocol: "tcp" | "udp", port: number, cidrIp: string, description: string) =>
    allowIngress(
      `${name}-${what}-${cidrIp.replace("/", "-")}`,
      { securityGroupId: group.id, ipProtocol, port, cidrIp, description },
      opts,
    );
  const { api, nodes } = settings.allowedCidrs;
  const servers = settings.nodes.map(({ address }) => `${address}/32`);
  for (const cidr of new Set([...servers, ...nodes])) {
    allow("rpc", "tcp", ports.rpc, cidr, "RPC");
    allow("gossip-tcp", "tcp", ports.gossip, cidr, "Gossip");
    allow("gossip-udp", "udp", ports.gossip, cidr, "Gossip");
  }
  for (const cidr of new Set([...api, ...(apiForNodes ? nodes : [])])) {
    allow("https", "tcp", ports.https, cidr, "HTTPS API and UI");
    if (settings.grpc) allow("grpc", "tcp", ports.grpc, cidr, "gRPC with TLS");
  }
  return group;
}

/** Gossip goes both ways: a cluster's own security group may not let the servers in. */
export function openNodesToServers(securityGroupId: string, servers: readonly string[]): void {
  for (const address of servers) {
    for (const ipProtocol of ["tcp", "udp"] as const) {
      allowIngress(`consul-nodes-gossip-${ipProtocol}-${address}`, {
        securityGroupId,
        ipProtocol,
        port: ports.gossip,
        cidrIp: `${address}/32`,
        description: "Gossip from a Consul server",
      });
    }
  }
}

function allowIngress(name: string, { port, ...rule }: Allowed, opts?: pulumi.CustomResourceOptions): void {
  new SecurityGroupRule(
    name,
    {
      ...rule,
      type: "ingress",
      portRange: `${port}/${port}`,
      policy: "accept",
      priority: 1,
      // Left out, the provider sends "<nil>", and its documented default is wrong in a VPC (docs/facts/cloud.md).
      nicType: "intranet",
    },
    opts,
  );
}
