import assert from "assert";
import { isNewer } from "../../consul/releases";

/** A later version that nobody released, as long as the one that is given. From 1.x the step is the one to 2.0. */
export function newerThan(version: string): string {
  const line = version.startsWith("1.") ? "2.0." : version.replace(/\d+$/, "");
  const newer = line + "9".repeat(version.length - line.length);
  assert(isNewer(newer, version), `${newer} is not later than ${version}`);
  return newer;
}

/**
 * The same program under another version number: its VERSION file, which Go put into it, ends in a newline. No second
 * Consul has to be built to see one replace the other.
 */
export function relabelled(program: Buffer, version: string, other: string): Buffer {
  const copy = Buffer.from(program);
  const at = copy.indexOf(`${version}\n`);
  assert(at > 0 && copy.indexOf(`${version}\n`, at + 1) < 0 && other.length === version.length);
  copy.write(other, at);
  return copy;
}
