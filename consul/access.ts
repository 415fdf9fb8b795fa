import { AclObject, policy, token } from "./acl";

/** What an application registers and reads; names and prefixes as the settings have them. */
export interface AppAccess {
  /** Services it registers: a name, or a prefix that ends with `*`. */
  readonly services: readonly string[];
  /** Prefixes of keys. What may be written may be read. */
  readonly kv: { readonly read: readonly string[]; readonly write: readonly string[] };
  /** More rules in Consul's policy language. */
  readonly policy?: string | undefined;
}

/** One holder of a token: what it may do, and the secrets that are valid, newest first. */
export interface Grant {
  readonly name: string;
  readonly rules: readonly string[];
  /** Secret. One, or two while applications move from the old token to the new one. */
  readonly secrets: readonly string[];
}

/** Where the snapshot script leaves what it did, in the text form of Prometheus: scraped as `?raw`, by any server. */
export const snapshotMetricsKey = "consul-snapshot/metrics";

/** Register its own services, find every other one, use its own keys, and no more. */
export function appRules({ services, kv, policy }: AppAccess): string[] {
  const key = (prefix: string, access: string) => `key_prefix "${prefix}" { policy = "${access}" }`;
  return [
    ...services.map((name) =>
      name.endsWith("*")
        ? `service_prefix "${name.slice(0, -1)}" { policy = "write" }`
        : `service "${name}" { policy = "write" }`,
    ),
    'service_prefix "" { policy = "read" }',
    'node_prefix "" { policy = "read" }',
    ...kv.read.filter((prefix) => !kv.write.includes(prefix)).map((prefix) => key(prefix, "read")),
    ...kv.write.map((prefix) => key(prefix, "write")),
    ...(policy === undefined ? [] : [policy.trim()]),
  ];
}

/** For Prometheus: metrics of agents and servers, and the one key that says when the last snapshot was taken. */
export const metricsRules = ['agent_prefix "" { policy = "read" }', `key "${snapshotMetricsKey}" { policy = "read" }`];

/** For `consul snapshot save`, which asks for acl:write. Who has that can make any token: treat it as root. */
export const snapshotRules = ['acl = "write"', `key "${snapshotMetricsKey}" { policy = "write" }`];

/**
 * What the names of policies and the descriptions of tokens begin with that one stack keeps. No two stacks share one,
 * so a stack may revoke whatever begins with its own and is not wanted any more.
 */
export function grantPrefix(stack: string): string {
  return `app_${stack.replace(/[^A-Za-z0-9-]/g, "-")}_`;
}

/** Policies and tokens of all holders of one stack. */
export function grantObjects(prefix: string, grants: readonly Grant[]): AclObject[] {
  return grants.flatMap(({ name, rules, secrets }) => [
    policy(`${prefix}${name}`, `What ${name} may do; kept by Pulumi`, rules),
    ...secrets.map((secret) => token(secret, `${prefix}${name}`, { Policies: [{ Name: `${prefix}${name}` }] })),
  ]);
}
