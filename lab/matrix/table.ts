import type { Cell } from "./cell";
import { faults } from "./faults";
import { nameOf, places, Place } from "./matrix";
import { operations } from "./operations";

// docs/faults.md: what the command writes between two marks, and reads again, so that a part of the table can be run.

const marks = ["<!-- `npm run drill -- matrix` writes from here -->", "<!-- to here -->"] as const;

/** The words of the table in one language. */
export interface Words {
  readonly outcomes: Readonly<Record<Cell["outcome"], string>>;
  readonly columns: readonly string[];
  readonly operation: (name: string) => { readonly title: string; readonly means: string };
  readonly fault: (name: string) => string;
  /** What a cell says, besides its figures. */
  readonly said: (cell: Cell) => string;
  readonly lookups: (failed: number, total: number) => string;
  /** Ends a sentence. */
  readonly end: string;
}

const words: Words["outcomes"] = {
  done: "done",
  stopped: "stopped, then done",
  unfit: "–",
  failed: "FAILED",
  "not run": "not run yet",
};

const columns = ["fault", "outcome", "took", "longest time without a write", "history", "lookups failed", "what was said"]; // prettier-ignore

const english: Words = {
  outcomes: words,
  columns,
  operation: (name) => operations[name] ?? { title: name, means: "" },
  fault: (name) => faults[name]?.title ?? name,
  said: ({ said }) => said,
  lookups: (failed, total) => `${failed} of ${total}`,
  end: ".",
};

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
export function writeCells(text: string, cells: readonly Cell[], of: Words = english): string {
  const all = new Map([...readCells(text), ...cells.map((cell) => [nameOf(cell), cell] as const)]);
  const at = (place: Place): Cell => all.get(nameOf(place)) ?? { ...place, outcome: "not run", said: "" };
  const [before, , after] = between(text);
  const sections = Object.keys(operations).map((operation) => {
    const row = places.filter((place) => place.operation === operation).map(at);
    const { title, means } = of.operation(operation);
    const rows = row.map((cell) => details(cell, of));
    return [`### ${title}`, sentence(means) + of.end, table([of.columns, ...rows])].join("\n\n");
  });
  return [before, marks[0], "", overview(at, of), "", sections.join("\n\n"), "", marks[1], after].join("\n");
}

/** What came of each operation with each fault, a row for each fault: there are fewer operations than fit a screen. */
export function overview(at: (place: Place) => Cell, of: Words = english): string {
  const head = ["", ...Object.keys(operations).map((operation) => of.operation(operation).title)];
  const rows = Object.keys(faults).map((fault) => [
    of.fault(fault),
    ...Object.keys(operations).map((operation) => of.outcomes[at({ operation, fault }).outcome]),
  ]);
  return table([head, ...rows]);
}

/** One line for a cell. */
export function details(cell: Cell, of: Words = english): string[] {
  const { seconds, writeGap, history, lookups, lookupsFailed } = cell;
  const figure = (value: number | undefined, unit = "") => (value === undefined ? "" : `${value}${unit}`);
  const failed = lookups === undefined ? "" : of.lookups(lookupsFailed ?? 0, lookups);
  const told = of.said(cell).replaceAll("|", "\\|");
  const figures = [figure(seconds, " s"), figure(writeGap, " s"), figure(history), failed];
  return [of.fault(cell.fault), of.outcomes[cell.outcome], ...figures, told];
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
  const widths = (rows[0] ?? []).map((_, i) => Math.max(3, ...rows.map((row) => widthOf(row[i] ?? ""))));
  const padded = (part: string, width = 0) => part + " ".repeat(width - widthOf(part));
  const line = (row: readonly string[]) => `| ${row.map((part, i) => padded(part, widths[i])).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  const [head = [], ...others] = rows;
  return [line(head), rule, ...others.map(line)].join("\n");
}

/** Chinese characters are two columns wide. */
const widthOf = (text: string) => text.length + (text.match(/[\u2e80-\u9fff\uff00-\uff60]/g)?.length ?? 0);

function sentence(text: string): string {
  return text.startsWith("`") ? text : text.charAt(0).toUpperCase() + text.slice(1);
}
