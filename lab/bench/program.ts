import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { environments, FixtureProviders, prodOutputs } from "../../local/fixtures";
import { programDir } from "../../local/program";
import { quantile } from "../load";
import { markdown, spreadOf } from "./contenders";
import { ProcessRun, runProcess } from "./process";

const runs = 3;

/**
 * `npm run bench -- program`: what the program costs in each environment, in a process of its own as the Pulumi CLI
 * starts it, beside the same program as Pulumi loads TypeScript by default: type-checked at each run by ts-node, with
 * whole providers imported. The two take turns, since machines are noisy; CPU seconds are the figure.
 * @returns Markdown
 */
export async function benchProgram(progress: (line: string) => void): Promise<string> {
  const usual = defaultWay();
  try {
    const rows: string[][] = [];
    for (const environment of environments) {
      const ours: ProcessRun[] = [];
      const theirs: ProcessRun[] = [];
      for (let i = 1; i <= runs; i++) {
        ours.push(await measured(environment, false, programDir));
        theirs.push(await measured(environment, true, usual));
        progress(`${environment}, ${i} of ${runs}`);
      }
      const ratio = quantile(theirs.map(({ cpu }) => cpu)) / quantile(ours.map(({ cpu }) => cpu));
      rows.push([environment, figures(ours), figures(theirs), `1/${ratio.toFixed(1)}`]);
    }
    return markdown(["environment", "this program: CPU s, MB", "Pulumi's default: CPU s, MB", "CPU ratio"], rows);
  } finally {
    rmSync(usual, { recursive: true, force: true });
  }
}

async function measured(environment: string, pulumiDefault: boolean, directory: string): Promise<ProcessRun> {
  const run = await runProcess(environment, new FixtureProviders(prodOutputs), { directory, pulumiDefault });
  if (run.exitCode !== 0) throw new Error(`the program failed for ${environment}: ${run.log}${run.printed}`);
  return run;
}

/** minimum / median / maximum of CPU, and the median of memory. */
function figures(all: readonly ProcessRun[]): string {
  const cpu = all.map((run) => run.cpu);
  const memory = all.map((run) => run.memory);
  return `${spreadOf(cpu, 2)}, ${quantile(memory).toFixed(0)}`;
}

/**
 * A copy of the program as tutorials have it: whole providers are imported, and tsconfig has no `noCheck`.
 * @returns the copy's directory, for the caller to delete
 * @throws where a file imports a part of a provider in a way that is not translated
 */
export function defaultWay(): string {
  const copy = mkdtempSync(join(tmpdir(), "consul-default-"));
  for (const name of ["components", "consul", "settings", "stacks"]) {
    cpSync(join(programDir, name), join(copy, name), { recursive: true });
  }
  const files = readdirSync(programDir).filter((name) =>
    /^(index\.ts|Pulumi.*\.yaml|(package|tsconfig)\.json)$/.test(name),
  );
  for (const name of files) cpSync(join(programDir, name), join(copy, name));
  symlinkSync(join(programDir, "node_modules"), join(copy, "node_modules"));
  for (const folder of ["components", "stacks"]) {
    for (const name of readdirSync(join(copy, folder), { encoding: "utf8", recursive: true })) {
      if (!name.endsWith(".ts")) continue;
      const path = join(copy, folder, name);
      const source = withNamespaces(readFileSync(path, "utf8"));
      if (deepImport.test(source)) throw new Error(`${folder}/${name} imports a part of a provider in an unknown way`);
      writeFileSync(path, source);
    }
  }
  return copy;
}

const deepImport = /"@pulumi\/(alicloud|kubernetes|random|tls)\//;
const packages: Record<string, string> = { alicloud: "alicloud", kubernetes: "k8s", random: "random", tls: "tls" };

/**
 * `import { Instance } from "@pulumi/alicloud/ecs/instance"` as `import * as alicloud` and `alicloud.ecs.Instance`;
 * `import type * as inputs from "@pulumi/kubernetes/types/input"` as `k8s.types.input`.
 */
function withNamespaces(source: string): string {
  const seen = new Set<string>();
  return source.replace(
    /^import (?:type )?(?:\* as (\w+)|\{([^}]+)\}) from "@pulumi\/(alicloud|kubernetes|random|tls)\/([\w/]+)";$/gm,
    (_, whole: string | undefined, names: string | undefined, provider: string, path: string) => {
      const namespace = packages[provider] ?? provider;
      const all = seen.has(provider) ? [] : [`import * as ${namespace} from "@pulumi/${provider}";`];
      seen.add(provider);
      const parts = path.split("/");
      if (whole !== undefined) return [...all, `import ${whole} = ${[namespace, ...parts].join(".")};`].join("\n");
      const aliases = (names ?? "")
        .split(",")
        .filter((name) => name.trim() !== "")
        .map((name) => {
          const [exported = "", local = exported] = name.trim().split(" as ");
          return `import ${local} = ${[namespace, ...parts.slice(0, -1), exported].join(".")};`;
        });
      return [...all, ...aliases].join("\n");
    },
  );
}
