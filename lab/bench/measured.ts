import type { Plotted } from "../pictures/plots";

/** What a bench has found. */
export interface Measured {
  /** Markdown, for lab/bench/results.md. */
  readonly text: string;
  /** For the report that people look at. */
  readonly plots?: readonly Plotted[];
  /** What pictures are made of and no table has, for a file in lab/bench/data. */
  readonly data?: unknown;
}
