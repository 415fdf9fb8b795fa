import { equal, ok } from "assert/strict";
import { readdirSync, readFileSync } from "fs";
import { join } from "path";
import { drawn, pictureDirectory } from "../../lab/pictures/pictures";
import { programDir } from "../../local/program";
import { documents } from "../documents";

describe("the pictures of the documents", () => {
  for (const [name, { make }] of Object.entries(drawn)) {
    it(`are what npm run pictures -- ${name} makes of what is committed`, async () => {
      for (const [file, content] of Object.entries(await make())) {
        equal(readFileSync(join(pictureDirectory, file), "utf8"), content, `docs/pictures/${file}`);
      }
    });
  }

  it("are in a document, each of them", () => {
    const all = documents.map((document) => readFileSync(join(programDir, document), "utf8")).join("\n");
    const shown = (file: string) => all.includes(`pictures/${file})`) || file.includes(".zh-CN.");
    ok(readdirSync(pictureDirectory).length > 3);
    equal(
      readdirSync(pictureDirectory)
        .filter((file) => !shown(file))
        .join(", "),
      "",
    );
  });
});
