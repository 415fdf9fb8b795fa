import { CronJob } from "@pulumi/kubernetes/batch/v1/cronJob";
import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap";
import { PersistentVolumeClaim } from "@pulumi/kubernetes/core/v1/persistentVolumeClaim";
import * as pulumi from "@pulumi/pulumi";
import { contentName, podLayout, unprivileged, unprivilegedPod } from "../../consul/pod/pod";
import { TokenReference } from "./access-tokens";
import { cronSchedule, Snapshots } from "../../consul/machine/snapshots";
import { readScript } from "../../consul/scripts";

export interface SnapshotCronJobArgs {
  readonly snapshots: Snapshots;
  readonly namespace: pulumi.Input<string>;
  readonly image: string;
  /** Base URL of the servers' HTTPS API. */
  readonly serverUrl: pulumi.Input<string>;
  readonly caCertificate: pulumi.Input<string>;
  /** The Secret with a token that may take snapshots, in the same namespace. */
  readonly token: pulumi.Input<TokenReference>;
  readonly volumeSize: string;
  /** Storage class of the volume; the cluster's own default where none is given. */
  readonly storageClass: string | undefined;
  /** Refuse to delete the volume. */
  readonly protect: boolean;
}

/** Snapshots of servers in the cluster: one pod at a time takes them, onto a volume of its own. */
export class SnapshotCronJob extends pulumi.ComponentResource {
  constructor(name: string, args: SnapshotCronJobArgs, opts?: pulumi.ComponentResourceOptions) {
    super("consul:index:SnapshotCronJob", name, {}, opts);
    const parent = { parent: this };
    const { namespace, snapshots } = args;
    const labels = { "app.kubernetes.io/name": "consul", "app.kubernetes.io/component": "snapshots" };
    const directory = "/consul/snapshots";

    const files = pulumi
      .output(args.caCertificate)
      .apply((ca) => ({ "snapshot.sh": readScript("scripts/snapshot.sh"), "ca.pem": ca }));
    const config = new ConfigMap(
      `${name}-config`,
      {
        metadata: { name: files.apply((data) => contentName("consul-snapshot", data)), namespace, labels },
        immutable: true,
        data: files,
      },
      parent,
    );
    const volume = new PersistentVolumeClaim(
      `${name}-volume`,
      {
        // A class that binds with the first pod stays pending until the first snapshot: nothing to wait for.
        metadata: { name: "consul-snapshots", namespace, labels, annotations: { "pulumi.com/skipAwait": "true" } },
        spec: {
          accessModes: ["ReadWriteOnce"],
          storageClassName: args.storageClass,
          resources: { requests: { storage: args.volumeSize } },
        },
      },
      { ...parent, protect: args.protect },
    );
    new CronJob(
      name,
      {
        metadata: { name: "consul-snapshot", namespace, labels },
        spec: {
          schedule: cronSchedule(snapshots),
          timeZone: "Etc/UTC",
          concurrencyPolicy: "Forbid",
          startingDeadlineSeconds: 600,
          successfulJobsHistoryLimit: 1,
          failedJobsHistoryLimit: 3,
          jobTemplate: {
            spec: {
              backoffLimit: 2,
              activeDeadlineSeconds: 1800,
              template: {
                metadata: { labels },
                spec: {
                  automountServiceAccountToken: false,
                  enableServiceLinks: false,
                  restartPolicy: "Never",
                  securityContext: unprivilegedPod,
                  containers: [
                    {
                      name: "snapshot",
                      image: args.image,
                      command: [
                        "/bin/sh",
                        `${podLayout.configDir}/snapshot.sh`,
                        directory,
                        String(snapshots.keep),
                        String(snapshots.everyHours),
                      ],
                      env: [
                        { name: "CONSUL_HTTP_ADDR", value: args.serverUrl },
                        { name: "CONSUL_CACERT", value: `${podLayout.configDir}/ca.pem` },
                        { name: "CONSUL_HTTP_TOKEN_FILE", value: `${podLayout.secretDir}/token` },
                      ],
                      resources: { requests: { cpu: "10m", memory: "64Mi" }, limits: { memory: "512Mi" } },
                      securityContext: unprivileged,
                      terminationMessagePolicy: "FallbackToLogsOnError",
                      volumeMounts: [
                        { name: "config", mountPath: podLayout.configDir, readOnly: true },
                        { name: "token", mountPath: podLayout.secretDir, readOnly: true },
                        { name: "snapshots", mountPath: directory },
                        { name: "tmp", mountPath: "/tmp" },
                      ],
                    },
                  ],
                  volumes: [
                    { name: "config", configMap: { name: config.metadata.name, defaultMode: 0o444 } },
                    {
                      name: "token",
                      secret: pulumi.output(args.token).apply(({ secretName, key }) => ({
                        secretName,
                        items: [{ key, path: "token" }],
                        defaultMode: 0o440,
                      })),
                    },
                    { name: "snapshots", persistentVolumeClaim: { claimName: volume.metadata.name } },
                    { name: "tmp", emptyDir: {} },
                  ],
                },
              },
            },
          },
        },
      },
      parent,
    );
    this.registerOutputs({});
  }
}
