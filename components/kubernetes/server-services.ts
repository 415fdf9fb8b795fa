import { Service } from "@pulumi/kubernetes/core/v1/service";
import * as pulumi from "@pulumi/pulumi";
import { ports } from "../../consul/config";
import { apiService, serverSet } from "../../consul/pod/pod";
import { noWait } from "./objects";

/** What is open at a server, under the names that Services, monitors and the Ingress refer to. */
export const serverPorts = (grpc: boolean) => [
  { name: "rpc", port: ports.rpc, protocol: "TCP" },
  { name: "gossip-tcp", port: ports.gossip, protocol: "TCP" },
  { name: "gossip-udp", port: ports.gossip, protocol: "UDP" },
  { name: "https", port: ports.https, protocol: "TCP" },
  ...(grpc ? [{ name: "grpc", port: ports.grpc, protocol: "TCP" }] : []),
];

export interface ServerServicesArgs {
  readonly namespace: pulumi.Input<string>;
  readonly labels: Readonly<Record<string, string>>;
  readonly grpc: boolean;
}

/** Makes the Services of servers in the cluster: a name for each pod, and one for any server that is ready. */
export function createServices(name: string, args: ServerServicesArgs, parent: pulumi.Resource) {
  const { namespace, labels, grpc } = args;
  const servicePorts = serverPorts(grpc).map((port) => ({ ...port, targetPort: port.name }));
  // Servers that start find each other by their pods' names, so these resolve before the pods are ready.
  const headless = new Service(
    `${name}-headless`,
    {
      metadata: { name: serverSet, namespace, labels, annotations: noWait },
      spec: { clusterIP: "None", publishNotReadyAddresses: true, selector: labels, ports: servicePorts },
    },
    { parent },
  );
  // For people, for Jobs and for the Ingress.
  const api = new Service(
    `${name}-api`,
    {
      metadata: { name: apiService, namespace, labels, annotations: noWait },
      spec: { selector: labels, ports: servicePorts.filter((port) => port.name === "https") },
    },
    { parent },
  );
  return { headless, api };
}
