import { createSocket, Socket } from "dgram";
import { decode, encode } from "dns-packet";
import { setTimeout as sleep } from "timers/promises";
import { ports } from "../consul/config";

/** What came of a stream of requests. */
export interface Tally {
  readonly total: number;
  readonly failed: number;
  /** Why the first one failed, "" where none did. */
  readonly error: string;
  /** Seconds that the slowest one took. */
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
   * Waits for an attempt that succeeds and that was begun after a moment.
   * @returns seconds from that moment to its end
   * @throws where none does within so many seconds
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

  /** Begins no more, and waits for what is under way. */
  async stop(): Promise<Tally> {
    clearInterval(this.timer);
    await Promise.all(this.open);
    return this.tally();
  }

  /** Of the attempts that were begun after one moment and have ended before another, all unless given. */
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

/** A stub resolver with one socket: it waits 2 s for an answer and asks once more, as a libc does. */
export class Resolver {
  private readonly socket: Socket = createSocket("udp4");
  private readonly waiting = new Map<number, (answer: Buffer) => void>();
  private id = 0;

  constructor() {
    // A dead server's machine says at once that the port is closed; the socket then has an error, no query does.
    this.socket.on("error", () => undefined);
    this.socket.on("message", (message) => this.waiting.get(message.readUInt16BE(0))?.(message));
  }

  /**
   * @returns the addresses of a name, none where there is no such name
   * @throws where the answer is an error (SERVFAIL) or there is none
   */
  async addresses(server: string, name: string): Promise<string[]> {
    const answer = decode((await this.ask(server, name)) ?? (await this.ask(server, name)) ?? never(server, name));
    const code = (answer.flags ?? 0) & 0xf;
    if (code !== 0 && code !== 3) throw new Error(`${server} answers ${name} with DNS error ${code}`);
    return (answer.answers ?? []).flatMap((record) => (record.type === "A" ? record.data : []));
  }

  close(): void {
    this.socket.close();
  }

  private async ask(server: string, name: string): Promise<Buffer | undefined> {
    const id = (this.id = (this.id + 1) % 0x10000);
    const query = encode({ type: "query", id, questions: [{ type: "A", name }] });
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<Buffer | undefined>((answered) => {
        timer = setTimeout(() => answered(undefined), 2000);
        this.waiting.set(id, answered);
        this.socket.send(query, ports.dns, server);
      });
    } finally {
      clearTimeout(timer);
      this.waiting.delete(id);
    }
  }
}

function never(server: string, name: string): never {
  throw new Error(`no answer of ${server}:${ports.dns} for ${name}`);
}

/** @returns the value below which a share of the values is, the median unless given; NaN of none */
export function quantile(values: readonly number[], share = 0.5): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}
