import * as k8s from "@kubernetes/client-node";
import assert from "assert/strict";
import { runFixture } from "../../local/fixtures";
import { edit } from "../program/edit";
import { Kube, startKubeOrSkip } from "./kube";
import { isKubernetesObject, Manifest, zonedVolumes } from "./kube-objects";

// What Pulumi.dev.yaml puts into the cluster for its servers, on a real API server with its controllers and scheduler.

const namespace = "consul";
const selector = "app.kubernetes.io/name=consul,app.kubernetes.io/component=server";
const storageClass = "alicloud-disk-topology-alltype";

/** The Kubernetes objects of a run, and which of them stay when the stack is destroyed. */
interface Described {
  readonly objects: readonly Manifest[];
  readonly kept: readonly Manifest[];
}

/** The servers of dev alone, or everything of dev. */
async function describeDev(
  change: (servers: Record<string, unknown>) => void = () => undefined,
  { agents = false, settings = {} } = {},
): Promise<Described> {
  const { resources } = await runFixture("dev", (config) => {
    delete config["consul:backups"];
    if (!agents) delete config["consul:agents"];
    Object.assign(config, settings);
    edit(config, "servers", change);
  });
  const objects = resources.filter(isKubernetesObject);
  return {
    objects: objects.map(({ inputs }) => strict(inputs as unknown as Manifest)),
    kept: objects
      .filter(({ options }) => options.retainOnDelete)
      .map(({ inputs }) => strict(inputs as unknown as Manifest)),
  };
}

/** The API server warns of workloads below a level only where the namespace asks for warnings too. */
function strict(object: Manifest): Manifest {
  if (object.kind !== "Namespace") return object;
  const level = object.metadata.labels?.["pod-security.kubernetes.io/enforce"] ?? "";
  const labels = { ...object.metadata.labels, "pod-security.kubernetes.io/warn": level };
  return { ...object, metadata: { ...object.metadata, labels } };
}

const isReady = ({ metadata, status }: k8s.V1Pod) =>
  metadata?.deletionTimestamp === undefined &&
  (status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") ?? false);

describe("servers in the cluster, on a real API server", function () {
  this.timeout("3m");
  let kube: Kube;
  let core: k8s.CoreV1Api;
  let apps: k8s.AppsV1Api;
  let described: Described;

  const pods = async () => (await core.listNamespacedPod({ namespace, labelSelector: selector })).items;
  const claims = async () => (await core.listNamespacedPersistentVolumeClaim({ namespace })).items;
  const ready = (count: number) =>
    kube.waitFor(`${count} servers are ready`, async () => {
      const all = await pods();
      assert.equal(all.filter(isReady).length, count);
      const { status } = await apps.readNamespacedStatefulSet({ namespace, name: "consul-server" });
      assert.equal(status?.updatedReplicas, count);
      assert.equal(status.currentRevision, status.updateRevision);
      return all;
    });
  /** Everything that the stack would delete. */
  const destroy = async ({ objects, kept }: Described) => {
    const names = new Set(kept.map(({ kind, metadata }) => `${kind} ${metadata.name}`));
    await kube.remove(objects.filter(({ kind, metadata }) => !names.has(`${kind} ${metadata.name}`)));
  };

  before(async function () {
    kube = await startKubeOrSkip(this);
    core = kube.kubeconfig.makeApiClient(k8s.CoreV1Api);
    apps = kube.kubeconfig.makeApiClient(k8s.AppsV1Api);
    await kube.apply(zonedVolumes(storageClass, "20Gi", 2));
    described = await describeDev();
  });

  after(async () => {
    await (kube as Kube | undefined)?.stop();
  });

  it("are accepted without a warning, in a namespace of the strictest Pod Security level", async () => {
    const level = described.objects.find(({ kind }) => kind === "Namespace")?.metadata.labels;
    assert.equal(level?.["pod-security.kubernetes.io/enforce"], "restricted");
    assert.deepEqual(await kube.apply(described.objects), []);
  });

  it("are three pods with three claims, on three nodes and in three zones", async () => {
    const all = await ready(3);
    const nodes = await Promise.all(all.map(({ spec }) => core.readNode({ name: spec?.nodeName ?? "" })));
    const zones = nodes.map(({ metadata }) => metadata?.labels?.["topology.kubernetes.io/zone"]);
    assert.equal(new Set(nodes.map(({ metadata }) => metadata?.name)).size, 3);
    assert.equal(new Set(zones).size, 3);
    for (const { metadata, spec } of all) {
      const mounted = spec?.volumes?.find(({ name }) => name === "data")?.persistentVolumeClaim?.claimName;
      assert.equal(mounted, `data-${metadata?.name ?? ""}`);
      assert.deepEqual(
        spec?.volumes?.filter(({ projected }) => projected),
        [],
        "a service account's token",
      );
    }
    const bound = await claims();
    assert.deepEqual(bound.map(({ metadata, status }) => `${metadata?.name ?? ""} ${status?.phase ?? ""}`).sort(), [
      "data-consul-server-0 Bound",
      "data-consul-server-1 Bound",
      "data-consul-server-2 Bound",
    ]);
    // The program makes the claims. The StatefulSet only uses them.
    for (const { metadata } of bound) assert.ok(metadata?.annotations?.["pulumi.com/skipAwait"]);
  });

  it("complete their Jobs, and have nothing to do when applied again", async () => {
    const jobs = kube.kubeconfig.makeApiClient(k8s.BatchV1Api);
    const versions = async () => {
      const read = await Promise.all(described.objects.map((object) => kube.objects.read(structuredClone(object))));
      return read.map(({ metadata }) => metadata?.resourceVersion);
    };
    await kube.waitFor("the Jobs are complete", async () => {
      const { items } = await jobs.listNamespacedJob({ namespace });
      assert.deepEqual(
        items.map(({ metadata, status }) => [metadata?.name?.replace(/-[0-9a-f]{8}$/, ""), status?.succeeded]),
        [
          ["consul-server-acl-job", 1],
          ["consul-server-roll-job", 1],
        ],
      );
    });
    const before = await versions();
    assert.deepEqual(await kube.apply(described.objects), []);
    assert.deepEqual(await versions(), before);
  });

  it("are found by name before they are ready, and their API only by then", async () => {
    const headless = await core.readNamespacedService({ namespace, name: "consul-server" });
    assert.equal(headless.spec?.clusterIP, "None");
    assert.equal(headless.spec.publishNotReadyAddresses, true);
    const discovery = kube.kubeconfig.makeApiClient(k8s.DiscoveryV1Api);
    const slices = async (service: string) =>
      (
        await discovery.listNamespacedEndpointSlice({
          namespace,
          labelSelector: `kubernetes.io/service-name=${service}`,
        })
      ).items;
    const addresses = (await pods()).map(({ status }) => status?.podIP).sort();
    for (const service of ["consul-server", "consul-api"]) {
      await kube.waitFor(`${service} has three endpoints`, async () => {
        const [slice] = await slices(service);
        assert.deepEqual(slice?.endpoints.flatMap(({ addresses }) => addresses).sort(), addresses);
        assert.ok(slice.ports?.some(({ name, port }) => name === "https" && port === 8501));
      });
    }
    // DNS has a record for each pod where the endpoint has its name.
    const [slice] = await slices("consul-server");
    assert.deepEqual(
      slice?.endpoints.map(({ hostname }) => hostname).sort(),
      [0, 1, 2].map((n) => `consul-server-${n}`),
    );
  });

  it("have their page behind an Ingress that leads to the HTTPS port of their Service", async () => {
    const networking = kube.kubeconfig.makeApiClient(k8s.NetworkingV1Api);
    const { metadata, spec } = await networking.readNamespacedIngress({ namespace, name: "consul-ui" });
    assert.deepEqual(
      spec?.tls?.map(({ hosts, secretName }) => [hosts, secretName]),
      [[["consul.dev.example.com"], "consul-dev-tls"]],
    );
    const [rule] = spec.rules ?? [];
    const backend = rule?.http?.paths[0]?.backend.service;
    const service = await core.readNamespacedService({ namespace, name: backend?.name ?? "" });
    const port = service.spec?.ports?.find(({ name }) => name === backend?.port?.name);
    assert.equal(port?.port, 8501);
    const [pod] = await pods();
    const target = pod?.spec?.containers[0]?.ports?.find(({ name }) => name === port.targetPort);
    assert.equal(target?.containerPort, 8501);
    assert.equal(metadata?.annotations?.["nginx.ingress.kubernetes.io/backend-protocol"], "HTTPS");
    assert.equal(metadata.annotations["nginx.ingress.kubernetes.io/whitelist-source-range"], "10.20.0.0/16");
  });

  it("lose one at a time when nodes are drained", async () => {
    const evict = (name: string) => {
      const body = Object.assign(new k8s.V1Eviction(), { metadata: { name, namespace } });
      return core.createNamespacedPodEviction({ name, namespace, body });
    };
    const count = await kube.followPods(namespace, selector);
    await evict("consul-server-0");
    await assert.rejects(evict("consul-server-1"), /disruption budget/);
    await ready(3);
    assert.equal(count.fewest(), 2);
    count.stop();
  });

  it("roll one at a time when a setting changes, and the ACL Job with nothing new is the same", async () => {
    const changed = await describeDev(undefined, { settings: { "consul:logLevel": "warn" } });
    const name = (all: Described, kind: string) =>
      all.objects.find(
        (object) => object.kind === kind && /^consul-server-(config|secrets)-[0-9a-f]{8}$/.test(object.metadata.name),
      )?.metadata.name;
    assert.notEqual(name(changed, "ConfigMap"), name(described, "ConfigMap"));
    assert.equal(name(changed, "Secret"), name(described, "Secret"));
    const count = await kube.followPods(namespace, selector);
    assert.deepEqual(await kube.apply(changed.objects), []);
    for (const pod of await ready(3)) {
      const mounted = pod.spec?.volumes?.find(({ name }) => name === "config")?.configMap?.name;
      assert.equal(mounted, name(changed, "ConfigMap"));
    }
    assert.equal(count.fewest(), 2);
    count.stop();
    // Pulumi deletes replaced objects at the end.
    await kube.remove(described.objects.filter(({ metadata }) => metadata.name === name(described, "ConfigMap")));
    described = changed;
  });

  it("need more than Kubernetes, which takes a second one although one is out: hence the Job before each change", async () => {
    const setReady = (status: string) =>
      core.patchNamespacedPodStatus(
        {
          name: "consul-server-0",
          namespace,
          body: { status: { conditions: [{ type: "Ready", status }] } },
        },
        k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.StrategicMergePatch),
      );
    await setReady("False");
    const count = await kube.followPods(namespace, selector);
    const changed = await describeDev(undefined, { settings: { "consul:logLevel": "error" } });
    assert.deepEqual(await kube.apply(changed.objects), []);
    await kube.waitFor("a second one is taken", () => Promise.resolve(void assert.equal(count.fewest(), 1)), 20);
    await setReady("True");
    await ready(3);
    count.stop();
    described = changed;
  });

  it("keep their claims and the namespace when the stack is destroyed, and take them over again", async () => {
    const volumes = async () => (await claims()).map(({ metadata, spec }) => [metadata?.uid, spec?.volumeName]);
    const before = await volumes();
    assert.deepEqual(described.kept.map(({ kind }) => kind).sort(), [
      "Namespace",
      "PersistentVolumeClaim",
      "PersistentVolumeClaim",
      "PersistentVolumeClaim",
    ]);
    await destroy(described);
    assert.deepEqual(await pods(), []);
    assert.deepEqual(await volumes(), before);
    assert.deepEqual(await kube.apply(described.objects), []);
    await ready(3);
    assert.deepEqual(await volumes(), before);
  });

  it("become five, never with two missing of those there were", async () => {
    const five = await describeDev((servers) => (servers.count = 5));
    const count = await kube.followPods(namespace, selector);
    assert.deepEqual(await kube.apply(five.objects), []);
    const all = await ready(5);
    assert.equal(new Set(all.map(({ spec }) => spec?.nodeName)).size, 5);
    assert.ok(count.fewest() >= 2);
    count.stop();
    await destroy(five);
    assert.equal((await claims()).length, 5);
    await kube.remove(five.kept);
  });

  it("share a directory of an NFS server where they are told to, each with a part of its own", async () => {
    const shared = await describeDev((servers) => {
      servers.storage = { nfs: { server: "0cd8b4a576-abc12.cn-hangzhou.nas.aliyuncs.com", path: "/consul" } };
    });
    assert.deepEqual(shared.kept, [], "nothing here holds data");
    assert.deepEqual(await kube.apply(shared.objects), []);
    for (const { spec } of await ready(3)) {
      const mount = spec?.containers[0]?.volumeMounts?.find(({ name }) => name === "data");
      assert.equal(mount?.subPathExpr, "$(POD_NAME)");
    }
    assert.deepEqual(
      (await claims()).map(({ metadata, status }) => [metadata?.name, status?.phase]),
      [["consul-server-data", "Bound"]],
    );
    await kube.remove(shared.objects);
  });

  it("go away with their data where they are told to", async () => {
    const gone = await describeDev((servers) => (servers.storage = { keep: false }));
    assert.deepEqual(gone.kept, []);
    await kube.apply(zonedVolumes("fresh", "20Gi", 1));
    const objects = JSON.parse(JSON.stringify(gone.objects).replaceAll(storageClass, "fresh")) as Manifest[];
    assert.deepEqual(await kube.apply(objects), []);
    await ready(3);
    await kube.remove(objects);
  });

  it("stand beside agents, which no level but privileged lets in", async () => {
    const whole = await describeDev((servers) => (servers.storage = { nfs: { server: "10.16.0.9" } }), {
      agents: true,
    });
    assert.deepEqual(await kube.apply(whole.objects), []);
    await ready(3);
    await kube.waitFor("the agents are ready", async () => {
      const { status } = await apps.readNamespacedDaemonSet({ namespace, name: "consul-agent" });
      assert.equal(status?.numberReady, 11);
    });
    await kube.remove(whole.objects);
  });
});
