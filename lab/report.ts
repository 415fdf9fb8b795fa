import { mkdirSync, writeFileSync } from "fs";
import { dirname } from "path";
import type { Plotted } from "./pictures/plots";
import { colours, escaped, font, of } from "./pictures/svg";

/** One part of a report: a heading, words and tables as Markdown, and plots. */
export interface Part {
  readonly title: string;
  readonly markdown: string;
  readonly plots: readonly Plotted[];
}

const style = [
  colours(":root"),
  `body{margin:2rem auto;max-width:64rem;padding:0 1rem;background:${of("ground")};color:${of("ink")};font:15px/1.5 ${font}}`,
  `table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}`,
  `th,td{border:1px solid ${of("frame")};padding:.3rem .7rem;text-align:left}th{background:${of("area")}}`,
  `figure{margin:1rem 0}figure>svg{max-width:100%;height:auto}`,
].join("\n");

/** Tables and paragraphs of Markdown; nothing else of it is known here. */
function blocks(markdown: string): string {
  return markdown
    .split(/\n{2,}/)
    .map((block) => block.trim())
    .filter((block) => block !== "")
    .map((block) => (block.startsWith("|") ? table(block) : `<p>${escaped(block)}</p>`))
    .join("\n");
}

function table(block: string): string {
  const [head = [], , ...rows] = block.split("\n").map((line) => line.split("|").slice(1, -1));
  const row = (cells: readonly string[], tag: "th" | "td") =>
    `<tr>${cells.map((cell) => `<${tag}>${escaped(cell.trim())}</${tag}>`).join("")}</tr>`;
  return `<table>\n${[row(head, "th"), ...rows.map((cells) => row(cells, "td"))].join("\n")}\n</table>`;
}

/** A page that needs nothing from elsewhere, in light and dark. */
export function reportPage(title: string, parts: readonly Part[]): string {
  const sections = parts.map(({ title: heading, markdown, plots }) => {
    const figures = plots.map(({ svg, points }) => `<figure data-points="${points}">\n${svg}</figure>`);
    return [`<h2>${escaped(heading)}</h2>`, blocks(markdown), ...figures].join("\n");
  });
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>${escaped(title)}</title>
<style>
${style}
</style>
</head>
<body>
<h1>${escaped(title)}</h1>
${sections.join("\n")}
</body>
</html>
`;
}

/** Writes a report in place of the last one. */
export function writeReport(file: string, title: string, parts: readonly Part[]): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, reportPage(title, parts));
}
