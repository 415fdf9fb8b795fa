import { createHash } from "crypto";
import { basename } from "path";
import { ConsulFile, NodeLayout, stableJson } from "../node";

/** Where things are in a pod, and who runs there: uid and gid of `consul` in the official image. */
export const podLayout: NodeLayout & { readonly user: number; readonly group: number } = {
  consul: "consul",
  configDir: "/consul/config",
  secretDir: "/consul/secrets",
  dataDir: "/consul/data",
  user: 100,
  group: 1000,
};

/** Security context of a pod, and of a container in it, that needs nothing of its node. */
export const unprivilegedPod = {
  runAsNonRoot: true,
  runAsUser: podLayout.user,
  runAsGroup: podLayout.group,
  fsGroup: podLayout.group,
  seccompProfile: { type: "RuntimeDefault" },
};
export const unprivileged = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] },
};

/** Files as the data of a ConfigMap or Secret. */
export function byName(files: readonly ConsulFile[]): Record<string, string> {
  return Object.fromEntries(files.map(({ path, content }) => [basename(path), content]));
}

/** Values as a Secret's data has them. */
export function base64Values(data: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")]));
}

/** A name that changes with the content and comes back with it. */
export function contentName(prefix: string, content: Readonly<Record<string, string>>): string {
  return `${prefix}-${createHash("sha256").update(stableJson(content)).digest("hex").slice(0, 10)}`;
}

/**
 * A readiness probe that passes while the node sees a leader. The status code alone does not say so: without a leader
 * the answer is 200 and an empty string (reference/consul.md §3).
 */
export function leaderProbe(url: string): string[] {
  return ["/bin/sh", "-c", `curl -sf --max-time 4 ${url}/v1/status/leader | grep -q :`];
}

/** Names of the servers' StatefulSet, which is also their headless Service's, and of the Service for their API. */
export const serverSet = "consul-server";
export const apiService = "consul-api";

/** A server in the cluster: its pod's name, which is its node's too, and the name by which the others find it. */
export interface ServerPod {
  readonly name: string;
  /** Without the cluster's domain, which is not `cluster.local` everywhere: the resolvers of pods add it. */
  readonly host: string;
}

export function serverPods(count: number, namespace: string): ServerPod[] {
  return Array.from({ length: count }, (_, i) => {
    const name = `${serverSet}-${i}`;
    return { name, host: `${name}.${serverSet}.${namespace}.svc` };
  });
}

/** The names for a server's certificate by which it is called in the cluster. */
export function serverPodNames(pod: ServerPod, namespace: string): string[] {
  const names = [pod.host, `${apiService}.${namespace}.svc`];
  return [...names, ...names.map((name) => `${name}.cluster.local`)];
}

/** Node affinity for real Linux machines: virtual nodes (ECI) have no host to run on, and are all one "host". */
export function realLinuxNodes() {
  const required = [
    { key: "type", operator: "NotIn", values: ["virtual-kubelet"] },
    { key: "kubernetes.io/os", operator: "In", values: ["linux"] },
    { key: "kubernetes.io/arch", operator: "In", values: ["amd64", "arm64"] },
  ];
  return { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: required }] } };
}
