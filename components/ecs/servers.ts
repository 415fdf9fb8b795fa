import { EcsDeploymentSet } from "@pulumi/alicloud/ecs/ecsDeploymentSet";
import { EcsDisk } from "@pulumi/alicloud/ecs/ecsDisk";
import { EcsDiskAttachment } from "@pulumi/alicloud/ecs/ecsDiskAttachment";
import { Instance } from "@pulumi/alicloud/ecs/instance";
import { SecurityGroup } from "@pulumi/alicloud/ecs/securityGroup";
import * as pulumi from "@pulumi/pulumi";
import { ServerConfig } from "../../consul/config";
import { machineLayout } from "../../consul/machine/layout";
import { Snapshots } from "../../consul/machine/snapshots";
import { encoded, renderUserData, UserData } from "../../consul/machine/user-data";
import { EcsServersSettings, Settings } from "../../settings";
import { Trust } from "../trust";
import { configTags, Tags } from "./change";
import { Cloud } from "./cloud";
import { QuorumGate } from "./gate";
import { categoryOf, guardMoves } from "./moves";
import { createSecurityGroup } from "./network";

export interface EcsServersArgs {
  readonly settings: EcsServersSettings;
  readonly config: ServerConfig;
  /** What is the whole deployment's and decides how machines are made and changed. */
  readonly deployment: Settings;
  readonly trust: Trust;
  readonly cloud: Cloud;
  /** Snapshots that the servers take. */
  readonly snapshots: Snapshots | undefined;
  /** RAM role of the machines. */
  readonly roleName: pulumi.Input<string> | undefined;
  /** Let the nodes' networks reach the HTTPS API: for what runs in the cluster and needs the servers' own answers. */
  readonly apiForNodes: boolean;
}

type Node = EcsServersSettings["nodes"][number];

/** What the machines have in common. */
interface Shared {
  readonly securityGroup: SecurityGroup;
  readonly deploymentSet: EcsDeploymentSet | undefined;
  readonly tags: Readonly<Record<string, string>>;
}

/** Consul servers on ECS machines: one after another, each with its own data disk and a fixed private address. */
export class EcsServers extends pulumi.ComponentResource {
  /** This component, once its machines are there. */
  readonly exist: pulumi.Output<pulumi.Resource[]>;
  /** This component, once every server is a healthy voter that runs what it is to run. */
  readonly ready: pulumi.Output<pulumi.Resource[]>;
  private readonly gate: QuorumGate;

  constructor(
    private readonly name: string,
    private readonly args: EcsServersArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("consul:index:EcsServers", name, {}, opts);
    const { settings, trust, deployment, cloud, apiForNodes } = args;
    const { datacenter } = args.config;
    const tag = { key: "consul-datacenter", value: datacenter };
    const tags = { ...settings.tags, [tag.key]: tag.value };
    const servers = settings.nodes.map((node) => node.name);
    this.gate = new QuorumGate({ cloud, servers, vpcId: settings.vpcId, tag, settings: deployment, trust });
    const moves = guardMoves(name, settings, deployment.gate.skip);
    const securityGroup = createSecurityGroup(
      name,
      { settings, datacenter, apiForNodes, tags: { ...tags, ...moves.tags }, beforeUpdate: moves.beforeUpdate },
      { parent: this },
    );
    const machines = this.createMachinesInTurn({ securityGroup, deploymentSet: this.createDeploymentSet(), tags });
    const userData = machines.map((machine) => machine.userData);
    this.exist = pulumi.output([this]);
    const known = machines.map(({ instance }) => instance.tags as pulumi.Output<Tags | undefined>);
    this.ready = this.gate.ready(known, userData).apply(() => [this]);
    this.registerOutputs({});
  }

  /** Takes away gossip keys and agents' tokens that no node needs any more, after something; says when. */
  retire(after: pulumi.Output<unknown>): pulumi.Output<void> {
    return this.gate.retire(pulumi.all([this.ready, after]));
  }

  /** Distinct physical hosts, where zones alone do not give them. */
  private createDeploymentSet(): EcsDeploymentSet | undefined {
    const { nodes } = this.args.settings;
    if (new Set(nodes.map(({ zone }) => zone)).size >= nodes.length) return undefined;
    return new EcsDeploymentSet(
      `${this.name}-hosts`,
      { strategy: "Availability", deploymentSetName: `consul-${this.args.config.datacenter}-servers` },
      { parent: this },
    );
  }

  private createMachinesInTurn(shared: Shared) {
    const machines: ReturnType<EcsServers["createMachine"]>[] = [];
    for (const node of this.args.settings.nodes) {
      const previous = machines.at(-1);
      // The chain is dependsOn and nothing else: no input of one server comes from another, so the engine updates
      // them one by one and never sweeps one away because of another.
      const after = previous ? [previous.instance, previous.attachment] : [];
      machines.push(this.createMachine(node, shared, after));
    }
    return machines;
  }

  private createMachine(node: Node, shared: Shared, after: pulumi.Resource[]) {
    const disk = this.createDataDisk(node, shared);
    const userData = this.userData(node, disk.id);
    const instance = this.createInstance(node, shared, userData, after);
    const attachment = new EcsDiskAttachment(
      `${this.name}-${node.name}-attachment`,
      { diskId: disk.id, instanceId: instance.id },
      // Pulumi must not detach the disk from a running machine. The disk is detached when the machine is deleted.
      { parent: this, deletedWith: instance, deleteBeforeReplace: true },
    );
    return { instance, attachment, userData };
  }

  private createDataDisk(node: Node, { tags }: Shared): EcsDisk {
    const { dataDisk } = this.args.settings;
    return new EcsDisk(
      `${this.name}-${node.name}-data`,
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
      { parent: this, protect: this.args.deployment.protect },
    );
  }

  private createInstance(
    node: Node,
    shared: Shared,
    userData: pulumi.Output<UserData>,
    after: pulumi.Resource[],
  ): Instance {
    const { settings, roleName, deployment } = this.args;
    return new Instance(
      `${this.name}-${node.name}`,
      {
        instanceName: node.name,
        hostName: node.name,
        availabilityZone: node.zone,
        vswitchId: node.vswitchId,
        privateIp: node.address,
        securityGroups: [shared.securityGroup.id],
        deploymentSetId: shared.deploymentSet?.id,
        instanceType: settings.instanceType,
        imageId: settings.imageId,
        systemDiskCategory: categoryOf(settings, node),
        systemDiskSize: settings.systemDisk.size,
        systemDiskEncrypted: true,
        instanceChargeType: "PostPaid",
        internetMaxBandwidthOut: 0,
        httpEndpoint: "enabled",
        httpTokens: settings.metadataTokens,
        keyName: settings.keyName,
        roleName,
        userData: pulumi.secret(userData.apply(encoded)),
        // A capacity that was given back with a stop may not be there for the start.
        stoppedMode: "KeepCharging",
        // The digests give nothing away. Secret, they would make all tags secret, and the gate reads tags.
        tags: pulumi
          .unsecret(userData.apply(configTags))
          .apply((config) => ({ ...shared.tags, ...this.gate.tags, ...config })),
      },
      {
        parent: this,
        protect: deployment.protect,
        dependsOn: after,
        hooks: { beforeUpdate: [this.gate.hook(node.name, userData)] },
        // The gate stores and applies user data while the machine runs; the provider would stop it. The cloud says
        // "Not-applicable" for the stopped mode of a machine that runs, which is no difference.
        ignoreChanges: ["userData", "stoppedMode"],
        additionalSecretOutputs: ["userData"],
        customTimeouts: { create: "20m", update: "20m", delete: "20m" },
      },
    );
  }

  /** Secret. */
  private userData(server: Node, diskId: pulumi.Output<string>): pulumi.Output<UserData> {
    const { trust, config, deployment, snapshots } = this.args;
    const { version, downloadMirror, downloadSha256 } = deployment;
    const { managementToken, acl } = trust;
    const node = trust.serverNode(server.name, config, server, machineLayout(version));
    const userData = pulumi
      .output({ node, diskId, managementToken, acl })
      .apply((parts) => renderUserData({ ...parts, version, downloadMirror, downloadSha256, snapshots }));
    return pulumi.secret(userData);
  }
}
