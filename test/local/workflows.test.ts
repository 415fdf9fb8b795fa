import { equal, match, notEqual } from "assert/strict";
import { spawnSync } from "child_process";
import { readdirSync, readFileSync } from "fs";
import { join } from "path";
import { programDir } from "../../local/program";
import { buildTool } from "../../tools/build";

/** The workflows on GitHub before actionlint, which knows their syntax, contexts, and what each action takes. */
describe("the workflows on GitHub, by actionlint", function () {
  this.timeout("10m");
  const directory = join(programDir, ".github/workflows");
  let actionlint: string;
  /** Without shellcheck and pyflakes, so that the result is the same wherever these are missing. */
  const lint = (file: string, text: string) =>
    spawnSync(actionlint, ["-no-color", "-shellcheck=", "-pyflakes=", "-stdin-filename", join(directory, file), "-"], {
      cwd: programDir,
      input: text,
      encoding: "utf8",
    });

  before(async () => {
    actionlint = await buildTool("actionlint", (line) => console.error(line));
  });

  for (const file of readdirSync(directory)) {
    it(`have nothing wrong in ${file}`, () => {
      const { status, stdout, stderr } = lint(file, readFileSync(join(directory, file), "utf8"));
      equal(stdout + stderr, "");
      equal(status, 0);
    });
  }

  const broken: [what: string, file: string, from: string, to: string, said: RegExp][] = [
    ["a job that waits for nobody", "deploy.yml", "needs: dev", "needs: devel", /job "staging" needs job "devel"/],
    ["an input that is missing", "deploy.yml", "stack: prod\n", "stak: prod\n", /input "stack" is required/],
    [
      "a context that is not there",
      "preview.yml",
      "matrix.stack }}",
      "matrix.stak }}",
      /property "stak" is not defined/,
    ],
    [
      "an unknown key",
      "deploy-stack.yml",
      "timeout-minutes: 180",
      "timeout-minute: 180",
      /unexpected key "timeout-minute"/,
    ],
  ];
  for (const [what, file, from, to, said] of broken) {
    it(`would be refused with ${what}`, () => {
      const text = readFileSync(join(directory, file), "utf8");
      const spoilt = text.replace(from, to);
      notEqual(spoilt, text);
      match(lint(file, spoilt).stdout, said);
    });
  }
});
