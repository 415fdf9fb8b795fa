import type { Markish, PlotOptions } from "@observablehq/plot";
import { names } from "../bench/contenders";
import { secondOf, Timeline } from "../bench/timeline";
import { colours, escaped, font, of } from "./svg";

// Plots of what was measured. They take tables as the documents have them: a figure stands in one place.

const width = 800;

export interface Plotted {
  readonly title: string;
  readonly svg: string;
  /** How many points it shows. */
  readonly points: number;
}

/** Draws a plot with its title, on a ground of its own. */
async function plotted(title: string, points: number, height: number, options: PlotOptions): Promise<Plotted> {
  // Both are typed for browsers, whose types this program does not have.
  const { plot } = (await import("@observablehq/plot")) as unknown as {
    plot: (options: PlotOptions) => { readonly outerHTML: string };
  };
  const { parseHTML } = await import("linkedom");
  const { document } = parseHTML("<!doctype html><html><body></body></html>") as unknown as { document: never };
  const drawn = plot({
    ...options,
    width: width - 32,
    height,
    document,
    style: { background: "none", color: of("ink"), fontFamily: font, fontSize: "12px", overflow: "visible" },
  });
  const total = height + 64;
  const svg = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${total}" width="${width}" height="${total}" role="img">`,
    `<title>${escaped(title)}</title>`,
    `<style>${colours("svg")}</style>`,
    `<rect x="0.5" y="0.5" width="${width - 1}" height="${total - 1}" rx="8" style="fill:${of("ground")};stroke:${of("frame")}"/>`,
    `<text x="16" y="28" style="font:600 14px ${font};fill:${of("ink")}">${escaped(title)}</text>`,
    drawn.outerHTML.replace("<svg ", '<svg x="16" y="48" '),
    "</svg>\n",
  ];
  return { title, svg: svg.join("\n"), points };
}

/** The rows of the first Markdown table with a head that begins with these cells. */
export function tableRows(markdown: string, ...head: string[]): string[][] {
  const tables = [...markdown.matchAll(/(?:^\|.*(?:\n|$))+/gm)].map(([table]) =>
    table
      .trim()
      .split("\n")
      .map((line) =>
        line
          .split("|")
          .slice(1, -1)
          .map((cell) => cell.trim()),
      ),
  );
  const found = tables.find(([first]) => head.every((cell, i) => first?.[i] === cell));
  if (!found) throw new Error(`there is no table with the head ${head.join(", ")}`);
  return found.slice(2);
}

/** Numbers of a cell such as "1.8 / 2.2 / 3.0 s". */
const numbers = (cell = "") => (cell.replace(/(\d),(\d)/g, "$1$2").match(/[\d.]+/g) ?? []).map(Number);

const labelOf = {
  "this program": "this program",
  "the Docker walk-through": "by hand: the Docker walk-through",
} as const;

/** Writes and lookups per second over time while the leader is killed, one cluster above the other. */
export async function leaderKilled(timelines: readonly Timeline[]): Promise<Plotted> {
  const Plot = await import("@observablehq/plot");
  const rows = timelines.flatMap((timeline) =>
    (["lookups", "writes"] as const).flatMap((what) =>
      timeline[what].map((rate, i) => ({
        cluster: labelOf[timeline.cluster],
        what: what === "writes" ? "writes" : "lookups, DNS",
        run: `${what} ${timeline.kill}`,
        second: secondOf(i),
        rate,
      })),
    ),
  );
  const most = Math.max(...rows.map(({ rate }) => rate));
  const colour = ({ what }: { what: string }) => (what === "writes" ? of("pink") : of("blue"));
  const channels = { x: "second", y: "rate", fy: "cluster", z: "run" } as const;
  const marks: Markish[] = [
    Plot.ruleY([0], { stroke: of("frame") }),
    Plot.ruleX([0], { stroke: of("amber"), strokeWidth: 1.5 }),
    Plot.line(rows, { ...channels, stroke: colour, strokeWidth: 1, strokeOpacity: 0.8 }),
    Plot.dot(rows, { ...channels, fill: colour, r: 1.6 }),
    Plot.text(
      names.map((name) => labelOf[name]),
      {
        fy: (label: string) => label,
        text: (label: string) => label,
        frameAnchor: "top-right",
        dy: -16,
        fontWeight: 600,
      },
    ),
    Plot.text([labelOf["this program"]], {
      fy: (label: string) => label,
      x: 0,
      y: most,
      text: () => "the leader is killed",
      textAnchor: "start",
      dx: 6,
      dy: -6,
      fill: of("amber"),
    }),
  ];
  return plotted(
    "Answers per second at an agent: lookups over DNS (blue), writes (pink); three kills of the leader",
    rows.length,
    400,
    {
      marginLeft: 52,
      marginBottom: 40,
      marginTop: 24,
      marginRight: 8,
      x: { label: "seconds since the leader was killed", labelAnchor: "center", labelArrow: "none" },
      y: {
        label: "answers per second",
        labelAnchor: "center",
        labelArrow: "none",
        grid: true,
        domain: [0, most],
        ticks: 4,
      },
      fy: { axis: null, domain: names.map((name) => labelOf[name]), padding: 0.22 },
      marks,
    },
  );
}

/** The longest time without a write of each operation, as docs/operations.md has it, and of a killed leader. */
export async function writeGaps(operations: string, results: string): Promise<Plotted> {
  const Plot = await import("@observablehq/plot");
  const killed = tableRows(results, "minimum / median / maximum").find(([what]) => what?.startsWith("leader killed"));
  const rows = [
    ...tableRows(operations, "operation", "how long", "longest time without a write").map(([what = "", , gap]) => ({
      what,
      gap: numbers(gap)[0] ?? NaN,
      colour: of("blue"),
    })),
    { what: "the leader is killed", gap: numbers(killed?.[1])[1] ?? NaN, colour: of("blue") },
    { what: "the same, by hand", gap: numbers(killed?.[2])[1] ?? NaN, colour: of("pink") },
  ];
  return plotted(
    "Longest time without a write: each operation under load, and a killed leader (median)",
    rows.length,
    rows.length * 28 + 44,
    {
      marginLeft: 200,
      marginBottom: 40,
      marginTop: 4,
      marginRight: 50,
      x: {
        label: "seconds, on a scale of square roots",
        labelAnchor: "center",
        labelArrow: "none",
        type: "sqrt",
        grid: true,
        ticks: [0, 0.1, 0.5, 1, 2, 5, 10],
        tickFormat: String,
      },
      y: { label: null, domain: rows.map(({ what }) => what) },
      marks: [
        Plot.barX(rows, { y: "what", x: "gap", fill: "colour", insetTop: 5, insetBottom: 5 }),
        Plot.dot(rows, { y: "what", x: "gap", fill: "colour", r: 4 }),
        Plot.text(rows, {
          y: "what",
          x: "gap",
          text: ({ gap }: { gap: number }) => `${gap} s`,
          textAnchor: "start",
          dx: 8,
        }),
      ],
    },
  );
}

/** How long it takes until every agent sees a new service, over the number of agents. */
export async function newService(results: string): Promise<Plotted> {
  const Plot = await import("@observablehq/plot");
  const rows = tableRows(results, "agents").map(([agents, services, seen]) => {
    const [least = NaN, median = NaN, most = NaN] = numbers(seen);
    return { agents: Number(agents), services: services ?? "", least, median, most };
  });
  const services = [...new Set(rows.map((row) => row.services))];
  const palette = [of("blue"), of("green"), of("pink")];
  const colour = (row: { services: string }) => palette[services.indexOf(row.services) % palette.length] ?? "";
  // Side by side, where several are measured at the same number of agents.
  const x = (row: { agents: number; services: string }) => row.agents + (services.indexOf(row.services) - 1) * 0.6;
  const last = rows.filter(({ agents }) => agents === Math.max(...rows.map((row) => row.agents)));
  return plotted(
    "Time until every agent sees a new service: median, from the fastest to the slowest of ten",
    rows.length,
    300,
    {
      marginLeft: 52,
      marginBottom: 40,
      marginRight: 120,
      x: {
        label: "agents",
        labelAnchor: "center",
        labelArrow: "none",
        ticks: [...new Set(rows.map(({ agents }) => agents))],
        domain: [0, 52],
      },
      y: { label: "milliseconds", labelAnchor: "center", labelArrow: "none", grid: true, zero: true },
      marks: [
        Plot.ruleY([0], { stroke: of("frame") }),
        Plot.ruleX(rows, { x, y1: "least", y2: "most", stroke: colour }),
        Plot.line(rows, { x, y: "median", z: "services", stroke: colour }),
        Plot.dot(rows, { x, y: "median", fill: colour, r: 4 }),
        ...last.map((row, i) =>
          Plot.text([row], {
            x: () => 52,
            y: "median",
            dy: (i - 1) * 16,
            text: () => `${row.services} services`,
            fill: colour(row),
            textAnchor: "start",
            dx: 8,
          }),
        ),
      ],
    },
  );
}

/** Seconds that something took, each time it was done: a row of dots for each kind. */
export async function times(title: string, kinds: Readonly<Record<string, readonly number[]>>): Promise<Plotted> {
  const Plot = await import("@observablehq/plot");
  const all = Object.keys(kinds);
  const palette = [of("blue"), of("pink"), of("green")];
  const rows = Object.entries(kinds).flatMap(([kind, values]) =>
    values.map((seconds) => ({ kind, seconds, colour: palette[all.indexOf(kind) % palette.length] ?? "" })),
  );
  return plotted(title, rows.length, all.length * 44 + 48, {
    marginLeft: 230,
    marginBottom: 40,
    marginTop: 4,
    marginRight: 16,
    x: { label: "seconds", labelAnchor: "center", labelArrow: "none", grid: true, zero: true, nice: true },
    y: { label: null, domain: all },
    marks: [
      Plot.ruleX([0], { stroke: of("frame") }),
      Plot.dot(rows, { x: "seconds", y: "kind", fill: "colour", fillOpacity: 0.6, r: 5 }),
    ],
  });
}

/** Shares of requests that failed: a row for each kind of request, a dot for each place. */
export async function failures(
  title: string,
  rows: readonly { readonly kind: string; readonly place: string; readonly failed: number; readonly total: number }[],
): Promise<Plotted> {
  const Plot = await import("@observablehq/plot");
  const places = [...new Set(rows.map(({ place }) => place))];
  const palette = [of("pink"), of("blue"), of("green")];
  const shares = rows.map(({ kind, place, failed, total }) => ({
    what: `${kind}, ${place}`,
    share: (100 * failed) / total,
    colour: palette[places.indexOf(place) % palette.length] ?? "",
    words: `${failed} of ${total}`,
  }));
  return plotted(title, shares.length, shares.length * 30 + 48, {
    marginLeft: 260,
    marginBottom: 40,
    marginTop: 4,
    marginRight: 110,
    x: { label: "percent that failed", labelAnchor: "center", labelArrow: "none", grid: true, zero: true, nice: true },
    y: { label: null, domain: shares.map(({ what }) => what) },
    marks: [
      Plot.ruleX([0], { stroke: of("frame") }),
      Plot.dot(shares, { x: "share", y: "what", fill: "colour", r: 5 }),
      Plot.text(shares, { x: "share", y: "what", text: "words", textAnchor: "start", dx: 10 }),
    ],
  });
}
