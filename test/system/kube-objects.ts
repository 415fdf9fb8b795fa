import type { Registered } from "../../local/program";

/** A Kubernetes object as the API takes it. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

/** Whether a registered resource is a Kubernetes object. Its inputs are then the manifest. */
export function isKubernetesObject({ type, custom }: Registered): boolean {
  return custom && type.startsWith("kubernetes:");
}

export const zones = ["cn-hangzhou-h", "cn-hangzhou-i", "cn-hangzhou-j"] as const;

/** Eleven ECS nodes in three zones, as ACK names and labels them. */
export const realNodes: readonly Manifest[] = Array.from({ length: 11 }, (_, index) => {
  const zone = zones[index % zones.length] ?? zones[0];
  const address = `10.16.${(index % zones.length) + 1}.${20 + index}`;
  return node(
    `cn-hangzhou.${address}`,
    address,
    index,
    {
      "alibabacloud.com/nodepool-id": "np0123456789abcdef0123456789abcdef",
      "node.kubernetes.io/instance-type": "ecs.g7.xlarge",
      "topology.kubernetes.io/region": "cn-hangzhou",
      "topology.kubernetes.io/zone": zone,
    },
    { cpu: "4", memory: "16Gi", pods: "64" },
  );
});

/** Two virtual nodes (ECI), with label and taint as ACK sets them (docs/facts/cloud.md, "ACK"). */
export const virtualNodes: readonly Manifest[] = ["cn-hangzhou-h", "cn-hangzhou-i"].map((zone, index) => {
  const labels = { type: "virtual-kubelet", "kubernetes.io/role": "agent", "topology.kubernetes.io/zone": zone };
  const capacity = { cpu: "960", memory: "3840Gi", pods: "5000" };
  const taint = { key: "virtual-kubelet.io/provider", value: "alibabacloud", effect: "NoSchedule" };
  return node(`virtual-kubelet-${zone}`, `10.16.9.${20 + index}`, realNodes.length + index, labels, capacity, [taint]);
});

function node(
  name: string,
  address: string,
  index: number,
  labels: Record<string, string>,
  capacity: Record<string, string>,
  taints: readonly object[] = [],
): Manifest {
  return {
    apiVersion: "v1",
    kind: "Node",
    metadata: {
      name,
      labels: { "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", ...labels },
    },
    spec: { podCIDR: `10.64.${index}.0/24`, podCIDRs: [`10.64.${index}.0/24`], taints },
    status: {
      addresses: [
        { type: "InternalIP", address },
        { type: "Hostname", address: name },
      ],
      capacity,
      allocatable: capacity,
    },
  };
}

/** A storage class, and volumes of this class in every zone: a cloud's disk driver makes these for claims. */
export function zonedVolumes(storageClass: string, size: string, perZone: number): Manifest[] {
  const ofZone = (zone: string) =>
    Array.from({ length: perZone }, (_, index): Manifest => {
      const name = `${storageClass}-${zone}-${index}`;
      const inZone = { key: "topology.kubernetes.io/zone", operator: "In", values: [zone] };
      return {
        apiVersion: "v1",
        kind: "PersistentVolume",
        metadata: { name },
        spec: {
          accessModes: ["ReadWriteOnce"],
          capacity: { storage: size },
          local: { path: `/mnt/${name}` },
          nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions: [inZone] }] } },
          persistentVolumeReclaimPolicy: "Retain",
          storageClassName: storageClass,
        },
      };
    });
  return [
    {
      apiVersion: "storage.k8s.io/v1",
      kind: "StorageClass",
      metadata: { name: storageClass },
      provisioner: "kubernetes.io/no-provisioner",
      volumeBindingMode: "WaitForFirstConsumer",
    },
    ...zones.flatMap(ofZone),
  ];
}

/** How long kubelets take, in milliseconds. */
export interface Pace {
  /** From a pod's placement to its being ready. */
  readonly start: number;
  /** From a pod's deletion to its end. */
  readonly stop: number;
  /** From a Job's pod running to its success. */
  readonly work: number;
}

/** What kwok does instead of kubelets: nodes become ready; pods start, end when deleted, and finish if a Job's. */
export function kwokConfiguration(pace: Pace): object[] {
  const exists = { key: ".metadata.deletionTimestamp", operator: "Exists" };
  const alive = { key: ".metadata.deletionTimestamp", operator: "DoesNotExist" };
  const inPhase = (phase: string) => ({ key: ".status.phase", operator: "In", values: [phase] });
  const notReady = {
    key: '.status.conditions.[] | select(.type == "Ready") | .status',
    operator: "NotIn",
    values: ["True"],
  };
  const ofJob = { key: ".metadata.ownerReferences.[].kind", operator: "In", values: ["Job"] };
  return [
    {
      apiVersion: "config.kwok.x-k8s.io/v1alpha1",
      kind: "KwokConfiguration",
      // One worker for each node, as each real node has its own kubelet. kwok's default is four for all nodes.
      options: { nodeLeaseParallelism: 16, nodePlayStageParallelism: 16, podPlayStageParallelism: 16 },
    },
    stage("Node", "node-ready", 0, [notReady], { statusTemplate: nodeReady }),
    stage("Pod", "pod-running", pace.start, [alive, inPhase("Pending")], { statusTemplate: podRunning }),
    stage("Pod", "pod-succeeded", pace.work, [alive, inPhase("Running"), ofJob], { statusTemplate: podSucceeded }),
    stage("Pod", "pod-gone", pace.stop, [exists], { delete: true }),
  ];
}

// YAML templates that are patched into the status. Lines begin in the first column: kwok trims only the first line.
const now = "{{ Now | Quote }}";

const nodeReady = `
conditions:
- type: Ready
  status: "True"
  reason: KubeletReady
  message: kubelet is posting ready status
  lastHeartbeatTime: ${now}
  lastTransitionTime: ${now}
`;

const completed = `terminated: {exitCode: 0, reason: Completed, startedAt: ${now}, finishedAt: ${now}}`;

const podRunning = `
phase: Running
startTime: ${now}
${conditions("True", ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"])}
${addresses("hostIP", "NodeIPsWith .spec.nodeName")}
${addresses(
  "podIP",
  "PodIPsWith .spec.nodeName (or .spec.hostNetwork false) .metadata.uid .metadata.name .metadata.namespace",
)}
${containers("initContainerStatuses", ".spec.initContainers", false, completed)}
${containers("containerStatuses", ".spec.containers", true, `running: {startedAt: ${now}}`)}
`;

const podSucceeded = `
phase: Succeeded
${conditions("False", ["ContainersReady", "Ready"])}
${containers("containerStatuses", ".spec.containers", false, completed)}
`;

function conditions(status: "True" | "False", types: readonly string[]): string {
  const lines = types.map((type) => `- {type: ${type}, status: "${status}", lastTransitionTime: ${now}}`);
  return ["conditions:", ...lines].join("\n");
}

function addresses(field: string, expression: string): string {
  return `{{ with ${expression} }}
${field}: {{ index . 0 | Quote }}
${field}s:
{{ range . }}
- ip: {{ . | Quote }}
{{ end }}
{{ end }}`;
}

function containers(field: string, of: string, ready: boolean, state: string): string {
  return `${field}:
{{ range ${of} }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: ${ready}
  started: ${ready}
  restartCount: 0
  state: {${state}}
{{ end }}`;
}

function stage(
  kind: "Node" | "Pod",
  name: string,
  delay: number,
  matchExpressions: readonly object[],
  next: object,
): object {
  return {
    apiVersion: "kwok.x-k8s.io/v1alpha1",
    kind: "Stage",
    metadata: { name },
    spec: {
      resourceRef: { apiGroup: "v1", kind },
      selector: { matchExpressions },
      delay: { durationMilliseconds: delay },
      next,
    },
  };
}
