import { readFileSync, writeFileSync } from "fs";
import { join } from "path";
import { parseArgs } from "util";
import { aligned, untilInterrupted } from "../../local/command";
import { programDir } from "../../local/program";
import { buildTool } from "../../tools/build";
import { chosen, listed } from "../chosen";
import { faults } from "./faults";
import { Matrix, nameOf, Place, places } from "./matrix";
import { operations } from "./operations";
import { details, writeCells } from "./table";

const help = `npm run drill -- matrix [OPTION…]   every operation with every fault, on clusters of this machine

  --only OPERATION[,…]         these rows
  --cell OPERATION/FAULT[,…]   these cells
  --jobs N                     cells side by side; 2 unless given
  --json                       one JSON object on standard output at the end, and docs/faults.md stays as it is
  --help                       show this

Operations
${listed(operations)}

Faults
${listed(faults)}

Writes what came of it to docs/faults.md, cell by cell. All of them take about two hours on two cores. Exit status 1
where a cell fails; its cluster's files stay in .local/matrix then. Faults of the network and of disks need root on Linux.
Ctrl-C stops everything.`;

/** `npm run drill -- matrix`. @returns the exit status */
export async function matrixCommand(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      only: { type: "string", default: "" },
      cell: { type: "string", default: "" },
      jobs: { type: "string", default: "2" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    return 0;
  }
  const wanted = wantedPlaces(list(values.only), list(values.cell));
  const jobs = Number(values.jobs);
  if (!Number.isInteger(jobs) || jobs < 1 || jobs > 50) throw new Error("--jobs: a number of cells from 1 to 50");
  await buildTool("porcupine", (line) => console.error(line)); // once, and not in each cell
  const matrix = new Matrix(join(programDir, ".local", "matrix"), "127.24", (line) => console.error(line));
  const file = join(programDir, "docs", "faults.md");
  const cells = await untilInterrupted(matrix, () =>
    matrix.run(wanted, jobs, (cell) => {
      console.error(`${nameOf(cell)}: ${cell.outcome} ${cell.said}`);
      if (!values.json) writeFileSync(file, writeCells(readFileSync(file, "utf8"), [cell]));
    }),
  );
  if (typeof cells === "string") {
    console.error(`${cells}: every cluster is stopped`);
    return 130;
  }
  const failed = cells.filter(({ outcome }) => outcome === "failed").length;
  if (values.json) console.log(JSON.stringify({ ok: failed === 0, cells }, null, 2));
  else {
    const rows = cells.map((cell) => [nameOf(cell), ...details(cell).slice(1)]);
    console.log(aligned(rows).join("\n"));
    console.log(failed === 0 ? "\nNo cell failed" : `\n${failed} of ${cells.length} cells failed`);
  }
  return failed === 0 ? 0 : 1;
}

const list = (text: string) => text.split(",").filter((name) => name !== "");

/** @throws one line, where a name is none */
function wantedPlaces(rows: readonly string[], cells: readonly string[]): readonly Place[] {
  const all = Object.fromEntries(places.map((place) => [nameOf(place), place]));
  const named = new Set(chosen("cell", all, cells).map(([name]) => name));
  const operationsOf = new Set(chosen("operation", operations, rows).map(([name]) => name));
  return places.filter((place) => named.has(nameOf(place)) && operationsOf.has(place.operation));
}
