// Drawings as SVG text. Each has a ground of its own and follows the reader's light or dark scheme, so that it can be read
// on any page, on GitHub too, where pictures are embedded without a style sheet.

/** Colours by what they are for: in the light scheme, and in the dark one. */
const palette = {
  ground: ["#ffffff", "#0d1117"],
  frame: ["#d1d9e0", "#3d444d"],
  ink: ["#1f2328", "#f0f6fc"],
  soft: ["#59636e", "#9198a1"],
  area: ["#f6f8fa", "#151b23"],
  blue: ["#0969da", "#4493f8"],
  "blue-area": ["#ddf4ff", "#121d2f"],
  pink: ["#bf3989", "#db61a2"],
  "pink-area": ["#ffeff7", "#2a1424"],
  green: ["#1a7f37", "#3fb950"],
  "green-area": ["#dafbe1", "#12261e"],
  amber: ["#9a6700", "#d29922"],
} as const;
export type Colour = keyof typeof palette;

/** The style that a picture has in it: a variable for each colour. @param root selector of the picture */
export function colours(root: string): string {
  const scheme = (i: 0 | 1) =>
    Object.entries(palette)
      .map(([name, pair]) => `--${name}:${pair[i]}`)
      .join(";");
  return `${root}{${scheme(0)};color-scheme:light dark}@media(prefers-color-scheme:dark){${root}{${scheme(1)}}}`;
}

/** As a style sheet has it. */
export const of = (colour: Colour) => `var(--${colour})`;

export const font = "system-ui,-apple-system,'Segoe UI','Noto Sans','Noto Sans CJK SC','PingFang SC',sans-serif";

export function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[sign] ?? "");
}

export interface TextStyle {
  readonly size?: number;
  readonly colour?: Colour;
  readonly anchor?: "start" | "middle" | "end";
  readonly bold?: boolean;
  readonly code?: boolean;
  /** With some ground around the letters, where lines pass below them. */
  readonly halo?: boolean;
}

export interface BoxStyle {
  readonly fill?: Colour;
  readonly line?: Colour;
  readonly dashed?: boolean;
}

export interface LineStyle {
  readonly colour?: Colour;
  readonly heads?: "none" | "end" | "both";
  readonly dashed?: boolean;
}

/** A drawing of boxes, lines and words. Lengths are pixels. */
export class Drawing {
  private readonly parts: string[] = [];

  /** @param title what the picture shows, for who cannot see it */
  constructor(
    private readonly width: number,
    private readonly height: number,
    private readonly title: string,
  ) {}

  box(x: number, y: number, width: number, height: number, { fill = "area", line = "frame", dashed }: BoxStyle = {}) {
    this.parts.push(
      `<rect x="${x}" y="${y}" width="${width}" height="${height}" rx="6" style="fill:${of(fill)};stroke:${of(line)}"` +
        `${dashed ? ' stroke-dasharray="4 4"' : ""}/>`,
    );
  }

  /** @param y of the line that the letters stand on */
  text(
    x: number,
    y: number,
    text: string,
    { size = 13, colour = "ink", anchor = "start", bold, code, halo }: TextStyle = {},
  ) {
    const family = code ? ";font-family:ui-monospace,'DejaVu Sans Mono',monospace" : "";
    this.parts.push(
      `<text${halo ? ' class="halo"' : ""} x="${x}" y="${y}" text-anchor="${anchor}" style="fill:${of(colour)};font-size:${size}px${family}` +
        `${bold ? ";font-weight:600" : ""}">${escaped(text)}</text>`,
    );
  }

  /** A line with a head at its end, at both ends, or none. @param way as SVG's path has it: "M0,0H10V5" */
  path(way: string, { colour = "soft", heads = "end", dashed = false }: LineStyle) {
    const end = heads === "none" ? "" : ` marker-end="url(#head-${colour})"`;
    const start = heads === "both" ? ` marker-start="url(#head-${colour})"` : "";
    this.parts.push(
      `<path d="${way}" style="fill:none;stroke:${of(colour)};stroke-width:1.5"` +
        `${dashed ? ' stroke-dasharray="5 4"' : ""}${start}${end}/>`,
    );
  }

  toString(): string {
    const markers = (["soft", "blue", "pink", "green", "amber"] as const)
      .filter((colour) => this.parts.some((part) => part.includes(`#head-${colour})`)))
      .map(
        (colour) =>
          `<marker id="head-${colour}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" ` +
          `orient="auto-start-reverse"><path d="M0,0L8,4L0,8Z" style="fill:${of(colour)}"/></marker>`,
      );
    return [
      `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${this.width} ${this.height}" width="${this.width}" ` +
        `height="${this.height}" role="img">`,
      `<title>${escaped(this.title)}</title>`,
      `<style>${colours("svg")}text{font-family:${font}}.halo{paint-order:stroke;stroke:${of("ground")};stroke-width:6px}</style>`,
      `<defs>${markers.join("")}</defs>`,
      `<rect x="0.5" y="0.5" width="${this.width - 1}" height="${this.height - 1}" rx="8" ` +
        `style="fill:${of("ground")};stroke:${of("frame")}"/>`,
      ...this.parts,
      "</svg>\n",
    ].join("\n");
  }
}
