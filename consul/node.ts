/**
 * A file a Consul node needs: its path as the node's layout has it, octal mode as a string ("0640"), and whether its
 * content is secret.
 */
export interface ConsulFile {
  readonly path: string;
  readonly mode: string;
  readonly content: string;
  readonly secret: boolean;
}

/**
 * One Consul node, whatever carries it out: an ECS machine, a pod or a process here. `command` is the whole argument
 * list and never holds a secret; what is secret is in `files`.
 */
export interface ConsulNode {
  readonly name: string;
  readonly role: "server" | "agent";
  readonly address: string;
  readonly files: readonly ConsulFile[];
  readonly command: readonly string[];
}

/**
 * Where a platform keeps things: absolute paths, or paths below the directory that the process is started in. The
 * content of a node is the same everywhere, its directories are not.
 */
export interface NodeLayout {
  /** The consul binary: a path, or a name on PATH. */
  readonly consul: string;
  /** Directory of what may be read by anyone: consul.json, ca.pem. */
  readonly configDir: string;
  /** Directory of what may not: secrets.json, gossip.keyring, server.pem, server-key.pem. May equal configDir. */
  readonly secretDir: string;
  /** Consul's data directory. */
  readonly dataDir: string;
}

/** JSON with sorted keys and a trailing newline: equal values are equal bytes, so a diff always means a change. */
export function stableJson(value: unknown): string {
  return JSON.stringify(sortKeys(value), null, 2) + "\n";
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, v]) => v !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
      .map(([k, v]) => [k, sortKeys(v)]),
  );
}
