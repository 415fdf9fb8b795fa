import { execFileSync, spawn } from "child_process";
import { once } from "events";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { dirname, join, resolve } from "path";
import { refusedRelease } from "../consul/releases";
import { defineTask, Misuse } from "../local/command";
import { versionOf } from "../local/consul-binary";
import { tablesFiles } from "../local/expected-settings";
import { pinnedVersion, programDir } from "../local/program";

const levels: Readonly<Record<string, readonly string[]>> = {
  unit: ["run", "test:unit"],
  program: ["run", "test:program"],
  local: ["test"],
  system: ["run", "test:system"],
  engine: ["run", "test:engine"],
};
const all = ["local", "system", "engine"];

/** Runs npm. @returns its exit code; 130 where somebody wanted an end to it, which is passed on */
async function npm(args: readonly string[], cwd: string, env: NodeJS.ProcessEnv): Promise<number> {
  const child = spawn("npm", ["--silent", ...args], { cwd, env, stdio: "inherit" });
  const seen: boolean[] = [];
  const end = () => void seen.push(child.kill("SIGTERM"));
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, end);
  const [status] = (await once(child, "exit")) as [number | null];
  for (const signal of signals) process.off(signal, end);
  return seen.length > 0 ? 130 : (status ?? 1);
}

/** A copy of the working tree whose Pulumi.yaml pins another version, with the packages of this one. */
function copyWith(version: string): string {
  const copy = mkdtempSync(join(tmpdir(), "with-consul-"));
  const list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"];
  const deleted = execFileSync("git", ["ls-files", "-z", "--deleted"], { cwd: programDir, encoding: "utf8" }).split(
    "\0",
  );
  for (const file of execFileSync("git", list, { cwd: programDir, encoding: "utf8" }).split("\0")) {
    if (file === "" || deleted.includes(file)) continue;
    mkdirSync(dirname(join(copy, file)), { recursive: true });
    cpSync(join(programDir, file), join(copy, file));
  }
  symlinkSync(join(programDir, "node_modules"), join(copy, "node_modules"));
  const replace = (file: string, text: string, by: string) =>
    writeFileSync(join(copy, file), readFileSync(join(copy, file), "utf8").replace(text, by));
  replace("Pulumi.yaml", `default: ${pinnedVersion}\n`, `default: ${version}\n`);
  // A test compares the tables of settings with the default.
  for (const file of Object.values(tablesFiles)) replace(file, `\`${pinnedVersion}\``, `\`${version}\``);
  return copy;
}

/** Runs levels of tests with a Consul. @returns the exit status */
async function testWith(binary: string, wanted: readonly string[]): Promise<number> {
  const unknown = wanted.find((level) => !Object.hasOwn(levels, level));
  if (unknown !== undefined) throw new Misuse(`no level ${unknown}: one of ${Object.keys(levels).join(", ")}`);
  const consul = resolve(binary);
  const version = await versionOf(consul);
  const refusal = refusedRelease(version);
  if (refusal !== undefined) throw new Error(`${binary} is Consul ${version}: ${refusal}`);
  const copy = copyWith(version);
  try {
    const env = { ...process.env, CONSUL_BIN: consul };
    const failed: string[] = [];
    for (const level of ["expected", ...(wanted.length > 0 ? wanted : all)]) {
      console.log(`== Consul ${version}: ${level}`);
      const status = await npm(levels[level] ?? ["run", "expected"], copy, env);
      if (status === 130) return 130;
      if (status !== 0) failed.push(level);
      if (failed.includes("expected")) break;
    }
    console.log(`Consul ${version}: ${failed.length === 0 ? "nothing failed" : `failed: ${failed.join(", ")}`}`);
    return failed.length === 0 ? 0 : 1;
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

export const task = defineTask({
  name: "test:consul",
  usage: "-- CONSUL [LEVEL…]",
  about: `runs the tests with another Consul than the pinned one: CONSUL is the path of the
binary. A copy of the working tree gets its version as the default of Pulumi.yaml, and test/expected anew; nothing in the
working tree changes.`,
  after: `LEVEL is unit, program, local (with unit and program), system or engine; without one the last three. system needs root on
Linux, engine Pulumi's CLI.`,
  flags: {},
  takesNames: true,
  run: ({ names: [binary, ...wanted] }) => {
    if (binary === undefined) {
      throw new Misuse("the path of a consul is needed, such as: npm run test:consul -- ./consul");
    }
    return testWith(binary, wanted);
  },
});
