import * as pulumi from "@pulumi/pulumi";
import type { AppAccess, EnvVar } from "../components/kubernetes/app-access";
import type { Expiry } from "./expiry";

export type { AppAccess, EnvVar, TokenReference } from "../components/kubernetes/app-access";

/** Version of the contract below. Fields are only ever added; a change of meaning raises this. */
export const outputsVersion = 1;

/**
 * What a stack of this program gives to others. `index.ts` exports exactly this, and `consulOutputs` reads it in
 * another program, so that a rename is a compile error on both sides.
 */
export interface ConsulOutputs {
  /** Version of this contract. */
  outputsVersion: pulumi.Output<number>;
  /** prod, staging, dev or local. */
  environment: pulumi.Output<string>;
  datacenter: pulumi.Output<string>;
  /** Version of Consul that servers and agents run. */
  consulVersion: pulumi.Output<string>;
  /** Addresses or names at which agents join, all servers. */
  retryJoin: pulumi.Output<string[]>;
  /** Consul node names of the servers. */
  serverNames: pulumi.Output<string[]>;
  /** Base URLs of the servers' HTTPS API, in the order of serverNames. */
  serverUrls: pulumi.Output<string[]>;
  /** PEM of the certificate authority, to check the servers with. Public. */
  caCertificate: pulumi.Output<string>;
  /** Secret. Encrypts gossip. */
  gossipKey: pulumi.Output<string>;
  /** Secret. Every node needs all of them: the one that encrypts first, then those that are accepted besides. */
  gossipKeys: pulumi.Output<string[]>;
  /** Secret. The token with which agents register their nodes. */
  agentToken: pulumi.Output<string>;
  /** Secret. May do everything: for operators, never for an application. */
  managementToken: pulumi.Output<string>;
  /** Environment of an application's container, as a pod spec has it; see components/kubernetes/app-environment.ts. */
  appEnvironment: pulumi.Output<EnvVar[]>;
  /**
   * Applications of consul:apps by name: the whole environment of a container of each, the Secret that holds its token,
   * and the token's public id. Put the id into an annotation of the pods: they roll with the token.
   */
  apps: pulumi.Output<Record<string, AppAccess>>;
  /** What to put into the cluster's CoreDNS by hand; empty where `up` has done it or there are no agents in Kubernetes. */
  dnsSnippet: pulumi.Output<string>;
  /** When the certificate authority, the first server certificate and the gossip key run out or are due; RFC 3339. */
  expiry: pulumi.Output<Expiry>;
  /** Whole days until then, when this was last run. */
  daysLeft: pulumi.Output<Record<keyof Expiry, number>>;
}

/** The outputs that are secret, in this stack and in every stack that reads them. */
export const secretOutputs = [
  "gossipKey",
  "gossipKeys",
  "agentToken",
  "managementToken",
] as const satisfies (keyof ConsulOutputs)[];

/**
 * Reads another stack's outputs. Each field is read when it is used; secrets stay secret.
 * @throws (as a failed output) a line with the stack and the field, where a field is missing or the version is another.
 */
export function consulOutputs(stack: pulumi.StackReference): ConsulOutputs {
  const names: Record<keyof ConsulOutputs, true> = {
    outputsVersion: true,
    environment: true,
    datacenter: true,
    consulVersion: true,
    retryJoin: true,
    serverNames: true,
    serverUrls: true,
    caCertificate: true,
    gossipKey: true,
    gossipKeys: true,
    agentToken: true,
    managementToken: true,
    appEnvironment: true,
    apps: true,
    dnsSnippet: true,
    expiry: true,
    daysLeft: true,
  };
  return new Proxy(names as unknown as ConsulOutputs, {
    get(target, field) {
      if (Object.hasOwn(target, field)) return readField(field as keyof ConsulOutputs);
      // What TypeScript refuses at compile time, said at run time: Output<any>, JavaScript, a reader of another release.
      if (typeof field === "string" && !(field in target) && !/^_|^then$|^toJSON$/.test(field)) {
        throw new Error(`there is no output "${field}" of a Consul stack; there are ${Object.keys(names).join(", ")}`);
      }
      return undefined;
    },
  });

  function readField(field: keyof ConsulOutputs): pulumi.Output<unknown> {
    // getOutput, not outputs: reading the whole map would make every field secret as soon as one is.
    const found = field === "gossipKeys" ? gossipKeys() : stack.getOutput(field);
    const read = pulumi.all([stack.name, stack.getOutput("outputsVersion"), found]);
    const value = read.apply(([name, version, value]: [string, unknown, unknown]) =>
      checked(name, version, field, value),
    );
    return (secretOutputs as readonly string[]).includes(field) ? pulumi.secret(value) : value;
  }

  /** A stack of an earlier release has one key, and no list. */
  function gossipKeys(): pulumi.Output<unknown> {
    return pulumi
      .all([stack.getOutput("gossipKeys"), stack.getOutput("gossipKey")])
      .apply(([keys, key]: [unknown, unknown]) => keys ?? (key === undefined ? undefined : [key]));
  }
}

/**
 * How one application reaches Consul, of those in consul:apps of the stack that was read.
 * @throws (as a failed output) where there is no such application, with those that there are
 */
export function appAccess(consul: ConsulOutputs, name: string): pulumi.Output<AppAccess> {
  return consul.apps.apply((apps) => {
    const access = apps[name] as Partial<AppAccess> | undefined;
    if (access?.environment) return access as AppAccess;
    if (access) {
      throw new Error(`the Consul stack has no environment for "${name}": run \`pulumi up\` there with this release`);
    }
    const others = Object.keys(apps).sort().join(", ") || "none";
    throw new Error(`the Consul stack has no token for "${name}", only for: ${others}; add it to consul:apps there`);
  });
}

function checked(stack: string, version: unknown, field: string, value: unknown): unknown {
  if (version === undefined) {
    throw new Error(
      `stack ${stack} has no output "outputsVersion": is it a stack of this Consul program, and has \`pulumi up\` run there?`,
    );
  }
  if (version !== outputsVersion) {
    throw new Error(
      `stack ${stack} gives outputs of version ${JSON.stringify(version)}, this program reads version ${outputsVersion}: ` +
        "use the reader of the release that made them, or run `pulumi up` there with this one",
    );
  }
  if (value === undefined) {
    throw new Error(`stack ${stack} has no output "${field}": run \`pulumi up\` there with this release`);
  }
  return value;
}
