import type { Cell } from "./cell";
import { faults } from "./faults";
import { nameOf, places, Place } from "./matrix";
import { operations } from "./operations";

// docs/faults.md: what the command writes between two marks, and reads again, so that a part of the table can be run.

const marks = ["<!-- `npm run drill -- matrix` writes from here -->", "<!-- to here -->"] as const;

const words: Readonly<Record<Cell["outcome"], string>> = {
  done: "done",
  stopped: "stopped, then done",
  unfit: "–",
  failed: "FAILED",
  "not run": "not run yet",
};

const columns = ["fault", "outcome", "took", "longest time without a write", "history", "lookups failed", "what was said"]; // prettier-ignore

/** The cells that a document has. A place without a cell was not run. */
export function readCells(text: string): ReadonlyMap<string, Cell> {
  const cells = new Map<string, Cell>();
  for (const [operation, { title }] of Object.entries(operations)) {
    const section = between(text)[1].split(`\n### ${title}\n`)[1]?.split("\n### ")[0] ?? "";
    for (const line of section.split("\n").filter((row) => row.startsWith("| "))) {
      const cell = readRow(operation, line);
      if (cell) cells.set(nameOf(cell), cell);
    }
  }
  return cells;
}

function readRow(operation: string, line: string): Cell | undefined {
  const [title, word, took = "", gap = "", history = "", lookups = "", said = ""] = line
    .slice(1, -1)
    .split(/(?<!\\)\|/)
    .map((part) => part.trim());
  const fault = Object.entries(faults).find(([, one]) => one.title === title)?.[0];
  const outcome = Object.entries(words).find(([, one]) => one === word)?.[0] as Cell["outcome"] | undefined;
  if (fault === undefined || outcome === undefined || outcome === "not run") return undefined;
  const place = { operation, fault, outcome, said: said.replaceAll("\\|", "|") };
  if (took === "") return place;
  const [failed, total] = lookups.split(" of ").map(Number);
  return {
    ...place,
    seconds: parseFloat(took),
    writeGap: parseFloat(gap),
    history: Number(history),
    lookups: total ?? 0,
    lookupsFailed: failed ?? 0,
  };
}

/** A document with these cells in the place of those that it has. @throws where it has no marks */
export function writeCells(text: string, cells: readonly Cell[]): string {
  const all = new Map([...readCells(text), ...cells.map((cell) => [nameOf(cell), cell] as const)]);
  const at = (place: Place): Cell => all.get(nameOf(place)) ?? { ...place, outcome: "not run", said: "" };
  const [before, , after] = between(text);
  const sections = Object.entries(operations).map(([operation, { title, means }]) => {
    const row = places.filter((place) => place.operation === operation).map(at);
    return [`### ${title}`, sentence(means), table([columns, ...row.map(details)])].join("\n\n");
  });
  return [before, marks[0], "", overview(at), "", sections.join("\n\n"), "", marks[1], after].join("\n");
}

/** What came of each operation with each fault, a row for each fault: there are fewer operations than fit a screen. */
export function overview(at: (place: Place) => Cell): string {
  const head = ["", ...Object.values(operations).map(({ title }) => title)];
  const rows = Object.entries(faults).map(([fault, { title }]) => [
    title,
    ...Object.keys(operations).map((operation) => words[at({ operation, fault }).outcome]),
  ]);
  return table([head, ...rows]);
}

/** One line for a cell. */
export function details({ fault, outcome, said, ...figures }: Cell): string[] {
  const { seconds, writeGap, history, lookups, lookupsFailed } = figures;
  const of = (value: number | undefined, unit = "") => (value === undefined ? "" : `${value}${unit}`);
  const failed = lookups === undefined ? "" : `${lookupsFailed ?? 0} of ${lookups}`;
  const title = faults[fault]?.title ?? fault;
  return [title, words[outcome], of(seconds, " s"), of(writeGap, " s"), of(history), failed, said.replaceAll("|", "\\|")]; // prettier-ignore
}

function between(text: string): [string, string, string] {
  const [from, to] = marks.map((mark) => text.indexOf(mark));
  if (from === undefined || to === undefined || from < 0 || to < from) {
    throw new Error(`docs/faults.md has no place for the table: it needs the lines ${marks.join(" and ")}`);
  }
  return [text.slice(0, from).trimEnd() + "\n", text.slice(from + marks[0].length, to), text.slice(to + marks[1].length).replace(/^\n/, "")]; // prettier-ignore
}

/** As Prettier has it. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(3, ...rows.map((row) => (row[i] ?? "").length)));
  const line = (row: readonly string[]) => `| ${row.map((part, i) => part.padEnd(widths[i] ?? 0)).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  const [head = [], ...others] = rows;
  return [line(head), rule, ...others.map(line)].join("\n");
}

function sentence(text: string): string {
  return `${text.startsWith("`") ? text : text.charAt(0).toUpperCase() + text.slice(1)}.`;
}
