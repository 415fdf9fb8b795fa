import assert from "assert";

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
