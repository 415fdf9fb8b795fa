import { deepEqual, equal, ok } from "assert/strict";
import { parseArgs } from "util";
import { documented } from "../documents";
import { runFixture } from "../../local/fixtures";
import { Kube, startKubeOrSkip } from "./kube";
import { isKubernetesObject, Manifest, realNodes, zonedVolumes } from "./kube-objects";

// Objects that the documents delete with kubectl, on a real API server with the objects of dev. There is no kubectl
// here: the test parses each command and asks the API as kubectl does. The local level runs the commands in containers.

/** `kubectl [-n NAMESPACE] delete KIND [NAME] [-l LABELS] [--cascade=orphan]` */
function parsed(command: string) {
  const { values, positionals } = parseArgs({
    args: command.split(" ").slice(1),
    options: {
      namespace: { type: "string", short: "n", default: "default" },
      labels: { type: "string", short: "l" },
      cascade: { type: "string", default: "background" },
    },
    allowPositionals: true,
  });
  const [verb, kind = "", name] = positionals;
  equal(verb, "delete");
  return { kind, name, ...values };
}

const apiVersions: Readonly<Record<string, string>> = {
  job: "batch/v1 Job",
  pvc: "v1 PersistentVolumeClaim",
  pod: "v1 Pod",
  daemonset: "apps/v1 DaemonSet",
  namespace: "v1 Namespace",
};

describe("what the documents delete with kubectl, on a real API server", function () {
  this.timeout("3m");
  let kube: Kube;
  const commands = [...new Set(documented().map(({ command }) => command))]
    .filter((command) => /^kubectl .*\bdelete /.test(command))
    // A node is nobody's object here.
    .filter((command) => !command.startsWith("kubectl delete node "));

  before(async function () {
    kube = await startKubeOrSkip(this);
    const { resources } = await runFixture("dev", (config) => {
      delete config["consul:backups"];
      config["consul:apps"] = JSON.stringify([{ name: "orders", namespace: "shop" }]);
    });
    const objects = resources.filter(isKubernetesObject).map(({ inputs }) => inputs as unknown as Manifest);
    const shop: Manifest = { apiVersion: "v1", kind: "Namespace", metadata: { name: "shop" } };
    // The agents of the hand-made cluster (docs/origins.md), as far as names matter here.
    const labels = { app: "consul", component: "client" };
    const handMade = {
      apiVersion: "apps/v1",
      kind: "DaemonSet",
      metadata: { name: "consul-client", namespace: "consul" },
      spec: {
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: { containers: [{ name: "consul", image: "consul:1.6.1" }] } },
      },
    } as Manifest;
    await kube.apply([...zonedVolumes("alicloud-disk-topology-alltype", "20Gi", 2), shop, ...objects, handMade]);
    await kube.waitFor("claims and pods are there", async () => {
      ok((await matching({ kind: "pvc", namespace: "consul" })).length >= 3);
      const pods = await matching({ kind: "pod", namespace: "consul", labels: "component=client" });
      equal(pods.length, realNodes.length);
    });
  });
  after(async () => {
    await (kube as Kube | undefined)?.stop();
  });

  const typeOf = (kind: string) => {
    const [apiVersion = "", name = ""] = (apiVersions[kind] ?? "").split(" ");
    return { apiVersion, kind: name };
  };

  async function matching({ kind, namespace, labels }: { kind: string; namespace: string; labels?: string }) {
    const { apiVersion, kind: name } = typeOf(kind);
    const found = await kube.objects.list(
      apiVersion,
      name,
      namespace,
      undefined,
      undefined,
      undefined,
      undefined,
      labels,
    );
    return found.items;
  }

  /** Does what the command does. @returns the names of the deleted objects */
  async function run(command: string): Promise<string[]> {
    const { kind, name, namespace, labels, cascade } = parsed(command);
    const objects =
      name === undefined ? await matching({ kind, namespace, labels }) : [{ metadata: { name, namespace } }];
    for (const { metadata } of objects) {
      const propagation = cascade === "orphan" ? "Orphan" : "Background";
      const object = {
        ...typeOf(kind),
        metadata: kind === "namespace" ? { name } : { name: metadata?.name, namespace },
      };
      await kube.objects.delete(object, undefined, undefined, undefined, undefined, propagation);
    }
    return objects.map(({ metadata }) => metadata?.name ?? "").sort();
  }

  it("are the commands tried below, and no others", () => {
    deepEqual([...commands].sort(), [
      "kubectl -n consul delete daemonset consul-client --cascade=orphan",
      "kubectl -n consul delete job -l app.kubernetes.io/component=access-tokens",
      "kubectl -n consul delete job -l app.kubernetes.io/component=server-acl",
      "kubectl -n consul delete pod -l app.kubernetes.io/component=server",
      "kubectl -n consul delete pod POD-OF-ONE-NODE",
      "kubectl -n consul delete pvc -l app.kubernetes.io/component=server",
      "kubectl delete namespace consul",
    ]);
  });

  const only = (text: string) => commands.find((command) => command.includes(text)) ?? "";

  it("leave the old agents' pods when their DaemonSet goes, and then take them one by one", async () => {
    const pods = async () =>
      (await matching({ kind: "pod", namespace: "consul", labels: "component=client" })).map(
        ({ metadata }) => metadata?.name ?? "",
      );
    const before = await pods();
    deepEqual(await run(only("delete daemonset")), ["consul-client"]);
    await kube.waitFor("it is gone", async () => {
      const left = await matching({ kind: "daemonset", namespace: "consul" });
      ok(!left.some(({ metadata }) => metadata?.name === "consul-client"));
    });
    deepEqual((await pods()).sort(), before.sort());
    const [first = ""] = before;
    await run(only("POD-OF-ONE-NODE").replace("POD-OF-ONE-NODE", first));
    await kube.waitFor("one pod is gone and none comes in its place", async () => {
      deepEqual((await pods()).sort(), before.filter((name) => name !== first).sort());
    });
  });

  it("reach the Job that keeps the servers' tokens, and no other", async () => {
    const jobs = async () => (await matching({ kind: "job", namespace: "consul" })).length;
    const before = await jobs();
    const deleted = await run(only("server-acl"));
    equal(deleted.length, 1);
    ok(deleted[0]?.startsWith("consul-server-acl"), deleted[0]);
    await kube.waitFor("it is gone", async () => equal(await jobs(), before - 1));
  });

  it("reach the applications' tokens' Job, and no other", async () => {
    const deleted = await run(only("access-tokens"));
    equal(deleted.length, 1);
    ok(deleted[0]?.startsWith("consul-access-job"), deleted[0]);
  });

  it("reach the servers' three pods, and no other", async () => {
    deepEqual(
      await run(only("delete pod -l")),
      [0, 1, 2].map((i) => `consul-server-${i}`),
    );
  });

  it("reach the servers' three claims, and no other", async () => {
    deepEqual(
      await run(only("delete pvc")),
      [0, 1, 2].map((i) => `data-consul-server-${i}`),
    );
  });

  it("take everything away with the namespace", async () => {
    deepEqual(await run(only("namespace")), ["consul"]);
    await kube.waitFor("the namespace is going", async () => {
      const [consul] = (await kube.objects.list("v1", "Namespace")).items.filter(
        ({ metadata }) => metadata?.name === "consul",
      );
      ok(consul?.metadata?.deletionTimestamp !== undefined || consul === undefined);
    });
  });
});
