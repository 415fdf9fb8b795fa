import { deepEqual, equal, ok } from "assert/strict";
import { spawn } from "child_process";
import { once } from "events";
import { readFileSync, rmSync } from "fs";
import { join } from "path";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { openBrowser } from "../../lab/pictures/browser";
import { programDir } from "../../local/program";
import { languages, linkOf } from "../../site/links";
import { built, documentsOfSite } from "../../site/site";
import { codes, rows } from "../documents";

const { isInstalled } = require("../../local/setup.js") as { isInstalled: (directory: string) => boolean };

const base = "/consul/";
const sources = "https://git.example.com/platform/consul/blob/main/";

// The site as a host has it, below a path, in a real browser.
describe("the site, in a real browser", function () {
  this.timeout(600_000);
  let browser: Browser | undefined;
  let url = "";
  let end: () => Promise<unknown> = () => Promise.resolve();
  const paths = documentsOfSite().map((file) => linkOf("README.md", file, undefined)?.slice(1) ?? "");

  before(async function () {
    browser = await openBrowser();
    if (!browser) {
      console.log("      skipped: no chromium is on PATH (Debian: apt-get install chromium)");
      return this.skip();
    }
    rmSync(built, { recursive: true, force: true });
    const args = ["local/task.js", "site/site", `--base=${base}`, `--sources=${sources}`, "--show", "--port=0"];
    const task = spawn(process.execPath, args, { cwd: programDir, stdio: ["ignore", "pipe", "pipe"] });
    end = () => (task.kill("SIGINT"), task.exitCode === null ? once(task, "exit") : Promise.resolve([task.exitCode]));
    let out = "";
    let complaint = "";
    task.stderr.on("data", (text: Buffer) => (complaint += text.toString()));
    url = await new Promise<string>((shown) => {
      task.stdout.on("data", (text: Buffer) => {
        out += text.toString();
        const [found] = /http:\S+/.exec(out) ?? [];
        if (found !== undefined) shown(found);
      });
      task.on("exit", () => shown(""));
    });
    if (url !== "") return;
    if (!isInstalled(join(programDir, "site"))) {
      console.log("      skipped: the site's packages are not installed, and npm reaches no registry");
      return this.skip();
    }
    throw new Error(`npm run site failed:\n${out}${complaint}`);
  });
  after(async () => {
    await browser?.close();
    const [status] = (await end()) as [number];
    if (url !== "") equal(status, 0, "Ctrl-C is its end");
  });

  /** Opens a page. @returns what is wrong with it so far, and later on too */
  async function open(path: string, options: BrowserContextOptions = {}): Promise<{ page: Page; wrong: string[] }> {
    ok(browser);
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, ...options });
    const wrong: string[] = [];
    page.on("console", (message) => void wrong.push(`${page.url()}: ${message.text()}`));
    page.on("pageerror", (error) => void wrong.push(`${page.url()}: ${error.message}`));
    page.on("request", (request) => {
      const from = request.url();
      if (!from.startsWith("data:") && !from.startsWith(url)) wrong.push(`${page.url()}: ${from}`);
    });
    page.on("response", (response) => void (response.ok() || wrong.push(`${page.url()}: ${response.url()} failed`)));
    await page.goto(url + path, { waitUntil: "networkidle" });
    return { page, wrong };
  }

  it("has every page, no dead link, nothing on the console and nothing from elsewhere", async () => {
    const ids = new Map<string, readonly string[]>();
    const links: { from: string; to: string }[] = [];
    const { page, wrong } = await open("");
    for (const path of paths) {
      await page.goto(url + path, { waitUntil: "networkidle" });
      ids.set(url + path, await page.evaluate<string[]>(`[...document.querySelectorAll("[id]")].map((one) => one.id)`));
      const found = await page.evaluate<string[]>(`[...document.querySelectorAll("a[href]")].map((one) => one.href)`);
      links.push(...found.map((to) => ({ from: path, to: decodeURIComponent(to) })));
    }
    deepEqual(wrong, []);
    const dead = links.filter(({ to }) => {
      const [target = "", fragment = ""] = to.split("#");
      if (!to.startsWith(new URL(url).origin)) return !/^https?:/.test(to);
      const there = ids.get(target);
      return there === undefined || (fragment !== "" && !there.includes(fragment));
    });
    deepEqual(dead, []);
    ok(links.filter(({ to }) => to.includes("#")).length > 500);
    for (const file of ["local/command.ts", "docs/ram-policy.json", "lab/bench/results.md"]) {
      ok(
        links.some(({ to }) => to.startsWith(sources + file)),
        file,
      );
    }
    await page.close();
  });

  it("has every page in both languages, and a way from each to the other", async () => {
    const english = paths.filter((path) => !path.startsWith("zh/"));
    deepEqual(
      english.map((path) => `zh/${path}`).filter((path) => !paths.includes(path)),
      [],
    );
    equal(paths.length, 2 * english.length);
    const { page, wrong } = await open("settings.html");
    await page.hover(".VPNavBarTranslations");
    await page.getByRole("link", { name: "中文" }).click();
    await page.waitForURL(`${url}zh/settings.html`);
    equal(await page.evaluate("document.documentElement.lang"), "zh-CN");
    await page.hover(".VPNavBarTranslations");
    await page.getByRole("link", { name: "English" }).click();
    await page.waitForURL(`${url}settings.html`);
    deepEqual(wrong, []);
    await page.close();
  });

  for (const { folder, documents } of Object.values(languages)) {
    it(`has every setting in ${folder}settings.html`, async () => {
      const file = `${documents}settings.md`;
      const wanted = rows(readFileSync(join(programDir, file), "utf8")).map(([key]) => codes(key)[0]);
      ok(wanted.length > 120);
      const { page } = await open(`${folder}settings.html`);
      deepEqual(
        await page.evaluate(`[...document.querySelectorAll("td:first-child > code")].map((one) => one.textContent)`),
        wanted,
      );
      await page.close();
    });
  }

  for (const [path, words, found] of [
    ["", "waitMinutes", "gate.waitMinutes"],
    ["", "killed leader", "leader"],
    ["zh/", "闸门", "闸门"],
    // Never after a space or a mark in the documents: a search by spaces would not find it.
    ["zh/", "投票", "投票"],
  ] as const) {
    it(`finds ${words} from /${path}, and goes there`, async () => {
      const { page, wrong } = await open(path);
      await page.locator(".DocSearch-Button").first().click();
      await page.locator(".search-input").fill(words);
      await page.locator("a.result").first().click();
      await page.waitForURL((to) => to.href.startsWith(url + path) && to.pathname.endsWith(".html"));
      await page.locator("main", { hasText: found }).waitFor();
      deepEqual(wrong, []);
      await page.close();
    });
  }

  it("is read on a telephone without moving the page sideways; what is wide moves by itself", async () => {
    const { page, wrong } = await open("", { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
    const inside: number[] = [];
    for (const path of paths) {
      await page.goto(url + path, { waitUntil: "networkidle" });
      const { widths, cut } = await page.evaluate<{ widths: number[]; cut: string[] }>(onTelephone);
      deepEqual(widths, [390, 390], path);
      deepEqual(cut, [], path);
      inside.push(await page.evaluate<number>(wideTables));
    }
    ok(inside.reduce((sum, one) => sum + one) > 20, "tables that are wider than the page");
    deepEqual(wrong, []);
    await page.close();
  });
  /** What stands out of the page on its right, where nothing that holds it can be moved. */
  const onTelephone = `(() => {
    const moves = (one) => one && (getComputedStyle(one).overflowX === "auto" || moves(one.parentElement));
    const cut = [...document.querySelectorAll("main *")].filter(
      (one) => one.getBoundingClientRect().right > innerWidth + 1 && !moves(one),
    );
    return { widths: [document.documentElement.scrollWidth, innerWidth], cut: cut.map((one) => one.outerHTML.slice(0, 80)) };
  })()`;
  const wideTables = `[...document.querySelectorAll("table")].filter((one) => one.scrollWidth > one.clientWidth).length`;

  it("is light or dark as the reader's system is, with its pictures, and as the reader wants", async () => {
    const ground = `getComputedStyle(document.body).backgroundColor`;
    const [light, dark] = [await open("", { colorScheme: "light" }), await open("", { colorScheme: "dark" })];
    const [bright, dim] = [await light.page.evaluate<string>(ground), await dark.page.evaluate<string>(ground)];
    ok(bright !== dim);
    const picture = light.page.locator("main img").first();
    const before = await picture.screenshot();
    await light.page.locator(".VPSwitchAppearance").first().click();
    await light.page.waitForFunction(`${ground} === ${JSON.stringify(dim)}`);
    ok(!before.equals(await picture.screenshot()), "the picture is still a light one");
    deepEqual([...light.wrong, ...dark.wrong], []);
    await light.page.close();
    await dark.page.close();
  });
});
