import { deepEqual, equal, ok } from "assert/strict";
import { execFile } from "child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { promisify } from "util";
import { drawn, pictureDirectory } from "../../lab/pictures/pictures";
import { programDir } from "../../local/program";
import { documents } from "../documents";

describe("the pictures of the documents", () => {
  it("are what npm run pictures makes of what is committed", async () => {
    const directory = mkdtempSync(join(tmpdir(), "pictures-"));
    try {
      // In a process of its own: Plot draws other fractions of a pixel where it finds itself in a test.
      const args = ["local/task.js", "lab/pictures/pictures", "--dir", directory, ...Object.keys(drawn)];
      await promisify(execFile)(process.execPath, args, { cwd: programDir });
      const made = readdirSync(directory);
      ok(made.length >= 7);
      for (const file of made) {
        // Not equal(): a difference of two pictures is thousands of lines.
        const same = readFileSync(join(directory, file)).equals(readFileSync(join(pictureDirectory, file)));
        ok(same, `docs/pictures/${file} is another one now: npm run pictures`);
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  it("are in a document, each of them", () => {
    const all = [...documents, "lab/bench/results.md"].map((document) =>
      readFileSync(join(programDir, document), "utf8"),
    );
    const shown = (file: string) => all.some((text) => text.includes(`pictures/${file})`)) || file.includes(".zh-CN.");
    deepEqual(
      readdirSync(pictureDirectory).filter((file) => !shown(file)),
      [],
    );
  });

  it("can be read on a light page and on a dark one: each has a ground of its own, in both schemes", () => {
    for (const file of readdirSync(pictureDirectory).filter((name) => name.endsWith(".svg"))) {
      const picture = readFileSync(join(pictureDirectory, file), "utf8");
      ok(picture.includes("@media(prefers-color-scheme:dark)"), file);
      equal(/<rect x="0.5" y="0.5" [^>]*fill:var\(--ground\)/.test(picture), true, file);
    }
  });
});
