import { readdirSync } from "fs";
import { defineTask, Misuse } from "../local/command";
import { programDir, stackConfig } from "../local/program";
import type { Settings } from "../settings";
import { maintenance } from "../settings/maintenance";
import { Deployed, Due, dueAt, isPatch } from "./due-list";
import { pulumiJson, readSettings } from "./stack";
import { isOpen, nextOpening } from "./window";
import { oneStack, unanswered } from "./stack-task";

/** What the scheduled pipeline goes by. */
export interface Report {
  readonly stack: string;
  readonly due: readonly Due[];
  /** Undefined where the settings name none: \`up\` never runs by itself then. */
  readonly window: { readonly open: boolean; readonly next: string } | undefined;
  /** Whether \`up\` has something to do, and may do it now. */
  readonly run: boolean;
  /**
   * Settings for that, in place of those of the commit: the version that is deployed or, with what belongs to it, a later
   * patch of it that was merged. Each as KEY=VALUE.
   */
  readonly config: readonly string[];
  /** The commit that was deployed last: \`up\` runs that one, and nothing that was merged since. */
  readonly commit: string | undefined;
}

/** @throws where Pulumi's CLI gives no answer */
export async function dueOf(stack: string, now: Date): Promise<Report> {
  const { settings } = await readSettings(stack);
  const deployed = (await pulumiJson("stack", "output", "--json", "--stack", stack)) as Partial<Deployed>;
  const { consulVersion, expiry } = deployed;
  if (consulVersion === undefined || expiry === undefined) {
    throw new Error(`nothing is deployed: run \`pulumi up -s ${stack}\` first`);
  }
  const due = dueAt(settings, { consulVersion, expiry }, now);
  const window = settings.maintenance && {
    open: isOpen(settings.maintenance, now),
    next: nextOpening(settings.maintenance, now).toISOString(),
  };
  return {
    stack,
    due,
    window,
    run: window?.open === true && due.some(({ by }) => by === "up"),
    config: isPatch(settings.version, consulVersion) ? versionOf(settings) : [`consul:version=${consulVersion}`],
    commit: deployedCommit(await pulumiJson("stack", "history", "--json", "--page-size", "50", "--stack", stack)),
  };
}

/** A version, the checksum of its zip and the digest of its image: they change together (docs/mainland.md). */
function versionOf({ version, downloadSha256, imageDigest }: Settings): string[] {
  return [`consul:version=${version}`, `consul:downloadSha256=${downloadSha256}`, `consul:imageDigest=${imageDigest}`];
}

/** The commit of the last update that succeeded, as Pulumi's history has it, newest first. */
export function deployedCommit(history: unknown): string | undefined {
  type Update = { kind?: string; result?: string; environment?: Record<string, string | undefined> };
  const updates = (history as Update[]).filter(({ kind, result }) => kind === "update" && result === "succeeded");
  const head = updates[0]?.environment?.["git.head"];
  return head !== undefined && /^[0-9a-f]{40}$/.test(head) ? head : undefined;
}

/** Stacks whose window is open, by their files in a directory. */
export function openStacks(now: Date, directory = programDir): string[] {
  const stacks = readdirSync(directory).flatMap((file) => /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1] ?? []);
  return stacks.sort().filter((stack) => {
    const given = stackConfig(stack, directory)["consul:maintenance"];
    return given !== undefined && isOpen(maintenance.parse(JSON.parse(given)), now);
  });
}

function text({ stack, due, window, commit }: Report): string {
  const lines = due.map(({ what, by, remedy }) => `- ${what}: ${remedy}${by === "up" ? ", in the window" : ""}`);
  const next = window === undefined ? "" : window.open ? "is open" : `opens ${window.next}`;
  return [
    due.length === 0 ? `${stack}: nothing is due` : `${stack}: ${due.length} due`,
    ...lines,
    window === undefined ? "There is no window (consul:maintenance): `up` never runs by itself" : `The window ${next}`,
    ...(commit === undefined ? ["Pulumi does not know which commit was deployed: deploy by the pipeline once"] : []),
    "",
  ].join("\n");
}

export const task = defineTask({
  name: "due",
  usage: "-- STACK [OPTION…]",
  about: "what of a deployed stack is due: certificates, keys, a version that was merged",
  before: `Who does it, and whether the window of consul:maintenance is open, in which the scheduled pipeline runs \`pulumi up\`
(.ci/maintain). Nothing is changed.`,
  after: "Exit status 0 where nothing is due, 1 where something is, 2 where that could not be found out.",
  flags: {
    json: { type: "boolean", about: "the same as JSON" },
    at: { type: "string", value: "TIME", about: "judge another time than now, such as 2027-06-01T02:30:00Z" },
    open: {
      type: "boolean",
      about: "only the stacks whose window is open, as a JSON list, from the stack files alone",
    },
  },
  takesNames: true,
  run: async ({ flags: { json, at, open }, names, write }) => {
    const now = at === undefined ? new Date() : new Date(at);
    if (Number.isNaN(now.getTime())) {
      throw new Misuse(`--at ${at ?? ""}: a time such as 2027-06-01T02:30:00Z is wanted`);
    }
    if (open) {
      write(`${JSON.stringify(openStacks(now))}\n`);
      return 0;
    }
    const report = await dueOf(oneStack(names, "due"), now).catch(unanswered);
    write(json ? `${JSON.stringify(report, null, 2)}\n` : text(report));
    return report.due.length > 0 ? 1 : 0;
  },
});
