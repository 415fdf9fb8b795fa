import { execFileSync } from "child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { parse } from "yaml";
import { appAccess } from "../../components/kubernetes/app-environment";
import { programDir, ProgramRun, runProgram, stackConfig } from "../../local/program";
import { FixtureProviders, prodOutputs } from "../../local/fixtures";

const reference = (app: string) =>
  appAccess({
    namespace: "shop",
    secretName: `${app}-consul-token`,
    key: "token",
    accessorId: "f1c70e5a-0000-4000-8000-0000000acce5",
  });

/** The applications of Pulumi.staging.yaml: docs/first-deployment.md deploys the example beside that stack. */
const apps = JSON.parse(stackConfig("staging")["consul:apps"] ?? "[]") as { name: string }[];

/** The outputs that the Consul stack gives to the example. */
export const exampleOutputs: Readonly<Record<string, unknown>> = {
  ...prodOutputs,
  apps: Object.fromEntries(apps.map(({ name }) => [name, reference(name)])),
};

/**
 * Copies the example into a new directory, with the reader of outputs as a package beside it: the layout of another
 * repository.
 * @returns the directory, which the caller removes; the example is in stack-typescript, packages in node_modules
 */
export function exampleElsewhere(): string {
  const directory = mkdtempSync(join(tmpdir(), "consul-example-"));
  cpSync(join(programDir, "examples/stack-typescript"), join(directory, "stack-typescript"), {
    recursive: true,
    filter: (path) => !path.includes("node_modules"),
  });
  const packed = execFileSync("npm", ["pack", "--silent", "--pack-destination", directory], {
    cwd: join(programDir, "reader"),
  });
  const modules = join(directory, "node_modules");
  mkdirSync(join(modules, "consul-alicloud-outputs"), { recursive: true });
  const tarball = join(directory, packed.toString().trim().split("\n").at(-1) ?? "");
  execFileSync("tar", ["-xzf", tarball, "--strip-components=1", "-C", join(modules, "consul-alicloud-outputs")]);
  for (const name of ["@pulumi", "@types"]) symlinkSync(join(programDir, "node_modules", name), join(modules, name));
  return directory;
}

/** Runs the example's program with the outputs of the Consul stack and the defaults of its own Pulumi.yaml. */
export async function runExample(
  directory: string,
  stackOutputs: Readonly<Record<string, unknown>> = exampleOutputs,
): Promise<ProgramRun> {
  const project = parse(readFileSync(join(directory, "stack-typescript/Pulumi.yaml"), "utf8")) as {
    config: Record<string, { default?: string | number }>;
  };
  const given = { consulStack: { default: "organization/consul/prod" }, context: { default: "prod" } };
  const config: Record<string, string> = {};
  // The monitor of these tests calls every project "consul".
  const entries: [string, { default?: unknown }][] = Object.entries({ ...project.config, ...given });
  for (const [key, value] of entries) config[`consul:${key}`] = String(value.default);
  return runProgram("prod", config, new FixtureProviders(stackOutputs), () => {
    const index = join(directory, "stack-typescript/index.ts");
    Reflect.deleteProperty(require.cache, index);
    return require(index) as unknown;
  });
}
