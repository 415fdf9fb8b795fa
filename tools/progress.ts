import { availableParallelism } from "os";

/**
 * Is told how far something is, a line at a time.
 * @param passing whether the next line may take this line's place; default false: the line stays
 */
export type Progress = (line: string, passing?: boolean) => void;

/** A time that nobody needs to the second: "20 s", "3 min". @param seconds the time */
export function roughly(seconds: number): string {
  return seconds < 90 ? `${Math.max(10, Math.round(seconds / 10) * 10)} s` : `${Math.round(seconds / 60)} min`;
}

/** How long a build takes here. @param cpuMinutes minutes of one core; the compiler uses all cores until the end */
export function expected(cpuMinutes: number): string {
  const cores = availableParallelism();
  return `about ${roughly((cpuMinutes * 60) / cores)} on the ${cores} cores of this machine, more where it has other work`;
}

const width = 24;

/** Says how many of a number of parts are done and how long the rest takes: as a bar on a terminal, else now and then. */
export class PartsDone {
  private done = 0;
  private readonly began = Date.now();
  private said = this.began;

  /**
   * @param total how many there are; 0 where that is not known
   * @param what what they are and what is done to them, such as "packages compiled"
   * @param terminal whether a person looks at it who expects something to move
   */
  constructor(
    private readonly total: number,
    private readonly what: string,
    private readonly progress: Progress,
    private readonly terminal = process.stderr.isTTY,
  ) {}

  /** One more is done. */
  next(now = Date.now()): void {
    this.done += 1;
    // Moving where somebody looks; one line in a while where the lines are kept.
    if (now - this.said < (this.terminal ? 200 : 15_000)) return;
    this.said = now;
    if (this.total < this.done) return void this.progress(`${this.done} ${this.what}`, true);
    const share = this.done / this.total;
    const filled = Math.round(share * width);
    const bar = this.terminal ? `${"█".repeat(filled)}${"░".repeat(width - filled)} ` : "";
    const left = roughly(((now - this.began) / 1000 / share) * (1 - share));
    // The first of them say nothing of the rest.
    const rest = share > 0.05 ? `, about ${left} left` : "";
    this.progress(`${bar}${this.done} of ${this.total} ${this.what}${rest}`, true);
  }
}
