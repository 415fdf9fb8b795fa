import { chmodSync, writeFileSync } from "fs";
import { join } from "path";

/**
 * Puts a `pulumi` into a directory that is on PATH: it prints the settings of a stack and its outputs, as the real one
 * does with --show-secrets.
 * @param script what it does before
 */
export function fakePulumi(
  directory: string,
  config: Readonly<Record<string, string>>,
  outputs: Readonly<Record<string, unknown>>,
  script = "",
): void {
  const entries = Object.entries(config).map(([key, value]) => [key, { value, secret: false }]);
  const write = (name: string, text: string) => writeFileSync(join(directory, name), text, { mode: 0o600 });
  write("config.json", JSON.stringify(Object.fromEntries(entries)));
  write("outputs.json", JSON.stringify(outputs));
  const answer = (call: string, file: string) => `"${call}") cat '${join(directory, file)}' ;;`;
  const cases = `case "$1 $2" in ${answer("config --json", "config.json")} ${answer("stack output", "outputs.json")} esac`;
  write("pulumi", `#!/bin/sh\n${script}\n${cases}\n`);
  chmodSync(join(directory, "pulumi"), 0o755);
}
