import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { stubDomain } from "../../components/kubernetes/stub-domain";
import { runFixture } from "../../local/fixtures";
import { plain } from "./edit";

const withDns = (dns: object, environment = "prod") =>
  runFixture(environment, (config) => void (config["consul:dns"] = JSON.stringify(dns)));

describe("DNS for pods in the program", () => {
  it("is a Service that stays on the asker's node, and a snippet to put into CoreDNS", async () => {
    const { resources, outputs } = await runFixture("prod", plain);
    const service = resources.find(({ name }) => name === "consul-dns-service");
    const spec = service?.inputs.spec as Record<string, unknown>;
    equal(spec.internalTrafficPolicy, "Local");
    deepEqual(
      (spec.ports as { port: number; targetPort: number; protocol: string }[]).map((p) => [
        p.protocol,
        p.port,
        p.targetPort,
      ]),
      [
        ["TCP", 53, 8600],
        ["UDP", 53, 8600],
      ],
    );
    match(String(outputs.dnsSnippet?.value), /^# .*\n[^]*\nconsul:53 \{\n[^]*forward \. 10\.96\.0\.53\n/);
    ok(!resources.some(({ type }) => type.endsWith(":ConfigMapPatch")));
  });

  it("selects the agents and nothing else", async () => {
    const { resources } = await runFixture("prod");
    const service = resources.find(({ name }) => name === "consul-dns-service")?.inputs.spec as { selector: unknown };
    const agents = resources.find(({ type }) => type.endsWith(":DaemonSet"))?.inputs.spec as {
      selector: { matchLabels: unknown };
    };
    deepEqual(service.selector, agents.selector.matchLabels);
  });

  it("adds a key of its own to the ConfigMap that CoreDNS imports, where the settings ask for it", async () => {
    const { resources, outputs } = await withDns({ coredns: "patch" });
    const patches = resources.filter(({ type }) => type.endsWith(":ConfigMapPatch"));
    equal(patches.length, 1);
    const { metadata, data } = patches[0]?.inputs as { metadata: Record<string, unknown>; data: unknown };
    deepEqual([metadata.name, metadata.namespace], ["coredns-custom", "kube-system"]);
    // The manager's name is the same at each run: the manager that made a patch gives the patch back.
    deepEqual(metadata.annotations, { "pulumi.com/patchFieldManager": "consul-dns" });
    deepEqual(data, { "consul.server": stubDomain({ address: "10.96.0.53", port: 53 }) });
    equal(outputs.dnsSnippet?.value, "");
  });

  it("takes another ConfigMap, key, port and address from the settings", async () => {
    const dns = {
      configMap: "coredns",
      configMapNamespace: "dns",
      key: "c.server",
      port: 5353,
      clusterIp: "10.96.0.99",
    };
    const { resources } = await withDns({ coredns: "patch", ...dns });
    const patch = resources.find(({ type }) => type.endsWith(":ConfigMapPatch"))?.inputs as {
      metadata: Record<string, unknown>;
      data: Record<string, string>;
    };
    deepEqual([patch.metadata.name, patch.metadata.namespace], ["coredns", "dns"]);
    match(patch.data["c.server"] ?? "", /^consul:5353 \{[^]*forward \. 10\.96\.0\.99\n/);
  });

  it("refuses the Corefile itself, another way than the two, and a stack without agents in Kubernetes", async () => {
    await rejects(withDns({ coredns: "patch", key: "Corefile" }), /consul:dns\.key: "Corefile" - a key of its own/);
    await rejects(withDns({ coredns: "edit" }), /consul:dns\.coredns: "edit" - one of patch, snippet/);
    await rejects(withDns({}, "local"), /consul:dns: \{\} - consul:agents in Kubernetes beside it/);
    equal((await runFixture("local")).outputs.dnsSnippet?.value, "");
  });
});
