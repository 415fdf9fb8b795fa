import { readFileSync } from "fs";
import { join } from "path";

/** The scripts that nodes and Jobs run: what both machines and pods run is in `scripts`, the rest in a folder each. */
export type ScriptPath =
  | `scripts/${"acl" | "agents" | "api" | "behind" | "debug" | "keyring" | "snapshot" | "status" | "unwanted"}.sh`
  | `machine/${"agent" | "apply" | "autopilot" | "certificate" | "converge" | "disk" | "hand-over" | "install" | "place" | "quorum"}.sh`
  | "machine/oss-put.py"
  | `pod/${"agent-data" | "before-stop" | "oss-put" | "ready" | "retire" | "roll"}.sh`;

/** The text of a script, by its path below `consul/`. The first lines of each say what it does and takes. */
export function readScript(path: ScriptPath): string {
  return readFileSync(join(__dirname, path), "utf8");
}

/** The text of a script for a running cluster, which uses `api` of api.sh. */
export function withApi(path: ScriptPath): string {
  return `${readScript("scripts/api.sh")}\n${readScript(path)}`;
}

/** A script without its comments: they stay in the repository, since the cloud counts every byte. */
export function withoutComments(script: string): string {
  return script
    .split("\n")
    .filter((line) => !/^\s*(#(?!!)|$)/.test(line))
    .concat("")
    .join("\n");
}
