import { DaemonSet } from "@pulumi/kubernetes/apps/v1/daemonSet";
import { ServiceAccount } from "@pulumi/kubernetes/core/v1/serviceAccount";
import * as pulumi from "@pulumi/pulumi";
import { ports } from "../../consul/config";
import { ConsulNode } from "../../consul/node";
import type { PodImage } from "../../consul/pod/image";
import { leaderProbe, podCommand, podLayout } from "../../consul/pod/pod";
import { readScript } from "../../consul/scripts";
import { KubernetesAgentsSettings } from "../../settings";
import { AgentNodeArgs, describeAgent } from "../agent-node";
import { fieldVariable } from "./app-environment";
import { createNodeLocalService } from "./node-local-service";
import { byName, frozenConfigMap, frozenSecret, labelsOf } from "./objects";
import {
  configMount,
  Mount,
  pod,
  PodMarks,
  podMetadata,
  readinessProbe,
  realLinuxNodes,
  secretsMount,
  unprivileged,
} from "./pod";

export interface KubernetesAgentsArgs extends AgentNodeArgs {
  readonly settings: KubernetesAgentsSettings;
  readonly image: PodImage;
  readonly namespace: pulumi.Input<string>;
  /** What every pod in the cluster has. */
  readonly marks: PodMarks;
  /** What the agents wait for. */
  readonly dependsOn: pulumi.Input<pulumi.Resource[]>;
}

/** Labels of the agents' pods. */
export const agentLabels = labelsOf("agent");

/** What other nodes and pods reach at an agent, under names that Services refer to. */
const openPorts = [
  { name: "http", port: ports.http, protocol: "TCP" },
  { name: "dns-tcp", port: ports.dns, protocol: "TCP" },
  { name: "dns-udp", port: ports.dns, protocol: "UDP" },
];
const gossipPorts = [
  { name: "gossip-tcp", port: ports.gossip, protocol: "TCP" },
  { name: "gossip-udp", port: ports.gossip, protocol: "UDP" },
];

/** A Consul agent on every real node of a cluster, on the host's network, its data on the host's disk. */
export class KubernetesAgents extends pulumi.ComponentResource {
  readonly daemonSet: DaemonSet;

  constructor(
    private readonly name: string,
    private readonly args: KubernetesAgentsArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("consul:index:KubernetesAgents", name, {}, opts);
    const node = describeAgent(args, { name: "$(NODE_NAME)", address: "$(HOST_IP)" }, podLayout);
    const mounts = [...this.createFiles(node), hostMount(args.settings)];
    this.daemonSet = this.createDaemonSet(node, mounts, this.createAccount());
    // For applications that would rather have a name.
    const { namespace } = args;
    const servicePorts = openPorts.map(({ name, port }) => ({ name, port, targetPort: name }));
    createNodeLocalService(
      `${name}-service`,
      { metadataName: "consul-agent", namespace, labels: agentLabels, ports: servicePorts },
      this,
    );
    this.registerOutputs({});
  }

  private createFiles(node: pulumi.Output<ConsulNode>): Mount[] {
    const object = { namespace: this.args.namespace, labels: agentLabels };
    const data = pulumi.unsecret(node.apply(({ files }) => byName(files.filter((file) => !file.secret))));
    const secretData = node.apply(({ files }) => byName(files.filter((file) => file.secret)));
    const parent = { parent: this };
    const config = frozenConfigMap(`${this.name}-config`, { ...object, data }, parent);
    const secret = frozenSecret(`${this.name}-secrets`, { ...object, data: secretData }, parent);
    return [configMount(config.metadata.name), secretsMount(secret.metadata.name)];
  }

  private createAccount(): ServiceAccount {
    const metadata = { name: "consul-agent", namespace: this.args.namespace, labels: agentLabels };
    return new ServiceAccount(
      `${this.name}-account`,
      { metadata, automountServiceAccountToken: false },
      { parent: this },
    );
  }

  private createDaemonSet(node: pulumi.Output<ConsulNode>, mounts: Mount[], account: ServiceAccount): DaemonSet {
    const { settings, namespace, marks, dependsOn } = this.args;
    const { maxUnavailable, minReadySeconds } = settings.updatePace;
    return new DaemonSet(
      this.name,
      {
        metadata: { name: "consul-agent", namespace, labels: agentLabels },
        spec: {
          selector: { matchLabels: agentLabels },
          minReadySeconds,
          revisionHistoryLimit: 10,
          updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable, maxSurge: 0 } },
          template: { metadata: podMetadata(agentLabels, marks, settings), spec: this.pod(node, mounts, account) },
        },
      },
      // One node at a time takes its time: eleven nodes are a few minutes, a hundred are an hour. A node that is not
      // ready stops the roll; the pipelines' three hours for an `up` must not end before the roll does, and say nothing.
      { parent: this, dependsOn, customTimeouts: { create: "30m", update: "2h", delete: "10m" } },
    );
  }

  private pod(node: pulumi.Output<ConsulNode>, mounts: Mount[], account: ServiceAccount) {
    const { settings, image } = this.args;
    return pod({
      name: "consul",
      image,
      command: pulumi.unsecret(node.apply(podCommand)),
      env: [
        nodeName,
        fieldVariable("HOST_IP", "status.hostIP"),
        fieldVariable("POD_IP", "status.podIP"),
        fieldVariable("POD_NAMESPACE", "metadata.namespace"),
        // For `kubectl exec`: the agent listens on its node's address, not on loopback.
        { name: "CONSUL_HTTP_ADDR", value: `http://$(HOST_IP):${ports.http}` },
      ],
      resources: settings.resources,
      mounts,
      spec: {
        serviceAccountName: account.metadata.name,
        priorityClassName: settings.priorityClassName,
        terminationGracePeriodSeconds: 30,
        hostNetwork: true,
        // With ClusterFirst a pod on the host's network silently gets the host's resolver.
        dnsPolicy: "ClusterFirstWithHostNet",
        tolerations: settings.tolerations.map((toleration) => ({ ...toleration })),
        affinity: { nodeAffinity: realLinuxNodes() },
        securityContext: { fsGroup: podLayout.group, seccompProfile: { type: "RuntimeDefault" } },
        initContainers: [prepareData(image.name, settings)],
      },
      container: {
        imagePullPolicy: "IfNotPresent",
        ports: [...openPorts, ...gossipPorts].map(({ name, port, protocol }) => ({
          name,
          containerPort: port,
          hostPort: port,
          protocol,
        })),
        // No liveness probe: an agent that waits for its certificate opens no port and must not be killed.
        readinessProbe: readinessProbe(leaderProbe(`http://$HOST_IP:${ports.http}`), 5, 3),
        securityContext: {
          ...unprivileged,
          runAsNonRoot: true,
          runAsUser: podLayout.user,
          runAsGroup: podLayout.group,
        },
      },
    });
  }
}

const nodeName = fieldVariable("NODE_NAME", "spec.nodeName");

/**
 * An agent's pod mounts one directory of its host, which the kubelet makes where it is missing. The pod does not mount
 * /etc/localtime, as the hand-made agents did: a node without that file could start no agent, a hostPath cannot be
 * optional, and a runtime that makes missing paths would leave an empty file or directory on the node. Times in an
 * agent's log are UTC and say so.
 */
function hostMount({ hostDataPath }: KubernetesAgentsSettings): Mount {
  const volume = { hostPath: { path: hostDataPath, type: "DirectoryOrCreate" } };
  return { name: "data", path: podLayout.dataDir, writable: true, volume };
}

/** Hands the host's directory over to the agent's user. */
function prepareData(image: string, { resources }: KubernetesAgentsSettings) {
  return {
    name: "prepare-data",
    image,
    command: [
      "/bin/sh",
      "-c",
      readScript("pod/agent-data.sh"),
      "agent-data.sh",
      podLayout.dataDir,
      `${podLayout.user}:${podLayout.group}`,
    ],
    env: [nodeName],
    resources,
    securityContext: {
      ...unprivileged,
      runAsUser: 0,
      capabilities: { drop: ["ALL"], add: ["CHOWN", "DAC_OVERRIDE"] },
    },
    volumeMounts: [{ name: "data", mountPath: podLayout.dataDir }],
  };
}
