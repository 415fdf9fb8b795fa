import { createPatch } from "diff";
import { existsSync, readdirSync, readFileSync } from "fs";
import { parseArgs } from "util";
import { stringify } from "yaml";
import { stableJson } from "../consul/node";
import { tokenUuid } from "../consul/secrets";
import { Seen, Violation, violations } from "../policy/rules";
import { expectedFile, snapshot } from "./expected";
import { runFixture } from "./offline";
import { programDir, Registered } from "./program";

const usage = `npm run preview -- STACK [--brief] [--json]

Every resource that the program would make for STACK (Pulumi.STACK.yaml), the difference to what is committed in
test/expected, and what the policy pack says. Needs no account and no network: ids and keys are made up, secrets masked.

  --brief  names and options only, without inputs
  --json   the same as JSON
Exit code: 0, 1 where the policy pack refuses something, 2 where the stack or its settings are wrong.
`;

/** A resource as the snapshots have it. */
interface Shown {
  readonly urn: string;
  readonly type: string;
  readonly name: string;
  /** Those of local/program.ts that are set. */
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
 * What the program would make for a stack, offline. `committed` is a snapshot to compare with.
 * @throws Error with one line where there is no such stack, SettingsError where its settings are wrong.
 */
export async function preview(stack: string, committed = committedSnapshot(stack)): Promise<Preview> {
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
  const resources = read(snapshot(run));
  return {
    stack,
    resources,
    differences: committed === undefined ? undefined : compare(read(committed), resources),
    violations: violations(run.resources.map(asSeen), String(run.outputs.environment?.value)),
  };
}

function committedSnapshot(stack: string): string | undefined {
  const file = expectedFile(stack);
  return existsSync(file) ? readFileSync(file, "utf8") : undefined;
}

/** Files as text: user data is a list of lines in the snapshot, the values of a Secret are base64. */
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

/** What a resource waits for without taking anything from it: the chain of servers, for one. */
function explicit({ dependsOn = [], inputDependencies = {} }: Shown["options"]): string[] {
  const implied = new Set(Object.values(inputDependencies).flat());
  const others = dependsOn.filter((urn) => !implied.has(urn)).map((urn) => urn.split("::").at(-1));
  return others.length > 0 ? [`after ${others.join(" and ")}`] : [];
}

const yaml = (value: unknown) => stringify(value, { lineWidth: 0, aliasDuplicateObjects: false }).trimEnd();
const shortType = (type: string) => type.replace(/^([^:]+):(?:.*[:/])?([^:/]+)$/, "$1 $2");
const urnName = (urn: string) =>
  `${urn.split("::").at(-1) ?? urn} (${shortType(urn.split("::")[2]?.split("$").at(-1) ?? "")})`;

/** The preview for a person. */
export function render({ stack, resources, differences, violations }: Preview, brief: boolean): string {
  const lines = [`${stack}: ${resources.length} resources, in the tree that they form`, ""];
  const urns = new Set(resources.map(({ urn }) => urn));
  const children = (parent: string | undefined) =>
    resources.filter(({ options }) => (urns.has(options.parent ?? "") ? options.parent : undefined) === parent);
  const list = (parent: string | undefined, indent: string) => {
    for (const { urn, type, name, options, inputs } of children(parent)) {
      const notes = [...(options.protect ? ["protected"] : []), ...explicit(options)];
      lines.push(`${indent}${name} (${[shortType(type), ...notes].join(", ")})`);
      if (!brief && Object.keys(inputs).length > 0) lines.push(yaml(inputs).replace(/^(?=.)/gm, `${indent}    | `));
      list(urn, `${indent}  `);
    }
  };
  list(undefined, "");
  lines.push("", ...differencesText(), "", ...violationsText());
  return lines.join("\n") + "\n";

  function differencesText(): string[] {
    if (!differences) return [`Nothing is committed for ${stack} to compare with.`];
    if (differences.length === 0) return [`No difference to test/expected/${stack}.json.`];
    const sign = { added: "+", removed: "-", changed: "~" };
    return [
      `Differences to test/expected/${stack}.json (accept them with: npm run expected):`,
      ...differences.flatMap(({ urn, change, lines: changed }) => [
        `  ${sign[change]} ${urnName(urn)} ${change}`,
        ...changed.map((line) => `      ${line}`),
      ]),
    ];
  }

  function violationsText(): string[] {
    if (violations.length === 0) return ["The policy pack has no objection."];
    return [
      `The policy pack refuses this, for ${violations.length} reasons:`,
      ...violations.map(({ rule, urn, message }) => `  ${rule}: ${urn ? `${urnName(urn)} ` : ""}${message}`),
    ];
  }
}

/** @returns the exit code */
export async function main(args: string[], write: (text: string) => void, complain: (text: string) => void) {
  try {
    const options = {
      brief: { type: "boolean" },
      json: { type: "boolean" },
      help: { type: "boolean", short: "h" },
    } as const;
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
    if (values.help) {
      write(usage);
      return 0;
    }
    const [stack, ...rest] = positionals;
    if (stack === undefined || rest.length > 0) {
      throw new Error(`one stack is needed, such as: npm run preview -- prod`);
    }
    const result = await preview(stack);
    write(values.json ? stableJson(result) : render(result, values.brief ?? false));
    return result.violations.length > 0 ? 1 : 0;
  } catch (error) {
    complain(`preview: ${(error as Error).message}\n`);
    return 2;
  }
}

if (require.main === module) {
  void main(
    process.argv.slice(2),
    (text) => process.stdout.write(text),
    (text) => process.stderr.write(text),
  ).then((code) => (process.exitCode = code));
}
