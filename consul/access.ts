import { AclObject, policy, token } from "./acl";
import { digest } from "./secrets";

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
    // The longest prefix decides: a narrower one that may only be read would take the right to write away.
    ...kv.read
      .filter((prefix) => !kv.write.some((written) => prefix.startsWith(written)))
      .map((prefix) => key(prefix, "read")),
    ...kv.write.map((prefix) => key(prefix, "write")),
    ...(policy === undefined ? [] : [policy.trim()]),
  ];
}

/** For Prometheus: metrics of agents and servers, and the one key that says when the last snapshot was taken. */
export const metricsRules = ['agent_prefix "" { policy = "read" }', `key "${snapshotMetricsKey}" { policy = "read" }`];

/** For `consul snapshot save`, which asks for acl:write. Who has that can make any token: treat it as root. */
export const snapshotRules = ['acl = "write"', `key "${snapshotMetricsKey}" { policy = "write" }`];

/** A Pulumi stack that keeps policies and tokens for others. */
export interface Keeper {
  readonly project: string;
  readonly stack: string;
}

/** Names a keeper among all that use the same servers: project and stack as a whole, since names may differ in a dot. */
export function keeperId({ project, stack }: Keeper): string {
  return digest(`${project}/${stack}`).slice(0, 16);
}

/** The owner of all policies and tokens of one stack, as the script takes it. */
export function grantOwner(keeper: Keeper): string {
  return `consul-alicloud:apps:${keeperId(keeper)}`;
}

/**
 * What the names of a stack's policies and the descriptions of its tokens began with in releases without owners. Several
 * stacks could have the same.
 */
export function formerPrefix({ stack }: Keeper): string {
  return `app_${stack.replace(/[^A-Za-z0-9-]/g, "-")}_`;
}

/** Policies and tokens of all holders of one stack. */
export function grantObjects(keeper: Keeper, grants: readonly Grant[]): AclObject[] {
  const owner = grantOwner(keeper);
  return grants.flatMap(({ name, rules, secrets }) => {
    const Name = `app_${keeperId(keeper)}_${name}`;
    const whose = `${name}, stack ${keeper.stack}, project ${keeper.project}`;
    return [
      policy(Name, whose, owner, rules),
      ...secrets.map((secret) => token(secret, whose, owner, { Policies: [{ Name }] })),
    ];
  });
}
