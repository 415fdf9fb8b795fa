import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { programDir } from "../../local/program";
import { environments, FixtureProviders, prodOutputs } from "../../local/offline";
import { ProcessRun, runProcess } from "./process";

/**
 * `npm run bench -- program`: what the program costs in each environment, in a process of its own as the Pulumi CLI
 * starts it, beside the same program as Pulumi loads TypeScript by default: type-checked at each run by ts-node, with
 * whole providers imported. The two take turns in one run, since machines are noisy; CPU seconds are the figure.
 */
export async function benchProgram(runs = 3): Promise<string> {
  const usual = defaultWay();
  try {
    const lines = [
      "| environment | this program: CPU s, MB | Pulumi's default: CPU s, MB | CPU ratio |",
      "|---|---|---|---|",
    ];
    for (const environment of environments) {
      const ours: ProcessRun[] = [];
      const theirs: ProcessRun[] = [];
      for (let i = 0; i < runs; i++) {
        ours.push(await measured(environment, false, programDir));
        theirs.push(await measured(environment, true, usual));
      }
      const ratio = median(ours.map(({ cpu }) => cpu)) / median(theirs.map(({ cpu }) => cpu));
      lines.push(`| ${environment} | ${figures(ours)} | ${figures(theirs)} | 1/${(1 / ratio).toFixed(1)} |`);
    }
    return lines.join("\n");
  } finally {
    rmSync(usual, { recursive: true, force: true });
  }
}

async function measured(environment: string, pulumiDefault: boolean, directory: string): Promise<ProcessRun> {
  const run = await runProcess(environment, new FixtureProviders(prodOutputs), { directory, pulumiDefault });
  if (run.exitCode !== 0) throw new Error(`the program failed for ${environment}: ${run.log}${run.printed}`);
  return run;
}

/** minimum / median / maximum CPU, and the median of memory. */
function figures(runs: readonly ProcessRun[]): string {
  const cpu = runs.map((run) => run.cpu).sort((a, b) => a - b);
  const shown = [cpu[0] ?? 0, median(cpu), cpu.at(-1) ?? 0].map((n) => n.toFixed(2)).join(" / ");
  return `${shown}, ${median(runs.map(({ memory }) => memory)).toFixed(0)}`;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

/** A copy of the program that imports whole providers, and a tsconfig without `noCheck`: the way tutorials have it. */
function defaultWay(): string {
  const copy = mkdtempSync(join(tmpdir(), "consul-default-"));
  for (const name of ["components", "consul", "settings", "stacks"]) {
    cpSync(join(programDir, name), join(copy, name), { recursive: true });
  }
  const files = readdirSync(programDir).filter((name) =>
    /^(index|settings)\.ts$|^Pulumi.*\.yaml$|^package\.json$|^tsconfig\.json$/.test(name),
  );
  for (const name of files) cpSync(join(programDir, name), join(copy, name));
  symlinkSync(join(programDir, "node_modules"), join(copy, "node_modules"));
  for (const folder of ["components", "stacks"]) {
    for (const name of readdirSync(join(copy, folder)).filter((file) => file.endsWith(".ts"))) {
      const path = join(copy, folder, name);
      writeFileSync(path, withNamespaces(readFileSync(path, "utf8")));
    }
  }
  return copy;
}

const packages: Record<string, string> = { alicloud: "alicloud", kubernetes: "k8s", random: "random", tls: "tls" };

/** `import { Instance } from "@pulumi/alicloud/ecs/instance"` as `import * as alicloud` and `alicloud.ecs.Instance`. */
export function withNamespaces(source: string): string {
  const seen = new Set<string>();
  return source.replace(
    /^import \{ ([^}]+) \} from "@pulumi\/(alicloud|kubernetes|random|tls)\/([\w/]+)";$/gm,
    (_, names: string, provider: string, path: string) => {
      const namespace = packages[provider] ?? provider;
      const folders = path.split("/").slice(0, -1);
      const all = seen.has(provider) ? [] : [`import * as ${namespace} from "@pulumi/${provider}";`];
      seen.add(provider);
      const aliases = names.split(",").map((name) => {
        const [exported = "", local = exported] = name.trim().split(" as ");
        return `import ${local} = ${[namespace, ...folders, exported].join(".")};`;
      });
      return [...all, ...aliases].join("\n");
    },
  );
}
