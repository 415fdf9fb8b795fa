import type { Cluster } from "../../local/supervisor";
import type { Progress } from "../../tools/progress";
import type { Tally } from "../load";
import type { Plotted } from "../pictures/plots";
import { Lookups, ways } from "./lookups";

/** What a drill shows: a table, and which of its promises were not kept. */
export interface Shown {
  readonly figures: unknown;
  readonly table: readonly (readonly string[])[];
  readonly broken: readonly string[];
  /** For the report that people look at. */
  readonly plots?: readonly Plotted[];
}

/** One experiment of `npm run drill`. It takes a healthy cluster, and leaves it healthy. */
export interface Drill {
  readonly title: string;
  run(cluster: Cluster, progress: Progress): Promise<Shown>;
}

export const seconds = (value: number) => `${value.toFixed(1)} s`;

export function failed({ failed: count, total, slowest }: Tally): string {
  return `${count} of ${total} failed, slowest ${seconds(slowest)}`;
}

/** A figure, and the most that it may be. */
export type Limit = readonly [what: string, value: number, limit: number];

/** One line for each figure that is above its limit, or is no number. */
export function above(limits: readonly Limit[]): string[] {
  const wrong = limits.filter(([, value, limit]) => !(value <= limit));
  return wrong.map(([what, value, limit]) => `${what}: ${Math.round(value * 100) / 100}, at most ${limit}`);
}

/**
 * No lookup may fail over DNS, for the agent answers from its cache. A lookup over HTTP goes to a server, and Consul does
 * not repeat it where that server has just died or has just come back: some may fail then.
 * @param http the share of lookups over HTTP that may fail
 */
export function lookupLimits(what: string, of: Lookups, http: number): Limit[] {
  const limits = { DNS: 0, HTTP: Math.floor(of.HTTP.total * http) };
  return ways.map((way) => [`${what}: failed lookups, ${way}`, of[way].failed, limits[way]]);
}
