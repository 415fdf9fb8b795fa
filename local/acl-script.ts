import { execFile } from "child_process";
import { promisify } from "util";
import { withApi } from "../consul/scripts";
import { findOnPath } from "./consul-binary";

/** @throws one line, where a program is missing that the script below needs */
export function assertAclTools(): void {
  for (const tool of ["sh", "curl"]) {
    if (findOnPath(tool) !== undefined) continue;
    throw new Error(`${tool} is not on PATH: policies and tokens are put in place with it, install it`);
  }
}

/**
 * Puts policies and tokens in place by the script that servers run, in one attempt.
 * @param address URL of a node's API
 * @param directory has a file for each object
 * @throws what the script says last: a cluster that has just got its leader is worth another attempt
 */
export async function runAclScript(address: string, tokenFile: string, directory: string): Promise<void> {
  const own = { CONSUL_HTTP_ADDR: address, CONSUL_HTTP_TOKEN_FILE: tokenFile, ACL_DEADLINE: "0" };
  const script = withApi("scripts/acl.sh");
  await promisify(execFile)("sh", ["-c", script, "acl.sh", directory], {
    env: { PATH: process.env.PATH, ...own },
  }).catch((error: unknown) => {
    const { stderr, message } = error as Error & { stderr?: string };
    throw new Error(stderr?.trim().split("\n").at(-1) ?? message, { cause: error });
  });
}
