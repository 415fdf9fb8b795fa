import { Service } from "@pulumi/kubernetes/core/v1/service";
import * as pulumi from "@pulumi/pulumi";
import { noWait } from "./objects";

export interface NodeLocalServiceArgs {
  readonly metadataName: string;
  readonly namespace: pulumi.Input<string>;
  /** Labels of the agents' pods, and of the Service. */
  readonly labels: Readonly<Record<string, string>>;
  readonly ports: readonly { readonly name: string; readonly port: number; readonly targetPort: string | number }[];
  /** A fixed address; any that is free unless given. */
  readonly clusterIP?: string | undefined;
}

/**
 * A Service that leads to the agent of the caller's own node, and to no other.
 *
 * An agent is ready while it sees a leader, which is what a roll has to wait for. Without a leader no agent is ready, and
 * each still answers, from what the servers last knew (`max_stale`, 24 h). So the Service publishes addresses that are
 * not ready: the condition `ready` of their endpoints is true then, and kube-proxy goes by this condition. For CoreDNS
 * nothing changes: the name of a Service is its cluster IP whoever is ready, and names below `.consul` are forwarded to
 * that address. While an agent restarts, its callers are refused at once; kube-proxy drops what is sent to a Service
 * that has endpoints elsewhere and none on the node, and callers would wait.
 */
export function createNodeLocalService(name: string, args: NodeLocalServiceArgs, parent: pulumi.Resource): Service {
  const { metadataName, namespace, labels, ports, clusterIP } = args;
  const protocol = (port: string) => (port.endsWith("-udp") ? "UDP" : "TCP");
  return new Service(
    name,
    {
      metadata: { name: metadataName, namespace, labels, annotations: noWait },
      spec: {
        selector: labels,
        ...(clusterIP === undefined ? {} : { clusterIP }),
        internalTrafficPolicy: "Local",
        publishNotReadyAddresses: true,
        ports: ports.map((port) => ({ ...port, protocol: protocol(port.name) })),
      },
    },
    { parent },
  );
}
