import { createHash } from "crypto";
import { stableJson } from "./node";

/** One object of Consul's ACL system as its HTTP API takes it, and the file name it travels under. */
export interface AclObject {
  /** `policy.<name>.json` or `token.<accessor id>.json`: the script reads kind and key from it. */
  readonly file: string;
  readonly content: string;
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
  readonly servers: readonly ServerToken[];
  /** Secret id of the one token that all agents share; two while it is being rotated. */
  readonly agents: readonly string[];
}

/**
 * The public id of a token, made from its secret one way: whoever has the secret finds the token again, a new secret
 * is a new token, and nothing has to be remembered.
 */
export function accessorId(secret: string): string {
  const hex = createHash("sha256").update(`consul token accessor ${secret}`).digest("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, `8${hex.slice(17, 20)}`, hex.slice(20, 32)].join(
    "-",
  );
}

export function policy(name: string, description: string, rules: readonly string[]): AclObject {
  return {
    file: `policy.${name}.json`,
    content: stableJson({ Name: name, Description: description, Rules: rules.join("\n") + "\n" }),
  };
}

export function token(secret: string, description: string, grants: Record<string, unknown>): AclObject {
  const accessor = accessorId(secret);
  return {
    file: `token.${accessor}.json`,
    content: stableJson({ AccessorID: accessor, SecretID: secret, Description: description, Local: false, ...grants }),
  };
}

/** Policies and tokens of the servers and agents. */
export function serverAclObjects(acl: ServerAcl): AclObject[] {
  return [
    policy("agents", "Agents register their own node and read services", [
      'node_prefix "" { policy = "write" }',
      // An exact rule wins over the prefix: a stolen agent token cannot take over a server's entry.
      ...acl.servers.map((server) => `node "${server.node}" { policy = "read" }`),
      'service_prefix "" { policy = "read" }',
      'service "consul-members" { policy = "write" }',
    ]),
    policy("discovery", "Read nodes and services: what DNS and unauthenticated lookups may see", [
      'node_prefix "" { policy = "read" }',
      'service_prefix "" { policy = "read" }',
    ]),
    {
      file: `token.${anonymousAccessor}.json`,
      content: stableJson({
        AccessorID: anonymousAccessor,
        Description: "Requests without a token: discovery only",
        Policies: [{ Name: "discovery" }],
      }),
    },
    ...acl.servers.map((server) =>
      token(server.secret, `Server ${server.node}`, {
        NodeIdentities: [{ NodeName: server.node, Datacenter: acl.datacenter }],
      }),
    ),
    ...acl.agents.map((secret) => token(secret, "Agents", { Policies: [{ Name: "agents" }] })),
  ];
}
