/** How the rules tell resources apart, and how they read them. */

/** What a rule sees of one resource: its inputs with secrets unwrapped, and the options that policies are shown. */
export interface Seen {
  readonly type: string;
  readonly name: string;
  readonly urn: string;
  readonly props: Readonly<Record<string, unknown>>;
  readonly protect: boolean;
  readonly additionalSecretOutputs: readonly string[];
  /** Inputs that are secret, where this is known: the engine hands policies everything unwrapped and does not say. */
  readonly secretInputs?: readonly string[];
}

export const isInstance = ({ type }: Seen) => type === "alicloud:ecs/instance:Instance";
export const isDisk = ({ type }: Seen) => type === "alicloud:ecs/ecsDisk:EcsDisk";
export const isConfigMap = ({ type }: Seen) => /^kubernetes:core\/v1:ConfigMap(Patch)?$/.test(type);
export const isSecret = ({ type }: Seen) => type === "kubernetes:core/v1:Secret";
export const isAuthority = ({ type, name }: Seen) =>
  /^tls:index\/(privateKey|selfSignedCert):/.test(type) && name.includes("-ca-");
const isComponent = ({ props }: Seen, component: string) =>
  !isNot(at(props, "metadata", "labels", "app.kubernetes.io/component"), component);
export const isAgents = (seen: Seen) => seen.type === "kubernetes:apps/v1:DaemonSet" && isComponent(seen, "agent");
/** The Job that makes tokens at the servers: where they are machines, they let in nodes alone, and not pods. */
export const isTokensJob = (seen: Seen) =>
  seen.type === "kubernetes:batch/v1:Job" && isComponent(seen, "access-tokens");
export const isServerSet = (seen: Seen) =>
  seen.type === "kubernetes:apps/v1:StatefulSet" && isComponent(seen, "server");

/** Stands for a value that a preview cannot know yet: no rule says anything of it, and `up` checks it. */
export const unknown = Symbol("not known during a preview");

/** The value at a path, undefined where there is none, `unknown` where it or what it would be in is not known yet. */
export function at(value: unknown, ...path: string[]): unknown {
  return path.reduce<unknown>((here, key) => (isRecord(here) ? here[key] : here === unknown ? here : undefined), value);
}
/** Whether a value is known, and is none of those that are right. */
export const isNot = (value: unknown, ...right: unknown[]) => value !== unknown && !right.includes(value);
export function isRecord(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}
/** A text; "" for anything else, which may be a value that is not known yet. */
export const str = (value: unknown) => (typeof value === "string" ? value : "");
/** The entries of a list; none for anything else. */
export const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);
/** The objects in a list; none for anything else. */
export const records = (value: unknown) => list(value).filter(isRecord);

/** The pod that a workload of any kind makes. */
export function podSpec({ type, props }: Seen): Record<string, unknown> | undefined {
  if (!type.startsWith("kubernetes:")) return undefined;
  const pod = type.endsWith(":Pod")
    ? at(props, "spec")
    : (at(props, "spec", "template", "spec") ?? at(props, "spec", "jobTemplate", "spec", "template", "spec"));
  return isRecord(pod) ? pod : undefined;
}
export const containers = (pod: Record<string, unknown> | undefined) =>
  pod ? [...records(pod.initContainers), ...records(pod.containers), ...records(pod.ephemeralContainers)] : [];

/** Every text in a value, with the name of the key it stands under. */
export function texts(value: unknown, key = ""): { key: string; text: string }[] {
  if (typeof value === "string") return [{ key, text: value }];
  if (Array.isArray(value)) return value.flatMap((entry) => texts(entry, key));
  return isRecord(value) ? Object.entries(value).flatMap(([name, entry]) => texts(entry, name)) : [];
}

/** A list with the message, where something is wrong. */
export const when = (wrong: boolean, message: string) => (wrong ? [message] : []);
