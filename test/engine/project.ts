import { equal } from "assert/strict";
import { spawn, spawnSync } from "child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join, relative, sep } from "path";
import { parse, stringify } from "yaml";
import { programDir } from "../../local/program";

/** Files of a clone that a deployment needs. The engine writes into stack files, so tests copy the files. */
const needed =
  /^(index\.ts|settings|package\.json|tsconfig\.json|Pulumi\..*yaml|components|consul|local|monitoring|policy|stacks)$/;

/** For a `before` hook: skips what follows, and says why, where a program is not there. */
export function needPrograms(context: Mocha.Context, ...programs: readonly string[]): void {
  for (const program of programs) {
    const { error, status, stderr } = spawnSync(program, ["version", ...(program === "kubectl" ? ["--client"] : [])], {
      encoding: "utf8",
    });
    if (!error && status === 0) continue;
    console.log(`    skipped: ${error ? `${program} is not on PATH` : `${program} version: ${stderr}`}`);
    context.skip();
  }
}

/** A copy of this program in a directory of its own, with a backend of its own, for one stack. */
export class Project {
  private readonly directory = mkdtempSync(join(tmpdir(), "engine-"));
  readonly workDir = join(this.directory, "project");
  readonly backend = join(this.directory, "backend");
  readonly envVars: Record<string, string>;
  /** The file of the stack's settings. */
  readonly stackFile: string;
  // Without a preview, which would be refused first wherever a test has something refused.
  readonly up: string;
  readonly destroy: string;

  constructor(
    private readonly stack: string,
    more: Readonly<Record<string, string>> = {},
  ) {
    for (const path of [this.workDir, this.backend]) mkdirSync(path);
    const top = (path: string) => relative(programDir, path).split(sep)[0] ?? "";
    const filter = (path: string) => path === programDir || needed.test(top(path));
    cpSync(programDir, this.workDir, { recursive: true, filter });
    symlinkSync(join(programDir, "node_modules"), join(this.workDir, "node_modules"));
    this.envVars = {
      PULUMI_BACKEND_URL: `file://${this.backend}`,
      PULUMI_CONFIG_PASSPHRASE: "of a stack that lives for a minute",
      PULUMI_SKIP_UPDATE_CHECK: "true",
      ...more,
    };
    this.stackFile = join(this.workDir, `Pulumi.${stack}.yaml`);
    this.up = `pulumi up -s ${stack} --yes --skip-preview --non-interactive`;
    this.destroy = `pulumi destroy -s ${stack} --yes --skip-preview --non-interactive`;
  }

  /** Changes the stack's settings. */
  edit(change: (config: Record<string, unknown>) => void): void {
    const file = parse(readFileSync(this.stackFile, "utf8")) as { config: Record<string, unknown> };
    change(file.config);
    writeFileSync(this.stackFile, stringify(file));
  }

  /** Runs a command by a shell, to its end, or until something has happened: then kills it with all that it started. */
  async run(
    command: string,
    until?: Promise<unknown>,
  ): Promise<{ readonly status: number | null; readonly text: string }> {
    const env = { ...process.env, ...this.envVars };
    const child = spawn("sh", ["-c", command], { cwd: this.workDir, env, detached: true });
    let text = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data: Buffer) => (text += data.toString()));
    const closed = new Promise<number | null>((resolve) => child.on("close", resolve));
    if (until !== undefined) {
      const ended = await Promise.race([closed.then(() => true), until.then(() => false)]);
      if (!ended) process.kill(-(child.pid ?? 0), "SIGKILL");
    }
    return { status: await closed, text };
  }

  /** What a command prints that has to succeed. */
  async done(command: string): Promise<string> {
    const { status, text } = await this.run(command);
    equal(status, 0, `${command}\n${text}`);
    return text;
  }

  /** What docs/troubleshooting.md says to do before the next `up`, where one was killed. */
  async unlock(): Promise<void> {
    await this.done(`find '${this.backend}/.pulumi/stacks' -name '*.attrs' -empty -delete`);
    await this.done(`pulumi cancel -s ${this.stack} --yes`);
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
