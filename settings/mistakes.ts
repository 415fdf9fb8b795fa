import * as pulumi from "@pulumi/pulumi";
import { z } from "zod";

/** One thing wrong with the settings: the key, its value as given, and what would be accepted. */
export interface Mistake {
  readonly key: string;
  readonly value: unknown;
  readonly accepted: string;
}

/** Every mistake of the settings at once; thrown before any resource exists. */
export class SettingsError extends pulumi.RunError {
  constructor(readonly mistakes: readonly Mistake[]) {
    const lines = mistakes.map(({ key, value, accepted }) => `  consul:${key}: ${show(value)} - ${accepted}`);
    super(
      `${mistakes.length} wrong setting${mistakes.length === 1 ? "" : "s"}; nothing was created:\n${lines.join("\n")}`,
    );
    this.name = "SettingsError";
  }
}

export type Path = readonly (string | number)[];

/** What a rule may ask and say about its block; paths begin in the block. */
export interface Judge {
  /** Reports the value at a path. `shown` stands in the message instead of the value that was given. */
  readonly wrong: (path: Path, accepted: string, shown?: unknown) => void;
  /** Whether the value at a path is of its kind, or absent where it may be; what is inside the value may be wrong. */
  readonly sound: (...path: Path) => boolean;
  /** Reports values that are there twice, with the key of the first; `within` is the block's name, where paths lack it. */
  readonly unique: (accepted: string, paths: readonly Path[], ...within: string[]) => void;
}

/** The keys of a block and of the blocks in it, such as "nodes" and "dataDisk.size". */
type KeyOf<T> = T extends readonly unknown[]
  ? never
  : T extends object
    ? { [K in keyof T & string]: K | `${K}.${KeyOf<NonNullable<T[K]>>}` }[keyof T & string]
    : never;

/**
 * A rule between values of a block, given to the block's `check`. The rule sees parsed values, so defaults are filled in.
 * The rule runs beside other mistakes of the block, unless a key that it needs, or the block itself, is not what it
 * should be.
 */
export function rule<T>(needs: readonly KeyOf<T>[], judge: (block: T, judge: Judge) => void): z.core.$ZodCheck<T> {
  return z.superRefine<T>(
    (block, context) => {
      const sound = (...path: Path) => isSound(context.issues, path);
      const wrong = (path: Path, accepted: string, shown?: unknown) => {
        const params = { rule: true, shown, filledIn: valueAt(block, path) };
        context.addIssue({ code: "custom", path: [...path], message: accepted, params });
      };
      const unique = (accepted: string, paths: readonly Path[], ...within: string[]) => {
        const seen = new Map<unknown, string>();
        for (const path of paths.filter((path) => sound(...path))) {
          const first = seen.get(valueAt(block, path));
          if (first !== undefined) wrong(path, `${accepted}: ${first} has this one already`);
          else seen.set(valueAt(block, path), keyName([...within, ...path]));
        }
      };
      judge(block, { wrong, sound, unique });
    },
    { when: ({ issues }) => isSound(issues, []) && needs.every((key) => isSound(issues, key.split("."))) },
  );
}

/** A mistake that a rule found, and a key that does not exist, leave values what they are. */
function isSound(issues: readonly z.core.$ZodRawIssue[], path: Path): boolean {
  return issues.every(
    (issue) =>
      issue.code === "unrecognized_keys" ||
      (issue.code === "custom" && issue.params?.rule === true) ||
      issue.path?.some((part, i) => part !== path[i]) === true,
  );
}

/**
 * Every mistake that zod found. Values are shown as they were given, but those of secret keys are not shown.
 * @param meant says of a key that no setting has, in a block, which one was meant
 */
export function mistakesOf(
  error: z.ZodError,
  given: unknown,
  isSecret: (key: string) => boolean,
  meant: (block: Path, key: string) => string,
): Mistake[] {
  return error.issues
    .flatMap((issue) => fromIssue(issue, given, meant))
    .map((mistake) => {
      const secret = isSecret(/^\w+/.exec(mistake.key)?.[0] ?? "") || secretKeys.test(mistake.key);
      return secret ? { ...mistake, value: "[secret]" } : mistake;
    });
}

function fromIssue(issue: z.core.$ZodIssue, given: unknown, meant: (block: Path, key: string) => string): Mistake[] {
  const path = issue.path as Path;
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({
      key: keyName([...path, key]),
      value: valueAt(given, [...path, key]),
      accepted: meant(path, key),
    }));
  }
  const rule = issue.code === "custom" && issue.params?.rule === true ? issue.params : undefined;
  const value = [rule?.shown, valueAt(given, path), rule?.filledIn].find((value: unknown) => value !== undefined);
  const missing = value === undefined && !rule;
  return [{ key: keyName(path), value, accepted: missing ? `missing: ${issue.message}` : issue.message }];
}

function keyName(path: Path): string {
  return path.map((part, i) => (typeof part === "number" ? `[${part}]` : i === 0 ? part : `.${part}`)).join("");
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((at, key) => (at as Record<string | number, unknown> | undefined)?.[key], value);
}

/** Keys that hold a secret, whether or not the stack's configuration marks the block as secret. */
const secretKeys = /(^|\.)(kubeconfig|existingKey)$/;

/** What is shown of a wrong value: short, and nothing of a secret. */
function show(value: unknown): string {
  if (value === undefined) return "not set";
  const shown = JSON.stringify(value, (key, v: unknown) => (secretKeys.test(key) ? "[secret]" : v));
  return shown.length > 80 ? `${shown.slice(0, 77)}...` : shown;
}
