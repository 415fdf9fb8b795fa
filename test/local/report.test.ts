import { deepEqual, equal, ok } from "assert/strict";
import { execFile } from "child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { promisify } from "util";
import type { Browser } from "playwright-core";
import type { Timeline } from "../../lab/bench/timeline";
import { failures, leaderKilled, newService, Plotted, times, writeGaps } from "../../lab/pictures/plots";
import { openBrowser } from "../../lab/pictures/browser";
import { writeReport } from "../../lab/report";
import { programDir } from "../../local/program";

const read = (file: string) => readFileSync(join(programDir, file), "utf8");

/** Every kind of plot, of what is committed. */
async function everyPlot(): Promise<Plotted[]> {
  const timelines = JSON.parse(read("lab/bench/data/timeline.json")) as Timeline[];
  return [
    await leaderKilled(timelines),
    await writeGaps(read("docs/operations.md"), read("lab/bench/results.md")),
    await newService(read("lab/bench/results.md")),
    await times("each time", { one: [1, 2.5, 3], other: [0.1, 9] }),
    await failures("failed", [
      { kind: "DNS", place: "at the agents", failed: 0, total: 100 },
      { kind: "HTTP", place: "at the servers", failed: 7, total: 100 },
    ]),
  ];
}

describe("a report, in a real browser", function () {
  this.timeout(300_000);
  let directory: string;
  let browser: Browser | undefined;

  before(async function () {
    directory = mkdtempSync(join(tmpdir(), "report-"));
    browser = await openBrowser();
    if (browser) return;
    console.log("      skipped: no chromium is on PATH (Debian: apt-get install chromium)");
    this.skip();
  });
  after(async () => {
    await browser?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  /** Opens a page. @returns what is wrong with it, and each figure's points: those it has, and those it should have */
  async function looked(file: string, colorScheme: "light" | "dark") {
    ok(browser);
    const page = await browser.newPage({ colorScheme, viewport: { width: 1100, height: 900 } });
    const wrong: string[] = [];
    page.on("console", (message) => void (message.type() === "error" && wrong.push(message.text())));
    page.on("pageerror", (error) => void wrong.push(error.message));
    page.on("request", (request) => void (/^(file|data):/.test(request.url()) || wrong.push(request.url())));
    await page.goto(`file://${file}`);
    const figures = await page.evaluate<{ wanted: number; found: number; outside: string[] }[]>(inPage);
    const ground = await page.evaluate<string>("getComputedStyle(document.body).backgroundColor");
    await page.close();
    return { wrong, figures, ground };
  }
  /** For each figure: how many points it has, and should have, and words that stand outside of its picture. */
  const inPage = `[...document.querySelectorAll("figure")].map((figure) => {
    const frame = figure.querySelector("svg").getBoundingClientRect();
    const inside = ({ left, right, top, bottom }) =>
      left >= frame.left && right <= frame.right && top >= frame.top && bottom <= frame.bottom;
    return {
      wanted: Number(figure.dataset.points),
      found: [...figure.querySelectorAll("circle")].filter((one) => inside(one.getBoundingClientRect())).length,
      outside: [...figure.querySelectorAll("text")]
        .filter((one) => !inside(one.getBoundingClientRect())).map((one) => one.textContent),
    };
  })`;

  it("has every point of every plot, words inside, no error, nothing from elsewhere, in light and in dark", async () => {
    const file = join(directory, "report.html");
    const plots = await everyPlot();
    writeReport(file, "A <report>", [
      { title: "one", markdown: "words & more\n\n| a | b |\n| --- | --- |\n| 1 | 2 |", plots },
    ]);
    const grounds = [];
    for (const scheme of ["light", "dark"] as const) {
      const { wrong, figures, ground } = await looked(file, scheme);
      deepEqual(wrong, []);
      deepEqual(
        figures,
        plots.map(({ points }) => ({ wanted: points, found: points, outside: [] })),
      );
      grounds.push(ground);
    }
    ok(grounds[0] !== grounds[1], "dark is light");
  });

  it("is left by a drill, with its plots", async () => {
    const file = join(programDir, ".local/drill.html");
    rmSync(file, { force: true });
    const args = ["local/task.js", "lab/drill", "blackout", "accident"];
    // Whether every promise is kept is for faults.test.ts, which has the machine for itself.
    let said = "";
    await promisify(execFile)(process.execPath, args, { cwd: programDir }).catch((error: unknown) => {
      const { code, stderr } = error as { code: number; stderr: string };
      equal(code, 1, stderr);
      said = stderr;
    });
    ok(existsSync(file), said);
    const { wrong, figures } = await looked(file, "light");
    deepEqual(wrong, []);
    deepEqual(figures, [{ wanted: 3 * 2, found: 3 * 2, outside: [] }]);
  });
});
