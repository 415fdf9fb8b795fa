import * as k8s from "@kubernetes/client-node";
import assert from "assert/strict";
import { spawn } from "child_process";
import { once } from "events";
import { existsSync, readdirSync, readFileSync, rmSync } from "fs";
import { dirname } from "path";
import { createInterface } from "readline";
import { Kube, startKubeOrSkip } from "./kube";
import { Manifest, realNodes, zonedVolumes } from "./kube-objects";

const namespace = "smoke";
const image = "registry.k8s.io/pause:3.10";

/** The fields that the strictest Pod Security level demands of a pod. */
const restricted = { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: "RuntimeDefault" } };
const container = {
  name: "main",
  image,
  securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
};

const inNamespace = (name: string, level: string): Manifest => ({
  apiVersion: "v1",
  kind: "Namespace",
  metadata: { name, labels: { "pod-security.kubernetes.io/enforce": level, "pod-security.kubernetes.io/warn": level } },
});

function daemonSet(version: string): Manifest {
  const notVirtual = [{ key: "type", operator: "NotIn", values: ["virtual-kubelet"] }];
  return {
    apiVersion: "apps/v1",
    kind: "DaemonSet",
    metadata: { name: "agent", namespace },
    spec: {
      selector: { matchLabels: { app: "agent" } },
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 1 } },
      template: {
        metadata: { labels: { app: "agent" } },
        spec: {
          hostNetwork: true,
          automountServiceAccountToken: false,
          tolerations: [{ operator: "Exists" }],
          affinity: {
            nodeAffinity: {
              requiredDuringSchedulingIgnoredDuringExecution: {
                nodeSelectorTerms: [{ matchExpressions: notVirtual }],
              },
            },
          },
          containers: [{ name: "main", image, env: [{ name: "VERSION", value: version }] }],
        },
      },
    },
  };
}

const statefulSet: Manifest = {
  apiVersion: "apps/v1",
  kind: "StatefulSet",
  metadata: { name: "store", namespace },
  spec: {
    serviceName: "store",
    replicas: 3,
    selector: { matchLabels: { app: "store" } },
    template: {
      metadata: { labels: { app: "store" } },
      spec: {
        containers: [{ name: "main", image, volumeMounts: [{ name: "data", mountPath: "/data" }] }],
        topologySpreadConstraints: [
          {
            maxSkew: 1,
            topologyKey: "topology.kubernetes.io/zone",
            whenUnsatisfiable: "DoNotSchedule",
            labelSelector: { matchLabels: { app: "store" } },
          },
        ],
      },
    },
    volumeClaimTemplates: [
      {
        metadata: { name: "data" },
        spec: {
          accessModes: ["ReadWriteOnce"],
          storageClassName: "disk",
          resources: { requests: { storage: "20Gi" } },
        },
      },
    ],
  },
};

const job: Manifest = {
  apiVersion: "batch/v1",
  kind: "Job",
  metadata: { name: "once", namespace },
  spec: {
    template: {
      spec: { restartPolicy: "Never", automountServiceAccountToken: false, containers: [{ name: "main", image }] },
    },
  },
};

describe("the Kubernetes cluster of the tests", function () {
  this.timeout("3m");
  let kube: Kube;
  let core: k8s.CoreV1Api;
  let apps: k8s.AppsV1Api;

  const podsOf = async (app: string) =>
    (await core.listNamespacedPod({ namespace, labelSelector: `app=${app}` })).items;
  const isReady = ({ metadata, status }: k8s.V1Pod) =>
    metadata?.deletionTimestamp === undefined &&
    (status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") ?? false);
  const readyPods = async (app: string, count: number) => {
    const pods = await podsOf(app);
    assert.equal(pods.filter(isReady).length, count, `ready pods of ${app}`);
    return pods;
  };

  before(async function () {
    kube = await startKubeOrSkip(this);
    core = kube.kubeconfig.makeApiClient(k8s.CoreV1Api);
    apps = kube.kubeconfig.makeApiClient(k8s.AppsV1Api);
    assert.deepEqual(await kube.apply([inNamespace(namespace, "privileged")]), []);
  });

  after(async () => {
    await (kube as Kube | undefined)?.stop();
  });

  it("places a DaemonSet that tolerates everything on the eleven real nodes alone", async () => {
    assert.deepEqual(await kube.apply([daemonSet("1")]), []);
    const pods = await kube.waitFor("eleven agents are ready", () => readyPods("agent", 11));
    assert.deepEqual(
      pods.map(({ spec }) => spec?.nodeName).sort(),
      realNodes.map(({ metadata }) => metadata.name).sort(),
    );
    for (const { spec, status } of pods) {
      assert.equal(spec?.nodeName, `cn-hangzhou.${status?.hostIP ?? ""}`);
      assert.equal(status?.podIP, status?.hostIP, "a pod on the host's network has the host's address");
    }
  });

  it("rolls it one pod at a time where maxUnavailable is 1", async () => {
    const count = await kube.followPods(namespace, "app=agent");
    assert.equal(count.fewest(), 11);
    assert.deepEqual(await kube.apply([daemonSet("2")]), []);
    await kube.waitFor("all agents are new", async () => {
      const { status } = await apps.readNamespacedDaemonSet({ namespace, name: "agent" });
      assert.equal(status?.observedGeneration, 2);
      assert.equal(status.updatedNumberScheduled, 11);
      assert.equal(status.numberAvailable, 11);
    });
    assert.equal(count.fewest(), 10);
    assert.equal(count.ready().length, 11);
    count.stop();
    for (const { spec } of await podsOf("agent")) assert.equal(spec?.containers[0]?.env?.[0]?.value, "2");
  });

  it("binds the claims of a StatefulSet, in the zones of its pods", async () => {
    assert.deepEqual(await kube.apply([...zonedVolumes("disk", "20Gi", 1), statefulSet]), []);
    const pods = await kube.waitFor("three stores are ready", () => readyPods("store", 3));
    const { items } = await core.listNamespacedPersistentVolumeClaim({ namespace });
    assert.deepEqual(items.map(({ metadata, status }) => `${metadata?.name ?? ""} ${status?.phase ?? ""}`).sort(), [
      "data-store-0 Bound",
      "data-store-1 Bound",
      "data-store-2 Bound",
    ]);
    assert.equal(new Set(items.map(({ spec }) => spec?.volumeName)).size, 3);
    for (const { metadata, spec } of pods) {
      const claim = items.find((item) => item.metadata?.name === `data-${metadata?.name ?? ""}`);
      const node = await core.readNode({ name: spec?.nodeName ?? "" });
      assert(claim?.spec?.volumeName?.includes(node.metadata?.labels?.["topology.kubernetes.io/zone"] ?? "?"));
    }
  });

  it("completes a Job", async () => {
    assert.deepEqual(await kube.apply([job]), []);
    await kube.waitFor("the Job is complete", async () => {
      const { status } = await kube.kubeconfig
        .makeApiClient(k8s.BatchV1Api)
        .readNamespacedJob({ namespace, name: "once" });
      assert.equal(status?.succeeded, 1);
      assert(status.conditions?.some(({ type, status }) => type === "Complete" && status === "True"));
    });
  });

  it("mounts a service account's token where that is not refused", async () => {
    const tokens = (pod?: k8s.V1Pod) =>
      pod?.spec?.volumes?.filter(({ projected }) => projected?.sources?.some((source) => source.serviceAccountToken));
    assert.equal(tokens((await podsOf("store"))[0])?.length, 1);
    assert.deepEqual(tokens((await podsOf("agent"))[0]) ?? [], []);
  });

  it("passes warnings on: a field that is none, a pod below the level of its namespace", async () => {
    const strict = inNamespace("strict", "restricted");
    const pod = (name: string, spec: object): Manifest => ({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, namespace: "strict" },
      spec: { containers: [container], ...spec },
    });
    assert.deepEqual(await kube.apply([pod("good", { securityContext: restricted }), strict]), []);
    await assert.rejects(
      kube.apply([pod("bad", { securityContext: restricted, hostNetwork: true })]),
      /^Error: Pod strict bad was refused: .*violates PodSecurity "restricted:latest": host namespaces \(hostNetwork=true\)/,
    );
    const deployment: Manifest = {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name: "loose", namespace: "strict" },
      spec: {
        replicas: 0,
        selector: { matchLabels: { app: "loose" } },
        template: { metadata: { labels: { app: "loose" } }, spec: { containers: [{ name: "main", image }] } },
      },
    };
    const [warning, ...others] = await kube.apply([deployment]);
    assert.match(warning ?? "", /^Deployment strict loose: would violate PodSecurity "restricted:latest"/);
    assert.deepEqual(others, []);
    await assert.rejects(
      kube.apply([{ ...job, metadata: { name: "typo", namespace }, spce: {} }]),
      /field not declared/,
    );
  });

  it("leaves nothing in the namespace once all is removed", async () => {
    await kube.remove([daemonSet("2"), statefulSet, job]);
    assert.deepEqual((await core.listNamespacedPod({ namespace })).items, []);
    await kube.remove([inNamespace(namespace, "privileged")]);
  });

  for (const [how, signal] of [
    ["and removes its files on Ctrl-C", "SIGINT"],
    ["even where it is killed itself", "SIGKILL"],
  ] as const) {
    it(`ends its processes ${how}`, async () => {
      const script = `require(${JSON.stringify(require.resolve("./kube"))}).startKube().then(({ kubeconfigFile }) => {
        console.log(kubeconfigFile); setInterval(() => {}, 1000); })`;
      const child = spawn(process.execPath, ["--require", "sucrase/register/ts", "--eval", script], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const [line] = (await once(createInterface(child.stdout), "line")) as [string];
      const directory = dirname(line);
      try {
        assert.equal(processesOf(directory).length, 5);
        child.kill(signal);
        await once(child, "exit");
        const gone = () => Promise.resolve(processesOf(directory)).then((left) => void assert.deepEqual(left, []));
        await kube.waitFor("its processes are gone", gone, 10);
        assert.equal(existsSync(directory), signal === "SIGKILL");
      } finally {
        rmSync(directory, { recursive: true, force: true });
      }
    });
  }
});

/** Command lines of this machine's processes that name a directory. */
function processesOf(directory: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      } catch {
        return ""; // the process has ended meanwhile
      }
    })
    .filter((command) => command.includes(directory));
}
