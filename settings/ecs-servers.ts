import { z } from "zod";
import { cidrContains, firstAndLast, toNumber } from "./ip";
import { rule } from "./mistakes";
import { cidr, cidrs, cloudId, flag, ipv4, label, oneOf, serverNodes, text, textMap, whole } from "./values";

const diskCategory = oneOf("cloud_essd", "cloud_auto", "cloud_essd_entry").default("cloud_essd");

const node = z
  .strictObject({
    /** Consul node name, and the machine's host name. */
    name: label,
    /** Zone of the machine and of its disks. */
    zone: text("a zone of the region such as cn-hangzhou-h", /^[a-z]+-[a-z0-9-]+$/),
    /** vSwitch of the machine, in that zone. */
    vswitchId: cloudId("vsw", "a vSwitch of that zone"),
    /** The vSwitch's CIDR; given, the address is checked against it. */
    vswitchCidr: cidr.optional(),
    /** Fixed private address: agents join it, certificates name it. */
    address: ipv4,
    /** For this server instead of systemDisk.category, while servers move to another one. */
    systemDiskCategory: oneOf("cloud_essd", "cloud_auto", "cloud_essd_entry").optional(),
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
    /** ESSD category. */
    category: diskCategory,
    /** GiB. */
    size: whole(20, 32768, " (GiB)").default(100),
    /** Only for cloud_essd; PL0 of 100 GiB gives about 3,000 IOPS. */
    performanceLevel: oneOf("PL0", "PL1", "PL2", "PL3").default("PL0"),
    /** KMS key that encrypts the disk; the account's service key where none is given. */
    kmsKeyId: text("the id of a KMS key").optional(),
  })
  .check(
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
  platform: z.literal("ecs"),
  /** 3 or 5. */
  nodes: serverNodes(node),
  /** VPC of the vSwitches. */
  vpcId: cloudId("vpc", "the VPC of the vSwitches"),
  /** A pinned image whose cloud-init reads user data from this cloud; see metadataTokens. */
  imageId: text("the id of an image, pinned, such as ubuntu_24_04_x64_20G_alibase_20260615.vhd"),
  /** Instance type of every server. */
  instanceType: text(
    "an ECS instance type such as ecs.g7.large, and no burstable one (ecs.t5, ecs.t6): without CPU credits raft misses its deadlines",
    /^ecs\.(?!t\d)[a-z0-9-]+\.[a-z0-9-]+$/,
  ).default("ecs.g7.large"),
  /** Size in GiB. */
  systemDisk: z.strictObject({ category: diskCategory, size: whole(20, 2048, " (GiB)").default(40) }).prefault({}),
  /** Where raft's data are. */
  dataDisk: dataDisk.prefault({}),
  /** Who may talk to the servers. */
  allowedCidrs: z.strictObject({
    /** Networks of the nodes that run agents: RPC and gossip (8300, 8301). */
    nodes: cidrs("the CIDRs of the agents' nodes").min(1, { error: "at least one CIDR: the agents' nodes" }),
    /** Networks from which people reach the HTTPS API and UI (8501). */
    api: cidrs("a list of CIDRs").default([]),
  }),
  /** required: only token requests reach the metadata service, which needs cloud-init >= 23.2.2 in the image. */
  metadataTokens: oneOf("required", "optional").default("required"),
  /** RAM role of the machines. */
  roleName: text("the name of a RAM role").optional(),
  /** Key pair for SSH; without one nobody can log in, and no rule opens port 22 either way. */
  keyName: text("the name of a key pair").optional(),
  /** Tags of machines, disks, security group and bucket. */
  tags: tags.default({}),
  /** Serve the web interface over HTTPS to allowedCidrs.api. */
  ui: flag.default(false),
  /** Refuse to replace or delete machines, disks and the CA key; on in prod unless set. */
  protect: flag.optional(),
});

export const ecsServers = block.check(
  rule(["nodes"], ({ nodes }, { wrong, sound }) => {
    const first = new Map<string, { key: string; zone: string }>();
    for (const [i, node] of nodes.entries()) {
      if (!sound("nodes", i, "vswitchId") || !sound("nodes", i, "zone")) continue;
      const { vswitchId, zone } = node;
      const other = first.get(vswitchId) ?? { key: `servers.nodes[${i}]`, zone };
      first.set(vswitchId, other);
      const accepted = `a vSwitch in ${zone}: a vSwitch is in one zone, and ${other.key} has this one in ${other.zone}`;
      if (other.zone !== zone) wrong(["nodes", i, "vswitchId"], accepted);
    }
  }),
  rule(["ui", "allowedCidrs.api"], ({ ui, allowedCidrs }, { wrong }) => {
    if (!ui || allowedCidrs.api.length > 0) return;
    wrong(["ui"], "false, or CIDRs in servers.allowedCidrs.api beside it: nobody is let in to the web interface");
  }),
);
