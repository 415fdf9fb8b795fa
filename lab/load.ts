import { setTimeout as sleep } from "timers/promises";

/** The outcome of a stream of requests. */
export interface Tally {
  readonly total: number;
  readonly failed: number;
  /** The reason of the first failure, "" where there was none. */
  readonly error: string;
  /** Seconds that the slowest request took. */
  readonly slowest: number;
}

/** One request of a stream; milliseconds of the clock. */
interface Attempt {
  readonly began: number;
  readonly ended: number;
  readonly error?: string;
}

/** Begins an attempt every so many milliseconds, whether or not the last one has ended, as many clients together do. */
export class Stream {
  private readonly attempts: Attempt[] = [];
  private readonly open = new Set<Promise<void>>();
  private readonly timer: NodeJS.Timeout;

  constructor(milliseconds: number, attempt: (turn: number) => Promise<unknown>) {
    let turn = 0;
    this.timer = setInterval(() => {
      const began = Date.now();
      const one = attempt(turn++)
        .then(
          () => this.attempts.push({ began, ended: Date.now() }),
          (error: unknown) => this.attempts.push({ began, ended: Date.now(), error: reason(error) }),
        )
        .then(() => void this.open.delete(one));
      this.open.add(one);
    }, milliseconds);
  }

  /**
   * Waits for an attempt that began after a moment and succeeds.
   * @param since the moment, in milliseconds of the clock
   * @returns seconds from that moment to the end of the attempt
   * @throws where no attempt succeeds within so many seconds
   */
  async succeeds(since: number, seconds = 60): Promise<number> {
    for (;;) {
      const good = this.attempts.filter(({ began, error }) => began >= since && error === undefined);
      if (good.length > 0) return (Math.min(...good.map(({ ended }) => ended)) - since) / 1000;
      if (Date.now() > since + seconds * 1000) throw new Error(`nothing succeeded for ${seconds} s`);
      await sleep(5);
    }
  }

  /** Seconds from the first failure to the next success, of the longest time without one. */
  longestFailure(): number {
    let longest = 0;
    let since: number | undefined;
    for (const { began, error } of [...this.attempts].sort((a, b) => a.began - b.began)) {
      if (since !== undefined) longest = Math.max(longest, began - since);
      since = error === undefined ? undefined : (since ?? began);
    }
    return longest / 1000;
  }

  /**
   * How many attempts succeeded per second, over time.
   * @param from the first moment, in milliseconds of the clock
   * @param count how many intervals follow from there
   * @param milliseconds how long each interval is
   */
  rates(from: number, count: number, milliseconds: number): number[] {
    const rates = Array<number>(count).fill(0);
    for (const { ended, error } of this.attempts) {
      const i = Math.floor((ended - from) / milliseconds);
      if (error === undefined && i >= 0 && i < count) rates[i] = (rates[i] ?? 0) + 1000 / milliseconds;
    }
    return rates;
  }

  /** The longest time between two moments at which attempts succeeded, in seconds. @param from, to only these moments */
  longestGap(from: number, to: number): number {
    const good = this.attempts.filter(({ error }) => error === undefined).map(({ ended }) => ended);
    const within = [from, ...good.filter((moment) => moment > from && moment < to).sort((a, b) => a - b), to];
    return Math.max(...within.slice(1).map((moment, i) => moment - (within[i] ?? 0))) / 1000;
  }

  /** Begins no more attempts, and waits for those that are under way. */
  async stop(): Promise<Tally> {
    clearInterval(this.timer);
    await Promise.all(this.open);
    return this.tally();
  }

  /** Of the attempts that began after one moment and ended before another; of all attempts unless given. */
  tally(from = 0, to = Infinity): Tally {
    const chosen = this.attempts.filter(({ began, ended }) => began >= from && ended < to);
    const failed = chosen.filter(({ error }) => error !== undefined);
    const slowest = chosen.reduce((most, { began, ended }) => Math.max(most, ended - began), 0) / 1000;
    return { total: chosen.length, failed: failed.length, error: failed[0]?.error ?? "", slowest };
  }
}

/** One line for an error; fetch hides the reason in its cause. */
export function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

/** @returns the value below which a share of the values is, the median unless given; NaN of none */
export function quantile(values: readonly number[], share = 0.5): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}
