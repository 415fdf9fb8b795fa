import { deepEqual, equal, match, ok } from "assert/strict";
import { execFileSync } from "child_process";
import { randomBytes } from "crypto";
import { readdirSync, readFileSync, writeFileSync } from "fs";
import { join } from "path";
import { LocalWorkspace, OutputMap, Stack } from "@pulumi/pulumi/automation";
import { programDir } from "../../local/program";
import { secretOutputs } from "../../stacks/outputs";
import { documented } from "../documents";
import { needPrograms, Project } from "./project";

/** A command with more options, which go before what the shell is to redirect. */
function withOptions(command: string, ...options: readonly string[]): string {
  const [own = "", ...redirected] = command.split(" <");
  return [[own, ...options].join(" "), ...redirected].join(" <");
}

describe("the stack local, by the real engine", function () {
  this.timeout(900_000); // the engine fetches the plugins for random and tls where they are missing
  let project: Project;
  let stack: Stack;
  let outputs: OutputMap;
  /** Runs a command of the documents for this stack, without questions. */
  let pulumi: (command: string, input?: string) => string;

  const resources = async () =>
    ((await stack.exportStack()).deployment as { resources?: { urn: string; type: string }[] }).resources ?? [];

  before(async function () {
    needPrograms(this, "pulumi");
    // A document reads a secret from the file that KUBECONFIG names; any will do.
    project = new Project("local", { KUBECONFIG: join(programDir, "package.json") });
    const { workDir, envVars } = project;
    pulumi = (command, input) =>
      execFileSync("sh", ["-c", `${command} --non-interactive`], {
        cwd: workDir,
        env: { ...process.env, ...envVars },
        encoding: "utf8",
        input,
      }).trim();
    stack = await LocalWorkspace.createOrSelectStack({ stackName: "local", workDir }, { envVars });
  });

  after(async () => {
    await (stack as Stack | undefined)?.destroy();
    (project as Project | undefined)?.remove();
  });

  it("is previewed, and nothing is made", async () => {
    const { changeSummary } = await stack.preview();
    ok((changeSummary.create ?? 0) > 10, JSON.stringify(changeSummary));
    deepEqual(Object.keys(changeSummary), ["create"]);
    deepEqual(await resources(), []);
  });

  it("comes up, with every secret marked and encrypted in the state", async () => {
    const { summary, outputs: made, stdout } = await stack.up();
    equal(summary.result, "succeeded");
    outputs = made;
    const secrets = secretOutputs.filter((name) => made[name]?.value !== ""); // what is not made is no secret
    ok(secrets.length > 3);
    deepEqual(
      Object.keys(outputs)
        .filter((name) => outputs[name]?.secret)
        .sort(),
      [...secrets].sort(),
    );
    // The files of the backend themselves: an export by the Automation API is decrypted.
    const state = readdirSync(project.backend, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => readFileSync(join(entry.parentPath, entry.name), "utf8"))
      .join("\n");
    ok(state.includes('"ciphertext"'), "no state in the backend");
    for (const name of secrets) {
      const value = String(outputs[name]?.value);
      match(value, /^.{36,44}$/, name);
      ok(!state.includes(value), `${name} is in the state as plain text`);
      ok(!stdout.includes(value), `${name} is in what the engine prints`);
    }
  });

  it("has nothing to do when it is brought up again", async () => {
    const { summary, outputs: again } = await stack.up({ expectNoChanges: true });
    deepEqual(Object.keys(summary.resourceChanges ?? {}), ["same"]);
    for (const name of secretOutputs) deepEqual(again[name]?.value, outputs[name]?.value, name);
  });

  it("replaces the gossip key alone when that is asked for", async () => {
    await stack.setConfig("consul:gossip.generation", { value: "2" }, true);
    const { outputs: rotated } = await stack.up();
    const changed = secretOutputs.filter(
      (name) => JSON.stringify(rotated[name]?.value) !== JSON.stringify(outputs[name]?.value),
    );
    deepEqual(changed, ["gossipKey", "gossipKeys"]);
  });

  // The commands of the documents, in this order, each for the stack of this test and without questions. Not those of
  // other projects (`-C`), of another login, those that are only named, and `pulumi destroy`, which the last test does.
  const elsewhere = /^pulumi (.*-C |cancel|destroy|login|new|stack import|stack init$|state delete$)/;
  const kinds: readonly (readonly [string, ...string[]])[] = [
    ["pulumi stack init"],
    ["pulumi stack output"],
    ["pulumi preview"],
    ["pulumi up", "--yes"],
    ["pulumi refresh", "--yes"],
    ["pulumi config set"],
    ["pulumi config rm"],
    ["pulumi state unprotect", "--yes"],
  ];
  const commands = [...new Set(documented().map(({ command }) => command.replace(/ \|.*/, "")))]
    .filter((command) => command.startsWith("pulumi ") && !elsewhere.test(command))
    .sort();

  let settings: string;

  it("is what every command of the documents is tried on", () => {
    settings = readFileSync(project.stackFile, "utf8");
    ok(commands.length > 10);
    const untried = commands.filter((command) => !kinds.some(([start]) => command.startsWith(start)));
    deepEqual(untried, []);
  });

  for (const [start, ...more] of kinds) {
    it(`takes ${start}`, async () => {
      const urn = (await resources()).find(({ type }) => type.startsWith("random:"))?.urn ?? "";
      for (const command of commands.filter((each) => each.startsWith(start))) {
        const own = command.replace(/ -s \S+/, "").replace("<urn>", urn);
        if (start === "pulumi stack init") pulumi(own.replace(/\S+$/, "another-$&"));
        else pulumi(withOptions(own, "--stack", "local", ...more), randomBytes(32).toString("base64"));
      }
    });
  }

  it("is refused with a wrong setting before anything changes", async () => {
    writeFileSync(project.stackFile, settings);
    await stack.setConfig("consul:raftMultiplier", { value: "11" });
    const failure = await stack.up().then(
      () => "",
      (error: unknown) => (error as Error).message,
    );
    match(failure, /consul:raftMultiplier/);
    await stack.removeConfig("consul:raftMultiplier");
    const { resourceChanges } = (await stack.up()).summary;
    deepEqual(Object.keys(resourceChanges ?? {}), ["same"]);
  });

  it("leaves nothing behind when it is destroyed", async () => {
    await stack.destroy();
    deepEqual(await resources(), []);
  });
});
