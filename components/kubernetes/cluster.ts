import { getClusterCredentialOutput } from "@pulumi/alicloud/cs/getClusterCredential";
import { Namespace } from "@pulumi/kubernetes/core/v1/namespace";
import { Provider } from "@pulumi/kubernetes/provider";
import * as pulumi from "@pulumi/pulumi";
import { ClusterSettings, Settings } from "../../settings";
import { PodMarks } from "./pod";

/** A way into a Kubernetes cluster, and the namespace there for everything of this program. */
export interface ClusterAccess {
  readonly provider: Provider;
  readonly namespace: pulumi.Input<string>;
  /** For what outlives the stack, where something does: takes over what an earlier one left behind. */
  readonly keeper: Provider | undefined;
  /** What every pod has. */
  readonly marks: PodMarks;
}

/** Reaches the cluster as the settings say and makes the namespace, unless it is somebody else's. */
export function reachCluster(settings: Settings, cluster: ClusterSettings): ClusterAccess {
  const access = { kubeconfig: kubeconfig(cluster), context: cluster.context };
  const provider = new Provider("cluster", access);
  const { agents, servers } = settings;
  const inCluster = servers?.platform === "kubernetes";
  const keeps = inCluster && servers.storage.keep && servers.storage.nfs === undefined;
  const keeper = keeps ? new Provider("cluster-keeper", { ...access, upsertExistingObjects: true }) : undefined;
  if (!cluster.createNamespace) return { provider, keeper, marks: cluster, namespace: cluster.namespace };
  // Agents are on the host's network and keep data on the host's disk, the Job that makes tokens at servers on ECS is on
  // the host's network: the other levels forbid that. Servers in the cluster meet the strictest.
  const level = inCluster && agents === undefined ? "restricted" : "privileged";
  const namespace = new Namespace(
    "consul-namespace",
    { metadata: { name: cluster.namespace, labels: { "pod-security.kubernetes.io/enforce": level } } },
    // Without its namespace no claim is kept.
    keeper ? { provider: keeper, retainOnDelete: true } : { provider },
  );
  return { provider, keeper, marks: cluster, namespace: namespace.metadata.name };
}

function kubeconfig(settings: ClusterSettings): pulumi.Input<string> | undefined {
  if (settings.kubeconfig !== undefined) return pulumi.secret(settings.kubeconfig);
  if (settings.ackClusterId === undefined) return undefined;
  // No temporaryDurationMinutes: credentials that change at each run would be a change of the provider at each run.
  const credential = getClusterCredentialOutput({ clusterId: settings.ackClusterId });
  return pulumi.secret(credential.kubeConfig);
}
