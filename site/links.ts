import { posix } from "path";

// Where a document stands on the site, and what becomes of its links. The Markdown is the repository's own, and its links
// lead to files, as GitHub and editors follow them. Nothing here needs the packages of the site.

/** The languages of the site: the folder of their pages on it, the README that is the front page, and the documents. */
export const languages = {
  en: { folder: "", readme: "README.md", documents: "docs/" },
  zh: { folder: "zh/", readme: "README.zh-CN.md", documents: "docs/zh/" },
} as const;

/** What a reader of a file sees: a document of the site by its path there, such as zh/dns.md; undefined for other files. */
export function pageOf(file: string): string | undefined {
  // Chinese first: its documents are in a folder of the English ones.
  for (const { folder, readme, documents } of [languages.zh, languages.en]) {
    if (file === readme) return `${folder}index.md`;
    if (file.startsWith(documents) && file.endsWith(".md")) return folder + file.slice(documents.length);
  }
  return undefined;
}

/** The document that a page of the site shows: what `pageOf` gives, the other way. */
export function fileOf(page: string): string {
  const { folder, readme, documents } = page.startsWith("zh/") ? languages.zh : languages.en;
  return page === `${folder}index.md` ? readme : documents + page.slice(folder.length);
}

/** Where the pictures of the documents are, which the site has too. */
export const pictures = "docs/pictures/";

/**
 * Where a link of a document leads on the site, and where its pictures are.
 * @param file the document that has the link, below the repository
 * @param sources what comes before the path of a file that is no document; without it such a file is out of reach
 * @returns undefined for a file that is out of reach
 */
export function linkOf(file: string, link: string, sources: string | undefined): string | undefined {
  if (/^([a-z]+:|#)/.test(link)) return link;
  const [path = "", fragment] = link.split("#");
  const target = posix.join(posix.dirname(file), path).replace(/\/$/, "");
  if (/\.(svg|png)$/.test(target) && target.startsWith(pictures)) return `/pictures/${target.slice(pictures.length)}`;
  const page = pageOf(target);
  const place = fragment === undefined ? "" : `#${fragment}`;
  if (page !== undefined) return `/${page.replace(/(^|\/)index\.md$/, "$1").replace(/\.md$/, ".html")}${place}`;
  return sources === undefined ? undefined : `${sources.replace(/\/?$/, "/")}${target}${place}`;
}

/** A heading as a fragment, as GitHub makes it: links of the documents are by it. */
export function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
}

/** A part of the sidebar. */
export interface Part {
  readonly text: string;
  readonly items: readonly { readonly text: string; readonly link: string }[];
}

/** The sidebar: what a README lists under its last heading, a part for each line that begins with a dash. */
export function sidebarOf(readme: string, text: string): Part[] {
  const list = text.split(/^## /m).at(-1) ?? "";
  return list
    .split(/^- /m)
    .slice(1)
    .map((part) => ({
      text: /^[^:：]+/.exec(part)?.[0] ?? "",
      items: [...part.matchAll(/\[([^\]]+)\]\(([^)]+)\)/g)].map(([, name = "", link = ""]) => ({
        text: name.charAt(0).toUpperCase() + name.slice(1),
        link: linkOf(readme, link, undefined) ?? "",
      })),
    }));
}
