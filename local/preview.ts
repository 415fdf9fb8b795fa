import { createPatch } from "diff";
import { existsSync, readdirSync } from "fs";
import { stableJson } from "../consul/node";
import { tokenUuid } from "../consul/secrets";
import type { Seen } from "../policy/resources";
import { stackSettings, Violation, violations } from "../policy/rules";
import { defineTask, Misuse } from "./command";
import { committedText, expectedText } from "./expected";
import { runFixture } from "./fixtures";
import { render, yaml } from "./preview-text";
import { programDir, Registered } from "./program";

/** A resource as test/expected has it. */
export interface Shown {
  readonly urn: string;
  readonly type: string;
  readonly name: string;
  /** The options of local/program.ts that are set. */
  readonly options: Partial<Registered["options"]>;
  readonly inputs: Readonly<Record<string, unknown>>;
}

export interface Difference {
  readonly urn: string;
  readonly change: "added" | "removed" | "changed";
  /** The change as lines with + and -, for a changed resource. */
  readonly lines: readonly string[];
}

export interface Preview {
  readonly stack: string;
  readonly resources: readonly Shown[];
  /** Undefined where nothing is committed for this stack. */
  readonly differences: readonly Difference[] | undefined;
  readonly violations: readonly Violation[];
}

/** A resource as policies see it. */
export function asSeen({ type, name, urn, inputs, secretInputs, options }: Registered): Seen {
  const { protect, additionalSecretOutputs } = options;
  return { type, name, urn, props: inputs, protect, additionalSecretOutputs, secretInputs };
}

/**
 * What the program would make for a stack, without any provider.
 * @param committed what to compare with: the text of test/expected unless given
 * @throws Error with one line where there is no such stack, SettingsError where its settings are wrong
 */
export async function preview(stack: string, committed = committedText(stack)): Promise<Preview> {
  if (!existsSync(`${programDir}/Pulumi.${stack}.yaml`)) {
    const files = readdirSync(programDir).flatMap((file) => /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1] ?? []);
    throw new Error(`there is no Pulumi.${stack}.yaml; stacks with a file are ${files.sort().join(", ")}`);
  }
  const run = await runFixture(stack);
  const hidden = new Set(run.secrets);
  for (const secret of run.secrets) if (/^[0-9a-f]{32}$/.test(secret)) hidden.add(tokenUuid(secret));
  for (const { value, secret } of Object.values(run.outputs)) if (secret) hidden.add(String(value));
  const masked = (text: string) => [...hidden].reduce((shown, secret) => shown.replaceAll(secret, "[secret]"), text);
  const read = (json: string) =>
    (JSON.parse(json) as { resources: Shown[] }).resources.map((resource) => deep(readable(resource), masked) as Shown);
  const resources = read(expectedText(run));
  return {
    stack,
    resources,
    differences: committed === undefined ? undefined : compare(read(committed), resources),
    violations: violations(
      run.resources.map(asSeen),
      stackSettings((key) => run.config[`consul:${key}`]),
    ),
  };
}

/** A resource with its files as text: test/expected has user data as a list of lines, and values of a Secret in base64. */
function readable(resource: Shown): Shown {
  const { userData, data } = resource.inputs;
  const inputs = { ...resource.inputs };
  if (Array.isArray(userData)) inputs.userData = userData.join("\n");
  if (resource.type === "kubernetes:core/v1:Secret") {
    inputs.data = deep(data, (text) => Buffer.from(text, "base64").toString());
  }
  return { ...resource, inputs };
}

/** A value with every text in it changed. */
function deep(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === "string") return change(value);
  if (Array.isArray(value)) return value.map((entry) => deep(entry, change));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, deep(entry, change)]));
}

function compare(committed: readonly Shown[], now: readonly Shown[]): Difference[] {
  const before = new Map(committed.map((resource) => [resource.urn, resource]));
  const after = new Map(now.map((resource) => [resource.urn, resource]));
  return [...new Set([...before.keys(), ...after.keys()])].sort().flatMap((urn): Difference[] => {
    const [old, current] = [before.get(urn), after.get(urn)];
    if (!old) return [{ urn, change: "added", lines: [] }];
    if (!current) return [{ urn, change: "removed", lines: [] }];
    const [from, to] = [old, current].map(({ options, inputs }) => yaml({ options, inputs }));
    if (from === to) return [];
    const patch = createPatch("", from ?? "", to ?? "", "", "", { context: 1 });
    const lines = patch.split("\n").filter((line) => /^[ +-](?![+-]{2} )/.test(line) || line.startsWith("@@"));
    return [{ urn, change: "changed", lines }];
  });
}

export const task = defineTask({
  name: "preview",
  usage: "-- STACK [OPTION…]",
  about: "what the program would make for STACK (Pulumi.STACK.yaml)",
  before: `Every resource, the difference to what is committed in test/expected, and what the policy pack says. Needs no account and
no network: ids and keys are made up, secrets masked.`,
  after: `Exit status 1 where the policy pack refuses something, 2 where the stack or its settings are wrong.
Colours are for a terminal, unless NO_COLOR is set.`,
  flags: {
    full: { type: "boolean", about: "with the inputs of every resource: its files" },
    json: { type: "boolean", about: "the same as JSON" },
  },
  takesNames: true,
  run: async ({ flags: { full, json }, names: [stack, ...rest], write }) => {
    if (stack === undefined || rest.length > 0) {
      throw new Misuse("one stack is needed, such as: npm run preview -- prod");
    }
    const result = await preview(stack).catch((cause: unknown) => {
      throw new Misuse((cause as Error).message, { cause });
    });
    const colours = process.stdout.isTTY && process.stdout.hasColors();
    write(json ? stableJson(result) : render(result, { full: full ?? false, colours }));
    return result.violations.length > 0 ? 1 : 0;
  },
});
