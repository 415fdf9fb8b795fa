import { styleText } from "util";
import { stringify } from "yaml";
import type { Difference, Preview, Shown } from "./preview";

export interface Style {
  /** With the inputs of every resource: its files. */
  readonly full?: boolean;
  /** With colours, for a terminal. */
  readonly colours?: boolean;
}

type Paint = (style: "red" | "green" | "yellow" | "dim", text: string) => string;

/** The preview for a person: the verdict, every resource in the tree that they form, and the verdict with its reasons. */
export function render(preview: Preview, { full = false, colours = false }: Style = {}): string {
  const paint: Paint = (style, text) => (colours ? styleText(style, text, { validateStream: false }) : text);
  const parts = [
    verdict(preview, paint),
    tree(preview.resources, full, paint),
    differences(preview, paint),
    violations(preview, paint),
    verdict(preview, paint),
  ];
  return parts
    .filter((lines) => lines.length > 0)
    .map((lines) => `${lines.join("\n")}\n`)
    .join("\n");
}

/** What matters of all in three lines. */
function verdict({ stack, resources, differences: found, violations: refused }: Preview, paint: Paint): string[] {
  const changes = (["added", "removed", "changed"] as const)
    .map((change) => ({ change, count: found?.filter((one) => one.change === change).length ?? 0 }))
    .filter(({ count }) => count > 0)
    .map(({ change, count }) => `${count} ${change}`);
  const committed =
    found === undefined
      ? paint("yellow", `Nothing is committed for ${stack} to compare with.`)
      : changes.length === 0
        ? paint("green", `No difference to test/expected/${stack}.json.`)
        : paint("yellow", `Differences to test/expected/${stack}.json: ${changes.join(", ")}.`);
  const policy =
    refused.length === 0
      ? paint("green", "The policy pack has no objection.")
      : paint("red", `The policy pack refuses this, for ${refused.length} reason${refused.length > 1 ? "s" : ""}.`);
  return [`${stack}: ${resources.length} resources`, committed, policy];
}

/** A line for each resource below its parent, and the inputs where `full` says so. */
function tree(resources: readonly Shown[], full: boolean, paint: Paint): string[] {
  const urns = new Set(resources.map(({ urn }) => urn));
  const children = (parent: string | undefined) =>
    resources.filter(({ options }) => (urns.has(options.parent ?? "") ? options.parent : undefined) === parent);
  const list = (parent: string | undefined, indent: string): string[] =>
    children(parent).flatMap((resource) => {
      const { urn, type, name, options, inputs } = resource;
      const notes = [...(options.protect ? ["protected"] : []), ...waitsFor(resource, resources)];
      return [
        `${indent}${name} ${paint("dim", `(${[shortType(type), ...notes].join(", ")})`)}`,
        ...(full && Object.keys(inputs).length > 0 ? [yaml(inputs).replace(/^(?=.)/gm, `${indent}    | `)] : []),
        ...list(urn, `${indent}  `),
      ];
    });
  return list(undefined, "");
}

/**
 * What a resource waits for without taking anything from it: the chain of servers, for one. Where the resource waits for
 * everything in a component, the component stands for all of it, and for whatever that in turn waits for.
 */
function waitsFor({ options }: Shown, resources: readonly Shown[]): string[] {
  const { dependsOn = [], inputDependencies = {} } = options;
  const whole = resources.flatMap(({ urn, name, type }) => {
    const below = resources.filter((one) => one.options.parent === urn).map((one) => one.urn);
    return below.length > 1 && below.every((one) => dependsOn.includes(one))
      ? [{ name: type.endsWith("Servers") ? "the servers" : `all of ${name}`, below }]
      : [];
  });
  const members = new Set(whole.flatMap(({ below }) => below));
  const behind = resources.filter(({ urn }) => members.has(urn)).flatMap((one) => one.options.dependsOn ?? []);
  const named = new Set([...Object.values(inputDependencies).flat(), ...members, ...behind]);
  const others = dependsOn.filter((urn) => !named.has(urn)).map((urn) => urn.split("::").at(-1));
  const all = [...whole.map(({ name }) => name), ...others];
  const first = all.slice(0, -1).join(", ");
  return all.length > 0 ? [`after ${first === "" ? "" : `${first} and `}${all.at(-1) ?? ""}`] : [];
}

function differences({ stack, differences: found = [] }: Preview, paint: Paint): string[] {
  if (found.length === 0) return [];
  return [
    `Differences to test/expected/${stack}.json (accept them with: npm run expected):`,
    ...found.flatMap(({ urn, change, lines }) => [
      paint(colourOf[change], `  ${signOf[change]} ${urnName(urn)} ${change}`),
      ...lines.map((line) => {
        const colour = line.startsWith("+") ? "green" : line.startsWith("-") ? "red" : "dim";
        return paint(colour, `      ${line}`);
      }),
    ]),
  ];
}
const signOf: Readonly<Record<Difference["change"], string>> = { added: "+", removed: "-", changed: "~" };
const colourOf = { added: "green", removed: "red", changed: "yellow" } as const;

function violations({ violations: refused }: Preview, paint: Paint): string[] {
  if (refused.length === 0) return [];
  return [
    "The policy pack refuses this:",
    ...refused.map(({ rule, urn, message }) => paint("red", `  ${rule}: ${urn ? `${urnName(urn)} ` : ""}${message}`)),
  ];
}

/** A value as YAML without line breaks of its own. */
export function yaml(value: unknown): string {
  return stringify(value, { lineWidth: 0, aliasDuplicateObjects: false }).trimEnd();
}

function shortType(type: string): string {
  return type.replace(/^([^:]+):(?:.*[:/])?([^:/]+)$/, "$1 $2");
}

function urnName(urn: string): string {
  const [, , types = "", name = urn] = urn.split("::");
  return `${name} (${shortType(types.split("$").at(-1) ?? "")})`;
}
