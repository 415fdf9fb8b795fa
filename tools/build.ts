import { execFile, spawn } from "child_process";
import { createHash } from "crypto";
import { existsSync, rmSync } from "fs";
import { mkdir, readFile, readdir, rename, rm, writeFile } from "fs/promises";
import { constants, homedir, setPriority } from "os";
import { isAbsolute, join } from "path";
import { createInterface } from "readline";
import { promisify } from "util";
import { lock } from "./lock";
import { expected, PartsDone, Progress } from "./progress";

/** A program of another project that is built here with Go. */
export type Tool =
  | "consul"
  | "consul-previous"
  | "kube-apiserver"
  | "kube-controller-manager"
  | "kube-scheduler"
  | "kwok"
  | "coredns"
  | "promtool"
  | "compose"
  | "actionlint"
  | "crane"
  | "porcupine"
  | "consul-template";

interface Recipe {
  /** The folder next to this file whose go.mod and go.sum pin the version. */
  readonly module: string;
  readonly package: string;
  /** The main file next to go.mod that is built instead, with less of the package in it. */
  readonly main?: string;
  /** Build tags. */
  readonly tags?: string;
  /** A variable of the program that holds its version, where an ordinary `go build` leaves it empty. */
  readonly versionVariable?: string;
  /** Minutes of one core that a build takes from nothing, where somebody waits for it who has not asked for it. */
  readonly cpuMinutes?: number;
}

const kubernetes = (name: string): Recipe => ({
  module: "kubernetes",
  package: `k8s.io/kubernetes/cmd/${name}`,
  versionVariable: "k8s.io/component-base/version.gitVersion",
});

const recipes: Readonly<Record<Tool, Recipe>> = {
  consul: { module: "consul", package: "github.com/hashicorp/consul", cpuMinutes: 7 },
  "consul-previous": { module: "consul-previous", package: "github.com/hashicorp/consul" },
  "kube-apiserver": kubernetes("kube-apiserver"),
  "kube-controller-manager": kubernetes("kube-controller-manager"),
  "kube-scheduler": kubernetes("kube-scheduler"),
  kwok: { module: "kwok", package: "sigs.k8s.io/kwok/cmd/kwok" },
  coredns: { module: "coredns", package: "github.com/coredns/coredns", main: "main.go" },
  // Without the service discovery that brings the SDK of every cloud; with Consul's, which docs/monitoring.md uses.
  promtool: {
    module: "promtool",
    package: "github.com/prometheus/prometheus/cmd/promtool",
    tags: "remove_all_sd,enable_consul_sd",
  },
  compose: { module: "compose", package: "github.com/compose-spec/compose-go/v2/cmd" },
  crane: { module: "crane", package: "github.com/google/go-containerregistry/cmd/crane" },
  actionlint: { module: "actionlint", package: "github.com/rhysd/actionlint/cmd/actionlint" },
  // A library; what it checks is ours.
  porcupine: { module: "porcupine", package: "github.com/anishathalye/porcupine", main: "main.go" },
  "consul-template": { module: "consul-template", package: "github.com/hashicorp/consul-template" },
};

/**
 * Builds a tool with Go, once: the binary is kept below `${XDG_CACHE_HOME:-~/.cache}/consul-alicloud/tools` until
 * go.mod, go.sum, a main file of ours or the Go version change. No tool takes longer than Consul. Only one build runs at
 * a time on a machine; a second caller waits for the first and takes its result.
 *
 * @param progress gets a line now and then while there is something to wait for; passing lines say how far it is
 * @returns the absolute path of the binary
 * @throws where Go is missing or too old, modules cannot be downloaded, or the build fails; the message says which
 */
export async function buildTool(tool: Tool, progress: Progress = () => undefined): Promise<string> {
  const { module, package: main, main: ownMain, tags, versionVariable, cpuMinutes } = recipes[tool];
  const directory = join(__dirname, module);
  const [goMod = "", goSum = "", source = ""] = await Promise.all(
    ["go.mod", "go.sum", ...(ownMain === undefined ? [] : [ownMain])].map((file) =>
      readFile(join(directory, file), "utf8"),
    ),
  );
  const args = ["-mod=readonly", "-buildvcs=false", "-trimpath"];
  if (tags !== undefined) args.push(`-tags=${tags}`);
  if (versionVariable !== undefined) args.push(`-ldflags=-X ${versionVariable}=${moduleVersion(goMod, main)}`);

  const goVersion = await promisify(execFile)("go", ["env", "GOVERSION", "GOHOSTOS", "GOHOSTARCH"], {
    cwd: directory,
    env: goEnvironment(),
  }).then(
    (result) => result.stdout,
    (cause: unknown) => {
      const { code, stderr, message } = cause as NodeJS.ErrnoException & { stderr?: string };
      throw new Error(code === "ENOENT" ? missingGo(tool, goMod) : buildFailure(tool, stderr ?? message), { cause });
    },
  );

  const root = join(cacheHome(process.env, homedir()), "consul-alicloud", "tools");
  const target = join(root, cacheKey(goMod, goSum, goVersion, [...args, source]), tool);
  if (existsSync(target)) return target;

  await mkdir(join(target, ".."), { recursive: true });
  const unlock = await lock(join(root, "lock"), () => progress(`waiting for another build to end, to build ${tool}`));
  try {
    if (existsSync(target)) return target; // another process has just built it
    await removeLeftovers(join(target, ".."));
    const long = cpuMinutes === undefined ? "" : `: ${expected(cpuMinutes)}`;
    progress(
      `building ${main} ${moduleVersion(goMod, main)} with ${goVersion.split("\n")[0] ?? "go"}, only this once${long}`,
    );
    const what = ownMain === undefined ? main : ".";
    const work = `${target}.${process.pid}.tmp`;
    await mkdir(work);
    await goBuild(tool, { cwd: directory, work }, [...args, what], target, progress).finally(() =>
      rm(work, { recursive: true }),
    );
    return target;
  } finally {
    await unlock();
  }
}

/** The folder for caches by the XDG rules: a relative `XDG_CACHE_HOME` does not count. */
export function cacheHome(environment: NodeJS.ProcessEnv, home: string): string {
  const configured = environment.XDG_CACHE_HOME ?? "";
  return isAbsolute(configured) ? configured : join(home, ".cache");
}

/** What a binary depends on, as a name for a folder: the same inputs give the same key, any other input another. */
export function cacheKey(goMod: string, goSum: string, goVersion: string, args: readonly string[]): string {
  return createHash("sha256")
    .update(JSON.stringify([goMod, goSum, goVersion, args]))
    .digest("hex")
    .slice(0, 16);
}

/** The version that a go.mod requires of the module which has the package. @throws where it requires no such module */
export function moduleVersion(goMod: string, goPackage: string): string {
  const required = [...goMod.matchAll(/^(?:require)?\s+(\S+) (v\S+)/gm)]
    .map(([, path = "", version = ""]) => ({ path, version }))
    .filter(({ path }) => goPackage === path || goPackage.startsWith(`${path}/`))
    .sort((a, b) => b.path.length - a.path.length)[0];
  if (required === undefined) throw new Error(`go.mod requires no module with the package ${goPackage}`);
  return required.version;
}

/** The error for a machine without Go. */
export function missingGo(tool: Tool, goMod: string): string {
  const least = /^go (\S+)$/m.exec(goMod)?.[1] ?? "1.25";
  return `${tool} cannot be built, go is not on PATH: install Go >= ${least}`;
}

/** The error for a build that failed, from what Go printed and the file that has all of it. */
export function buildFailure(tool: Tool, output: string, log?: string): string {
  // With -v Go prints packages and downloads as it goes; the other lines say why the build failed.
  const lines = output.split("\n").filter((line) => /\s/.test(line.trim()) && !line.startsWith("go: downloading "));
  const why = lines.slice(0, 5).join("; ") || "go failed and printed no reason";
  const offline = /dial tcp|no such host|connection refused|i\/o timeout|TLS handshake/.test(why);
  const remedy = offline ? " (if no Go module proxy can be reached from here, set GOPROXY to one that can)" : "";
  return `${tool} cannot be built: ${why}${remedy}${log === undefined ? "" : `; all of the output: ${log}`}`;
}

/** The user's environment without whatever would change the build: flags, another platform, a workspace above. */
function goEnvironment(): NodeJS.ProcessEnv {
  // Where GOFLAGS is empty, Go takes the flags that `go env -w` has stored.
  return {
    ...process.env,
    GOFLAGS: "-mod=readonly",
    GOWORK: "off",
    GOOS: undefined,
    GOARCH: undefined,
    CGO_ENABLED: "0",
  };
}

/** The directory where Go runs, and the one for its temporary files. */
interface Place {
  readonly cwd: string;
  readonly work: string;
}

/** Builds a package into a file, all of it or nothing. @param args flags, and the package */
async function goBuild(
  tool: Tool,
  place: Place,
  args: readonly string[],
  target: string,
  progress: Progress,
): Promise<void> {
  const lines: string[] = [];
  const downloads = new PartsDone(0, "modules downloaded", progress);
  const noted = (line: string) => {
    lines.push(line);
    if (line.startsWith("go: downloading ")) downloads.next();
  };
  const failed = async () => {
    const log = `${target}.log`;
    await writeFile(log, lines.join("\n") + "\n");
    return new Error(buildFailure(tool, lines.join("\n"), log));
  };
  const template = "{{if .Stale}}{{.ImportPath}}{{end}}";
  const stale: string[] = [];
  const list = await go(["list", "-deps", "-f", template, ...args], place, noted, (line) => stale.push(line));
  if (list !== 0) throw await failed();
  const compiled = new PartsDone(stale.length, `packages compiled for ${tool}`, progress);
  const built = join(place.work, tool);
  const build = await go(["build", "-v", "-o", built, ...args], place, (line) => {
    noted(line);
    if (!/\s/.test(line)) compiled.next();
  });
  if (build !== 0) throw await failed();
  await rename(built, target);
}

/**
 * Runs Go, and ends it with all that it has started when this process ends.
 * @param said takes each line of standard error
 * @param answered takes each line of standard output
 * @returns the exit status
 */
async function go(
  args: readonly string[],
  { cwd, work }: Place,
  said: (line: string) => void,
  answered: (line: string) => void = () => undefined,
): Promise<number | null> {
  // A group of its own, so that the compilers are ended together with the command that has started them.
  const env = { ...goEnvironment(), GOTMPDIR: work };
  const child = spawn("go", args, { cwd, env, stdio: ["ignore", "pipe", "pipe"], detached: true });
  const { pid } = child;
  // A build takes minutes of every core: everything else on the machine goes first.
  if (pid !== undefined) setPriority(pid, constants.priority.PRIORITY_BELOW_NORMAL);
  const stop = () => {
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
    rmSync(work, { recursive: true, force: true, maxRetries: 3 });
  };
  process.once("exit", stop);
  try {
    const ended = new Promise<number | null>((resolve, reject) => child.once("error", reject).once("close", resolve));
    createInterface(child.stderr).on("line", said);
    createInterface(child.stdout).on("line", answered);
    return await ended;
  } finally {
    process.off("exit", stop);
  }
}

/** What builds that were killed have left. */
async function removeLeftovers(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (name.endsWith(".tmp")) await rm(join(directory, name), { recursive: true });
  }
}

if (require.main === module) {
  const [tool = ""] = process.argv.slice(2);
  if (!Object.hasOwn(recipes, tool)) {
    console.error(`usage: node --require sucrase/register/ts tools/build.ts ${Object.keys(recipes).join("|")}`);
    process.exit(2);
  }
  buildTool(tool as Tool, (line) => console.error(line)).then(console.log, (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  });
}
