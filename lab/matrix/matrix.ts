import { spawn } from "child_process";
import { once } from "events";
import { rmSync } from "fs";
import { join } from "path";
import { createInterface } from "readline";
import { end as endProcess } from "../../local/processes";
import { programDir } from "../../local/program";
import { Cell, unfit } from "./cell";
import { faults } from "./faults";
import { operations } from "./operations";

/** The place of a cell in the table. */
export type Place = Pick<Cell, "operation" | "fault">;

/** Every place, row by row. */
export const places: readonly Place[] = Object.keys(operations).flatMap((operation) =>
  Object.keys(faults).map((fault) => ({ operation, fault })),
);

export const nameOf = ({ operation, fault }: Place): string => `${operation}/${fault}`;

/** Network and mounts of their own take root, which a process on Linux has or has not. */
const root = process.platform === "linux" && process.getuid?.() === 0;

/** Cells that run side by side, each with a cluster in a process of its own. */
export class Matrix {
  private readonly running = new Map<ReturnType<typeof spawn>, Promise<unknown>>();
  private stopped = false;

  /**
   * @param dir where clusters are kept while they run, and after a cell failed
   * @param network two numbers of all addresses
   */
  constructor(
    private readonly dir: string,
    private readonly network: string,
    private readonly progress: (line: string) => void,
  ) {}

  /** Runs cells, so many at a time. @param ended is told of each as soon as it has ended */
  async run(wanted: readonly Place[], jobs: number, ended: (cell: Cell) => void): Promise<readonly Cell[]> {
    const cells: Cell[] = [];
    const left = [...wanted];
    const worker = async (slot: number) => {
      for (let place = left.shift(); place && !this.stopped; place = left.shift()) {
        const cell = await this.cell(place, `${this.network}.${slot}`);
        cells.push(cell);
        ended(cell);
      }
    };
    await Promise.all(Array.from({ length: jobs }, (_, i) => worker(i + 1)));
    return cells;
  }

  /** Ends every cell, with its cluster. */
  async stop(): Promise<void> {
    this.stopped = true;
    await Promise.all([...this.running].map(([child, ended]) => endProcess(child, ended, "SIGTERM")));
  }

  private async cell(place: Place, prefix: string): Promise<Cell> {
    const { operation, fault } = place;
    const said = unfit(operation, fault);
    if (said !== undefined) return { ...place, outcome: "unfit", said };
    if (faults[fault]?.root === true && !root) return { ...place, outcome: "not run", said: "needs root on Linux" };
    const dir = join(this.dir, `${operation}-${fault}`);
    rmSync(dir, { recursive: true, force: true });
    const command = [process.execPath, "--require", "sucrase/register/ts", join(__dirname, "run-cell.ts")];
    const args = [...command, operation, fault, dir, prefix];
    const own = ["unshare", "--net", "--mount", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"];
    const [program = "", ...rest] = root ? [...own, ...args] : args;
    const child = spawn(program, rest, { cwd: programDir, stdio: ["ignore", "pipe", "pipe"] });
    const closed = once(child, "close");
    this.running.set(child, closed);
    let [printed, last] = ["", ""];
    child.stdout.on("data", (data) => (printed += String(data)));
    createInterface(child.stderr).on("line", (line) => {
      if (line.trim() !== "") last = line.trim();
      this.progress(`${nameOf(place)}: ${line}`);
    });
    const [status] = (await closed) as [number | null];
    this.running.delete(child);
    const cell = status === 0 ? (JSON.parse(printed) as Cell) : { ...place, outcome: "failed" as const, said: last };
    if (cell.outcome !== "failed") rmSync(dir, { recursive: true, force: true });
    // What is said goes into a document: no path of this machine.
    return { ...cell, said: cell.said.replaceAll(`${dir}/`, "") };
  }
}
