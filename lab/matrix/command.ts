import { readFileSync, writeFileSync } from "fs";
import { join } from "path";
import { aligned, Flags, Misuse, untilInterrupted } from "../../local/command";
import { programDir } from "../../local/program";
import { buildTool } from "../../tools/build";
import { chosen } from "../chosen";
import type { Cell } from "./cell";
import { chinese } from "./chinese";
import { faults } from "./faults";
import { Matrix, nameOf, Place, places } from "./matrix";
import { operations } from "./operations";
import { details, readCells, writeCells } from "./table";

const words = (catalogue: object) => Object.keys(catalogue).join(", ");

/** What `npm run drill -- matrix` is, for --help. */
export const matrixHelp = `npm run drill -- matrix   every operation with every fault, each on a cluster of its own; about two hours on two cores

  operations   ${words(operations).replace(", more", ",\n               more")}
  faults       ${words(faults).replace(", clock", ",\n               clock")}

It writes what came of it to docs/faults.md and docs/zh/faults.md, cell by cell. Faults of the network and of disks need
root on Linux. The files of a cell that failed stay in .local/matrix.`;

/** Its options. */
export const matrixFlags = {
  only: { type: "string", value: "OPERATION[,…]", default: "", about: "with matrix: these rows" },
  cell: { type: "string", value: "OPERATION/FAULT[,…]", default: "", about: "with matrix: these cells" },
  jobs: { type: "string", value: "N", default: "2", about: "with matrix: cells side by side; 2 unless given" },
} as const satisfies Flags;

/** `npm run drill -- matrix`. @returns the exit status */
export async function runMatrix(flags: Readonly<Record<keyof typeof matrixFlags, string>> & { json: boolean }) {
  const wanted = wantedPlaces(list(flags.only), list(flags.cell));
  const jobs = Number(flags.jobs);
  if (!Number.isInteger(jobs) || jobs < 1 || jobs > 50) throw new Misuse("--jobs: a number of cells from 1 to 50");
  await buildTool("porcupine", (line) => console.error(line)); // once, and not in each cell
  const matrix = new Matrix(join(programDir, ".local", "matrix"), "127.90", (line) => console.error(line));
  const cells = await untilInterrupted(matrix, () =>
    matrix.run(wanted, jobs, (cell) => {
      console.error(`${nameOf(cell)}: ${cell.outcome} ${cell.said}`);
      if (!flags.json) writeDocuments([cell]);
    }),
  );
  if (typeof cells === "string") {
    console.error(`${cells}: every cluster is stopped`);
    return 130;
  }
  const failed = cells.filter(({ outcome }) => outcome === "failed").length;
  if (flags.json) console.log(JSON.stringify({ ok: failed === 0, cells }, null, 2));
  else {
    const rows = cells.map((cell) => [nameOf(cell), ...details(cell).slice(1)]);
    console.log(aligned(rows).join("\n"));
    console.log(failed === 0 ? "\nNo cell failed" : `\n${failed} of ${cells.length} cells failed`);
  }
  return failed === 0 ? 0 : 1;
}

const file = join(programDir, "docs/faults.md");
const chineseFile = join(programDir, "docs/zh/faults.md");

/** docs/zh/faults.md with the table that docs/faults.md has. */
export function chineseText(): string {
  const cells = [...readCells(readFileSync(file, "utf8")).values()];
  return writeCells(readFileSync(chineseFile, "utf8"), cells, chinese);
}

/** Writes cells into both documents. */
export function writeDocuments(cells: readonly Cell[]): void {
  writeFileSync(file, writeCells(readFileSync(file, "utf8"), cells));
  writeFileSync(chineseFile, chineseText());
}

const list = (text: string) => text.split(",").filter((name) => name !== "");

/** @throws Misuse, where a name is none */
function wantedPlaces(rows: readonly string[], cells: readonly string[]): readonly Place[] {
  const all = Object.fromEntries(places.map((place) => [nameOf(place), place]));
  const named = new Set(chosen("cell", all, cells).map(([name]) => name));
  const operationsOf = new Set(chosen("operation", operations, rows).map(([name]) => name));
  return places.filter((place) => named.has(nameOf(place)) && operationsOf.has(place.operation));
}
