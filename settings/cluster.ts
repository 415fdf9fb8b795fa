import { z } from "zod";
import { rule } from "./mistakes";
import { flag, ipv4, label, oneOf, text, whole } from "./values";

export const wayIntoCluster =
  "how to reach the cluster: one of ackClusterId, kubeconfig, context (kubeconfig and context may go together)";

/** The Kubernetes cluster for agents, for servers as pods, and for the Secrets of applications. */
export const cluster = z
  .strictObject({
    /** An ACK cluster: its kubeconfig is asked for with the credentials of this run. */
    ackClusterId: text("the id of an ACK cluster").optional(),
    /** Content of a kubeconfig; set it with --secret. */
    kubeconfig: text("the content of a kubeconfig").optional(),
    /** A context of the kubeconfig of whoever runs this; kubeconfig may be given with it. */
    context: text("the name of a context").optional(),
    /** Namespace for all that this program puts into the cluster. */
    namespace: label.default("consul"),
    /** Create the namespace; off where somebody else owns it. */
    createNamespace: flag.default(true),
  })
  .check(
    rule([], ({ ackClusterId, kubeconfig, context }, { wrong }) => {
      const byKubeconfig = kubeconfig !== undefined || context !== undefined;
      if ((ackClusterId !== undefined) === byKubeconfig) wrong([], wayIntoCluster);
    }),
  );

/** Names below .consul in pods. */
export const dns = z.strictObject({
  /**
   * How pods get names below .consul. patch: `up` adds the stub domain as a key of its own to a ConfigMap that CoreDNS
   * imports, and `destroy` takes it away. snippet: the output dnsSnippet says what to put where by hand.
   */
  coredns: oneOf("patch", "snippet").default("snippet"),
  /** For patch: the ConfigMap, its namespace and the key; the Corefile must import it, as `import custom/*.server` does. */
  configMap: text("the name of a ConfigMap that exists and that CoreDNS imports").default("coredns-custom"),
  configMapNamespace: label.default("kube-system"),
  key: text("a key of its own, such as consul.server; never Corefile, which is not ours alone", /^[-._a-zA-Z0-9]+$/)
    .refine((key) => key !== "Corefile", { error: "a key of its own, such as consul.server; never Corefile" })
    .default("consul.server"),
  /** Port that the cluster's CoreDNS listens on, as its Corefile has it. */
  port: whole(1, 65535).default(53),
  /** Fixed cluster IP of the Service consul-dns: CoreDNS is told the address, so a recreated Service should keep the address. */
  clusterIp: ipv4.optional(),
});
