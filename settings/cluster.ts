import { z } from "zod";
import { rule } from "./mistakes";
import { flag, ipv4, label, oneOf, podMarks, secret, text, whole } from "./values";

export const wayIntoCluster =
  "how to reach the cluster: one of ackClusterId, kubeconfig, context (kubeconfig and context may go together)";

/** The Kubernetes cluster for agents, for servers as pods, and for the Secrets of applications. */
export const cluster = z
  .strictObject({
    ackClusterId: text("the id of an ACK cluster")
      .optional()
      .describe("an ACK cluster; its kubeconfig is asked for with the credentials of the run"),
    kubeconfig: secret(text("the content of a kubeconfig"))
      .optional()
      .describe("content of a kubeconfig; set it with `--secret --path`"),
    context: text("the name of a context")
      .optional()
      .describe("a context of the kubeconfig of whoever runs this; `cluster.kubeconfig` may be given with it"),
    namespace: label.default("consul").describe("namespace of everything that this program puts into the cluster"),
    createNamespace: flag.default(true).describe("create the namespace; off where somebody else owns it"),
    ...podMarks("every pod of this program: agents, servers, Jobs"),
  })
  .check(
    rule([], ({ ackClusterId, kubeconfig, context }, { wrong }) => {
      const byKubeconfig = kubeconfig !== undefined || context !== undefined;
      if ((ackClusterId !== undefined) === byKubeconfig) wrong([], wayIntoCluster);
    }),
  );

/** Names below .consul in pods. */
export const dns = z.strictObject({
  coredns: oneOf("patch", "snippet")
    .default("snippet")
    .describe(
      "`patch`: `up` adds the stub domain to a ConfigMap that CoreDNS imports, and `destroy` takes it away; `snippet`: the output dnsSnippet says what to put where by hand",
    ),
  configMap: text("the name of a ConfigMap that exists and that CoreDNS imports")
    .default("coredns-custom")
    .describe("for `patch`: a ConfigMap that exists and that the Corefile imports, as `import custom/*.server` does"),
  configMapNamespace: label.default("kube-system").describe("namespace of that ConfigMap"),
  key: text("a key of its own, such as consul.server; never Corefile, which is not ours alone", /^[-._a-zA-Z0-9]+$/)
    .refine((key) => key !== "Corefile", { error: "a key of its own, such as consul.server; never Corefile" })
    .default("consul.server")
    .describe("key in that ConfigMap, of its own; never Corefile"),
  port: whole(1, 65535).default(53).describe("port on which the cluster's CoreDNS listens, as its Corefile has it"),
  clusterIp: ipv4
    .optional()
    .describe(
      "fixed cluster IP of the Service consul-dns: CoreDNS is told the address, so a recreated Service should keep it",
    ),
});
