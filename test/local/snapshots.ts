import { execFile } from "child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "fs";
import { delimiter, join } from "path";
import { promisify } from "util";
import { ports } from "../../consul/config";
import { readScript } from "../../consul/scripts";
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
  // Side by side, as on a machine.
  writeFileSync(join(bin, "snapshot.sh"), readScript("scripts/snapshot.sh"));
  writeFileSync(join(bin, "oss-put.py"), readScript("machine/oss-put.py"));
  const { address } = cluster.node(server);
  const { stdout } = await promisify(execFile)(
    "sh",
    [join(bin, "snapshot.sh"), directory, String(keep), "6", ...args],
    {
      env: {
        PATH: [bin, process.env.PATH].join(delimiter),
        CONSUL_HTTP_ADDR: `http://${address}:${ports.http}`,
        CONSUL_HTTP_TOKEN_FILE: token,
        SNAPSHOT_SERVER: address,
        ...env,
      },
    },
  );
  return stdout;
}
