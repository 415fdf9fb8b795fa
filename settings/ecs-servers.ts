import { z } from "zod";
import { extraConfig } from "./extra-config";
import { cidrContains, firstAndLast, toNumber } from "./ip";
import { rule } from "./mistakes";
import { cidr, cidrs, cloudId, flag, grpc, ipv4, label, oneOf, serverNodes, text, textMap, whole } from "./values";

const diskCategory = oneOf("cloud_essd", "cloud_auto", "cloud_essd_entry").default("cloud_essd");

const node = z
  .strictObject({
    name: label.describe("Consul node name, and host name of the machine"),
    zone: text("a zone of the region such as cn-hangzhou-h", /^[a-z]+-[a-z0-9-]+$/).describe(
      "zone of machine and data disk, such as cn-hangzhou-h, in `alicloud:region`; it stays for the server's life",
    ),
    vswitchId: cloudId("vsw", "a vSwitch of that zone").describe("a vSwitch of that zone"),
    vswitchCidr: cidr.optional().describe("CIDR of the vSwitch; given, the address is checked against it"),
    address: ipv4.describe("fixed private address; agents join it, certificates name it"),
    systemDiskCategory: oneOf("cloud_essd", "cloud_auto", "cloud_essd_entry")
      .optional()
      .describe("for this server instead of `servers.systemDisk.category`, while servers move to another one"),
  })
  .check(
    rule(["vswitchCidr", "address"], ({ vswitchCidr, address }, { wrong }) => {
      if (vswitchCidr === undefined) return;
      const [first, last] = firstAndLast(vswitchCidr);
      const n = toNumber(address);
      if (!cidrContains(vswitchCidr, address)) wrong(["address"], `an address inside its vSwitch, ${vswitchCidr}`);
      // The cloud keeps the network address, the gateways and the broadcast address of each vSwitch.
      else if (n < first + 3 || n > last - 3) {
        const accepted = `not one of the first three or last three addresses of ${vswitchCidr}: the cloud keeps those`;
        wrong(["address"], accepted);
      }
    }),
  );

const dataDisk = z
  .strictObject({
    category: diskCategory.describe("category of the data disk, which is encrypted"),
    size: whole(20, 32768, "GiB").default(100).describe("size of the data disk; may grow later"),
    performanceLevel: oneOf("PL0", "PL1", "PL2", "PL3")
      .default("PL0")
      .describe("for `cloud_essd` only; PL0 of 100 GiB gives about 3,000 IOPS"),
    kmsKeyId: text("the id of a KMS key")
      .optional()
      .describe("KMS key that encrypts the disk; without one the account's service key"),
  })
  .check(
    rule(["category", "performanceLevel"], ({ category, performanceLevel }, { wrong }) => {
      if (category === "cloud_essd" || performanceLevel === "PL0") return;
      wrong(["performanceLevel"], `nothing with ${category}: only cloud_essd has performance levels`);
    }),
    rule(["size", "performanceLevel"], ({ size, performanceLevel }, { wrong }) => {
      const smallest = { PL0: 20, PL1: 20, PL2: 461, PL3: 1261 }[performanceLevel];
      if (size < smallest) wrong(["size"], `at least ${smallest} GiB for ${performanceLevel}`);
    }),
  );

/** Keys that the cloud or this program keeps for itself. The cloud compares without regard to case. */
const reservedTag = /^(acs:|aliyun|consul-)|https?:\/\//i;
const tags = textMap("a map of tag names to values").check(
  rule([], (tags, { wrong }) => {
    const accepted =
      "a key that does not begin with acs:, aliyun (the cloud's) or consul- (this program's), without http://";
    for (const key of Object.keys(tags).filter((key) => reservedTag.test(key))) wrong([key], accepted);
  }),
);

/** Servers as ECS machines. */
const block = z.strictObject({
  platform: z.literal("ecs").describe("where the servers run: here as ECS machines"),
  nodes: serverNodes(node).describe("the servers, 3 or 5"),
  vpcId: cloudId("vpc", "the VPC of the vSwitches").describe("VPC of the vSwitches"),
  imageId: text("the id of an image, pinned, such as ubuntu_24_04_x64_20G_alibase_20260615.vhd").describe(
    "a pinned image whose cloud-init reads user data from this cloud, see `servers.metadataTokens`",
  ),
  instanceType: text(
    "an ECS instance type such as ecs.g7.large, and no burstable one (ecs.t5, ecs.t6): without CPU credits raft misses its deadlines",
    /^ecs\.(?!t\d)[a-z0-9-]+\.[a-z0-9-]+$/,
  )
    .default("ecs.g7.large")
    .describe("instance type of every server; no burstable one, raft needs steady CPU"),
  systemDisk: z
    .strictObject({
      category: diskCategory.describe("category of the system disk"),
      size: whole(20, 2048, "GiB").default(40).describe("size of the system disk"),
    })
    .prefault({})
    .describe("the machines' system disks"),
  dataDisk: dataDisk.prefault({}).describe("the disks with raft's data"),
  allowedCidrs: z
    .strictObject({
      nodes: cidrs("the CIDRs of the agents' nodes")
        .min(1, { error: "at least one CIDR: the agents' nodes" })
        .describe("networks of the agents' nodes: they reach RPC and gossip, 8300 and 8301"),
      api: cidrs("a list of CIDRs").default([]).describe("networks that reach the HTTPS API and the UI, 8501"),
    })
    .describe("networks that may talk to the servers"),
  metadataTokens: oneOf("required", "optional")
    .default("required")
    .describe(
      "`required`: only token requests reach the metadata service, which needs cloud-init 23.2.2 or later in the image",
    ),
  roleName: text("the name of a RAM role").optional().describe("RAM role of the machines"),
  keyName: text("the name of a key pair")
    .optional()
    .describe("SSH key pair; without one nobody can log in, and no rule opens port 22 either way"),
  tags: tags.default({}).describe("tags of machines, disks, security group and bucket"),
  ui: flag.default(false).describe("web interface over HTTPS, for `servers.allowedCidrs.api`"),
  grpc,
  extraConfig: extraConfig("server"),
  protect: flag
    .optional()
    .describe(
      "refuse to replace or delete machines, disks and the CA key; without a value on in `prod` and off elsewhere",
    ),
});

export const ecsServers = block.check(
  rule(["nodes"], ({ nodes }, { wrong, sound }) => {
    const first = new Map<string, { key: string; zone: string; cidr: string | undefined }>();
    for (const [i, node] of nodes.entries()) {
      if (!sound("nodes", i, "vswitchId") || !sound("nodes", i, "zone")) continue;
      const { vswitchId, zone, vswitchCidr: cidr } = node;
      const other = first.get(vswitchId) ?? { key: `servers.nodes[${i}]`, zone, cidr };
      first.set(vswitchId, other);
      const accepted = `a vSwitch in ${zone}: a vSwitch is in one zone, and ${other.key} has this one in ${other.zone}`;
      if (other.zone !== zone) wrong(["nodes", i, "vswitchId"], accepted);
      const same = `the vSwitch's one CIDR: ${other.key} has ${String(other.cidr)} for it`;
      if (cidr !== undefined && other.cidr !== undefined && other.cidr !== cidr) {
        wrong(["nodes", i, "vswitchCidr"], same);
      }
    }
  }),
  rule(["ui", "allowedCidrs.api"], ({ ui, allowedCidrs }, { wrong }) => {
    if (!ui || allowedCidrs.api.length > 0) return;
    wrong(["ui"], "false, or CIDRs in servers.allowedCidrs.api beside it: nobody is let in to the web interface");
  }),
);
