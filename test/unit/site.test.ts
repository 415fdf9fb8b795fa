import { deepEqual, equal, match, ok } from "assert/strict";
import { existsSync, readFileSync } from "fs";
import { join } from "path";
import { perform } from "../../local/command";
import { programDir } from "../../local/program";
import { fileOf, languages, linkOf, pageOf, sidebarOf } from "../../site/links";
import { documentsOfSite, task } from "../../site/site";
import { words } from "../../site/words";

const read = (name: string) => readFileSync(join(programDir, name), "utf8");

// What needs none of the site's packages. test/system/site.test.ts looks at the built site.
describe("the site", () => {
  it("has a page for each document and each README that is a front page, and for nothing else", () => {
    const pages = documentsOfSite().map((file) => [file, pageOf(file)] as const);
    ok(pages.length > 40);
    for (const [file, page] of pages) equal(fileOf(page ?? ""), file);
    deepEqual(
      ["README.ja.md", "CHANGELOG.md", "docs/ram-policy.json", "docs", "examples/README.md"].map(pageOf),
      Array.from({ length: 5 }, () => undefined),
    );
  });

  it("has links to pages, to the repository, and none where no address of the repository is known", () => {
    const sources = "https://git.example.com/a/b/blob/main";
    const to = (file: string, link: string, from?: string) => linkOf(file, link, from);
    equal(to("README.md", "docs/dns.md"), "/dns.html");
    equal(to("README.md", "README.zh-CN.md"), "/zh/");
    equal(to("docs/dns.md", "facts/consul.md#versions"), "/facts/consul.html#versions");
    equal(to("docs/facts/consul.md", "../../README.md"), "/");
    equal(to("docs/zh/dns.md", "../pictures/a.zh-CN.svg"), "/pictures/a.zh-CN.svg");
    equal(to("docs/zh/dns.md", "design.md"), "/zh/design.html");
    equal(to("docs/dns.md", "#here"), "#here");
    equal(to("docs/dns.md", "https://example.com/x.md"), "https://example.com/x.md");
    equal(to("docs/dns.md", "../local/start.ts"), undefined);
    equal(to("docs/zh/dns.md", "../../examples/", sources), `${sources}/examples`);
    equal(to("docs/dns.md", "ram-policy.json", `${sources}/`), `${sources}/docs/ram-policy.json`);
    equal(to("README.md", "lab/bench/results.md#a", sources), `${sources}/lab/bench/results.md#a`);
  });

  for (const [language, { readme, documents }] of Object.entries(languages)) {
    it(`has every document in the list of its pages, as ${readme} lists them`, () => {
      const parts = sidebarOf(readme, read(readme));
      equal(parts.length, 4);
      ok(parts.every(({ text }) => text.length > 1));
      const listed = parts.flatMap(({ items }) => items.map(({ link }) => link));
      const wanted = documentsOfSite().filter(
        (file) => file.startsWith(documents) && (language === "zh" || !file.startsWith("docs/zh/")),
      );
      deepEqual(
        wanted.map((file) => linkOf(readme, file, undefined)).filter((link) => !listed.includes(link ?? "")),
        [],
      );
      ok(existsSync(join(programDir, readme)));
    });
  }

  it("is made for a path that a host can have", async () => {
    for (const [args, why] of [
      [["--base", "consul"], /^site: --base consul: a path that begins and ends with \//],
      [["--port", "x"], /^site: --port x: a number is wanted/],
    ] as const) {
      let complaint = "";
      equal(await perform(task, [...args], ok, (text) => void (complaint += text)), 2);
      match(complaint, why);
    }
  });

  it("has the theme's words in both languages", () => {
    deepEqual(Object.keys(words).sort(), Object.keys(languages).sort());
    for (const key of Object.keys(words.en.theme)) ok(key in words.zh.theme, key);
  });
});
