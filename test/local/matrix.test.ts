import { deepEqual, equal, match, ok } from "assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { Cell } from "../../lab/matrix/cell";
import { faults } from "../../lab/matrix/faults";
import { Matrix, nameOf, places } from "../../lab/matrix/matrix";
import { operations } from "../../lab/matrix/operations";
import { readCells, writeCells } from "../../lab/matrix/table";
import { programDir } from "../../local/program";
import { buildTool } from "../../tools/build";
import { consulOf } from "./kube-cluster";

/** A representative handful of `npm run drill -- matrix`: each fault once, each outcome, and what takes seconds. */
const handful: Readonly<Record<string, Cell["outcome"]>> = {
  "setting/killed": "stopped",
  "setting/interrupted": "done",
  "certificates/expired": "done",
  "certificates/twice": "done",
  "tokens/behind": "done",
  "tokens/paused": "stopped",
  "snapshot/full": "stopped",
  "applications/partitioned": "done",
  "restore/wiped": "done",
  "image/missing": "stopped",
};

describe("operations with faults", function () {
  this.timeout("30m");
  const directory = mkdtempSync(join(tmpdir(), "matrix-"));
  const matrix = new Matrix(directory, "127.91", () => undefined);
  let cells: ReadonlyMap<string, Cell>;

  before(async function () {
    this.timeout("60m"); // the first build of Consul
    await consulOf("local");
    await buildTool("porcupine");
    const wanted = places.filter((place) => nameOf(place) in handful);
    const ran = await matrix.run(wanted, 3, () => undefined);
    cells = new Map(ran.map((cell) => [nameOf(cell), cell]));
  });

  after(async () => {
    await matrix.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  for (const [name, outcome] of Object.entries(handful)) {
    it(`${name}: ${outcome}`, function () {
      const cell = cells.get(name);
      if (cell?.outcome === "not run") this.skip();
      equal(cell?.outcome, outcome, cell?.said);
      ok((cell.history ?? 0) > 100, `only ${cell.history ?? 0} operations in the history`);
      equal(cell.lookupsFailed, 0);
    });
  }
});

describe("docs/faults.md", () => {
  const text = readFileSync(join(programDir, "docs/faults.md"), "utf8");

  it("has what the command would write again", () => {
    equal(writeCells(text, []), text);
  });

  it("names every fault as it is done", () => {
    for (const { title, means } of Object.values(faults)) {
      ok(text.replace(/ +/g, " ").includes(`| ${title} | ${means} |`));
    }
  });

  it("has a cell for each operation with each fault, and no failed one", () => {
    equal(places.length, Object.keys(operations).length * Object.keys(faults).length);
    deepEqual(
      [...readCells(text).values()].filter(({ outcome }) => outcome === "failed"),
      [],
    );
    for (const { operation, fault } of places) {
      const section = text.split(`\n### ${operations[operation]?.title ?? ""}\n`)[1]?.split("\n### ")[0] ?? "";
      const row = section.split("\n").find((line) => line.startsWith(`| ${faults[fault]?.title ?? ""} `)) ?? "";
      match(row, /^\| [^|]+ \| (done|stopped, then done|–|not run yet) +\|/, `${operation}/${fault}`);
    }
  });

  it("keeps the other cells where some are written, and every figure of a cell", () => {
    const place = { operation: "setting", fault: "killed" };
    const cell: Cell = { ...place, outcome: "stopped", said: "a | b", seconds: 12, writeGap: 1.25, history: 345, lookups: 67, lookupsFailed: 1 }; // prettier-ignore
    const before = readCells(text);
    const after = readCells(writeCells(text, [cell]));
    deepEqual(after.get("setting/killed"), cell);
    for (const [name, one] of before) if (name !== "setting/killed") deepEqual(after.get(name), one);
  });
});
