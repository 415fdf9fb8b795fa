import { knownWeakness } from "../consul/releases";
import type { Settings } from "./schema";

/** What is accepted and should not stay: one line each, with the key, its value and the remedy. */
export function warningsOf({ version }: Settings): string[] {
  return [knownWeakness(version)].filter((warning) => warning !== undefined);
}
