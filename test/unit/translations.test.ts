import { deepEqual, equal, ok } from "assert/strict";
import { existsSync, readFileSync } from "fs";
import { dirname, join, relative } from "path";
import { chineseText } from "../../lab/matrix/command";
import { programDir } from "../../local/program";
import { codes, documents, rows } from "../documents";

// Each document of docs/ has a twin in Chinese in docs/zh/, under the same name, and the README in Japanese too. Words
// are a translator's; what a reader types, looks up or counts on is the same in all languages, section by section.

const read = (name: string) => readFileSync(join(programDir, name), "utf8");

/** The twin of a document in another language. */
const twins = (document: string): string[] =>
  document === "README.md" ? ["README.zh-CN.md", "README.ja.md"] : [document.replace(/^docs\//, "docs/zh/")];
/** The English document of a document in any language. */
const english = (document: string) => document.replace(/^docs\/zh\//, "docs/").replace(/^README\..*\.md$/, "README.md");

const originals = documents.filter((name) => /^(README|docs\/(?!zh\/).*)\.md$/.test(name));

/** As GitHub makes it. */
const anchor = (heading: string) =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
const headings = (text: string) =>
  [...text.replace(/^ *```[\s\S]*?^ *```/gm, "").matchAll(/^(#+) (.*)$/gm)].map(([, level, title = ""]) => ({
    level,
    anchor: anchor(title),
  }));

/** Where a link leads, in the words of the English documents: a heading by its place in its document. */
function target(document: string, link: string): string {
  if (/^[a-z]+:/.test(link)) return link;
  const [path = "", fragment] = link.replace(/\.(zh-CN|ja)\.svg$/, ".svg").split("#");
  const file = path === "" ? document : relative(".", join(dirname(document), path));
  if (fragment === undefined) return english(file);
  const place = headings(read(file)).findIndex((heading) => heading.anchor === fragment);
  return `${english(file)} heading ${place}`;
}

interface Section {
  readonly level: string;
  readonly blocks: readonly string[];
  readonly code: readonly string[];
  readonly links: readonly string[];
  readonly rows: readonly string[][];
  readonly figures: readonly string[];
}

/** What a document says section by section, words left out. */
function sections(document: string): Section[] {
  const blocks: string[] = [];
  const text = read(document).replace(/^ *```[\s\S]*?^ *```/gm, (block) => `\u0000${blocks.push(block) - 1}\u0000`);
  return text.split(/^(?=#+ )/m).map((part) => {
    const prose = part.replace(/\u0000\d+\u0000/g, "").replace(/`[^`]+`/g, "");
    return {
      level: /^#+/.exec(part)?.[0] ?? "",
      // Comments in blocks are words.
      blocks: [...part.matchAll(/\u0000(\d+)\u0000/g)].map(([, n]) =>
        (blocks[Number(n)] ?? "").replace(/ *# .*$/gm, ""),
      ),
      code: codes(part.replace(/\s+/g, " ")).sort(),
      links: [...part.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = ""]) => target(document, link)).sort(),
      rows: rows(part).map(([first]) => codes(first)),
      figures: (prose.replace(/\]\([^)]*\)/g, "]").match(/(?<![\w.])\d+(?:[.,]\d+)*/g) ?? []).sort(),
    };
  });
}

describe("documents in other languages", () => {
  it("are all there", () => {
    ok(originals.length > 15);
    deepEqual(
      originals.flatMap(twins).filter((twin) => !existsSync(join(programDir, twin))),
      [],
    );
    const named = new Set([...originals, ...originals.flatMap(twins)]);
    const others = documents.filter((name) => /^(README|docs\/)/.test(name) && !named.has(name));
    deepEqual(others, [], "without an English original");
  });

  it("in Chinese link to documents in Chinese", () => {
    const chinese = documents.filter((name) => name === "README.zh-CN.md" || name.startsWith("docs/zh/"));
    const wrong = chinese.flatMap((document) =>
      [...read(document).matchAll(/\]\(([^)\s#:]+\.md)/g)]
        .map(([, link = ""]) => relative(".", join(dirname(document), link)))
        // The README begins with a link to the other language.
        .filter((file) => file !== "README.md" && originals.includes(file))
        .filter((file) => twins(file).some((twin) => existsSync(join(programDir, twin))))
        .map((file) => `${document}: ${file}`),
    );
    ok(chinese.length > 15);
    deepEqual(wrong, []);
  });

  it("have the same cells of operations with faults", () => {
    const remedy = "npm run drill -- matrix --cell applications/twice writes docs/zh/faults.md from docs/faults.md";
    equal(read("docs/zh/faults.md"), chineseText(), remedy);
    ok(/\| 停下，后来完成 +\| \d+ s /.test(chineseText()));
  });

  for (const original of originals) {
    for (const twin of twins(original).filter((name) => existsSync(join(programDir, name)))) {
      it(`${twin} has what ${original} has: headings, code, links, rows of tables, figures`, () => {
        const [wanted, found] = [sections(original), sections(twin)];
        deepEqual(
          found.map(({ level }) => level),
          wanted.map(({ level }) => level),
        );
        for (const [index, section] of wanted.entries()) {
          const { figures, ...rest } = found[index] ?? section;
          const { figures: figuresWanted, ...restWanted } = section;
          deepEqual(rest, restWanted);
          // A translation may write a number as a figure where English has a word.
          const left = [...figures];
          const missing = figuresWanted.filter((figure) => {
            const at = left.indexOf(figure);
            if (at >= 0) left.splice(at, 1);
            return at < 0;
          });
          deepEqual(missing, [], `figures of section ${index}`);
        }
      });
    }
  }
});
