import { execFile } from "child_process";
import { createHash } from "crypto";
import { existsSync, readFileSync, readdirSync } from "fs";
import { cp, mkdir, mkdtemp, rename, rm } from "fs/promises";
import { homedir, tmpdir } from "os";
import { dirname, join, relative } from "path";
import { promisify } from "util";
import { cacheHome } from "./build";
import { lock } from "./lock";

/** An application of `examples/` that has to be built, or to get its libraries, before it runs. */
export type Example = "spring-app" | "python-app" | "go-app" | "node-app";

interface Recipe {
  /** Commands that say which versions build it and run it. Where one of them fails, the language is not installed. */
  readonly versions: readonly (readonly string[])[];
  /** Builds it in its own folder. */
  readonly build: readonly string[];
  /** What runs of all that is there afterwards, by its path in that folder. */
  readonly result: string;
}

const recipes: Readonly<Record<Example, Recipe>> = {
  "spring-app": {
    versions: [
      ["mvn", "--version"],
      ["java", "-version"],
    ],
    build: ["mvn", "--quiet", "--batch-mode", "package"],
    result: "target/orders.jar",
  },
  "python-app": {
    versions: [
      ["python3", "--version"],
      ["python3", "-m", "pip", "--version"],
    ],
    build: ["python3", "-m", "pip", "install", "--quiet", "--target", "lib", "--requirement", "requirements.txt"],
    result: ".",
  },
  "go-app": {
    versions: [["go", "version"]],
    build: ["go", "build", "-mod=readonly", "-o", "orders", "."],
    result: "orders",
  },
  "node-app": {
    versions: [
      ["node", "--version"],
      ["npm", "--version"],
    ],
    build: ["npm", "ci", "--ignore-scripts"],
    result: ".",
  },
};

/** Every example that is built here. */
export const examples = Object.keys(recipes) as Example[];

/** That a language is not installed here: whoever runs the tests need not have all of them. */
export class NotInstalled extends Error {}

/**
 * Builds an example with the tools of its language, once: what runs is kept below
 * `${XDG_CACHE_HOME:-~/.cache}/consul-alicloud/examples` until a file of the example or the language's version changes.
 * The first build downloads libraries from the registry of the language.
 *
 * @param progress gets a line where there is something to wait for
 * @returns the absolute path of what runs
 * @throws NotInstalled where a program that it needs is not here; else with what the build printed
 */
export async function buildExample(
  example: Example,
  progress: (line: string) => void = () => undefined,
): Promise<string> {
  const { versions, build, result } = recipes[example];
  const source = join(__dirname, "../examples", example);
  const said = await Promise.all(versions.map((command) => version(example, command)));
  const root = join(cacheHome(process.env, homedir()), "consul-alicloud", "examples");
  const target = join(root, example, digest(source, [...said, ...build]));
  if (existsSync(target)) return join(target, result);

  await mkdir(dirname(target), { recursive: true });
  const unlock = await lock(join(root, "lock"), () =>
    progress(`waiting for another build to end, to build ${example}`),
  );
  const work = await mkdtemp(join(tmpdir(), `${example}-`));
  try {
    if (existsSync(target)) return join(target, result); // another process has just built it
    progress(`building examples/${example}, only this once`);
    await cp(source, work, { recursive: true, filter: (path) => !beside.test(path) });
    const [program = "", ...args] = build;
    await promisify(execFile)(program, args, { cwd: work, maxBuffer: 1 << 26 }).catch((cause: unknown) => {
      const { stdout, stderr } = cause as { stdout: string; stderr: string };
      throw new Error(`examples/${example} cannot be built: ${`${stdout}${stderr}`.trim().slice(-2000)}`, { cause });
    });
    await cp(join(work, result), join(`${target}.tmp`, result), { recursive: true });
    await rename(`${target}.tmp`, target);
    return join(target, result);
  } finally {
    await rm(work, { recursive: true, force: true });
    await rm(`${target}.tmp`, { recursive: true, force: true });
    await unlock();
  }
}

/** What lies beside an example's source: documents, manifests, and what its developer's own tools have left. */
const beside = /(^|\/)(node_modules|target|lib|__pycache__|README\.md|kubernetes\.yaml)(\/|$)/;

async function version(example: Example, [program = "", ...args]: readonly string[]): Promise<string> {
  try {
    const { stdout, stderr } = await promisify(execFile)(program, args);
    return stdout + stderr;
  } catch (cause) {
    const command = [program, ...args].join(" ");
    throw new NotInstalled(`examples/${example} is not tried: \`${command}\` does not work here`, { cause });
  }
}

/** Names the content of a folder, together with what else a build depends on. */
function digest(folder: string, others: readonly string[]): string {
  const hash = createHash("sha256").update(JSON.stringify(others));
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => !beside.test(relative(folder, file)))
    .sort();
  for (const file of files) {
    const content = readFileSync(file);
    hash.update(JSON.stringify([relative(folder, file), content.length])).update(content);
  }
  return hash.digest("hex").slice(0, 16);
}

if (require.main === module) {
  const chosen = process.argv.slice(2);
  const unknown = chosen.filter((name) => !(examples as string[]).includes(name));
  if (chosen.length === 0 || unknown.length > 0) {
    console.error(`usage: node --require sucrase/register/ts tools/examples.ts ${examples.join("|")}…`);
    process.exit(2);
  }
  (async () => {
    for (const name of chosen) console.log(await buildExample(name as Example, (line) => console.error(line)));
  })().catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  });
}
