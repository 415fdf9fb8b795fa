import { execFile } from "child_process";
import { mkdirSync, symlinkSync } from "fs";
import { delimiter, dirname, join } from "path";
import { promisify } from "util";
import { ports } from "../../consul/config";
import { Cluster } from "../../local/supervisor";

/** Runs snapshot.sh as the timer of one server does. @returns what it said @throws with what it said, where it fails */
export async function takeSnapshot(
  cluster: Cluster,
  server: string,
  directory: string,
  options: { keep?: number; token?: string; args?: readonly string[]; env?: Record<string, string> } = {},
): Promise<string> {
  const { keep = 3, token = cluster.tokenFile, args = [], env = {} } = options;
  const bin = join(cluster.dir, "bin");
  mkdirSync(bin, { recursive: true });
  try {
    symlinkSync(cluster.consul, join(bin, "consul"));
  } catch {
    // It is there already.
  }
  const { address } = cluster.node(server);
  const script = join(dirname(dirname(__dirname)), "consul", "scripts", "snapshot.sh");
  const { stdout } = await promisify(execFile)("sh", [script, directory, String(keep), "6", ...args], {
    env: {
      PATH: [bin, process.env.PATH].join(delimiter),
      CONSUL_HTTP_ADDR: `http://${address}:${ports.http}`,
      CONSUL_HTTP_TOKEN_FILE: token,
      SNAPSHOT_SERVER: address,
      ...env,
    },
  });
  return stdout;
}
