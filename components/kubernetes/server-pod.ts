import * as pulumi from "@pulumi/pulumi";
import { ports, ServerConfig } from "../../consul/config";
import type { PodImage } from "../../consul/pod/image";
import { podLayout } from "../../consul/pod/pod";
import { KubernetesServersSettings } from "../../settings";
import { fieldVariable } from "./app-environment";
import { Mount, pod, readinessProbe, realLinuxNodes, unprivilegedPod } from "./pod";
import { serverPorts } from "./server-services";

export interface ServerPodArgs {
  readonly settings: KubernetesServersSettings;
  readonly config: ServerConfig;
  readonly image: PodImage;
  readonly command: pulumi.Input<string[]>;
  readonly mounts: readonly Mount[];
  /** Name of the service account. */
  readonly account: pulumi.Input<string>;
  /** Labels of all servers, by which they keep away from each other. */
  readonly labels: Readonly<Record<string, string>>;
}

/** A server's pod: on a real node that has no other server, in a zone of its own where there are enough. */
export function serverPod({ settings, config, image, command, mounts, account, labels }: ServerPodArgs) {
  const matchLabels = { ...labels };
  return pod({
    name: "consul",
    image,
    command,
    env: [
      fieldVariable("POD_NAME", "metadata.name"),
      fieldVariable("POD_IP", "status.podIP"),
      // For the scripts, and for `kubectl exec`: who may do that may read the file as well.
      { name: "CONSUL_HTTP_ADDR", value: `http://${config.localAddress}:${ports.http}` },
      { name: "CONSUL_HTTP_TOKEN_FILE", value: `${podLayout.secretDir}/management-token` },
    ],
    resources: settings.resources,
    mounts,
    spec: {
      serviceAccountName: account,
      priorityClassName: settings.priorityClassName,
      // Long enough for before-stop.sh (60 s) and Consul's own end.
      terminationGracePeriodSeconds: 90,
      nodeSelector: settings.nodeSelector,
      tolerations: settings.tolerations.map((toleration) => ({ ...toleration })),
      affinity: {
        nodeAffinity: realLinuxNodes(),
        podAntiAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: [
            { labelSelector: { matchLabels }, topologyKey: "kubernetes.io/hostname" },
          ],
        },
      },
      topologySpreadConstraints: [
        {
          maxSkew: 1,
          topologyKey: "topology.kubernetes.io/zone",
          whenUnsatisfiable: "ScheduleAnyway",
          labelSelector: { matchLabels },
        },
      ],
      securityContext: { ...unprivilegedPod, fsGroupChangePolicy: "OnRootMismatch" },
    },
    container: {
      imagePullPolicy: "IfNotPresent",
      ports: serverPorts(settings.grpc).map(({ name, port, protocol }) => ({ name, containerPort: port, protocol })),
      // No liveness probe: a server without a leader is not better for being started again.
      readinessProbe: readinessProbe(run("ready.sh"), 3, 2),
      lifecycle: { preStop: { exec: { command: run("before-stop.sh") } } },
    },
  });
}

/** Runs one of the pod's scripts with the pod's address. */
function run(script: string): string[] {
  return ["/bin/sh", "-c", `exec /bin/sh ${podLayout.configDir}/${script} "$POD_IP"`];
}
