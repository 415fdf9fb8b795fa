import { EcsDeploymentSet } from "@pulumi/alicloud/ecs/ecsDeploymentSet";
import { EcsDisk } from "@pulumi/alicloud/ecs/ecsDisk";
import { EcsDiskAttachment } from "@pulumi/alicloud/ecs/ecsDiskAttachment";
import { Instance } from "@pulumi/alicloud/ecs/instance";
import { SecurityGroup } from "@pulumi/alicloud/ecs/securityGroup";
import { SecurityGroupRule } from "@pulumi/alicloud/ecs/securityGroupRule";
import * as pulumi from "@pulumi/pulumi";
import { serverAclObjects } from "../../consul/acl";
import { ports, ServerConfig, serverNode } from "../../consul/config";
import { Snapshots } from "../../consul/machine/snapshots";
import { machineLayout, renderUserData } from "../../consul/machine/user-data";
import { EcsServersSettings, Settings } from "../../settings";
import { QuorumGate } from "./gate";
import { Trust } from "../trust";

export interface EcsServersArgs {
  readonly settings: EcsServersSettings;
  readonly config: ServerConfig;
  /** What is the whole stack's and decides how machines are made and changed. */
  readonly stack: Settings;
  readonly trust: Trust;
  /** Snapshots that the servers take. */
  readonly snapshots: Snapshots | undefined;
  /** RAM role of the machines. */
  readonly roleName: pulumi.Input<string> | undefined;
  /** Let the nodes' networks reach the HTTPS API: for what runs in the cluster and needs the servers' own answers. */
  readonly apiForNodes: boolean;
}

/** Consul servers on ECS machines: one after another, each with its own data disk and a fixed private address. */
export class EcsServers extends pulumi.ComponentResource {
  readonly instanceIds: pulumi.Output<string>[];
  readonly gate: QuorumGate;
  /** Resolves once every server is a healthy voter. */
  readonly ready: pulumi.Output<void>;

  constructor(name: string, args: EcsServersArgs, opts?: pulumi.ComponentResourceOptions) {
    super("consul:index:EcsServers", name, {}, opts);
    const { settings, trust, stack } = args;
    const { protect } = stack;
    const parent = { parent: this };
    const tag = { key: "consul-datacenter", value: args.config.datacenter };
    const tags = { ...settings.tags, [tag.key]: tag.value };
    const servers = settings.nodes.map((node) => node.name);
    this.gate = new QuorumGate({ servers, vpcId: settings.vpcId, tag, settings: stack, trust });
    const { gate } = this;

    const securityGroup = createSecurityGroup();
    const deploymentSet = createDeploymentSet();
    const serverTokens = pulumi.all(
      trust.servers.map(({ name: node, agentToken }) => agentToken.apply((secret) => ({ node, secret }))),
    );
    const machines = createMachinesInTurn();
    this.instanceIds = machines.map(({ instance }) => instance.id);
    this.ready = gate.ready(this.instanceIds);
    this.registerOutputs({});

    function createSecurityGroup(): SecurityGroup {
      const group = new SecurityGroup(
        `${name}-sg`,
        {
          securityGroupName: `consul-${args.config.datacenter}-servers`,
          description: "Consul servers: RPC and gossip from servers and agents, HTTPS from the API networks",
          vpcId: settings.vpcId,
          // Members get no way around the rules below.
          innerAccessPolicy: "Drop",
          tags,
        },
        parent,
      );
      const servers = settings.nodes.map(({ address }) => `${address}/32`);
      for (const cidr of new Set([...servers, ...settings.allowedCidrs.nodes])) {
        allow("rpc", "tcp", `${ports.rpc}/${ports.rpc}`, cidr, "RPC");
        allow("gossip-tcp", "tcp", `${ports.gossip}/${ports.gossip}`, cidr, "Gossip");
        allow("gossip-udp", "udp", `${ports.gossip}/${ports.gossip}`, cidr, "Gossip");
      }
      const { api, nodes } = settings.allowedCidrs;
      for (const cidr of new Set([...api, ...(args.apiForNodes ? nodes : [])])) {
        allow("https", "tcp", `${ports.https}/${ports.https}`, cidr, "HTTPS API and UI");
      }
      return group;

      function allow(what: string, ipProtocol: string, portRange: string, cidrIp: string, description: string) {
        new SecurityGroupRule(
          `${name}-${what}-${cidrIp.replace("/", "-")}`,
          {
            securityGroupId: group.id,
            type: "ingress",
            ipProtocol,
            portRange,
            cidrIp,
            description,
            policy: "accept",
            priority: 1,
            // Left out, the provider sends "<nil>"; its documented default is wrong in a VPC (reference/alicloud.md §3).
            nicType: "intranet",
          },
          parent,
        );
      }
    }

    /** Distinct physical hosts, where zones alone do not give them. */
    function createDeploymentSet(): EcsDeploymentSet | undefined {
      const zones = new Set(settings.nodes.map(({ zone }) => zone));
      if (zones.size >= settings.nodes.length) return undefined;
      return new EcsDeploymentSet(
        `${name}-hosts`,
        { strategy: "Availability", deploymentSetName: `consul-${args.config.datacenter}-servers` },
        parent,
      );
    }

    function createMachinesInTurn() {
      const made: { instance: Instance; attachment: EcsDiskAttachment }[] = [];
      for (const node of settings.nodes) {
        const previous = made.at(-1);
        // The chain is dependsOn and nothing else: no input of one server comes from another, so the engine updates
        // them one by one and never sweeps one away because of another.
        const after = previous ? [previous.instance, previous.attachment] : [];
        made.push(createMachine(node, after));
      }
      return made;
    }

    function createMachine(node: EcsServersSettings["nodes"][number], after: pulumi.Resource[]) {
      const { dataDisk } = settings;
      const disk = new EcsDisk(
        `${name}-${node.name}-data`,
        {
          zoneId: node.zone,
          diskName: `${node.name}-data`,
          description: `Raft data of ${node.name}`,
          category: dataDisk.category,
          size: dataDisk.size,
          performanceLevel: dataDisk.category === "cloud_essd" ? dataDisk.performanceLevel : undefined,
          encrypted: true,
          kmsKeyId: dataDisk.kmsKeyId,
          deleteWithInstance: false,
          // Grows without a reboot; the default does not.
          type: "online",
          tags,
        },
        { ...parent, protect },
      );
      const instance = new Instance(
        `${name}-${node.name}`,
        {
          instanceName: node.name,
          hostName: node.name,
          availabilityZone: node.zone,
          vswitchId: node.vswitchId,
          privateIp: node.address,
          securityGroups: [securityGroup.id],
          deploymentSetId: deploymentSet?.id,
          instanceType: settings.instanceType,
          imageId: settings.imageId,
          systemDiskCategory: settings.systemDisk.category,
          systemDiskSize: settings.systemDisk.size,
          systemDiskEncrypted: true,
          instanceChargeType: "PostPaid",
          internetMaxBandwidthOut: 0,
          httpEndpoint: "enabled",
          httpTokens: settings.metadataTokens,
          keyName: settings.keyName,
          roleName: args.roleName,
          userData: userData(node, disk.id),
          tags: { ...tags, ...gate.tags },
        },
        {
          ...parent,
          protect,
          dependsOn: after,
          hooks: { beforeUpdate: [gate.hook(node.name)] },
          additionalSecretOutputs: ["userData"],
          customTimeouts: { create: "20m", update: "20m", delete: "20m" },
        },
      );
      const attachment = new EcsDiskAttachment(
        `${name}-${node.name}-attachment`,
        { diskId: disk.id, instanceId: instance.id },
        // The disk goes with the machine's end; taking it from a running machine would be pulling it out.
        { ...parent, deletedWith: instance, deleteBeforeReplace: true },
      );
      return { instance, attachment };
    }

    /** Base64 by ourselves: what the provider reads back is then what was given. */
    function userData(node: EcsServersSettings["nodes"][number], diskId: pulumi.Output<string>): pulumi.Output<string> {
      const server = trust.servers.find((candidate) => candidate.name === node.name);
      if (!server) throw new Error(`no certificate was made for server ${node.name}`);
      const { caCertificate, gossipKey, managementToken } = trust;
      const secrets = pulumi
        .all([gossipKey, server.cert, server.key, managementToken, server.agentToken])
        .apply(([gossipKey, cert, key, managementToken, agentToken]) => ({
          gossipKey,
          cert,
          key,
          managementToken,
          agentToken,
        }));
      const acl = pulumi
        .all([serverTokens, trust.agentToken])
        .apply(([servers, agents]) =>
          serverAclObjects({ datacenter: args.config.datacenter, servers, agents: [agents] }),
        );
      const text = pulumi.all([diskId, caCertificate, secrets, acl]).apply(([diskId, ca, secrets, acl]) =>
        renderUserData({
          node: serverNode(args.config, ca, secrets, node, machineLayout),
          version: stack.version,
          downloadMirror: stack.downloadMirror,
          downloadSha256: stack.downloadSha256,
          diskId,
          managementToken: secrets.managementToken,
          acl,
          snapshots: args.snapshots,
        }),
      );
      return pulumi.secret(text.apply((plain) => Buffer.from(plain).toString("base64")));
    }
  }
}
