import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap";
import { Secret } from "@pulumi/kubernetes/core/v1/secret";
import * as pulumi from "@pulumi/pulumi";
import { basename } from "path";
import { ConsulFile, stableJson } from "../../consul/node";
import { digest } from "../../consul/secrets";

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

/** A name that changes with the content and comes back with it. */
export function contentName(prefix: string, content: Readonly<Record<string, string>>): string {
  return `${prefix}-${digest(stableJson(content)).slice(0, 10)}`;
}

export interface ContentNamedArgs {
  /** What the object's name begins with. */
  readonly prefix: string;
  readonly namespace: pulumi.Input<string>;
  readonly labels: Readonly<Record<string, string>>;
  /** Texts by their keys. */
  readonly data: pulumi.Input<Readonly<Record<string, string>>>;
}

/**
 * A ConfigMap that never changes, named by its content: a changed setting is a new object, the pods that mount it roll
 * by themselves, and pods of the old revision keep the files that they were started with. Going back gives the earlier
 * name again.
 */
export function contentNamedConfigMap(name: string, args: ContentNamedArgs, opts: pulumi.CustomResourceOptions) {
  return new ConfigMap(name, { ...contentNamed(args, args.data), data: args.data }, opts);
}

/** A Secret that never changes, named by its content, for the same reason. */
export function contentNamedSecret(name: string, args: ContentNamedArgs, opts: pulumi.CustomResourceOptions) {
  const data = pulumi.secret(pulumi.output(args.data).apply(base64Values));
  return new Secret(name, { ...contentNamed(args, data), type: "Opaque", data }, opts);
}

function contentNamed({ prefix, namespace, labels }: ContentNamedArgs, content: ContentNamedArgs["data"]) {
  const name = pulumi.unsecret(pulumi.output(content).apply((data) => contentName(prefix, data)));
  return { metadata: { name, namespace, labels }, immutable: true };
}
