import { parseArgs, ParseArgsConfig } from "util";
import type { Progress } from "../tools/progress";

/** What the tasks of package.json have in common: how each of them is told what to do, and how it ends. */

type ParsedOption = NonNullable<ParseArgsConfig["options"]>[string];

/** One option of a task. */
export type Flag = ParsedOption & {
  /** What follows an option of type `string`, such as DIRECTORY. */
  readonly value?: string;
  /** What the option means, for --help; may have several lines. */
  readonly about: string;
};

/** A task's options by their names. */
export type Flags = Readonly<Record<string, Flag>>;

/** What a task was given on its command line. */
export interface Given<F extends Flags> {
  /** Options by their names. */
  readonly flags: ReturnType<typeof parseArgs<{ options: F }>>["values"];
  /** What is no option, in order. */
  readonly names: readonly string[];
  /** Takes what the task is for: standard output. Progress belongs on standard error. */
  readonly write: (text: string) => void;
}

/** A task of package.json. Its file exports it as `task`; local/task.js runs it. */
export interface Task<F extends Flags = Flags> {
  /** What package.json calls it; begins the line that says why it failed. */
  readonly name: string;
  /** What follows the name on the command line, for --help; `[-- OPTION…]` unless given. */
  readonly usage?: string;
  /** What it does, in one line; for --help. */
  readonly about: string;
  /** What stands before the options in --help, such as a list of names. */
  readonly before?: string;
  /** What stands after the options in --help. */
  readonly after?: string;
  readonly flags: F;
  /** Whether it takes names beside options; default false. */
  readonly takesNames?: boolean;
  /**
   * @returns the exit status
   * @throws Misuse where the command line is wrong; any other error with one line where the task fails
   */
  run(given: Given<F>): Promise<number>;
}

/** A task with the types of its options. */
export function defineTask<const F extends Flags>(task: Task<F>): Task<F> {
  return task;
}

/** A command line that a task cannot do anything with: exit status 2. */
export class Misuse extends Error {}

const help: Flag = { type: "boolean", short: "h", about: "show this" };

/** What --help says. */
function helpOf({ name, usage = "[-- OPTION…]", about, before, after, flags }: Task): string {
  const command = name === "start" ? "npm start" : `npm run ${name}`;
  const rows = Object.entries({ ...flags, help }).flatMap(([flag, { value, about: meaning }]) =>
    meaning.split("\n").map((line, i) => [i === 0 ? `  --${flag}${value === undefined ? "" : ` ${value}`}` : "", line]),
  );
  const parts = [`${[command, usage].filter(Boolean).join(" ")}   ${about}`, before, aligned(rows).join("\n"), after];
  return `${parts.filter((part) => part !== undefined).join("\n\n")}\n`;
}

/** @throws Misuse that names every option which the task does not have */
function parsed<F extends Flags>(task: Task<F>, args: string[]): Omit<Given<F>, "write"> & { help: boolean } {
  const options = { ...task.flags, help };
  const remedy = `npm ${task.name === "start" ? "" : "run "}${task.name} -- --help`;
  // npm keeps what stands before `--` for itself, and has options of its own by some of these names.
  const kept = Object.keys(task.flags).filter(
    (flag) =>
      !["json", "yes", "prefix"].includes(flag) && process.env[`npm_config_${flag.replaceAll("-", "_")}`] !== undefined,
  );
  if (kept.length > 0) {
    throw new Misuse(`npm took ${kept.map((flag) => `--${flag}`).join(", ")} for itself: put -- before it (${remedy})`);
  }
  const { tokens } = parseArgs({ args, options, strict: false, allowPositionals: true, tokens: true });
  const unknown = tokens.flatMap((token) =>
    token.kind === "option" && !Object.hasOwn(options, token.name) ? [token.rawName] : [],
  );
  const names = tokens.flatMap((token) => (token.kind === "positional" ? [token.value] : []));
  if (unknown.length > 0) throw new Misuse(`there is no option ${unknown.join(", ")} (${remedy})`);
  if (names.length > 0 && task.takesNames !== true) {
    throw new Misuse(`nothing is known of ${names.join(", ")} (${remedy})`);
  }
  try {
    const { values } = parseArgs({ args, options: options, allowPositionals: true });
    return { flags: values, names, help: (values as { help?: boolean }).help ?? false };
  } catch (error) {
    throw new Misuse(`${(error as Error).message.split("\n")[0] ?? ""} (${remedy})`, { cause: error });
  }
}

/**
 * Does a task as its command line says. What goes wrong is said in one line; where --json was given, as JSON too.
 * @param complain takes what is wrong: standard error
 * @returns the exit status: what the task gives, 2 for a wrong command line, 1 for any other failure
 */
export async function perform(
  task: Task,
  args: string[],
  write: (text: string) => void,
  complain: (text: string) => void,
): Promise<number> {
  try {
    const given = parsed(task, args);
    if (!given.help) return await task.run({ ...given, write });
    write(helpOf(task));
    return 0;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    complain(`${task.name}: ${message}\n`);
    // A program that reads the answer gets one in any case.
    if ("json" in task.flags && args.includes("--json")) write(`${JSON.stringify({ ok: false, error: message })}\n`);
    return error instanceof Misuse ? 2 : 1;
  }
}

const outputs = [process.stdout, process.stderr];

/**
 * Does a task and ends this process with its status.
 * A reader of the output that has seen enough, as `head` has, is no reason to complain.
 */
export function runAlone(task: Task, args: string[]): void {
  for (const stream of outputs) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE") throw error;
    });
  }
  const write = (text: string) => void process.stdout.write(text);
  const complain = (text: string) => void process.stderr.write(text);
  void perform(task, args, write, complain).then((status) =>
    // Where a pipe takes its time, what was written is still to be passed on.
    process.stdout.write("", () => process.exit(status)),
  );
}
/** Resolves once somebody wants this process to end: by Ctrl-C, another signal, or since nobody reads its output. */
export function interruption(): Promise<NodeJS.Signals> {
  return new Promise((interrupted) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, interrupted);
    for (const stream of outputs) {
      stream.on("error", ({ code }: NodeJS.ErrnoException) => {
        if (code === "EPIPE") interrupted("SIGPIPE");
      });
    }
    // npm passes on two signals. Where another signal ends npm, npm is just gone.
    const npm = process.ppid;
    if (process.env.npm_lifecycle_event) setInterval(() => process.ppid !== npm && interrupted("SIGHUP"), 500).unref();
  });
}

/**
 * Works with a cluster until the work is done, or somebody wants an end to it. Either way every node is stopped then.
 * @param stopping is told of the signal before the nodes are stopped
 * @returns what the work gives, or the signal that came before
 */
export async function untilInterrupted<T>(
  cluster: { stop(): Promise<void> },
  work: () => Promise<T>,
  stopping: (signal: NodeJS.Signals) => void = () => undefined,
): Promise<T | NodeJS.Signals> {
  const interrupted = interruption().then((signal) => {
    stopping(signal);
    return signal;
  });
  try {
    return await Promise.race([interrupted, work()]);
  } finally {
    await cluster.stop();
  }
}

/** Settings as options of a task give them, KEY=VALUE. @throws Misuse where one is something else */
export function configOf(given: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    given.map((one) => {
      const [, key, value] = /^([^=]+)=(.*)$/s.exec(one) ?? [];
      if (key === undefined || value === undefined) throw new Misuse(`--config ${one}: KEY=VALUE is wanted`);
      return [key.includes(":") ? key : `consul:${key}`, value] as const;
    }),
  );
}

/** Shows progress on standard error: on a terminal a passing line gives its place to the next line. */
export const showProgress: Progress = (line, passing = false) => {
  const { stderr } = process;
  if (stderr.isTTY) stderr.write(`\r\x1b[K${passing ? line.slice(0, stderr.columns - 1) : `${line}\n`}`);
  else if (line !== "") stderr.write(`${line}\n`);
};

/** Rows of cells as lines with aligned columns. @param gap spaces between the longest cell of a column and the next one */
export function aligned(rows: readonly (readonly string[])[], gap = 3): string[] {
  const width = (column: number) => Math.max(...rows.map((row) => (row[column] ?? "").length));
  return rows.map((row) => {
    const cells = row.map((cell, column) => cell.padEnd(width(column) + gap));
    return cells.join("").trimEnd();
  });
}
