import { spawn } from "child_process";
import { once } from "events";
import { cpSync, mkdirSync, readdirSync, rmSync } from "fs";
import { dirname, join } from "path";
import { defineTask, interruption, Misuse } from "../local/command";
import { programDir } from "../local/program";
import { languages, pageOf, pictures } from "./links";
import { serve } from "./serve";

const { setUp } = require("../local/setup") as { setUp: (directory: string) => void };

const directory = join(programDir, "site");
/** Where the built site is. */
export const built = join(directory, "dist");

/** The documents of the site, below the program's directory. */
export function documentsOfSite(): string[] {
  const inDocs = readdirSync(join(programDir, "docs"), { recursive: true, encoding: "utf8" })
    .map((name) => `docs/${name}`)
    .filter((name) => name.endsWith(".md"));
  return [...Object.values(languages).map(({ readme }) => readme), ...inDocs].sort();
}

/** Copies documents and pictures to where VitePress looks for them: it takes no page from outside of its folder. */
function copyPages(): void {
  const pages = join(directory, ".cache/pages");
  rmSync(pages, { recursive: true, force: true });
  for (const file of documentsOfSite()) {
    const page = join(pages, pageOf(file) ?? file);
    mkdirSync(dirname(page), { recursive: true });
    cpSync(join(programDir, file), page);
  }
  cpSync(join(programDir, pictures), join(pages, "public/pictures"), { recursive: true });
}

/** Runs VitePress. @returns its exit status, 130 where somebody wanted an end to it */
async function build(env: Record<string, string>, interrupted: Promise<unknown>): Promise<number> {
  const file = join(directory, "node_modules/vitepress/bin/vitepress.js");
  const child = spawn(process.execPath, [file, "build", "."], {
    cwd: directory,
    env: { ...process.env, ...env },
    // What it says is no result of the task.
    stdio: ["ignore", 2, 2],
  });
  const exit = once(child, "exit") as Promise<[number | null]>;
  const ended = interrupted.then(() => {
    child.kill("SIGTERM");
    return 130;
  });
  return Promise.race([exit.then(([status]) => status ?? 1), ended]);
}

export const task = defineTask({
  name: "site",
  about: `makes a site from the documents, in English and in Chinese, with a search: site/dist.
Its packages are its own, and are installed when they are missing.`,
  after: "README.md and README.zh-CN.md are the front pages, and what they list under Documents is the sidebar.",
  flags: {
    base: { type: "string", value: "PATH", default: "/", about: "where the site is on its host, such as /consul/" },
    sources: {
      type: "string",
      value: "URL",
      about: `what comes before the path of a file of the repository in a link, such as
https://git.example.com/platform/consul/blob/main; without it, such links are words`,
    },
    show: { type: "boolean", default: false, about: "shows the site on this machine until Ctrl-C" },
    port: { type: "string", value: "PORT", default: "8080", about: "the port for --show" },
  },
  run: async ({ flags: { base, sources = "", show, port }, write }) => {
    if (!/^\/(.*\/)?$/.test(base)) throw new Misuse(`--base ${base}: a path that begins and ends with / is wanted`);
    if (!/^\d{1,5}$/.test(port)) throw new Misuse(`--port ${port}: a number is wanted`);
    setUp(directory);
    copyPages();
    const interrupted = interruption();
    const status = await build({ SITE_BASE: base, SITE_SOURCES: sources }, interrupted);
    if (status !== 0) return status;
    write(`site/dist: ${documentsOfSite().length} pages\n`);
    if (!show) return 0;
    const { url } = await serve(built, base, Number(port));
    write(`${url} until Ctrl-C\n`);
    await interrupted;
    return 0;
  },
});
