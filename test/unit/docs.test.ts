import { deepEqual, ok } from "assert/strict";
import { existsSync, readdirSync, readFileSync } from "fs";
import { dirname, join } from "path";
import { ports } from "../../consul/config";
import { pinnedVersion, programDir, stackConfig } from "../../local/program";
import { secretOutputs } from "../../stacks/outputs";
import { codes, commandsOf, documented, documents, rows, section } from "../documents";

const read = (name: string) => readFileSync(join(programDir, name), "utf8");
const readmes = ["README.md", "README.zh-CN.md"];

/** Every file in which people read and write prose: documents, and code with its comments. */
function prose(): string[] {
  const elsewhere = /^(node_modules|dist|bin|expected|\..*)$/;
  const walk = (directory: string): string[] =>
    readdirSync(join(programDir, directory), { withFileTypes: true }).flatMap((entry) => {
      const path = join(directory, entry.name);
      if (entry.isDirectory()) return elsewhere.test(entry.name) ? [] : walk(path);
      return /\.(md|ts|js|sh|py|ya?ml)$/.test(entry.name) ? [path] : [];
    });
  // This file has the words that it looks for.
  return [...walk(""), ...walk(".github"), ".ci/run"].filter((path) => path !== "test/unit/docs.test.ts").sort();
}

/** Lines that match a pattern, each with its place. */
function lines(pattern: RegExp, files: readonly string[]): string[] {
  return files.flatMap((file) =>
    read(file)
      .split("\n")
      .flatMap((line, i) => (pattern.test(line) ? [`${file}:${i + 1}: ${line.trim()}`] : [])),
  );
}

describe("the documents", () => {
  it("have commands in shell blocks, over several lines too, and in sentences", () => {
    const text = "Do `npm run x`, or `x`:\n\n  ```sh\n  a \\\n    -b\n  c |\n  d\n  ```\n\n```yaml\n`npm start`\n```\n";
    deepEqual(commandsOf(text), ["a -b", "c | d", "npm run x"]);
  });

  it("have every output in docs/outputs.md, with what is secret, and no other", () => {
    const fields = [...read("stacks/outputs.ts").matchAll(/^ {2}(\w+): pulumi\.Output</gm)].map(
      ([, name = ""]) => name,
    );
    ok(fields.length > 10);
    const table = rows(read("docs/outputs.md").split("\n## ")[0] ?? "");
    deepEqual(
      table.map(([name]) => codes(name)[0]),
      fields,
    );
    const secret = table.filter(([, marked]) => marked === "yes").map(([name]) => codes(name)[0] ?? "");
    deepEqual(secret.sort(), [...secretOutputs].sort());
  });

  for (const readme of [...readmes, "README.ja.md"]) {
    it(`have a ${readme} of at most 120 lines, none longer than 160 characters`, () => {
      const all = read(readme).trimEnd().split("\n");
      ok(all.length <= 120, `${all.length} lines`);
      deepEqual(
        all.filter((line) => Array.from(line).length > 160),
        [],
      );
    });
  }

  it("have every task of package.json in docs/development.md, and no other; no document names one that is not there", () => {
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    const tasks = rows(section(read("docs/development.md"), "## Tasks")).map(([task]) =>
      (codes(task)[0] ?? "").replace(/^npm (run )?/, ""),
    );
    deepEqual(tasks.sort(), Object.keys(scripts).sort());
    const unknown = documented().filter(({ command }) => {
      const [, run, task] = /^npm (run )?(?:--?\S+ )*([a-z:]+)/.exec(command) ?? [];
      return task !== undefined && !(task in scripts) && (run !== undefined || !/^(ci|install|pack)$/.test(task));
    });
    deepEqual(unknown, []);
  });

  for (const readme of readmes) {
    it(`have a picture in ${readme} with the addresses of Pulumi.prod.yaml and the ports of the configuration`, () => {
      const file = /!\[[^\]]+\]\((docs\/pictures\/architecture[^)]*)\)/.exec(read(readme))?.[1] ?? "";
      const said = [...read(file).matchAll(/<text[^>]*>([^<]*)</g)].map(([, text]) => text);
      const { nodes } = JSON.parse(stackConfig("prod")["consul:servers"] ?? "") as {
        nodes: { name: string; address: string }[];
      };
      for (const { name, address } of nodes) ok(said.includes(name) && said.includes(address), name);
      for (const [text, port] of [
        ["RPC", ports.rpc],
        ["gossip", ports.gossip],
      ]) {
        ok(
          said.some((line) => line?.startsWith(`${port} ${text}`)),
          `${port} ${text}`,
        );
      }
      ok(said.some((line) => line?.startsWith(`HOST_IP:${ports.http}`)));
    });

    it(`say in ${readme} where every folder of the program is, and nothing that is not there`, () => {
      const table =
        read(readme)
          .split(/\n## /)
          .find((part) => part.includes("`index.ts`")) ?? "";
      const paths = rows(table).flatMap(([path]) => codes(path));
      deepEqual(
        paths.filter((path) => !existsSync(join(programDir, path))),
        [],
      );
      const folders = readdirSync(programDir, { withFileTypes: true })
        .filter((entry) => entry.isDirectory() && !/^(node_modules|dist|bin|docs|monitoring|\..*)$/.test(entry.name))
        .map(({ name }) => name);
      deepEqual(
        folders.filter((name) => !paths.some((path) => path.startsWith(`${name}/`))),
        [],
      );
    });
  }

  it("have no line longer than 160 characters outside tables and code", () => {
    const long = documents.flatMap((document) =>
      read(document)
        .replace(/^ *```[\s\S]*?^ *```/gm, "")
        .split("\n")
        .filter((line) => !line.startsWith("|") && Array.from(line).length > 160)
        .map((line) => `${document}: ${line}`),
    );
    deepEqual(long, []);
  });

  it("link to files and headings that are there", () => {
    /** As GitHub makes it. */
    const anchor = (heading: string) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-");
    const headings = (file: string) =>
      [...read(file).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => anchor(heading));
    const links = documents.flatMap((document) =>
      [...read(document).matchAll(/\]\(([^):]+)\)/g)].map(([, link = ""]) => {
        const [path = "", heading] = link.split("#");
        return { document, link, file: path === "" ? document : join(dirname(document), path), heading };
      }),
    );
    ok(links.length > 60);
    deepEqual(
      links.filter(
        ({ file, heading }) =>
          !existsSync(join(programDir, file)) || (heading !== undefined && !headings(file).includes(heading)),
      ),
      [],
    );
  });

  it("are the same in both languages: headings by level and order, commands, links, rows of tables", () => {
    const shape = (readme: string) => {
      const text = read(readme);
      return {
        headings: [...text.matchAll(/^(#+) /gm)].map(([, level]) => level),
        commands: [...text.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block]) => block),
        // Each names the other one first, and links to documents of its language; translations.test.ts looks at headings.
        links: [...text.matchAll(/\]\(([^)]+)\)/g)].map(([, link = ""]) =>
          link
            .replace("README.zh-CN.md", "README.md")
            .replace(".zh-CN.svg", ".svg")
            .replace(/^docs\/(?:zh\/)?([^#]*).*$/, "docs/$1"),
        ),
        tables: rows(text).map(([first]) => codes(first)),
      };
    };
    const [english, chinese] = readmes.map(shape);
    ok((english?.links.length ?? 0) > 15);
    deepEqual(chinese, english);
  });
});

describe("documents and comments", () => {
  it("name the pinned version of Consul where it is pinned, in what was measured with it, and nowhere else", () => {
    const allowed = [
      "Pulumi.yaml",
      // A test compares its tables with Pulumi.yaml.
      "docs/settings.md",
      "docs/zh/settings.md",
      // What was done with which version, and which is the last one of its line, stays true.
      "docs/facts/consul.md",
      "docs/zh/facts/consul.md",
      "lab/bench/results.md",
      "docs/faults.md",
      "docs/zh/faults.md",
      "consul/releases.ts",
      "test/unit/settings.test.ts",
      // A manifest that people apply as it is.
      "examples/login/orders.yaml",
    ];
    ok(read("examples/login/orders.yaml").includes(`hashicorp/consul:${pinnedVersion}`));
    const found = prose().filter((file) => read(file).includes(pinnedVersion));
    deepEqual(
      found.filter((file) => !allowed.includes(file)),
      [],
    );
  });

  it("cite nothing that whoever clones the repository has not got", () => {
    deepEqual(lines(/(?<![\w/])reference\/|\.md §/, prose()), []);
  });

  it("name the write-ups, and say what these were in docs/origins.md alone", () => {
    const told = lines(/\bseeds?\b/i, prose());
    deepEqual(
      told.map((line) => line.split(":")[0]).filter((file) => file !== "docs/zh/origins.md"),
      ["docs/origins.md"],
    );
  });

  it("name documents and files of the program that are there", () => {
    const top = "settings|stacks|components|consul|local|lab|operate|policy|test|docs|monitoring|examples|tools";
    const path = new RegExp(`(?<![\\w./@-])(?:${top})/[\\w./-]+\\.(?:ts|js|sh|py|md|yaml|json)\\b`, "g");
    const comment = /^\s*(?:\/\/|\*|\/\*|#)|\s\/\/ /;
    // Not in scripts: pods run them with their comments, so that another comment is another ConfigMap and a roll.
    const missing = prose()
      .filter((file) => !file.endsWith(".sh"))
      .flatMap((file) =>
        read(file)
          .split("\n")
          .filter((line) => file.endsWith(".md") || comment.test(line))
          .flatMap((line) => line.match(path) ?? [])
          .filter((named) => !existsSync(join(programDir, named)))
          .map((named) => `${file}: ${named}`),
      );
    deepEqual(missing, []);
  });
});
