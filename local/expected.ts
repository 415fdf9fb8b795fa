import { readableUserData } from "../consul/machine/user-data";
import { existsSync, readFileSync, writeFileSync } from "fs";
import { join } from "path";
import { stableJson } from "../consul/node";
import { defineTask } from "./command";
import { schemaFile, schemaText, tablesFiles, tablesText } from "./expected-settings";
import { environments, runFixture } from "./fixtures";
import { programDir, ProgramRun, Registered } from "./program";

/** The file with the committed resources of one environment. */
function expectedFile(environment: string): string {
  return join(programDir, "test", "expected", `${environment}.json`);
}

/** The committed resources of one environment, as `expectedText` gives them; undefined where there are none. */
export function committedText(environment: string): string | undefined {
  const file = expectedFile(environment);
  return existsSync(file) ? readFileSync(file, "utf8") : undefined;
}

/**
 * A run of the program as text, to be compared with the committed text: every resource with its inputs and options,
 * the outputs, and user data readable. Secret values are in it: those of made-up providers.
 */
export function expectedText(run: ProgramRun): string {
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
  const text = readableUserData(Buffer.from(String(inputs.userData), "base64").toString());
  return { ...inputs, userData: text.split("\n") };
}

export const task = defineTask({
  name: "expected",
  usage: "",
  about: `writes test/expected/ anew, what the program makes of each stack file, and what is made from the settings:
the tables of ${tablesFiles.en}, in Chinese too, and the schema for editors, ${schemaFile}`,
  after: `Commit the files with the change that makes them differ: their difference is for the reviewer. \`npm run preview\` and the
tests compare with them.`,
  flags: {},
  run: async ({ write }) => {
    for (const [file, text] of [
      [tablesFiles.en, await tablesText("en")],
      [tablesFiles.zh, await tablesText("zh")],
      [schemaFile, await schemaText()],
    ] as const) {
      writeFileSync(join(programDir, file), text);
      write(`${file}: ${String(text.split("\n").length)} lines\n`);
    }
    for (const environment of environments) {
      const text = expectedText(await runFixture(environment));
      writeFileSync(expectedFile(environment), text);
      write(`test/expected/${environment}.json: ${String(text.split("\n").length)} lines\n`);
    }
    return 0;
  },
});
