import { createHash } from "crypto";
import { stableJson } from "./node";
import { agentsReadFeatureGates } from "./releases";

/** One object of Consul's ACL system as its HTTP API takes it, and the file name it travels under. */
export interface AclObject {
  /**
   * `policy.<name>.json`, `token.<accessor id>.json`, `method.<name>.json` (an auth method) or `rule.<name>.json` (a
   * binding rule): the script reads kind and key from it.
   */
  readonly file: string;
  readonly content: string;
}

/**
 * Who keeps a policy or a token: the mark of the owner stands at the end of the description, as in
 * `Agents [consul-alicloud:agents]`. Who owns something may revoke it (ACL_OWNER of scripts/acl.sh), and nobody else.
 */
export const owners = {
  /** Policies of servers and agents, and what requests without a token may do. Nobody revokes these. */
  cluster: "consul-alicloud:cluster",
  /** Tokens of servers: revoked when a server is gone for good. */
  servers: "consul-alicloud:servers",
  /** Tokens of agents: revoked when no agent has one any more. */
  agents: "consul-alicloud:agents",
} as const;

/** A description with its owner's mark. */
export function marked(description: string, owner: string): string {
  return `${description} [${owner}]`;
}

/** Consul's own token for requests that carry none. */
export const anonymousAccessor = "00000000-0000-0000-0000-000000000002";

export interface ServerToken {
  readonly node: string;
  readonly secret: string;
}

/** What the servers' script keeps in place: policies, and tokens with exactly the secrets that the program made. */
export interface ServerAcl {
  readonly datacenter: string;
  /** Version of Consul: what agents need differs. */
  readonly version: string;
  readonly servers: readonly ServerToken[];
  /** Secret id of the one token that all agents share; two while it is being rotated. */
  readonly agents: readonly string[];
}

/**
 * The public id of a token, derived one way from the token's secret. Whoever has the secret finds the token again, a new
 * secret makes a new token, and nothing has to be stored.
 */
export function accessorId(secret: string): string {
  const hex = createHash("sha256").update(`consul token accessor ${secret}`).digest("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, `8${hex.slice(17, 20)}`, hex.slice(20, 32)].join(
    "-",
  );
}

export function policy(name: string, description: string, owner: string, rules: readonly string[]): AclObject {
  return {
    file: `policy.${name}.json`,
    content: stableJson({ Name: name, Description: marked(description, owner), Rules: rules.join("\n") + "\n" }),
  };
}

export function token(secret: string, description: string, owner: string, grants: Record<string, unknown>): AclObject {
  const AccessorID = accessorId(secret);
  const Description = marked(description, owner);
  return {
    file: `token.${AccessorID}.json`,
    content: stableJson({ AccessorID, SecretID: secret, Description, Local: false, ...grants }),
  };
}

/** Characters that Consul's catalog equates with these letters, besides the capitals: dotted I, Kelvin sign, long s. */
const alike: Readonly<Record<string, string>> = { i: "\u0130", k: "\u212a", s: "\u017f" };

/**
 * Rules that leave nodes readable and no more where every node may be written: whoever steals the agents' token cannot
 * take over a server's entry. The catalog ignores upper and lower case and rules do not (docs/facts/consul.md), so that
 * the name alone is not enough: `CONSUL-1` would be the same entry. Each other way to write a name has a first letter that
 * differs, so a prefix up to and with each such letter stands for all of them: `C`, `cO`, `coN` and so on.
 */
function readOnlyNodes(names: readonly string[]): string[] {
  const spelled = names.flatMap((name) =>
    Array.from(name).flatMap((letter, i) =>
      [letter.toUpperCase(), alike[letter] ?? letter]
        .filter((other) => other !== letter)
        .map((other) => `node_prefix "${name.slice(0, i)}${other}" { policy = "read" }`),
    ),
  );
  return [...names.map((name) => `node "${name}" { policy = "read" }`), ...new Set(spelled)];
}

/** Policies and tokens of the servers and agents. */
export function serverAclObjects(acl: ServerAcl): AclObject[] {
  return [
    policy("agents", "Agents register their own node and read services", owners.cluster, [
      'node_prefix "" { policy = "write" }',
      ...readOnlyNodes(acl.servers.map(({ node }) => node)),
      'service_prefix "" { policy = "read" }',
      'service "consul-members" { policy = "write" }',
      ...(agentsReadFeatureGates(acl.version) ? ['operator = "read"'] : []),
    ]),
    policy("discovery", "Read nodes and services: what DNS and unauthenticated lookups may see", owners.cluster, [
      'node_prefix "" { policy = "read" }',
      'service_prefix "" { policy = "read" }',
    ]),
    {
      file: `token.${anonymousAccessor}.json`,
      content: stableJson({
        AccessorID: anonymousAccessor,
        Description: marked("Requests without a token: discovery only", owners.cluster),
        Policies: [{ Name: "discovery" }],
      }),
    },
    ...acl.servers.map((server) =>
      token(server.secret, `Server ${server.node}`, owners.servers, {
        NodeIdentities: [{ NodeName: server.node, Datacenter: acl.datacenter }],
      }),
    ),
    ...acl.agents.map((secret) => token(secret, "Agents", owners.agents, { Policies: [{ Name: "agents" }] })),
  ];
}
