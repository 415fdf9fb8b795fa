import { CronJob } from "@pulumi/kubernetes/batch/v1/cronJob";
import { PersistentVolumeClaim } from "@pulumi/kubernetes/core/v1/persistentVolumeClaim";
import * as pulumi from "@pulumi/pulumi";
import { cronSchedule, Snapshots } from "../../consul/machine/snapshots";
import { podLayout } from "../../consul/pod/pod";
import { readScript } from "../../consul/scripts";
import { TokenReference } from "./app-access";
import { contentNamedConfigMap, labelsOf, noWait } from "./objects";
import { configMount, Mount, pod, PodMarks, podMetadata, temporaryMount } from "./pod";

export interface SnapshotCronJobArgs {
  readonly snapshots: Snapshots;
  readonly namespace: pulumi.Input<string>;
  /** What every pod in the cluster has. */
  readonly marks: PodMarks;
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

const labels = labelsOf("snapshots");
const directory = "/consul/snapshots";

/** Snapshots of servers in the cluster: one pod at a time takes them, onto a volume of its own. */
export class SnapshotCronJob extends pulumi.ComponentResource {
  constructor(
    private readonly name: string,
    private readonly args: SnapshotCronJobArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("consul:index:SnapshotCronJob", name, {}, opts);
    this.createCronJob([...this.createFiles(), tokenMount(args.token), this.createVolume(), temporaryMount()]);
    this.registerOutputs({});
  }

  private createFiles(): Mount[] {
    const { namespace, caCertificate } = this.args;
    const data = pulumi
      .output(caCertificate)
      .apply((ca) => ({ "snapshot.sh": readScript("scripts/snapshot.sh"), "ca.pem": ca }));
    const object = { prefix: "consul-snapshot", namespace, labels, data };
    const { metadata } = contentNamedConfigMap(`${this.name}-config`, object, { parent: this });
    return [configMount(metadata.name)];
  }

  private createVolume(): Mount {
    const { namespace, storageClass, volumeSize, protect } = this.args;
    const claim = new PersistentVolumeClaim(
      `${this.name}-volume`,
      {
        // A class that binds with the first pod leaves the claim pending until the first snapshot.
        metadata: { name: "consul-snapshots", namespace, labels, annotations: noWait },
        spec: {
          accessModes: ["ReadWriteOnce"],
          storageClassName: storageClass,
          resources: { requests: { storage: volumeSize } },
        },
      },
      { parent: this, protect },
    );
    const volume = { persistentVolumeClaim: { claimName: claim.metadata.name } };
    return { name: "snapshots", path: directory, writable: true, volume };
  }

  private createCronJob(mounts: readonly Mount[]) {
    const { namespace, snapshots, marks } = this.args;
    new CronJob(
      this.name,
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
              template: { metadata: podMetadata(labels, marks), spec: this.pod(mounts) },
            },
          },
        },
      },
      { parent: this },
    );
  }

  private pod(mounts: readonly Mount[]) {
    const { image, serverUrl, snapshots } = this.args;
    const script = `${podLayout.configDir}/snapshot.sh`;
    return pod({
      name: "snapshot",
      image,
      command: ["/bin/sh", script, directory, String(snapshots.keep), String(snapshots.everyHours)],
      env: [
        { name: "CONSUL_HTTP_ADDR", value: serverUrl },
        { name: "CONSUL_CACERT", value: `${podLayout.configDir}/ca.pem` },
        { name: "CONSUL_HTTP_TOKEN_FILE", value: `${podLayout.secretDir}/token` },
      ],
      resources: { requests: { cpu: "10m", memory: "64Mi" }, limits: { memory: "512Mi" } },
      mounts,
      spec: { restartPolicy: "Never" },
    });
  }
}

function tokenMount(token: pulumi.Input<TokenReference>): Mount {
  const secret = pulumi
    .output(token)
    .apply(({ secretName, key }) => ({ secretName, items: [{ key, path: "token" }], defaultMode: 0o440 }));
  return { name: "token", path: podLayout.secretDir, volume: { secret } };
}
