import * as k8s from "@kubernetes/client-node";
import { deepEqual, equal } from "assert/strict";
import { stubDomain } from "../../components/kubernetes/stub-domain";
import { Kube, startKubeOrSkip } from "./kube";

const stub = stubDomain({ address: "10.96.0.53", port: 53 });
const corefile = ".:53 {\n    errors\n    kubernetes cluster.local\n    forward . /etc/resolv.conf\n}\n";

/** What the patch of components/kubernetes/dns.ts does to a ConfigMap, on a real API server, and why not to the Corefile. */
describe("the patch for CoreDNS", function () {
  this.timeout(300_000);
  let kube: Kube;

  before(async function () {
    kube = await startKubeOrSkip(this);
    await kube.apply([
      {
        apiVersion: "v1",
        kind: "ConfigMap",
        metadata: { name: "coredns", namespace: "kube-system" },
        data: { Corefile: corefile },
      },
      {
        apiVersion: "v1",
        kind: "ConfigMap",
        metadata: { name: "coredns-custom", namespace: "kube-system", labels: { owner: "somebody" } },
        data: { "corp.server": "corp:53 {\n}\n" },
      },
    ]);
  });
  after(async () => {
    // Undefined where the level is skipped.
    await (kube as Kube | undefined)?.stop();
  });

  const core = () => kube.kubeconfig.makeApiClient(k8s.CoreV1Api);
  const read = async (name: string) =>
    (await core().readNamespacedConfigMap({ name, namespace: "kube-system" })).data ?? {};
  /** Patches as Pulumi's provider does: server-side apply by its own manager. Applying nothing gives the patch back. */
  const patch = (name: string, data: Record<string, string>, force = false) =>
    kube.objects.patch(
      {
        apiVersion: "v1",
        kind: "ConfigMap",
        metadata: { name, namespace: "kube-system" },
        ...(Object.keys(data).length > 0 ? { data } : {}),
      },
      undefined,
      undefined,
      "consul-dns",
      force,
      k8s.PatchStrategy.ServerSideApply,
    );

  it("adds its key, changes it, and takes it away, leaving everything else alone", async () => {
    await patch("coredns-custom", { "consul.server": "old" });
    await patch("coredns-custom", { "consul.server": stub });
    deepEqual(await read("coredns-custom"), { "corp.server": "corp:53 {\n}\n", "consul.server": stub });
    await patch("coredns-custom", {});
    deepEqual(await read("coredns-custom"), { "corp.server": "corp:53 {\n}\n" });
  });

  it("would take the cluster's DNS away for good if it were applied to the Corefile and given back", async () => {
    const error = await patch("coredns", { Corefile: corefile + stub }).catch(
      (e: unknown) => e as k8s.ApiException<unknown>,
    );
    equal((error as k8s.ApiException<unknown>).code, 409, "a field of somebody else's is a conflict");
    await patch("coredns", { Corefile: corefile + stub }, true);
    await patch("coredns", {});
    deepEqual(await read("coredns"), {});
  });
});
