import { readdirSync } from "fs";
import { parseArgs } from "util";
import { runCommand } from "../local/command";
import { programDir, stackConfig } from "../local/program";
import { maintenance } from "../settings/maintenance";
import { Deployed, Due, dueAt, isPatch } from "./due-list";
import { pulumiJson, readSettings } from "./stack";
import { isOpen, nextOpening } from "./window";

const usage = `npm run due -- STACK [OPTION…]
npm run due -- --open

What of a deployed stack is due: certificates, keys, a version that was merged; who does it; and whether the window of
consul:maintenance is open, in which the scheduled pipeline runs \`pulumi up\` (.ci/maintain). Nothing is changed.

  --json      JSON on standard output
  --at TIME   judge another time than now, such as 2027-06-01T02:30:00Z
  --open      only the stacks whose window is open, as a JSON list, from the stack files alone
  --help      show this
Exit code: 0 where nothing is due, 1 where something is, 2 where that could not be found out.
`;

/** What the scheduled pipeline goes by. */
export interface Report {
  readonly stack: string;
  readonly due: readonly Due[];
  /** Undefined where the settings name none: \`up\` never runs by itself then. */
  readonly window: { readonly open: boolean; readonly next: string } | undefined;
  /** Whether \`up\` has something to do, and may do it now. */
  readonly run: boolean;
  /** The version for that: the one that is deployed, or a later patch of it. */
  readonly version: string;
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
    version: isPatch(settings.version, consulVersion) ? settings.version : consulVersion,
    commit: deployedCommit(await pulumiJson("stack", "history", "--json", "--page-size", "50", "--stack", stack)),
  };
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

/**
 * @param write takes the result
 * @param complain takes why there is none
 * @returns the exit code
 */
export async function main(
  args: string[],
  write: (text: string) => void,
  complain: (text: string) => void,
): Promise<number> {
  try {
    const { values, positionals } = parseArgs({
      args,
      options: {
        json: { type: "boolean" },
        at: { type: "string" },
        open: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
      allowPositionals: true,
    });
    if (values.help) {
      write(usage);
      return 0;
    }
    const now = values.at === undefined ? new Date() : new Date(values.at);
    if (Number.isNaN(now.getTime())) throw new Error(`--at ${values.at ?? ""}: a time such as 2027-06-01T02:30:00Z`);
    if (values.open) {
      write(`${JSON.stringify(openStacks(now))}\n`);
      return 0;
    }
    const [stack, ...rest] = positionals;
    if (stack === undefined || rest.length > 0) throw new Error("one stack is needed, such as: npm run due -- prod");
    const report = await dueOf(stack, now);
    write(values.json ? `${JSON.stringify(report, null, 2)}\n` : text(report));
    return report.due.length > 0 ? 1 : 0;
  } catch (error) {
    complain(`due: ${(error as Error).message}\n`);
    return 2;
  }
}

if (require.main === module) {
  const { stdout, stderr } = process;
  runCommand("due", (args) =>
    main(
      args,
      (text) => void stdout.write(text),
      (text) => void stderr.write(text),
    ),
  );
}
