import { ConfigMapPatch } from "@pulumi/kubernetes/core/v1/configMapPatch";
import * as pulumi from "@pulumi/pulumi";
import { ports } from "../../consul/config";
import { createNodeLocalService } from "./node-local-service";
import { StubDomain, stubDomain, stubDomainSnippet } from "./stub-domain";
import { DnsSettings } from "../../settings";

export interface ClusterDnsArgs {
  readonly settings: DnsSettings;
  /** Namespace of the agents. */
  readonly namespace: pulumi.Input<string>;
  /** Labels of the agents' pods. */
  readonly agents: Readonly<Record<string, string>>;
}

/** DNS for pods: a Service that answers with the agent of the asker's own node, and the way to it for CoreDNS. */
export class ClusterDns extends pulumi.ComponentResource {
  /** What to put into CoreDNS by hand; empty where `up` has done it. */
  readonly snippet: pulumi.Output<string>;

  constructor(name: string, args: ClusterDnsArgs, opts?: pulumi.ComponentResourceOptions) {
    super("consul:index:ClusterDns", name, {}, opts);
    const { settings, namespace, agents } = args;

    const service = createNodeLocalService(
      `${name}-service`,
      {
        metadataName: "consul-dns",
        namespace,
        labels: agents,
        clusterIP: settings.clusterIp,
        ports: [
          { name: "dns-tcp", port: 53, targetPort: ports.dns },
          { name: "dns-udp", port: 53, targetPort: ports.dns },
        ],
      },
      this,
    );
    const domain = service.spec.clusterIP.apply((address) => ({ address, port: settings.port }));
    this.snippet = settings.coredns === "patch" ? pulumi.output("") : domain.apply(stubDomainSnippet);
    if (settings.coredns === "patch") this.patchCoreDns(name, settings, domain);
    this.registerOutputs({});
  }

  /**
   * A key of its own in a ConfigMap whose keys CoreDNS imports. Never the Corefile: that is one text, server-side apply
   * owns it whole or not at all, and giving it back on `destroy` would leave the cluster without any DNS.
   */
  private patchCoreDns(name: string, settings: DnsSettings, domain: pulumi.Output<StubDomain>) {
    new ConfigMapPatch(
      `${name}-stub-domain`,
      {
        metadata: {
          name: settings.configMap,
          namespace: settings.configMapNamespace,
          annotations: { "pulumi.com/patchFieldManager": "consul-dns" },
        },
        data: { [settings.key]: domain.apply(stubDomain) },
      },
      { parent: this },
    );
  }
}
