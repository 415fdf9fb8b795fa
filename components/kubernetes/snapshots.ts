import { CronJob } from "@pulumi/kubernetes/batch/v1/cronJob";
import { PersistentVolumeClaim } from "@pulumi/kubernetes/core/v1/persistentVolumeClaim";
import { ServiceAccount } from "@pulumi/kubernetes/core/v1/serviceAccount";
import type * as inputs from "@pulumi/kubernetes/types/input";
import * as pulumi from "@pulumi/pulumi";
import { cronSchedule, Snapshots } from "../../consul/machine/snapshots";
import type { PodImage } from "../../consul/pod/image";
import { podLayout } from "../../consul/pod/pod";
import { readScript } from "../../consul/scripts";
import { tokenAudience } from "../backup-bucket";
import { TokenReference } from "./app-access";
import { frozenConfigMap, labelsOf, noWait } from "./objects";
import { configMount, Mount, pod, PodMarks, podMetadata, temporaryMount } from "./pod";

/** How copies get into an OSS bucket: the pod's service account assumes a RAM role. */
export interface PodCopies {
  readonly bucket: string;
  readonly prefix: string;
  /** Of the cluster and the bucket. */
  readonly region: string;
  readonly roleArn: pulumi.Input<string>;
  /** The cluster's OIDC provider in RAM. */
  readonly providerArn: string;
}

export interface SnapshotCronJobArgs {
  readonly snapshots: Omit<Snapshots, "copies">;
  readonly copies: PodCopies | undefined;
  readonly namespace: pulumi.Input<string>;
  /** What every pod in the cluster has. */
  readonly marks: PodMarks;
  readonly image: PodImage;
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

/** The service account of the pod, where it has one of its own: by this name RAM knows it. */
export const snapshotAccount = "consul-snapshot";

/** Where libraries for the cloud expect the token, and where ACK's own webhook puts it. */
const tokenDirectory = "/var/run/secrets/ack.alibabacloud.com/rrsa-tokens";

/** Snapshots of servers in the cluster: one pod at a time takes them, onto a volume of its own. */
export class SnapshotCronJob extends pulumi.ComponentResource {
  constructor(
    private readonly name: string,
    private readonly args: SnapshotCronJobArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("consul:index:SnapshotCronJob", name, {}, opts);
    const mounts = [...this.createFiles(), tokenMount(args.token), this.createVolume(), temporaryMount()];
    this.createCronJob([...mounts, ...(args.copies ? [roleTokenMount] : [])], args.copies && this.createAccount());
    this.registerOutputs({});
  }

  private createFiles(): Mount[] {
    const { namespace, caCertificate, copies } = this.args;
    const scripts = {
      "snapshot.sh": readScript("scripts/snapshot.sh"),
      ...(copies ? { "oss-put.sh": readScript("pod/oss-put.sh") } : {}),
    };
    const data = pulumi.output(caCertificate).apply((ca) => ({ ...scripts, "ca.pem": ca }));
    const object = { namespace, labels, data };
    const { metadata } = frozenConfigMap(`${this.name}-config`, object, { parent: this });
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

  private createAccount(): pulumi.Output<string> {
    const metadata = { name: snapshotAccount, namespace: this.args.namespace, labels };
    const account = { metadata, automountServiceAccountToken: false };
    return new ServiceAccount(`${this.name}-account`, account, { parent: this }).metadata.name;
  }

  private createCronJob(mounts: readonly Mount[], account: pulumi.Output<string> | undefined) {
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
              template: { metadata: podMetadata(labels, marks), spec: this.pod(mounts, account) },
            },
          },
        },
      },
      { parent: this },
    );
  }

  private pod(mounts: readonly Mount[], account: pulumi.Output<string> | undefined) {
    const { image, serverUrl, snapshots, copies } = this.args;
    const place = copies ? [copies.bucket, copies.prefix] : [];
    const script = `${podLayout.configDir}/snapshot.sh`;
    return pod({
      name: "snapshot",
      image,
      command: ["/bin/sh", script, directory, String(snapshots.keep), String(snapshots.everyHours), ...place],
      env: [
        { name: "CONSUL_HTTP_ADDR", value: serverUrl },
        { name: "CONSUL_CACERT", value: `${podLayout.configDir}/ca.pem` },
        { name: "CONSUL_HTTP_TOKEN_FILE", value: `${podLayout.secretDir}/token` },
        ...(copies ? cloudVariables(copies) : []),
      ],
      resources: { requests: { cpu: "10m", memory: "64Mi" }, limits: { memory: "512Mi" } },
      mounts,
      spec: { restartPolicy: "Never", ...(account ? { serviceAccountName: account } : {}) },
    });
  }
}

function tokenMount(token: pulumi.Input<TokenReference>): Mount {
  const secret = pulumi
    .output(token)
    .apply(({ secretName, key }) => ({ secretName, items: [{ key, path: "token" }], defaultMode: 0o440 }));
  return { name: "token", path: podLayout.secretDir, volume: { secret } };
}

/** Kubelet writes it, and renews it before it runs out. It is good for the cloud alone: the API server does not take it. */
const roleTokenMount: Mount = {
  name: "role-token",
  path: tokenDirectory,
  volume: {
    projected: {
      defaultMode: 0o440,
      sources: [{ serviceAccountToken: { audience: tokenAudience, expirationSeconds: 3600, path: "token" } }],
    },
  },
};

/** Both endpoints are inside the VPC: the pod needs no way to the internet. */
function cloudVariables({ bucket, region, roleArn, providerArn }: PodCopies): inputs.core.v1.EnvVar[] {
  return [
    { name: "ALIBABA_CLOUD_ROLE_ARN", value: roleArn },
    { name: "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", value: providerArn },
    { name: "ALIBABA_CLOUD_OIDC_TOKEN_FILE", value: `${tokenDirectory}/token` },
    { name: "ALIBABA_CLOUD_STS_ENDPOINT", value: `sts-vpc.${region}.aliyuncs.com` },
    { name: "OSS_REGION", value: region },
    { name: "OSS_ENDPOINT", value: `${bucket}.s3.oss-${region}-internal.aliyuncs.com` },
  ];
}
