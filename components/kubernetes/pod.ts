import type * as inputs from "@pulumi/kubernetes/types/input";
import * as pulumi from "@pulumi/pulumi";
import type { PodImage } from "../../consul/pod/image";
import { podLayout } from "../../consul/pod/pod";

type PodSpec = inputs.core.v1.PodSpec;
type Container = inputs.core.v1.Container;

/** Labels and annotations that the operator of the cluster wants on pods, to share out costs or to collect logs. */
export interface PodMarks {
  readonly podLabels: Readonly<Record<string, string>>;
  readonly podAnnotations: Readonly<Record<string, string>>;
}

/** Metadata of a pod: the program's own labels, and marks, of which a later one wins. */
export function podMetadata(labels: Readonly<Record<string, string>>, ...marks: readonly PodMarks[]) {
  const annotations = Object.assign({}, ...marks.map(({ podAnnotations }) => podAnnotations)) as Record<string, string>;
  const all = Object.assign({}, ...marks.map(({ podLabels }) => podLabels), labels) as Record<string, string>;
  return { labels: all, ...(Object.keys(annotations).length > 0 ? { annotations } : {}) };
}

/** A volume of a pod, and where its container finds it. */
export interface Mount {
  readonly name: string;
  readonly path: string;
  /** Read-only unless this is set. */
  readonly writable?: boolean;
  readonly subPathExpr?: string;
  /** What the volume is made from; the StatefulSet brings the volumes of its claim templates itself. */
  readonly volume?: Omit<inputs.core.v1.Volume, "name">;
}

export interface PodArgs {
  /** Name of the only container. */
  readonly name: string;
  readonly image: PodImage;
  readonly command: pulumi.Input<string[]>;
  readonly env: pulumi.Input<pulumi.Input<inputs.core.v1.EnvVar>[]>;
  readonly resources: Container["resources"];
  readonly mounts: readonly Mount[];
  /** What the pod and its container have besides, or instead of what they have by default. */
  readonly spec: Partial<PodSpec>;
  readonly container?: Partial<Container>;
}

/** The security context of a pod that needs nothing of its node. */
export const unprivilegedPod = {
  runAsNonRoot: true,
  runAsUser: podLayout.user,
  runAsGroup: podLayout.group,
  fsGroup: podLayout.group,
  seccompProfile: { type: "RuntimeDefault" },
};

/** The security context of its container. */
export const unprivileged = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] },
};

/** A pod of one container, which gets no token of a service account and no privilege, and writes to its volumes alone. */
export function pod({ name, image, command, env, resources, mounts, spec, container }: PodArgs): PodSpec {
  return {
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    securityContext: unprivilegedPod,
    ...(image.pullSecrets.length > 0 ? { imagePullSecrets: image.pullSecrets.map((name) => ({ name })) } : {}),
    ...spec,
    containers: [
      {
        name,
        image: image.name,
        command,
        env,
        resources,
        securityContext: unprivileged,
        terminationMessagePolicy: "FallbackToLogsOnError",
        volumeMounts: mounts.map(({ name, path, writable, subPathExpr }) => ({
          name,
          mountPath: path,
          ...(writable ? {} : { readOnly: true }),
          ...(subPathExpr === undefined ? {} : { subPathExpr }),
        })),
        ...container,
      },
    ],
    volumes: mounts.flatMap(({ name, volume }) => (volume ? [{ name, ...volume }] : [])),
  };
}

/** The files of a ConfigMap, where a pod has its configuration. */
export function configMount(configMap: pulumi.Input<string>): Mount {
  return {
    name: "config",
    path: podLayout.configDir,
    volume: { configMap: { name: configMap, defaultMode: 0o444 } },
  };
}

/** The files of a Secret, where a pod has its secrets. */
export function secretsMount(secret: pulumi.Input<string>): Mount {
  return {
    name: "secrets",
    path: podLayout.secretDir,
    volume: { secret: { secretName: secret, defaultMode: 0o440 } },
  };
}

/** A directory for temporary files, since the root file system is read-only; in memory where secrets may pass through. */
export function temporaryMount(medium?: "Memory"): Mount {
  return { name: "tmp", path: "/tmp", writable: true, volume: { emptyDir: medium ? { medium } : {} } };
}

/** A readiness probe that runs a command. */
export function readinessProbe(command: string[], periodSeconds: number, failureThreshold: number) {
  return {
    exec: { command },
    initialDelaySeconds: 2,
    periodSeconds,
    timeoutSeconds: 5,
    failureThreshold,
    successThreshold: 1,
  };
}

/** Node affinity for real Linux machines. Virtual nodes (ECI) have no host to run on, and all of them are one "host". */
export function realLinuxNodes() {
  const required = [
    { key: "type", operator: "NotIn", values: ["virtual-kubelet"] },
    { key: "kubernetes.io/os", operator: "In", values: ["linux"] },
    { key: "kubernetes.io/arch", operator: "In", values: ["amd64", "arm64"] },
  ];
  return { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: required }] } };
}
