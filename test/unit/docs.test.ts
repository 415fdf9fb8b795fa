import { deepEqual, ok } from "assert/strict";
import { existsSync, readFileSync } from "fs";
import { join } from "path";
import { z } from "zod";
import { schema } from "../../settings";
import { programDir } from "../../local/program";

const read = (name: string) => readFileSync(join(programDir, name), "utf8");

/** The names of all settings at every depth. */
function names(type: unknown, found = new Set<string>()): Set<string> {
  if (type instanceof z.ZodObject) {
    for (const [key, value] of Object.entries(type.shape)) {
      found.add(key);
      names(value, found);
    }
  } else if (type instanceof z.ZodArray) names(type.element, found);
  else if (type instanceof z.ZodDiscriminatedUnion) for (const option of type.options) names(option, found);
  else if (type instanceof z.ZodPipe) names(type.def.out, found);
  else if (type instanceof z.ZodOptional || type instanceof z.ZodDefault || type instanceof z.ZodPrefault) {
    names(type.def.innerType, found);
  }
  return found;
}

describe("the documents", () => {
  it("name every setting in the README's table", () => {
    const table = read("README.md").split("## Settings")[1]?.split("## Outputs")[0] ?? "";
    // What Kubernetes itself calls these is in its own documents.
    const known = new Set(["requests", "limits", "cpu", "memory", "operator", "value", "effect"]);
    const all = [...names(schema)];
    ok(all.length > 60);
    deepEqual(
      all.filter((name) => !known.has(name) && !new RegExp(`\\b${name}\\b`).test(table)),
      [],
    );
  });

  it("name every output in the README's table", () => {
    const table = read("README.md").split("## Outputs")[1]?.split("\n## ")[0] ?? "";
    const fields = [...read("stacks/outputs.ts").matchAll(/^ {2}(\w+): pulumi\.Output</gm)].map(
      ([, name = ""]) => name,
    );
    ok(fields.length > 10);
    deepEqual(
      fields.filter((name) => !table.includes(`\`${name}\``)),
      [],
    );
  });

  it("link to files that are there", () => {
    const missing = ["README.md", "README.zh-CN.md"].flatMap((document) =>
      [...read(document).matchAll(/\]\(([^)#:]+)\)/g)]
        .map(([, to = ""]) => to)
        .filter((to) => !existsSync(join(programDir, to))),
    );
    deepEqual(missing, []);
  });

  it("are the same in both languages: headings by level and order, and every command", () => {
    const shape = (document: string) => {
      const text = read(document);
      return {
        headings: [...text.matchAll(/^(#+) /gm)].map(([, level]) => level),
        commands: [...text.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block]) => block),
        tableRows: [...text.matchAll(/^\|/gm)].length,
      };
    };
    deepEqual(shape("README.zh-CN.md"), shape("README.md"));
  });
});
