import { readFileSync } from "fs";
import { defineConfig } from "vitepress";
import { anchorOf, fileOf, languages, linkOf, sidebarOf } from "../links";
import { words } from "../words";

// site/site.ts copies the documents to .cache/pages and runs VitePress with this, from the folder of the site.
const sources = process.env.SITE_SOURCES || undefined;

/** The words of a text, for the search. Chinese has no spaces between words. Has to stand alone: it runs in the browser. */
function wordsOf(text) {
  const segments = [...new Intl.Segmenter("zh", { granularity: "word" }).segment(text)];
  // Keys of settings are several words.
  return segments.flatMap(({ segment }) => segment.split(/[^\p{L}\p{N}]+/u)).filter(Boolean);
}

/** Links lead to pages of the site, or to the repository; where neither is known, the words stand without a link. */
function links(md) {
  md.core.ruler.push("links-of-the-site", ({ tokens, env }) => {
    const to = (link) => linkOf(fileOf(env.relativePath), link, sources);
    for (const { children } of tokens) {
      const open = [];
      for (const token of children ?? []) {
        if (token.type === "image") token.attrSet("src", to(token.attrGet("src")));
        if (token.type === "link_open") {
          const link = to(token.attrGet("href"));
          if (link === undefined) Object.assign(token, { tag: "span", attrs: null, type: "span_open" });
          else token.attrSet("href", link);
          open.push(link);
        }
        if (token.type === "link_close" && open.pop() === undefined) token.tag = "span";
      }
    }
  });
}

/** The end of a line within Chinese text is no space. */
function joinChinese(md) {
  const chinese = /[\p{Script=Han}\u3000-\u303f\uff00-\uffef]/u;
  const mark = /[\u3000-\u303f\uff00-\uffef]/;
  md.core.ruler.push("chinese-lines", ({ tokens }) => {
    for (const { children } of tokens) {
      for (const [i, token] of (children ?? []).entries()) {
        if (token.type !== "softbreak") continue;
        const [before = "", after = ""] = [children[i - 1]?.content.at(-1), children[i + 1]?.content.at(0)];
        const joined = (chinese.test(before) && chinese.test(after)) || mark.test(before) || mark.test(after);
        if (joined) Object.assign(token, { type: "text", content: "" });
      }
    }
  });
}

function locale(language) {
  const { folder, readme } = languages[language];
  const { label, lang, title, description, start, theme } = words[language];
  const parts = sidebarOf(readme, readFileSync(`../${readme}`, "utf8"));
  const sidebar = [{ text: start, link: `/${folder}` }, ...parts];
  return { label, lang, title, description, themeConfig: { ...theme, sidebar } };
}

const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="#bf3989" stroke="#bf3989">
<path d="M8 3 3 12H13Z" fill="none"/><circle cx="8" cy="3" r="2.5"/><circle cx="3" cy="12" r="2.5"/><circle cx="13" cy="12" r="2.5"/></svg>`;

export default defineConfig({
  base: process.env.SITE_BASE || "/",
  srcDir: ".cache/pages",
  outDir: "dist",
  cacheDir: "node_modules/.vitepress",
  head: [["link", { rel: "icon", href: `data:image/svg+xml,${encodeURIComponent(icon)}` }]],
  locales: { root: locale("en"), zh: locale("zh") },
  themeConfig: {
    search: {
      provider: "local",
      options: {
        locales: { zh: { translations: words.zh.search } },
        miniSearch: { options: { tokenize: wordsOf } },
      },
    },
  },
  // A port that the reader forwards is no dead link.
  ignoreDeadLinks: "localhostLinks",
  markdown: { anchor: { slugify: anchorOf }, config: (md) => [links, joinChinese].forEach((rule) => rule(md)) },
});
