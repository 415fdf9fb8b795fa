import { Reason, told } from "../../consul/quorum";

/** Seconds that a server has after a start. What is amiss with it before that passes by itself, as a rule. */
const startSeconds = 60;

/**
 * What people are told while the gate waits and when the gate gives up. For a minute after the first look that found
 * something amiss with a server, the gate only says what it waits for. After that minute it names the remedy as well.
 */
export class Patience {
  private readonly since = new Map<string, number>();

  /** @param now milliseconds; the clock unless given */
  constructor(private readonly now: () => number = Date.now) {}

  /** Notes what is in the way now. A server that was well in between gets a new minute. */
  note(reasons: readonly Reason[]): void {
    const amiss = new Set(reasons.map(({ server }) => server));
    for (const server of this.since.keys()) if (!amiss.has(server)) this.since.delete(server);
    for (const server of amiss) this.since.set(server, this.since.get(server) ?? this.now());
  }

  /** One line: what is waited for and for how long yet, and remedies that are due. */
  line(reasons: readonly Reason[]): string {
    const left = Math.max(0, ...reasons.map((reason) => this.left(reason)));
    const each = reasons.map((reason) => `${told(reason)}${this.left(reason) > 0 ? "" : dash(reason.remedy)}`);
    return `waiting${left > 0 ? `, a start has ${left} s more` : ""}: ${each.join("; ")}`;
  }

  /** A line for each server, with its remedy. @param final whether waiting does not help: then no server has time left */
  lines(reasons: readonly Reason[], final: boolean): string[] {
    return reasons.map((reason) => {
      const left = final ? 0 : this.left(reason);
      const early = left > 0 ? `, for ${startSeconds - left} s now; where that stays so for a minute` : "";
      return `${told(reason)}${early}${dash(reason.remedy)}`;
    });
  }

  /** Seconds that a server still has; 0 where there is nothing to do about it anyway. */
  private left({ server, remedy }: Reason): number {
    if (remedy === undefined) return 0;
    const waited = (this.now() - (this.since.get(server) ?? this.now())) / 1000;
    return Math.max(0, Math.ceil(startSeconds - waited));
  }
}

function dash(remedy: string | undefined): string {
  return remedy === undefined ? "" : `: ${remedy}`;
}
