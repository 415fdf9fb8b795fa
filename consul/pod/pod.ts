import { installKeyring } from "../gossip";
import { ConsulNode, NodeLayout } from "../node";

/** Where things are in a pod, and who runs there: uid and gid of `consul` in the official image. */
export const podLayout: NodeLayout & { readonly user: number; readonly group: number } = {
  consul: "consul",
  configDir: "/consul/config",
  secretDir: "/consul/secrets",
  dataDir: "/consul/data",
  user: 100,
  group: 1000,
};

/** The command of a node's container. With each start of the container the keyring is the one that the node is given. */
export function podCommand({ command }: Pick<ConsulNode, "command">): string[] {
  return ["/bin/sh", "-c", `${installKeyring(podLayout)} && exec "$0" "$@"`, ...command];
}

/**
 * A command that succeeds while a node sees a leader. The status code alone does not say so: without a leader the answer
 * is 200 and an empty string (docs/facts/consul.md, Readiness).
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
