import { Job } from "@pulumi/kubernetes/batch/v1/job";
import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap";
import { Secret } from "@pulumi/kubernetes/core/v1/secret";
import { ServiceAccount } from "@pulumi/kubernetes/core/v1/serviceAccount";
import * as pulumi from "@pulumi/pulumi";
import { AclObject } from "../../consul/acl";
import { readScript } from "../../consul/scripts";
import { base64Values, contentName, podLayout, unprivileged, unprivilegedPod } from "../../consul/pod/pod";

export interface ServersJobArgs {
  /** Name of the service account, and what the names of the other objects begin with. */
  readonly prefix: string;
  readonly namespace: pulumi.Input<string>;
  readonly labels: Readonly<Record<string, string>>;
  /** An image with curl and a shell, such as Consul's own. */
  readonly image: string;
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
  /** How long it may take, in minutes; default 25. */
  readonly minutes?: number;
  /** Once more after a failure; default true. */
  readonly retry?: boolean;
  /** Whether the servers let in the nodes' networks alone, and not those of pods. */
  readonly hostNetwork?: boolean;
  /** Refuse to delete the service account, and with it all of this. */
  readonly protect?: boolean;
}

/**
 * Runs scripts against the servers' API in the cluster, and is there once they have succeeded. Its name is made from all
 * that it does: it runs again when any of it changes, and an `up` without a change has nothing to do.
 */
export function serversJob(name: string, args: ServersJobArgs, opts: pulumi.CustomResourceOptions): Job {
  const { namespace, labels, prefix, minutes = 25 } = args;
  const account = new ServiceAccount(
    `${name}-account`,
    { metadata: { name: prefix, namespace, labels }, automountServiceAccountToken: false },
    { ...opts, protect: args.protect ?? false },
  );
  const files = pulumi
    .output(args.caCertificate)
    .apply((ca): Record<string, string> => ({ ...args.scripts, "ca.pem": ca }));
  const config = new ConfigMap(
    `${name}-config`,
    {
      metadata: { name: files.apply((data) => contentName(prefix, data)), namespace, labels },
      immutable: true,
      data: files,
    },
    opts,
  );
  const contents = pulumi.secret(
    pulumi.all([args.files, args.managementToken]).apply(([files, managementToken]): Record<string, string> => ({
      ...files,
      "management-token": managementToken,
    })),
  );
  const secret = new Secret(
    `${name}-secrets`,
    {
      metadata: { name: nameOf(contents), namespace, labels },
      immutable: true,
      type: "Opaque",
      data: contents.apply(base64Values),
    },
    opts,
  );
  const environment = pulumi
    .all([args.serverUrls, args.environment ?? {}])
    .apply(([urls, more]): Record<string, string> => ({
      CONSUL_HTTP_ADDR: urls.join(" "),
      CONSUL_CACERT: `${podLayout.configDir}/ca.pem`,
      CONSUL_HTTP_TOKEN_FILE: `${podLayout.secretDir}/management-token`,
      ...more,
    }));
  const command = pulumi
    .output(args.command)
    .apply(([script = "", ...words]) => ["/bin/sh", `${podLayout.configDir}/${script}`, ...words]);
  const everything = pulumi.secret(
    pulumi
      .all([contents, files, environment, command])
      .apply(([contents, files, environment, command]): Record<string, string> => ({
        ...contents,
        ...files,
        ...environment,
        command: command.join(" "),
        image: args.image,
      })),
  );
  return new Job(
    `${name}-job`,
    {
      metadata: {
        name: nameOf(everything),
        namespace,
        labels,
        // One that failed is made anew by the next `up`, not looked at again.
        annotations: { "pulumi.com/replaceUnready": "true" },
      },
      // No ttlSecondsAfterFinished: a Job that had vanished would be made again by the `up` after a refresh.
      spec: {
        backoffLimit: args.retry === false ? 0 : 1,
        activeDeadlineSeconds: minutes * 60,
        template: {
          metadata: { labels },
          spec: {
            serviceAccountName: account.metadata.name,
            automountServiceAccountToken: false,
            enableServiceLinks: false,
            restartPolicy: "Never",
            ...(args.hostNetwork ? { hostNetwork: true, dnsPolicy: "ClusterFirstWithHostNet" } : {}),
            securityContext: unprivilegedPod,
            containers: [
              {
                name: "script",
                image: args.image,
                command,
                env: environment.apply((values) => Object.entries(values).map(([name, value]) => ({ name, value }))),
                resources: { requests: { cpu: "10m", memory: "32Mi" }, limits: { memory: "64Mi" } },
                securityContext: unprivileged,
                terminationMessagePolicy: "FallbackToLogsOnError",
                volumeMounts: [
                  { name: "config", mountPath: podLayout.configDir, readOnly: true },
                  { name: "secrets", mountPath: podLayout.secretDir, readOnly: true },
                  { name: "tmp", mountPath: "/tmp" },
                ],
              },
            ],
            volumes: [
              { name: "config", configMap: { name: config.metadata.name, defaultMode: 0o444 } },
              { name: "secrets", secret: { secretName: secret.metadata.name, defaultMode: 0o440 } },
              // Keys may pass through it.
              { name: "tmp", emptyDir: { medium: "Memory" } },
            ],
          },
        },
      },
    },
    { ...opts, customTimeouts: { create: `${minutes + 5}m` } },
  );

  function nameOf(content: pulumi.Output<Record<string, string>>): pulumi.Output<string> {
    return pulumi.unsecret(content.apply((data) => contentName(prefix, data)));
  }
}

/** What the ACL script needs to put objects in place (secret) in a Job. */
export function aclFiles(objects: pulumi.Input<readonly AclObject[]>) {
  return {
    scripts: { "acl.sh": readScript("scripts/acl.sh") },
    command: ["acl.sh", podLayout.secretDir],
    files: pulumi.secret(
      pulumi.output(objects).apply((all) => Object.fromEntries(all.map(({ file, content }) => [file, content]))),
    ),
  };
}
