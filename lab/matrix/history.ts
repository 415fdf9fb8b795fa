import { execFile } from "child_process";
import { performance } from "perf_hooks";
import { buildTool } from "../../tools/build";

/** One request of a client of keys, as tools/porcupine reads it. Times are microseconds since this process began. */
export interface Operation {
  readonly client: number;
  readonly kind: "write" | "read";
  readonly key: string;
  /** Written, which nobody writes a second time, or read; null where there was no such key. */
  readonly value: string | null;
  readonly call: number;
  /** Null where nobody knows whether the write took effect: it may have, at any time after the call. */
  readonly return: number | null;
}

/** What the checker makes of a history. */
export interface Linearizability {
  /** "unknown": the checker's time was over. */
  readonly result: "ok" | "broken" | "unknown";
  /** Operations that were checked; a write of unknown outcome counts where somebody read its value. */
  readonly operations: number;
  /** Keys whose operations no order explains. */
  readonly keys: readonly string[];
}

/** What clients of keys did and saw. A read that failed says nothing, and is not in it. */
export class History {
  readonly operations: Operation[] = [];

  /**
   * Writes a value that was never written before.
   * @param request ends once the write is acknowledged
   * @param never whether such a failure means that the write cannot have taken effect, now or later
   * @throws what the request throws
   */
  async write(
    client: number,
    key: string,
    value: string,
    request: () => Promise<unknown>,
    never: (error: unknown) => boolean = () => false,
  ): Promise<void> {
    const call = now();
    const note = (end: number | null) => this.operations.push({ client, kind: "write", key, value, call, return: end });
    try {
      await request();
    } catch (error) {
      if (!never(error)) note(null);
      throw error;
    }
    note(now());
  }

  /**
   * Reads a key.
   * @param request gives the value, null where there is no such key
   * @throws what the request throws
   */
  async read(client: number, key: string, request: () => Promise<string | null>): Promise<void> {
    const call = now();
    const value = await request();
    this.operations.push({ client, kind: "read", key, value, call, return: now() });
  }
}

function now(): number {
  return Math.round(performance.now() * 1000);
}

/**
 * Whether some order of the operations, each taking effect at one moment between its call and its return, explains all
 * that clients saw. Then no acknowledged write is lost, and no read goes back in time.
 * @throws where the checker cannot be built, or the history has not its form
 */
export async function linearizable(history: readonly Operation[]): Promise<Linearizability> {
  const checker = await buildTool("porcupine");
  return new Promise((resolve, reject) => {
    const child = execFile(checker, { maxBuffer: 10 * 1024 * 1024 }, (error, stdout, stderr) => {
      if (error) reject(new Error(stderr.trim() || error.message, { cause: error }));
      else resolve(JSON.parse(stdout) as Linearizability);
    });
    child.stdin?.on("error", () => undefined); // the checker's own end says what was wrong
    child.stdin?.end(JSON.stringify(history));
  });
}
