import { readdirSync, readFileSync } from "fs";
import { join } from "path";
import { programDir } from "../local/program";

/** Every document of this repository that people read to run something. */
export const documents = [
  "README.md",
  "README.zh-CN.md",
  ...readdirSync(join(programDir, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
  ...readdirSync(join(programDir, "examples"), { recursive: true, encoding: "utf8" })
    .filter((name) => /^([\w-]+\/)?README\.md$/.test(name))
    .map((name) => `examples/${name}`),
  "reader/README.md",
  "tools/README.md",
].sort();

/** The beginning of a command within a sentence. */
const program = /^(aliyun|consul|curl|docker|journalctl|kubectl|node|npm|npx|pulumi|systemctl) /;

/** The commands of a document: the lines of its shell blocks, and the commands that its sentences have as code. */
export function commandsOf(text: string): string[] {
  const blocks = [...text.matchAll(/^ *```sh\n([\s\S]*?)^ *```/gm)].flatMap(([, block = ""]) =>
    block
      .replace(/(\\|\|)\n/g, (_, end) => (end === "|" ? "| " : ""))
      .split("\n")
      // What follows a # is a word to the reader.
      .map((line) => line.replace(/(^| +)# .*$/, "")),
  );
  const inline = [...text.replace(/^ *```[\s\S]*?^ *```/gm, "").matchAll(/`([^`]+)`/g)]
    .map(([, code = ""]) => code)
    .filter((code) => program.test(code));
  return [...new Set([...blocks, ...inline].map((line) => line.replace(/\s+/g, " ").trim()))].filter(Boolean);
}

/** All commands, each with the document that has it. */
export function documented(): { document: string; command: string }[] {
  return documents.flatMap((document) =>
    commandsOf(readFileSync(join(programDir, document), "utf8")).map((command) => ({ document, command })),
  );
}

/** The part of a text below one heading, up to the next heading of the same level. */
export const section = (text: string, heading: string) => text.split(`\n${heading}\n`)[1]?.split(/\n##? /)[0] ?? "";

/** The cells of each table row, without their padding; headings and rules are left out. */
export function rows(text: string): string[][] {
  const tables = [...text.matchAll(/(?:^\|.*\n)+/gm)].map(([table]) => table.trim().split("\n").slice(2));
  return tables.flat().map((row) =>
    row
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

/** What a cell has as code. */
export const codes = (cell = "") => [...cell.matchAll(/`([^`]+)`/g)].map(([, code = ""]) => code);
