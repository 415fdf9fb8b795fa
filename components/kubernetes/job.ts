import { Job } from "@pulumi/kubernetes/batch/v1/job";
import { ServiceAccount } from "@pulumi/kubernetes/core/v1/serviceAccount";
import type * as inputs from "@pulumi/kubernetes/types/input";
import * as pulumi from "@pulumi/pulumi";
import { AclObject } from "../../consul/acl";
import type { PodImage } from "../../consul/pod/image";
import { podLayout } from "../../consul/pod/pod";
import { withApi } from "../../consul/scripts";
import { frozenConfigMap, frozenSecret } from "./objects";
import { configMount, pod, PodMarks, podMetadata, secretsMount, temporaryMount } from "./pod";

export interface ServersJobArgs {
  /** Name of the pod's service account. */
  readonly accountName: string;
  readonly namespace: pulumi.Input<string>;
  readonly labels: Readonly<Record<string, string>>;
  /** What every pod in the cluster has. */
  readonly marks: PodMarks;
  /** An image with curl and a shell, such as Consul's own. */
  readonly image: PodImage;
  /** Shell scripts by name; they find each other in the directory they are in. */
  readonly scripts: Readonly<Record<string, string>>;
  /** The one to run, and its arguments. Nothing in it is secret. */
  readonly command: pulumi.Input<pulumi.Input<string>[]>;
  /** Files by name, in podLayout.secretDir. Secret. */
  readonly files: pulumi.Input<Readonly<Record<string, string>>>;
  /** Base URLs of the servers' HTTPS API. */
  readonly serverUrls: pulumi.Input<pulumi.Input<string>[]>;
  readonly caCertificate: pulumi.Input<string>;
  /** Secret. */
  readonly managementToken: pulumi.Input<string>;
  /** More of the scripts' environment. */
  readonly environment?: Readonly<Record<string, pulumi.Input<string>>>;
  /** Variables that have their values from elsewhere in the cluster, when the Job starts. */
  readonly variables?: readonly inputs.core.v1.EnvVar[];
  /** How long the Job may take, in minutes; default 25. */
  readonly minutes?: number;
  /** Whether the Job runs once more after a failure; default true. */
  readonly retry?: boolean;
  /** Whether the servers let in the nodes' networks alone, and not those of pods. */
  readonly hostNetwork?: boolean;
  /** Refuse to delete the service account, and with it all of this. */
  readonly protect?: boolean;
}

type Texts = Readonly<Record<string, string>>;

/**
 * Runs scripts against the servers' API in the cluster, and settles once the scripts have succeeded. The pod of a Job
 * cannot be changed: another image, script or setting is another Job, under a name that Pulumi makes up, and an `up`
 * without a change runs none.
 */
export function serversJob(name: string, args: ServersJobArgs, opts: pulumi.CustomResourceOptions): Job {
  const { namespace, labels, minutes = 25 } = args;
  const account = new ServiceAccount(
    `${name}-account`,
    { metadata: { name: args.accountName, namespace, labels }, automountServiceAccountToken: false },
    { ...opts, protect: args.protect ?? false },
  );
  const work = workOf(args);
  const config = frozenConfigMap(`${name}-config`, { namespace, labels, data: work.files }, opts);
  const secret = frozenSecret(`${name}-secrets`, { namespace, labels, data: work.secrets }, opts);
  const environment = work.environment.apply((all): inputs.core.v1.EnvVar[] => [
    ...Object.entries(all).map(([name, value]) => ({ name, value })),
    ...(args.variables ?? []),
  ]);
  return new Job(
    `${name}-job`,
    {
      metadata: {
        namespace,
        labels,
        // The next `up` replaces a Job that failed, instead of looking at the failure again.
        annotations: { "pulumi.com/replaceUnready": "true" },
      },
      // No ttlSecondsAfterFinished: a Job that had vanished would be made again by the `up` after a refresh.
      spec: {
        backoffLimit: args.retry === false ? 0 : 1,
        activeDeadlineSeconds: minutes * 60,
        template: {
          metadata: podMetadata(labels, args.marks),
          spec: pod({
            name: "script",
            image: args.image,
            command: work.command,
            env: environment,
            resources: { requests: { cpu: "10m", memory: "32Mi" }, limits: { memory: "64Mi" } },
            mounts: [configMount(config.metadata.name), secretsMount(secret.metadata.name), temporaryMount("Memory")],
            spec: {
              serviceAccountName: account.metadata.name,
              restartPolicy: "Never",
              ...(args.hostNetwork ? { hostNetwork: true, dnsPolicy: "ClusterFirstWithHostNet" } : {}),
            },
          }),
        },
      },
    },
    { ...opts, customTimeouts: { create: `${minutes + 5}m` } },
  );
}

/** All that a Job does, as its pod is given it. */
interface Work {
  readonly files: pulumi.Output<Texts>;
  /** Secret. */
  readonly secrets: pulumi.Output<Texts>;
  readonly environment: pulumi.Output<Texts>;
  readonly command: pulumi.Output<string[]>;
}

function workOf(args: ServersJobArgs): Work {
  const { caCertificate, managementToken, serverUrls, environment = {} } = args;
  return {
    files: pulumi.output(caCertificate).apply((ca): Texts => ({ ...args.scripts, "ca.pem": ca })),
    secrets: pulumi.secret(
      pulumi
        .all([args.files, managementToken])
        .apply(([files, token]): Texts => ({ ...files, "management-token": token })),
    ),
    environment: pulumi.all([serverUrls, environment]).apply(([urls, more]): Texts => ({
      CONSUL_HTTP_ADDR: urls.join(" "),
      CONSUL_CACERT: `${podLayout.configDir}/ca.pem`,
      CONSUL_HTTP_TOKEN_FILE: `${podLayout.secretDir}/management-token`,
      ...more,
    })),
    command: pulumi
      .output(args.command)
      .apply(([script = "", ...words]) => ["/bin/sh", `${podLayout.configDir}/${script}`, ...words]),
  };
}

/**
 * What a Job is given to put an owner's policies and tokens (secret) in place, and to revoke those that are not wanted.
 * @param former see `formerPrefix` in consul/access.ts
 */
export function aclWork(owner: string, objects: pulumi.Input<readonly AclObject[]>, former?: string) {
  const files = pulumi
    .output(objects)
    .apply((all): Texts => Object.fromEntries(all.map(({ file, content }) => [file, content])));
  return {
    scripts: { "acl.sh": withApi("scripts/acl.sh") },
    command: ["acl.sh", podLayout.secretDir],
    files: pulumi.secret(files),
    environment: { ACL_OWNER: owner, ...(former === undefined ? {} : { ACL_FORMER: former }) },
  };
}
