import { Terminal } from "@xterm/headless";
import { spawn } from "child_process";
import { mkdtempSync, rmSync } from "fs";
import { homedir, tmpdir } from "os";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { programDir } from "../../local/program";
import { onLoopback } from "../../local/supervisor";
import { Colour, colours, escaped, of } from "./svg";

const [columns, rows] = [112, 30];
/** Seconds that an overview stays, to be read. */
const reading = 6;

/** What a terminal was sent, and when: seconds since the start. As asciinema's cast format, version 2, has it. */
type Events = readonly (readonly [seconds: number, text: string])[];

/**
 * A recording of `npm start` in a terminal, from the command to Ctrl-C.
 * @returns asciinema's cast, and the same as an animated SVG, by file name
 */
export async function recording(): Promise<Record<string, string>> {
  const events = await recorded();
  const header = { version: 2, width: columns, height: rows, title: "npm start" };
  const cast = [header, ...events.map(([seconds, text]) => [seconds, "o", text])];
  return {
    "npm-start.cast": cast.map((line) => `${JSON.stringify(line)}\n`).join(""),
    "npm-start.svg": await animated(events),
  };
}

async function recorded(): Promise<Events> {
  const dir = mkdtempSync(join(tmpdir(), "recording-"));
  const settings = Object.entries(onLoopback("127.24.0")).map(([key, value]) => `--config '${key}=${value}'`);
  const start = `npm start --silent -- --dir ${join(dir, "cluster-local")} ${settings.join(" ")}`;
  // `script` of util-linux gives it a terminal.
  const child = spawn("script", ["-qefc", `stty cols ${columns} rows ${rows}; exec ${start}`, "/dev/null"], {
    cwd: programDir,
    env: { ...process.env, TERM: "xterm-256color", NO_COLOR: undefined },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = new Promise<void>((resolve, reject) => child.once("error", reject).once("close", () => resolve()));
  const events: [number, string][] = [[0, "$ npm start\r\n"]];
  const began = Date.now();
  let last = "";
  child.stdout.on("data", (data: Buffer) => {
    // Nothing that says whose machine it is.
    last = data
      .toString()
      .replaceAll(dir, "~/consul/.local")
      .replaceAll(programDir, "~/consul")
      .replaceAll(homedir(), "~");
    events.push([(Date.now() - began) / 1000, last]);
  });
  try {
    const isUp = () => events.some(([, text]) => text.includes("Ctrl-C stops every node"));
    while (child.exitCode === null && !isUp()) await sleep(100);
    await sleep(500);
    child.stdin.write("\x03");
    await ended;
  } finally {
    child.kill();
    rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  }
  const all = events.map(([, text]) => text).join("");
  if (!all.includes("Ctrl-C stops every node")) throw new Error(`npm start did not come up: ${all.slice(-500)}`);
  for (const own of [programDir, homedir(), dir]) if (all.includes(own)) throw new Error(`${own} is in the recording`);
  return events;
}

interface Frame {
  readonly at: number;
  readonly lines: readonly string[];
}

/** The screen at each moment at which it had changed; at most four a second. */
async function frames(events: Events): Promise<Frame[]> {
  const terminal = new Terminal({ cols: columns, rows, allowProposedApi: true });
  const result: Frame[] = [];
  for (const [i, [at, text]] of events.entries()) {
    await new Promise<void>((done) => terminal.write(text, done));
    const next = events[i + 1]?.[0] ?? Infinity;
    if (Math.floor(next * 4) === Math.floor(at * 4)) continue;
    result.push({ at, lines: screen(terminal) });
  }
  return result;
}

/** Colours of a terminal that are used here, by their numbers. */
const colourOf: Readonly<Record<number, Colour>> = {
  1: "pink",
  2: "green",
  3: "amber",
  4: "blue",
  5: "pink",
  6: "blue",
  8: "soft",
};

/** Each line of the screen as SVG's tspans. */
function screen(terminal: Terminal): string[] {
  const { active } = terminal.buffer;
  return Array.from({ length: rows }, (_, row) => {
    const line = active.getLine(active.viewportY + row);
    const runs: { colour: string; text: string }[] = [];
    for (let x = 0; line !== undefined && x < columns; x++) {
      const cell = line.getCell(x);
      if (!cell || cell.getWidth() === 0) continue;
      const number = cell.isFgPalette() ? cell.getFgColor() : -1;
      const colour = of(cell.isDim() ? "soft" : (colourOf[number] ?? "ink"));
      const text = cell.getChars() || " ";
      const run = runs.at(-1);
      if (run?.colour === colour || (run && text === " ")) run.text += text;
      else runs.push({ colour, text });
    }
    const end = runs.at(-1);
    if (end) end.text = end.text.trimEnd();
    return runs
      .filter(({ text }) => text !== "")
      .map(({ colour, text }) => `<tspan style="fill:${colour}">${escaped(text)}</tspan>`)
      .join("");
  });
}

async function animated(events: Events): Promise<string> {
  const all = await frames(events);
  const [cell, lineHeight] = [7.85, 17];
  const [width, height] = [Math.round(columns * cell) + 32, rows * lineHeight + 32];
  // The overview stays for a while; the last screen too, before it begins again.
  const overview = all.findIndex(({ lines }) => lines.some((line) => line.includes("Ctrl-C stops every node")));
  const times = all.map(({ at }, i) => at + (i > overview ? reading : 0));
  const total = (times.at(-1) ?? 0) + 2;
  const keys = times.map((at, i) => `${((100 * at) / total).toFixed(2)}%{transform:translateY(${-i * height}px)}`);
  const still = `transform:translateY(${-overview * height}px)`;
  const pictures = all.map(({ lines }, i) => {
    const texts = lines.flatMap((line, row) =>
      line === "" ? [] : [`<text x="16" y="${i * height + 28 + row * lineHeight}" xml:space="preserve">${line}</text>`],
    );
    return texts.join("\n");
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    "<title>npm start: three servers and three agents on this machine, then Ctrl-C</title>",
    `<style>${colours("svg")}text{font:13px ui-monospace,'DejaVu Sans Mono',monospace;white-space:pre}` +
      `@keyframes play{${keys.join("")}}.film{${still};animation:play ${total.toFixed(1)}s step-end infinite}` +
      `@media(prefers-reduced-motion:reduce){.film{animation:none}}</style>`,
    `<rect x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="8" style="fill:${of("ground")};stroke:${of("frame")}"/>`,
    `<g class="film">`,
    ...pictures,
    "</g>",
    "</svg>\n",
  ].join("\n");
}
