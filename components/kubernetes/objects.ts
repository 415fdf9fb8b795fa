import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap";
import { Secret } from "@pulumi/kubernetes/core/v1/secret";
import * as pulumi from "@pulumi/pulumi";
import { basename } from "path";
import { ConsulFile } from "../../consul/node";

/** The labels of everything that belongs to one part of this program. */
export function labelsOf(component: string) {
  return { "app.kubernetes.io/name": "consul", "app.kubernetes.io/component": component };
}

/**
 * The annotation of objects that `up` does not wait for: it waits for the DaemonSet, the StatefulSet and the Jobs, and
 * waiting for a Service of the same pods, or for a controller of somebody else, would say nothing about Consul.
 */
export const noWait = { "pulumi.com/skipAwait": "true" };

/** Files as the data of a ConfigMap or Secret. */
export function byName(files: readonly ConsulFile[]): Record<string, string> {
  return Object.fromEntries(files.map(({ path, content }) => [basename(path), content]));
}

/** Values as a Secret's data has them. */
export function base64Values(data: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")]));
}

export interface FrozenArgs {
  readonly namespace: pulumi.Input<string>;
  readonly labels: Readonly<Record<string, string>>;
  /** Texts by their keys. */
  readonly data: pulumi.Input<Readonly<Record<string, string>>>;
}

/**
 * A ConfigMap that never changes: other data is another object, under a new name that Pulumi makes up. The pods that
 * mount it roll by themselves, and pods of the old revision keep the files that they were started with. A name made from
 * the data would come back with the data, while the object that had this name may still be there: an `up` that fails
 * leaves what it replaced for the next one to delete.
 */
export function frozenConfigMap(name: string, { data, ...metadata }: FrozenArgs, opts: pulumi.CustomResourceOptions) {
  return new ConfigMap(name, { metadata, immutable: true, data }, opts);
}

/** A Secret that never changes, for the same reason. */
export function frozenSecret(name: string, { data, ...metadata }: FrozenArgs, opts: pulumi.CustomResourceOptions) {
  const values = pulumi.secret(pulumi.output(data).apply(base64Values));
  return new Secret(name, { metadata, type: "Opaque", immutable: true, data: values }, opts);
}
