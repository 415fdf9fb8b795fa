import { readFileSync } from "fs";
import { join } from "path";
import { parse } from "yaml";
import { jsonSchema } from "../settings";
import { Json, listSettings, Setting, stackFileSchema, withDefaults } from "../settings/json-schema";
import { programDir } from "./program";
import { descriptionInChinese, kindInChinese } from "./settings-chinese";

// What is made from the settings' own schema, and committed: docs/settings.md's tables, in both languages, and the
// schema for editors.

/** The files, below the program's directory. */
export const schemaFile = "settings/stack-file.schema.json";
export const tablesFiles = { en: "docs/settings.md", zh: "docs/zh/settings.md" } as const;

interface Project {
  readonly config: Readonly<Record<string, { readonly default?: unknown; readonly description?: string }>>;
}

/** What Pulumi.yaml says of the settings that are no blocks. */
export function projectSettings(directory = programDir): Project["config"] {
  return (parse(readFileSync(join(directory, "Pulumi.yaml"), "utf8")) as Project).config;
}

function settings(): Json {
  return withDefaults(jsonSchema(), projectSettings());
}

/** The JSON Schema of stack files, as it is committed. */
export function schemaText(): Promise<string> {
  return formatted(JSON.stringify(stackFileSchema(settings())), schemaFile);
}

/** The words of the tables, in each language of the document. */
interface Words {
  readonly head: string;
  readonly required: string;
  readonly none: string;
  readonly kind: (kind: string) => string;
  readonly meaning: (setting: Setting) => string;
}
const words: Readonly<Record<keyof typeof tablesFiles, Words>> = {
  en: {
    head: "| key | default | value | meaning |",
    required: "required",
    none: "none",
    kind: (kind) => kind,
    meaning: ({ schema }) => schema.description ?? "",
  },
  zh: {
    head: "| 键 | 默认值 | 值 | 含义 |",
    required: "必填",
    none: "无",
    kind: kindInChinese,
    meaning: ({ key, platform }) => descriptionInChinese(key, platform),
  },
};

/** docs/settings.md, or its twin in Chinese, with its tables made anew. */
export function tablesText(language: keyof typeof tablesFiles): Promise<string> {
  const document = readFileSync(join(programDir, tablesFiles[language]), "utf8");
  return formatted(withTables(document, listSettings(settings()), words[language]), tablesFiles[language]);
}

/**
 * A document with the table of settings between each pair of marks, `<!-- settings: servers ecs -->` and
 * `<!-- /settings -->`. A mark names blocks, with a platform where a block has several; `scalars` stands for the settings
 * that are no blocks.
 * @throws Error where a setting is in no table or in two, or a mark names what is not there
 */
export function withTables(document: string, settings: readonly Setting[], of: Words = words.en): string {
  const left = new Set(settings);
  const made = document.replace(
    /(<!-- settings: ([^>]+) -->\n)[\s\S]*?(<!-- \/settings -->)/g,
    (_, begin: string, blocks: string, end: string) => {
      const rows = blocks.split(", ").flatMap((block) => {
        const found = settings.filter((setting) => left.has(setting) && blockOf(setting) === block);
        if (found.length === 0) throw new Error(`docs/settings.md: no settings are left for ${block}`);
        for (const setting of found) left.delete(setting);
        return found.map((setting) => row(setting, of));
      });
      return [begin, of.head, "| --- | --- | --- | --- |", ...rows, "", end].join("\n");
    },
  );
  if (left.size === 0) return made;
  throw new Error(`docs/settings.md: no table has ${[...left].map(({ key }) => key).join(", ")}`);
}

function blockOf({ key, platform }: Setting): string {
  if (/^\w+$/.test(key)) return "scalars";
  const block = /^\w+/.exec(key)?.[0] ?? "";
  return platform === undefined ? block : `${block} ${platform}`;
}

function row(setting: Setting, of: Words): string {
  const { key, required, schema } = setting;
  const { default: fallback = "" } = schema;
  const shown = typeof fallback === "string" ? fallback : JSON.stringify(fallback);
  const cells = [
    `\`${key}\``,
    required ? of.required : shown === "" ? of.none : `\`${shown}\``,
    of.kind(kindOf(schema)),
    linked(of.meaning(setting)),
  ];
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|").replaceAll("<", "\\<")).join(" | ")} |`;
}

/** The words of a description as Markdown: documents are links, and outside of code an underscore is itself. */
function linked(meaning: string): string {
  return meaning
    .split(/(`[^`]*`)/)
    .map((part, i) => {
      if (i % 2 === 1) return part;
      return part.replaceAll("_", "\\_").replace(/\bdocs\/([\w-]+\.md)(#[\p{L}\p{N}-]+)?/gu, "[$1]($1$2)");
    })
    .join("");
}

/** What may stand there, in a few words. */
function kindOf({ title, type, enum: values, const: only, items, minItems }: Json): string {
  if (title !== undefined) return title;
  const choices = values ?? (only !== undefined ? [only] : type === "boolean" ? [true, false] : undefined);
  if (choices) return choices.map((choice) => `\`${String(choice)}\``).join(", ");
  if (type === "array") {
    return `list: ${kindOf(items as Json)}${minItems === undefined ? "" : `, at least ${minItems}`}`;
  }
  if (type === "object") return "map";
  return type === "string" ? "text" : "`true`, `false` or a block";
}

/** As the repository's formatter has it. Loaded late: a preview needs no formatter. */
async function formatted(text: string, file: string): Promise<string> {
  const { format, resolveConfig } = await import("prettier");
  const filepath = join(programDir, file);
  return format(text, { ...(await resolveConfig(filepath)), filepath });
}
