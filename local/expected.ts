import { readFileSync, writeFileSync } from "fs";
import { join } from "path";
import { stableJson } from "../consul/node";
import { programDir, ProgramRun, Registered } from "./program";
import { environments, runFixture } from "./offline";

/** The committed resources of one environment. */
export function expectedFile(environment: string): string {
  return join(programDir, "test", "expected", `${environment}.json`);
}

/**
 * A run of the program as text that is compared with the committed one: every resource with its inputs and options,
 * the outputs, and user data readable. Secret values are in it, but they are the fixtures'.
 */
export function snapshot(run: ProgramRun): string {
  // Days from today are another number tomorrow.
  const outputs = { ...run.outputs, daysLeft: undefined };
  return stableJson({
    outputs,
    resources: run.resources.map((resource) => ({
      ...shortened(resource),
      inputs: typeof resource.inputs.userData === "string" ? readable(resource.inputs) : resource.inputs,
    })),
  });
}

/** Options that are off say nothing. */
function shortened({ options, secretInputs, custom, ...resource }: Registered) {
  const set = Object.entries(options).filter(([, value]) => {
    if (value === "" || value === false) return false;
    return typeof value !== "object" || Object.keys(value).length > 0;
  });
  return {
    ...resource,
    ...(custom ? {} : { component: true }),
    ...(secretInputs.length > 0 ? { secretInputs } : {}),
    options: Object.fromEntries(set),
  };
}

function readable(inputs: Record<string, unknown>): Record<string, unknown> {
  const text = Buffer.from(String(inputs.userData), "base64").toString();
  return { ...inputs, userData: text.split("\n") };
}

export function committed(environment: string): string {
  return readFileSync(expectedFile(environment), "utf8");
}

/** `npm run expected`: writes what the program makes now. The difference is for the reviewer. */
async function renew(): Promise<void> {
  for (const environment of environments) {
    const text = snapshot(await runFixture(environment));
    writeFileSync(expectedFile(environment), text);
    console.log(`test/expected/${environment}.json: ${String(text.split("\n").length)} lines`);
  }
}

if (require.main === module) {
  renew().catch((error: unknown) => {
    console.error(error);
    process.exitCode = 1;
  });
}
