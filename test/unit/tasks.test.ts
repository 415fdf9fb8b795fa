import { deepEqual, equal, match, ok } from "assert/strict";
import { execFileSync } from "child_process";
import { readFileSync } from "fs";
import { join } from "path";
import { perform, Task } from "../../local/command";
import { programDir } from "../../local/program";

const { scripts } = JSON.parse(readFileSync(join(programDir, "package.json"), "utf8")) as {
  scripts: Record<string, string>;
};
/** Tasks that local/task.js runs, by their names, each with its file. */
const files = Object.entries(scripts).flatMap(([name, command]) => {
  const file = /^exec node local\/task\.js (\S+)$/.exec(command)?.[1];
  return file === undefined ? [] : [{ name, file }];
});

/** What a task says for a command line. */
async function said(task: Task, ...args: string[]) {
  let out = "";
  let error = "";
  const write = (text: string) => void (out += text);
  const status = await perform(task, args, write, (text) => void (error += text));
  return { status, out, error };
}

describe("a task of package.json", () => {
  it("runs by local/task.js, but for the tests and what other programs do", () => {
    ok(files.length >= 8);
    const others = Object.keys(scripts).filter((name) => !files.some((one) => one.name === name));
    deepEqual(
      others.filter((name) => !/^(test|test:.*|prepack|format|check)$/.test(name)),
      [],
    );
  });

  for (const { name, file } of files) {
    it(`says what it does and takes, and refuses what it does not know: ${name}`, async () => {
      const { task } = (await import(join(programDir, file))) as { task: Task };
      equal(task.name, name);
      const command = `npm ${name === "start" ? "" : "run "}${name}`;
      const help = await said(task, "--help");
      deepEqual([help.status, help.error], [0, ""]);
      ok(help.out.startsWith(`${command} `), help.out);
      for (const flag of Object.keys({ ...task.flags, help: {} })) {
        match(help.out, new RegExp(`^  --${flag}( [A-Z][A-Z.=]*)? +\\S`, "m"));
      }
      deepEqual(
        help.out.split("\n").filter((line) => line.length > 125),
        [],
      );
      deepEqual(await said(task, "--nope", "--neither=1"), {
        status: 2,
        out: "",
        error: `${name}: there is no option --nope, --neither (${command} -- --help)\n`,
      });
    });
  }

  it("says it where it is run, too", () => {
    const options = { cwd: programDir, encoding: "utf8" } as const;
    match(execFileSync("npm", ["run", "--silent", "expected", "--", "--help"], options), /^npm run expected /);
  });

  it("is told what npm took for itself, answers in JSON where it was asked for JSON, and wants what an option needs", async () => {
    const task: Task = {
      name: "x",
      about: "nothing",
      flags: {
        json: { type: "boolean", about: "j" },
        "new-name": { type: "boolean", about: "n" },
        dir: { type: "string", value: "DIR", about: "d" },
      },
      run: () => Promise.reject(new Error("it failed")),
    };
    deepEqual(await said(task, "--json"), {
      status: 1,
      out: '{"ok":false,"error":"it failed"}\n',
      error: "x: it failed\n",
    });
    match((await said(task, "--dir")).error, /^x: Option '--dir <value>' argument missing \(npm run x -- --help\)$/m);
    match((await said(task, "name")).error, /^x: nothing is known of name/);
    process.env.npm_config_new_name = "true";
    try {
      const { status, error } = await said(task);
      deepEqual([status, error], [2, "x: npm took --new-name for itself: put -- before it (npm run x -- --help)\n"]);
    } finally {
      delete process.env.npm_config_new_name;
    }
  });
});
