import { deepEqual, equal, match, ok } from "assert/strict";
import { execFileSync, spawnSync } from "child_process";
import { randomBytes } from "crypto";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "fs";
import { tmpdir } from "os";
import { join, relative, sep } from "path";
import { LocalWorkspace, OutputMap, Stack } from "@pulumi/pulumi/automation";
import { programDir } from "../../local/program";
import { secretOutputs } from "../../stacks/outputs";
import { documented } from "../documents";

/** Files of a clone that a deployment needs. The engine writes into Pulumi.local.yaml, so the test copies the files. */
const project = /^(index\.ts|settings|package\.json|Pulumi\..*yaml|components|consul|local|monitoring|stacks)$/;

/** The reason why the real engine cannot run here; "" where it can. */
function missing(): string {
  const { error, status, stderr } = spawnSync("pulumi", ["version"], { encoding: "utf8" });
  if (error) return "pulumi is not on PATH";
  return status === 0 ? "" : `pulumi version: ${stderr}`;
}

describe("the stack local, by the real engine", function () {
  this.timeout(900_000); // the engine fetches the plugins for random and tls where they are missing
  let directory: string | undefined;
  let backend: string;
  let stack: Stack;
  let outputs: OutputMap;
  /** Runs a command of the documents for this stack, without questions. */
  let pulumi: (command: string, input?: string) => string;

  const resources = async () =>
    ((await stack.exportStack()).deployment as { resources?: { urn: string; type: string }[] }).resources ?? [];

  before(async function () {
    const reason = missing();
    if (reason !== "") {
      console.log(`    skipped: ${reason}`);
      this.skip();
    }
    directory = mkdtempSync(join(tmpdir(), "engine-"));
    const workDir = join(directory, "project");
    backend = join(directory, "backend");
    for (const path of [workDir, backend]) mkdirSync(path);
    const top = (path: string) => relative(programDir, path).split(sep)[0] ?? "";
    cpSync(programDir, workDir, { recursive: true, filter: (path) => path === programDir || project.test(top(path)) });
    symlinkSync(join(programDir, "node_modules"), join(workDir, "node_modules"));
    const envVars = {
      PULUMI_BACKEND_URL: `file://${backend}`,
      PULUMI_CONFIG_PASSPHRASE: "of a stack that lives for a minute",
      PULUMI_SKIP_UPDATE_CHECK: "true",
    };
    pulumi = (command, input) =>
      execFileSync("pulumi", [...command.replace(/^pulumi /, "").split(" "), "--non-interactive"], {
        cwd: workDir,
        env: { ...process.env, ...envVars },
        encoding: "utf8",
        input,
      }).trim();
    stack = await LocalWorkspace.createOrSelectStack({ stackName: "local", workDir }, { envVars });
  });

  after(async () => {
    if (directory === undefined) return;
    await (stack as Stack | undefined)?.destroy();
    rmSync(directory, { recursive: true, force: true });
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
    deepEqual(
      Object.keys(outputs)
        .filter((name) => outputs[name]?.secret)
        .sort(),
      [...secretOutputs].sort(),
    );
    // The files of the backend themselves: an export by the Automation API is decrypted.
    const state = readdirSync(backend, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => readFileSync(join(entry.parentPath, entry.name), "utf8"))
      .join("\n");
    ok(state.includes('"ciphertext"'), "no state in the backend");
    for (const name of secretOutputs) {
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

  // The commands of the documents, in this order, each for the stack of this test and without questions.
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
    .filter((command) => command.startsWith("pulumi ") && command !== "pulumi destroy") // the last test does this
    .sort();

  it("is what every command of the documents is tried on", () => {
    ok(commands.length > 10);
    const untried = commands.filter((command) => !kinds.some(([start]) => command.startsWith(start)));
    deepEqual(untried, []);
  });

  for (const [start, ...more] of kinds) {
    it(`takes ${start}`, async () => {
      const urn = (await resources()).find(({ type }) => type.startsWith("random:"))?.urn ?? "";
      for (const command of commands.filter((each) => each.startsWith(start))) {
        const own = command.replace(/ -s \S+/, "").replace("<urn>", urn);
        if (start === "pulumi stack init") pulumi(own.replace(/\S+$/, "another"));
        else pulumi([own, "--stack", "local", ...more].join(" "), randomBytes(32).toString("base64"));
      }
    });
  }

  it("is refused with a wrong setting before anything changes", async () => {
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
