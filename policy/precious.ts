import { readFileSync, writeFileSync } from "fs";
import { parseArgs } from "util";

const usage = `node --require sucrase/register/ts policy/precious.ts FILE --stack NAME [--allow] [--comment FILE]

Reads the output of \`pulumi preview --json\`, prints what it would do (no values, only names), and fails where it would
replace or delete a server, a disk or a key.

  --allow         the change is meant to replace and delete: say so and pass
  --comment FILE  write the text there as well, for the comment on the pull request
Exit code: 0, 1 where something precious would be lost, 2 where the file is not a preview.
`;

/** The part of \`pulumi preview --json\` that is looked at (PreviewDigest in pulumi/pulumi, pkg/display/json.go). */
interface Digest {
  readonly steps?: readonly Step[];
  readonly changeSummary?: Readonly<Record<string, number>>;
}
interface Step {
  readonly op: string;
  readonly urn: string;
  readonly diffReasons?: readonly string[] | null;
  readonly replaceReasons?: readonly string[] | null;
}

/** What a preview would do to one resource. */
export interface Change {
  readonly urn: string;
  readonly type: string;
  readonly name: string;
  readonly op: "create" | "update" | "delete" | "replace" | "unknown";
  /** The properties behind it: names alone, since values may be secret. */
  readonly because: readonly string[];
  /** What would be lost; undefined where nothing precious would. */
  readonly loses?: "server" | "disk" | "key" | "backup";
}

/** The types of resources that cannot be made again as they were, and what is lost with each. */
const precious: readonly [pattern: RegExp, what: NonNullable<Change["loses"]>][] = [
  [/^alicloud:ecs\/instance:Instance$/, "server"],
  [/^kubernetes:apps\/v1:StatefulSet$/, "server"],
  [/^kubernetes:core\/v1:Namespace$/, "server"],
  [/^alicloud:ecs\/ecsDisk:EcsDisk$/, "disk"],
  [/^kubernetes:core\/v1:PersistentVolume(Claim)?$/, "disk"],
  [/^tls:index\/(privateKey:PrivateKey|selfSignedCert:SelfSignedCert)$/, "key"],
  [/^random:index\/random(Password|Bytes|Uuid):/, "key"],
  [/^alicloud:kms\//, "key"],
  [/^alicloud:oss\/bucket:Bucket$/, "backup"],
];

/** What an operation means for its resource. A replacement has three steps, and each step may come alone. */
const meaning: Readonly<Record<string, Change["op"]>> = {
  create: "create",
  import: "create",
  update: "update",
  delete: "delete",
  replace: "replace",
  "create-replacement": "replace",
  "delete-replaced": "replace",
  "import-replacement": "replace",
};

/** Operations that change nothing outside the state. */
const nothing = [
  "same",
  "read",
  "read-replacement",
  "refresh",
  "discard",
  "discard-replaced",
  "remove-pending-replace",
];

/** From harmless to worst. An operation of a later CLI that is not known here counts as the worst. */
const ranks = ["create", "update", "delete", "replace", "unknown"] as const;

/**
 * The changes of a preview, one for each resource however many steps it takes, unchanged ones left out.
 * @throws Error where the value is not what `pulumi preview --json` prints.
 */
export function changes(digest: unknown): Change[] {
  const { steps, changeSummary } = (digest ?? {}) as Digest;
  if (!Array.isArray(steps) && changeSummary === undefined) {
    throw new Error("this is not the output of pulumi preview --json");
  }
  const found = new Map<string, Change>();
  for (const { op, urn, diffReasons, replaceReasons } of steps ?? []) {
    if (typeof op !== "string" || typeof urn !== "string") throw new Error("a step without op and urn");
    if (nothing.includes(op)) continue;
    const before = found.get(urn);
    const worst = Math.max(ranks.indexOf(meaning[op] ?? "unknown"), before ? ranks.indexOf(before.op) : 0);
    const [, , types = "", ...name] = urn.split("::");
    const type = types.split("$").at(-1) ?? "";
    const loses = worst < ranks.indexOf("delete") ? undefined : precious.find(([pattern]) => pattern.test(type))?.[1];
    const because = new Set([...(before?.because ?? []), ...(replaceReasons ?? []), ...(diffReasons ?? [])]);
    found.set(urn, {
      urn,
      type,
      name: name.join("::"),
      op: ranks[worst] ?? "unknown",
      because: [...because],
      ...(loses ? { loses } : {}),
    });
  }
  return [...found.values()];
}

/** The text for the pull request. Its first line is how the comment of an earlier run is found. */
export function report(stack: string, all: readonly Change[], allowed: boolean): string {
  const lost = all.filter(({ loses }) => loses !== undefined);
  const cell = (text: string) => text.replace(/([|\\`*_<>[\]])/g, "\\$1");
  const rows = [...lost, ...all.filter((change) => !lost.includes(change))].map(
    ({ op, name, type, because, loses }) =>
      `| ${loses ? `**${op}: a ${loses} is lost**` : op} | ${cell(name)} | ${cell(type)} | ${cell(because.join(", "))} |`,
  );
  const verdict =
    lost.length === 0
      ? "No server, disk or key is replaced or deleted."
      : `**${lost.length} of these replace or delete a server, a disk, a key or a backup.** ` +
        (allowed
          ? "The label `allow-replacement` says that this is wanted."
          : "If that is wanted, give this request the label `allow-replacement`.");
  const table =
    rows.length === 0
      ? ["Nothing changes."]
      : ["| what | resource | type | because of |", "| --- | --- | --- | --- |", ...rows];
  const text = [marker(stack), `### Preview of ${stack}`, "", verdict, "", ...table, ""].join("\n");
  // A comment may have 65,536 characters.
  return text.length > 60_000 ? `${text.slice(0, 60_000)}\n\n... cut here; the job's log has the rest.\n` : text;
}

export const marker = (stack: string) => `<!-- consul preview of ${stack} -->`;

/** @returns the exit code */
export function main(args: string[], write: (text: string) => void, complain: (text: string) => void): number {
  try {
    const { values, positionals } = parseArgs({
      args,
      options: {
        stack: { type: "string" },
        allow: { type: "boolean" },
        comment: { type: "string" },
        help: { type: "boolean", short: "h" },
      },
      allowPositionals: true,
    });
    if (values.help) {
      write(usage);
      return 0;
    }
    const [file] = positionals;
    if (file === undefined || values.stack === undefined) throw new Error("needs a file and --stack; see --help");
    const all = changes(JSON.parse(readFileSync(file, "utf8")));
    const text = report(values.stack, all, values.allow ?? false);
    write(text);
    if (values.comment !== undefined) writeFileSync(values.comment, text);
    return all.some(({ loses }) => loses) && !values.allow ? 1 : 0;
  } catch (error) {
    complain(`precious: ${(error as Error).message}\n`);
    return 2;
  }
}

if (require.main === module) {
  process.exitCode = main(
    process.argv.slice(2),
    (text) => process.stdout.write(text),
    (text) => process.stderr.write(text),
  );
}
