import { execFile } from "child_process";
import { createHash } from "crypto";
import { unzipSync } from "fflate";
import { accessSync, constants, existsSync } from "fs";
import { chmod, mkdir, rename, symlink, writeFile } from "fs/promises";
import { homedir } from "os";
import { delimiter, dirname, join, resolve } from "path";
import { promisify } from "util";
import { buildTool, cacheHome } from "../tools/build";
import type { Progress } from "../tools/progress";

/** Which Consul is wanted: the settings of the same names. */
export interface Wanted {
  readonly version: string;
  readonly downloadMirror: string;
  readonly downloadSha256: string;
}

/** The Consul that a stack's settings ask for. @param config every setting: key to text */
export function wantedConsul(config: Readonly<Record<string, string>>): Wanted {
  const setting = (key: keyof Wanted) => config[`consul:${key}`] ?? "";
  return {
    version: setting("version"),
    downloadMirror: setting("downloadMirror"),
    downloadSha256: setting("downloadSha256"),
  };
}

/** What finding a binary depends on besides what is wanted; tests have other surroundings. */
export interface Surroundings {
  readonly env: NodeJS.ProcessEnv;
  readonly progress: Progress;
  /** Builds Consul and returns the path of the binary. */
  readonly build: () => Promise<string>;
  /** Milliseconds until a mirror that does not answer is given up. */
  readonly timeout: number;
}

/**
 * Finds a Consul of exactly the wanted version: CONSUL_BIN, else PATH, else the one that an earlier start kept, else the
 * official release, else a build with Go.
 *
 * @returns the absolute path of the binary
 * @throws one line, where CONSUL_BIN is not that version, a download has another checksum, or nothing is left to try
 */
export async function findConsul(wanted: Wanted, given: Partial<Surroundings> = {}): Promise<string> {
  const progress = given.progress ?? (() => undefined);
  const { env = process.env, build = () => buildTool("consul", progress), timeout = 3000 } = given;
  const { version } = wanted;
  if (env.CONSUL_BIN) {
    const binary = resolve(env.CONSUL_BIN);
    await mustBe(binary, `CONSUL_BIN=${env.CONSUL_BIN}`, version);
    return binary;
  }

  const onPath = findOnPath("consul", env.PATH ?? "");
  const found = onPath === undefined ? undefined : await versionOf(onPath).catch(() => "of no version");
  if (onPath !== undefined && found === version) return onPath;
  const wrong = onPath === undefined ? "" : `${onPath} is Consul ${found ?? ""}, the settings want ${version}; `;
  if (wrong) progress(`${wrong}looking elsewhere`);

  const kept = join(cacheHome(env, homedir()), "consul-alicloud", "consul", version, "consul");
  if (existsSync(kept)) return kept;
  await mkdir(dirname(kept), { recursive: true });
  const released = await download(wanted, timeout, progress);
  if (released) {
    await writeFile(`${kept}.${process.pid}`, released);
    await chmod(`${kept}.${process.pid}`, 0o755);
  } else {
    progress(elsewhere);
    const built = await build().catch((error: unknown) => {
      throw new Error(`${wrong}${(error as Error).message}; ${elsewhere}`, { cause: error });
    });
    await mustBe(built, "the Consul that tools/consul/go.mod pins", version);
    await symlink(built, `${kept}.${process.pid}`);
  }
  await rename(`${kept}.${process.pid}`, kept);
  return kept;
}

/** What spares somebody the build, where the releases are not reached. */
const elsewhere =
  "a release is quicker than a build: npm start -- --config downloadMirror=URL takes one from a mirror that this machine " +
  "reaches, CONSUL_BIN=FILE names one that is here";

/** The version a binary says it is, such as 1.22.7. */
export async function versionOf(binary: string): Promise<string> {
  const { stdout } = await promisify(execFile)(binary, ["version"], { timeout: 20_000 });
  return /^Consul v(\S+)/.exec(stdout)?.[1] ?? "of no version";
}

async function mustBe(binary: string, what: string, version: string): Promise<void> {
  const found = await versionOf(binary).catch((error: unknown) => {
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? "there is no such file" : code === "EACCES" ? "it is not executable" : message;
    throw new Error(`${what} cannot be run (${why.split("\n")[0] ?? ""}): set CONSUL_BIN to a Consul ${version}`, {
      cause: error,
    });
  });
  if (found === version) return;
  throw new Error(`${what} is Consul ${found}, the settings want ${version} (consul:version): set CONSUL_BIN to that`);
}

/** The first executable file of that name in the directories of PATH. */
export function findOnPath(name: string, path = process.env.PATH ?? ""): string | undefined {
  const candidates = path.split(delimiter).map((directory) => join(directory, name));
  return candidates.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** The binary of the official release, or undefined where it cannot be fetched from here. */
async function download(
  { version, downloadMirror, downloadSha256 }: Wanted,
  timeout: number,
  progress: Progress,
): Promise<Uint8Array | undefined> {
  const architecture = { x64: "amd64", arm64: "arm64" }[process.arch as string] ?? process.arch;
  const zip = `consul_${version}_${process.platform}_${architecture}.zip`;
  const base = `${downloadMirror.replace(/\/$/, "")}/${version}`;
  let body: Uint8Array;
  let wantedSum: string | undefined;
  try {
    const sums = await fetched(`${base}/consul_${version}_SHA256SUMS`, timeout, () => undefined);
    // The setting has the checksum of the servers' zip: for Linux on amd64.
    const own = process.platform === "linux" && architecture === "amd64" ? downloadSha256 : "";
    wantedSum = own || lineFor(zip, Buffer.from(sums).toString());
    if (wantedSum === undefined) throw new Error(`its SHA256SUMS has no line for ${zip}`);
    body = await fetched(`${base}/${zip}`, timeout, (share) => progress(`${zip} ${share}`, true));
  } catch (error) {
    const { message, cause } = error as Error & { cause?: Error };
    progress(`no release from ${base} (${cause?.message ?? message})`);
    return undefined;
  }
  const sum = createHash("sha256").update(body).digest("hex");
  if (sum !== wantedSum) {
    throw new Error(`wrong checksum of ${base}/${zip}: ${sum}, wanted ${wantedSum}; not used (consul:downloadMirror)`);
  }
  const binary = unzipSync(body, { filter: ({ name }) => name === "consul" }).consul;
  if (!binary) throw new Error(`${base}/${zip} has no file "consul" in it (consul:downloadMirror)`);
  return binary;
}

function lineFor(file: string, sums: string): string | undefined {
  return sums
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .find(([, name]) => name === file)?.[0];
}

/** The body of an answer. The time limit is for the first piece and between two pieces, not for the whole. */
async function fetched(url: string, timeout: number, progress: (share: string) => void): Promise<Uint8Array> {
  const controller = new AbortController();
  const abort = () => controller.abort(new Error(`no answer within ${timeout / 1000} s`));
  const timer = setTimeout(abort, timeout);
  try {
    const response = await fetch(url, { signal: controller.signal });
    if (!response.ok || !response.body) throw new Error(`HTTP status ${response.status}`);
    const total = Number(response.headers.get("content-length") ?? 0);
    const pieces: Uint8Array[] = [];
    let size = 0;
    let said = 0;
    for await (const piece of response.body as AsyncIterable<Uint8Array>) {
      timer.refresh();
      pieces.push(piece);
      size += piece.length;
      if (total > 0 && size - said > total / 20) progress(`${Math.floor((100 * (said = size)) / total)} %`);
    }
    return Buffer.concat(pieces);
  } finally {
    clearTimeout(timer);
  }
}
