import type { z } from "zod";

/** A part of a JSON Schema, as far as the settings make use of it. */
export type Json = z.core.JSONSchema.BaseSchema;

/** One setting, as the tables of docs/settings.md have it. */
export interface Setting {
  /** As mistakes name it: servers.dataDisk.size, apps[].name. */
  readonly key: string;
  /** The platform of the block that has the setting, where the block is another one on each platform. */
  readonly platform?: string | undefined;
  readonly required: boolean;
  readonly schema: Json;
}

/**
 * The settings with the defaults that stand in Pulumi.yaml: those of settings that are no blocks.
 * @param settings every setting, their keys without `consul:` in front
 * @param project what Pulumi.yaml says, by key
 */
export function withDefaults(settings: Json, project: Readonly<Record<string, { default?: unknown }>>): Json {
  const properties = Object.entries(settings.properties ?? {}).map(([name, setting]) => {
    const fallback = project[name]?.default;
    return [name, fallback === undefined ? setting : { ...(setting as Json), default: fallback }];
  });
  const required = settings.required?.filter((name) => project[name]?.default === undefined);
  return { ...settings, properties: Object.fromEntries(properties) as Record<string, Json>, required };
}

/**
 * JSON Schema of a stack file, Pulumi.<stack>.yaml, for editors.
 * @param settings every setting, their keys without `consul:` in front
 */
export function stackFileSchema({ properties = {}, required = [] }: Json): Json {
  const prefixed = Object.entries(properties).map(([name, setting]) => [`consul:${name}`, asGiven(setting as Json)]);
  const config: Json = {
    description: "consul: is this program; what has another prefix is for Pulumi's providers",
    type: "object",
    properties: Object.fromEntries(prefixed) as Record<string, Json>,
    patternProperties: { [`^consul:(?!(${Object.keys(properties).join("|")})$)`]: false },
    required: required.map((name) => `consul:${name}`),
  };
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: "Stack file of this program, made by `npm run expected` from settings/",
    type: "object",
    properties: {
      config,
      secretsprovider: { type: "string" },
      encryptedkey: { type: "string" },
      encryptionsalt: { type: "string" },
      environment: { description: "environments of Pulumi ESC", type: ["array", "object"] as never },
    },
    required: ["config"],
    additionalProperties: false,
  };
}

/** A setting outside a block as `pulumi config set` writes it: numbers as text. */
function asGiven(setting: Json): Json {
  const given = encryptable(setting);
  return given.type === "integer" ? { ...given, type: ["integer", "string"] as never, pattern: "^\\d+$" } : given;
}

/** With what `pulumi config set --secret` writes in the place of a value that is a secret. */
function encryptable(part: Json): Json {
  const inside = <T>(value: T): T => {
    if (Array.isArray(value)) return value.map(inside) as T;
    if (value === null || typeof value !== "object") return value;
    const copy = Object.fromEntries(Object.entries(value).map(([key, of]) => [key, inside(of as unknown)]));
    if (copy.writeOnly !== true) return copy as T;
    const { description, ...plain } = copy;
    const encrypted = { type: "object", properties: { secure: { type: "string" } }, required: ["secure"] };
    return { description, anyOf: [plain, { ...encrypted, additionalProperties: false }] } as T;
  };
  return inside(part);
}

/** Every setting of a JSON Schema. What has a title is one setting, whatever is inside. */
export function listSettings(part: Json, key = "", platform?: string): Setting[] {
  return Object.entries(part.properties ?? {}).flatMap(([name, value]) => {
    const setting = value as Json;
    const at = key === "" ? name : `${key}.${name}`;
    const items = setting.title === undefined ? (setting.items as Json | undefined) : undefined;
    if (items?.properties) return listSettings(items, `${at}[]`, platform);
    if (setting.oneOf) {
      return setting.oneOf.flatMap((one) => {
        const block = one;
        return listSettings(block, at, String((block.properties?.platform as Json).const));
      });
    }
    const own = { key: at, platform, required: part.required?.includes(name) === true, schema: setting };
    if (!setting.properties) return [own];
    const block = listSettings(setting, at, platform);
    // Such as servers.ui, which may be true or a block.
    return setting.type === "object" ? block : [own, ...block];
  });
}
