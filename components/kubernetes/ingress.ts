import { Ingress } from "@pulumi/kubernetes/networking/v1/ingress";
import * as pulumi from "@pulumi/pulumi";
import { KubernetesServersSettings } from "../../settings";
import { noWait } from "./objects";

export interface UiIngressArgs {
  readonly settings: NonNullable<NonNullable<KubernetesServersSettings["ui"]>["ingress"]>;
  readonly namespace: pulumi.Input<string>;
  readonly labels: Readonly<Record<string, string>>;
  /** Name of the Service for the servers' API. */
  readonly service: pulumi.Input<string>;
}

/** The way to the servers' page from outside the cluster, for those who are let in. */
export function createUiIngress(name: string, args: UiIngressArgs, parent: pulumi.Resource): Ingress {
  const { settings, namespace, labels, service } = args;
  const annotations = settings.annotations ?? {
    "nginx.ingress.kubernetes.io/backend-protocol": "HTTPS",
    "nginx.ingress.kubernetes.io/whitelist-source-range": settings.sourceRanges.join(","),
  };
  const backend = { service: { name: service, port: { name: "https" } } };
  return new Ingress(
    `${name}-ui`,
    {
      metadata: { name: "consul-ui", namespace, labels, annotations: { ...noWait, ...annotations } },
      spec: {
        ingressClassName: settings.class,
        tls: [{ hosts: [settings.host], secretName: settings.tlsSecret }],
        rules: [{ host: settings.host, http: { paths: [{ path: "/", pathType: "Prefix", backend }] } }],
      },
    },
    { parent },
  );
}
