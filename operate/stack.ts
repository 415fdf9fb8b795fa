import * as pulumi from "@pulumi/pulumi";
import { execFile } from "child_process";
import { existsSync, readdirSync, readFileSync } from "fs";
import { join } from "path";
import { promisify } from "util";
import { parse } from "yaml";
import { programDir, ProgramRun, runProgram, stackConfig } from "../local/program";
import { LocalProviders } from "../local/providers";
import { CloudConfig, loadCloudConfig, loadSettings, Settings } from "../settings";
import type { Expiry } from "../stacks/expiry";
import { outputsVersion } from "../stacks/outputs";

/** What a stack's settings say, and what its last `pulumi up` said. */
export interface Stack {
  readonly name: string;
  readonly settings: Settings;
  readonly cloud: CloudConfig;
  readonly outputs: StackOutputs;
  /** The directory of a cluster on this machine. */
  readonly directory: string | undefined;
}

/** The outputs that are asked for here. Gossip keys and token are secret. */
export interface StackOutputs {
  readonly caCertificate: string;
  readonly gossipKeys: readonly [string, ...string[]];
  readonly agentToken: string;
  readonly managementToken: string;
  readonly expiry: Expiry;
}

export interface StackOptions {
  /** Directory of a cluster on this machine; `.local/cluster-<stack>` unless given. */
  readonly dir?: string | undefined;
  /** Settings of a cluster on this machine that differ from the stack's file. */
  readonly config?: Readonly<Record<string, string>>;
}

/**
 * Reads a stack's settings and outputs. Pulumi's CLI is asked for them, since it alone can read what is encrypted; a
 * cluster on this machine has them in its directory.
 * @throws one line: no such stack, no CLI, nothing deployed, wrong settings
 */
export async function readStack(given: string, options: StackOptions = {}): Promise<Stack> {
  const name = given.split("/").at(-1) ?? "";
  const file = join(programDir, `Pulumi.${name}.yaml`);
  if (!existsSync(file)) {
    const stacks = readdirSync(programDir).flatMap((entry) => /^Pulumi\.(.+)\.yaml$/.exec(entry)?.[1] ?? []);
    throw new Error(`there is no Pulumi.${name}.yaml; stacks with a file are ${stacks.sort().join(", ")}`);
  }
  const { config = {} } = parse(readFileSync(file, "utf8")) as { config?: Record<string, unknown> };
  const { platform } = (config["consul:servers"] ?? {}) as { platform?: string };
  return platform === "local" ? readLocalStack(name, options) : readDeployedStack(given, name);
}

/**
 * The settings of a stack, from Pulumi's CLI.
 * @throws what the CLI says
 */
export async function readSettings(given: string): Promise<Pick<Stack, "settings" | "cloud">> {
  type Entry = { value?: string };
  const listed = await pulumiJson("config", "--json", "--show-secrets", "--stack", given);
  const own = Object.entries(listed as Record<string, Entry>).flatMap(([key, { value }]) =>
    // Keys of this project may come without its name.
    value === undefined ? [] : [[key.includes(":") ? key : `consul:${key}`, value] as const],
  );
  pulumi.runtime.setAllConfig({ ...projectDefaults(), ...Object.fromEntries(own) });
  return { settings: loadSettings(), cloud: loadCloudConfig() };
}

async function readDeployedStack(given: string, name: string): Promise<Stack> {
  const read = await readSettings(given);
  const outputs = (await pulumiJson(
    "stack",
    "output",
    "--json",
    "--show-secrets",
    "--stack",
    given,
  )) as Partial<StackOutputs> & { outputsVersion?: number };
  if (outputs.outputsVersion === undefined) throw new Error(`nothing is deployed: run \`pulumi up -s ${given}\` first`);
  if (outputs.outputsVersion !== outputsVersion) {
    throw new Error(`${given} was deployed by another release of this program: run \`pulumi up -s ${given}\` first`);
  }
  return { name, ...read, outputs: outputs as StackOutputs, directory: undefined };
}

async function readLocalStack(name: string, { dir, config = {} }: StackOptions): Promise<Stack> {
  const directory = dir ?? join(programDir, ".local", `cluster-${name}`);
  const state = join(directory, "state.json");
  if (!existsSync(state)) throw new Error(`no cluster was started in ${directory}: npm start -- --stack ${name}`);
  // Not saved: a certificate that is due would be made anew here, and the nodes know nothing of it.
  const run = await runProgram(name, { ...stackConfig(name), ...config }, new LocalProviders(state));
  const output = (key: keyof StackOutputs) => [key, valueOf(run, key)];
  const keys = ["gossipKeys", "agentToken", "managementToken", "caCertificate", "expiry"] as const;
  const outputs = Object.fromEntries(keys.map(output)) as unknown as StackOutputs;
  return { name, settings: loadSettings(), cloud: loadCloudConfig(), outputs, directory };
}

const valueOf = ({ outputs }: ProgramRun, key: string) => outputs[key]?.value;

function projectDefaults(): Record<string, string> {
  const { config } = parse(readFileSync(join(programDir, "Pulumi.yaml"), "utf8")) as {
    config: Record<string, { default?: unknown }>;
  };
  return Object.fromEntries(
    Object.entries(config).flatMap(([key, { default: value }]) =>
      value === undefined ? [] : [[`consul:${key}`, String(value as string | number)]],
    ),
  );
}

/** Runs Pulumi's CLI in the program's directory. @returns what it answers. Secret. @throws its last words */
export async function pulumiJson(...args: string[]): Promise<unknown> {
  const options = { cwd: programDir, maxBuffer: 64 << 20, env: { ...process.env, PULUMI_SKIP_UPDATE_CHECK: "true" } };
  try {
    const { stdout } = await promisify(execFile)("pulumi", [...args, "--non-interactive"], options);
    return JSON.parse(stdout) as unknown;
  } catch (error) {
    const { code, stderr = "", message } = error as NodeJS.ErrnoException & { stderr?: string };
    if (code === "ENOENT") {
      throw new Error("pulumi is not on PATH: settings and outputs of a deployed stack are read with it", {
        cause: error,
      });
    }
    const said = stderr
      .trim()
      .split("\n")
      .find((line) => line.startsWith("error:"));
    throw new Error(`pulumi ${args.slice(0, 2).join(" ")}: ${said ?? (stderr.trim() || message)}`, { cause: error });
  }
}
