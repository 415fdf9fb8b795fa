import { DaemonSet } from "@pulumi/kubernetes/apps/v1/daemonSet";
import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap";
import { Secret } from "@pulumi/kubernetes/core/v1/secret";
import { Service } from "@pulumi/kubernetes/core/v1/service";
import { ServiceAccount } from "@pulumi/kubernetes/core/v1/serviceAccount";
import * as pulumi from "@pulumi/pulumi";
import { AgentConfig, agentNode, ports } from "../../consul/config";
import { base64Values, byName, contentName, leaderProbe, podLayout, realLinuxNodes } from "../../consul/pod/pod";
import { readScript } from "../../consul/scripts";
import { KubernetesAgentsSettings } from "../../settings";

export interface KubernetesAgentsArgs {
  readonly settings: KubernetesAgentsSettings;
  readonly config: Omit<AgentConfig, "datacenter" | "retryJoin">;
  readonly datacenter: pulumi.Input<string>;
  readonly retryJoin: pulumi.Input<string[]>;
  readonly version: string;
  readonly namespace: pulumi.Input<string>;
  readonly caCertificate: pulumi.Input<string>;
  /** Secret. */
  readonly gossipKey: pulumi.Input<string>;
  /** Secret. */
  readonly agentToken: pulumi.Input<string>;
  /** What the agents wait for. */
  readonly dependsOn: pulumi.Input<pulumi.Resource[]>;
}

/** Labels of the agents' pods. */
export const agentLabels = { "app.kubernetes.io/name": "consul", "app.kubernetes.io/component": "agent" };

/** A Consul agent on every real node of a cluster, on the host's network, its data on the host's disk. */
export class KubernetesAgents extends pulumi.ComponentResource {
  readonly daemonSet: DaemonSet;

  constructor(name: string, args: KubernetesAgentsArgs, opts?: pulumi.ComponentResourceOptions) {
    super("consul:index:KubernetesAgents", name, {}, opts);
    const { settings, namespace } = args;
    const parent = { parent: this };
    const labels = agentLabels;
    const image = settings.image ?? `hashicorp/consul:${args.version}`;

    const node = pulumi
      .all([args.caCertificate, args.gossipKey, args.agentToken, args.datacenter, args.retryJoin])
      .apply(([ca, gossipKey, agentToken, datacenter, retryJoin]) =>
        agentNode(
          { ...args.config, datacenter, retryJoin },
          ca,
          { gossipKey, agentToken },
          { name: "$(NODE_NAME)", address: "$(HOST_IP)" },
          podLayout,
        ),
      );
    const config = createConfigMap();
    const secret = createSecret();
    const account = new ServiceAccount(
      `${name}-account`,
      { metadata: { name: "consul-agent", namespace, labels }, automountServiceAccountToken: false },
      parent,
    );
    this.daemonSet = createDaemonSet();
    createNodeLocalService();
    this.registerOutputs({});

    // Names made from the content: a changed setting is a new object, the pods roll by themselves, and pods of the old
    // revision keep the files they were started with. Going back gives the earlier name again.
    function createConfigMap(): ConfigMap {
      const data = pulumi.unsecret(node.apply(({ files }) => byName(files.filter((file) => !file.secret))));
      return new ConfigMap(
        `${name}-config`,
        {
          metadata: { name: data.apply((content) => contentName("consul-agent", content)), namespace, labels },
          immutable: true,
          data,
        },
        parent,
      );
    }

    function createSecret(): Secret {
      const data = pulumi.secret(node.apply(({ files }) => base64Values(byName(files.filter((file) => file.secret)))));
      const metadataName = pulumi.unsecret(data.apply((content) => contentName("consul-agent", content)));
      return new Secret(
        `${name}-secrets`,
        { metadata: { name: metadataName, namespace, labels }, immutable: true, type: "Opaque", data },
        parent,
      );
    }

    function createDaemonSet(): DaemonSet {
      const nodeName = { name: "NODE_NAME", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } };
      const environment = [
        nodeName,
        { name: "HOST_IP", valueFrom: { fieldRef: { fieldPath: "status.hostIP" } } },
        { name: "POD_IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } },
        { name: "POD_NAMESPACE", valueFrom: { fieldRef: { fieldPath: "metadata.namespace" } } },
        // For `kubectl exec`: the agent listens on its node's address, not on loopback.
        { name: "CONSUL_HTTP_ADDR", value: `http://$(HOST_IP):${ports.http}` },
      ];
      const noPrivileges = { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true };
      return new DaemonSet(
        name,
        {
          metadata: { name: "consul-agent", namespace, labels },
          spec: {
            selector: { matchLabels: labels },
            minReadySeconds: settings.updatePace.minReadySeconds,
            revisionHistoryLimit: 10,
            updateStrategy: {
              type: "RollingUpdate",
              rollingUpdate: { maxUnavailable: settings.updatePace.maxUnavailable, maxSurge: 0 },
            },
            template: {
              metadata: { labels },
              spec: {
                serviceAccountName: account.metadata.name,
                automountServiceAccountToken: false,
                enableServiceLinks: false,
                priorityClassName: settings.priorityClassName,
                terminationGracePeriodSeconds: 30,
                hostNetwork: true,
                // With ClusterFirst a pod on the host's network silently gets the host's resolver.
                dnsPolicy: "ClusterFirstWithHostNet",
                tolerations: settings.tolerations.map((toleration) => ({ ...toleration })),
                affinity: { nodeAffinity: realLinuxNodes() },
                securityContext: { fsGroup: podLayout.group, seccompProfile: { type: "RuntimeDefault" } },
                initContainers: [
                  {
                    name: "prepare-data",
                    image,
                    command: [
                      ...["/bin/sh", "-c", readScript("pod/agent-data.sh"), "agent-data.sh"],
                      ...[podLayout.dataDir, `${podLayout.user}:${podLayout.group}`],
                    ],
                    env: [nodeName],
                    resources: settings.resources,
                    securityContext: {
                      ...noPrivileges,
                      runAsUser: 0,
                      capabilities: { drop: ["ALL"], add: ["CHOWN", "DAC_OVERRIDE"] },
                    },
                    volumeMounts: [{ name: "data", mountPath: podLayout.dataDir }],
                  },
                ],
                containers: [
                  {
                    name: "consul",
                    image,
                    imagePullPolicy: "IfNotPresent",
                    command: pulumi.unsecret(node.apply(({ command }) => [...command])),
                    env: environment,
                    ports: [
                      { name: "http", containerPort: ports.http, hostPort: ports.http, protocol: "TCP" },
                      { name: "dns-tcp", containerPort: ports.dns, hostPort: ports.dns, protocol: "TCP" },
                      { name: "dns-udp", containerPort: ports.dns, hostPort: ports.dns, protocol: "UDP" },
                      { name: "gossip-tcp", containerPort: ports.gossip, hostPort: ports.gossip, protocol: "TCP" },
                      { name: "gossip-udp", containerPort: ports.gossip, hostPort: ports.gossip, protocol: "UDP" },
                    ],
                    // No liveness probe: an agent that waits for its certificate opens no port and must not be killed.
                    readinessProbe: {
                      exec: { command: leaderProbe(`http://$HOST_IP:${ports.http}`) },
                      initialDelaySeconds: 2,
                      periodSeconds: 5,
                      timeoutSeconds: 5,
                      failureThreshold: 3,
                      successThreshold: 1,
                    },
                    resources: settings.resources,
                    securityContext: {
                      ...noPrivileges,
                      runAsNonRoot: true,
                      runAsUser: podLayout.user,
                      runAsGroup: podLayout.group,
                      capabilities: { drop: ["ALL"] },
                    },
                    terminationMessagePolicy: "FallbackToLogsOnError",
                    volumeMounts: [
                      { name: "config", mountPath: podLayout.configDir, readOnly: true },
                      { name: "secrets", mountPath: podLayout.secretDir, readOnly: true },
                      { name: "data", mountPath: podLayout.dataDir },
                      { name: "localtime", mountPath: "/etc/localtime", readOnly: true },
                    ],
                  },
                ],
                volumes: [
                  { name: "config", configMap: { name: config.metadata.name, defaultMode: 0o444 } },
                  { name: "secrets", secret: { secretName: secret.metadata.name, defaultMode: 0o440 } },
                  { name: "data", hostPath: { path: settings.hostDataPath, type: "DirectoryOrCreate" } },
                  { name: "localtime", hostPath: { path: "/etc/localtime", type: "File" } },
                ],
              },
            },
          },
        },
        // One node at a time takes its time: eleven nodes are a few minutes, a hundred are an hour.
        { ...parent, dependsOn: args.dependsOn, customTimeouts: { create: "30m", update: "3h", delete: "10m" } },
      );
    }

    /** For applications that would rather have a name: every request stays on the caller's own node. */
    function createNodeLocalService() {
      new Service(
        `${name}-service`,
        {
          // `up` waits for the DaemonSet; waiting for the same pods here again would say nothing new.
          metadata: { name: "consul-agent", namespace, labels, annotations: { "pulumi.com/skipAwait": "true" } },
          spec: {
            selector: labels,
            internalTrafficPolicy: "Local",
            ports: [
              { name: "http", port: ports.http, targetPort: "http", protocol: "TCP" },
              { name: "dns-tcp", port: ports.dns, targetPort: "dns-tcp", protocol: "TCP" },
              { name: "dns-udp", port: ports.dns, targetPort: "dns-udp", protocol: "UDP" },
            ],
          },
        },
        parent,
      );
    }
  }
}
