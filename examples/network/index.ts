import { ManagedKubernetes } from "@pulumi/alicloud/cs/managedKubernetes";
import { NodePool } from "@pulumi/alicloud/cs/nodePool";
import { EipAddress } from "@pulumi/alicloud/ecs/eipAddress";
import { EipAssociation } from "@pulumi/alicloud/ecs/eipAssociation";
import { NatGateway } from "@pulumi/alicloud/vpc/natGateway";
import { Network } from "@pulumi/alicloud/vpc/network";
import { SnatEntry } from "@pulumi/alicloud/vpc/snatEntry";
import { Switch } from "@pulumi/alicloud/vpc/switch";
import * as pulumi from "@pulumi/pulumi";

const config = new pulumi.Config();
const name = config.require("name");
const network = config.require("network");
const zones = config.requireObject<string[]>("zones");
if (new Set(zones).size !== 3 || zones.length !== 3) {
  throw new Error(
    `consul-network:zones: three different zones of the region are needed, one for each Consul server; given: ` +
      `${zones.join(", ") || "none"}. \`pulumi config set --path 'zones[0]' cn-hangzhou-h\` and so on sets them.`,
  );
}
if (!/^(10\.(\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])|192\.168)$/.test(network)) {
  throw new Error(`consul-network:network: 10.0 to 10.255 or 192.168 is needed; given: ${network}.`);
}

const vpcCidr = `${network}.0.0/16`;
const vpc = new Network(name, { vpcName: name, cidrBlock: vpcCidr });

/** A vSwitch in each zone. */
const vswitches = (what: string, cidr: (index: number) => string) =>
  zones.map((zoneId, index) => {
    const vswitchName = `${name}-${what}-${zoneId}`;
    return new Switch(vswitchName, { vswitchName, vpcId: vpc.id, zoneId, cidrBlock: cidr(index) });
  });
// Nodes take 4,096 addresses a zone, servers 32 at the VPC's end: the servers' addresses are fixed, and nothing else
// takes addresses from these vSwitches.
const nodeVswitches = vswitches("nodes", (index) => `${network}.${index * 16}.0/20`);
const serverVswitches = vswitches("servers", (index) => `${network}.255.${index * 32}/27`);

/**
 * One way out for machines and nodes. The public address answers nobody: NAT lets in no connection by itself.
 * @returns what has to be there before a machine can download something
 */
function wayOut(): pulumi.Resource[] {
  const gateway = new NatGateway(name, {
    natGatewayName: name,
    vpcId: vpc.id,
    vswitchId: nodeVswitches[0]?.id,
    natType: "Enhanced",
    paymentType: "PayAsYouGo",
    internetChargeType: "PayByLcu",
  });
  const address = new EipAddress(name, {
    addressName: name,
    paymentType: "PayAsYouGo",
    internetChargeType: "PayByTraffic",
    bandwidth: "100",
  });
  const associated = new EipAssociation(name, {
    allocationId: address.id,
    instanceId: gateway.id,
    instanceType: "Nat",
  });
  const snat = new SnatEntry(
    name,
    { snatEntryName: name, snatTableId: gateway.snatTableIds, snatIp: address.ipAddress, sourceCidr: vpcCidr },
    { dependsOn: [associated] },
  );
  return [snat];
}

const out = config.requireBoolean("nat") ? wayOut() : [];
// Pods and Services have networks outside of the VPC's.
const serviceCidr = "172.21.0.0/20";
const cluster = new ManagedKubernetes(
  name,
  {
    name,
    clusterSpec: config.require("clusterSpec"),
    vswitchIds: nodeVswitches.map(({ id }) => id),
    podCidr: "172.20.0.0/16",
    serviceCidr,
    addons: [{ name: "flannel" }, { name: "csi-plugin" }, { name: "csi-provisioner" }],
    newNatGateway: false,
    // The kubeconfig that the Consul stack asks for has the public address of the API server.
    slbInternetEnabled: true,
    isEnterpriseSecurityGroup: true,
    // Roles for service accounts; nothing is charged for them, and the switch cannot be turned off again.
    enableRrsa: true,
  },
  { dependsOn: out },
);
const nodes = new NodePool(
  name,
  {
    nodePoolName: name,
    clusterId: cluster.id,
    vswitchIds: nodeVswitches.map(({ id }) => id),
    multiAzPolicy: "BALANCE",
    instanceTypes: [config.require("nodeType")],
    instanceChargeType: "PostPaid",
    desiredSize: String(config.requireNumber("nodeCount")),
    systemDiskCategory: "cloud_essd",
    systemDiskSize: 40,
    installCloudMonitor: true,
  },
  { dependsOn: out },
);

/** The VPC of the servers and nodes. */
export const vpcId = vpc.id;
/** The ACK cluster, given once its nodes are there. */
export const ackClusterId = pulumi.all([cluster.id, nodes.id]).apply(([id]) => id);

/** What goes into the Consul stack's file, below `config:`. */
export const settings = {
  "consul:cluster": { ackClusterId },
  "consul:servers": {
    vpcId,
    nodes: serverVswitches.map(({ id }, index) => ({
      name: `consul-${index + 1}`,
      zone: zones[index],
      vswitchId: id,
      vswitchCidr: `${network}.255.${index * 32}/27`,
      address: `${network}.255.${index * 32 + 10}`,
    })),
    allowedCidrs: { nodes: nodeVswitches.map(({ cidrBlock }) => cidrBlock) },
  },
  "consul:agents": { nodeSecurityGroupId: cluster.securityGroupId },
  "consul:dns": { clusterIp: "172.21.10.53" },
};
