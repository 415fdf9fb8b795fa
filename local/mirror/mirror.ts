import { execFile } from "child_process";
import { mkdir, rename, writeFile } from "fs/promises";
import { dirname, join, resolve } from "path";
import { promisify } from "util";
import { refusedRelease } from "../../consul/releases";
import { buildTool } from "../../tools/build";
import type { Progress } from "../../tools/progress";
import { defineTask, Misuse } from "../command";
import { pinnedVersion, stackConfig } from "../program";
import { fetched, releaseFiles, sha256, sumIn } from "../release";
import { bucketPlace, bucketWriter } from "./bucket";
import { checkSignature, hashicorpKey, SigningKey } from "./signature";

/** Milliseconds without a byte after which a download is given up. */
const patience = 30_000;

/** The files of one release whose checksums have the right signature, by name. */
async function checkedRelease(
  source: string,
  version: string,
  system: string,
  key: SigningKey,
  progress: Progress,
): Promise<{ files: ReadonlyMap<string, Uint8Array>; sum: string }> {
  const base = `${source.replace(/\/$/, "")}/${version}`;
  const get = async (file: string): Promise<Uint8Array> => {
    try {
      return await fetched(`${base}/${file}`, patience, (share) => progress(`${file} ${share}`));
    } catch (error) {
      const { message, cause } = error as Error & { cause?: Error };
      throw new Error(`cannot fetch ${base}/${file} (${cause?.message ?? message}): check --version and --from`, {
        cause: error,
      });
    }
  };
  const names = [
    releaseFiles.sums(version),
    releaseFiles.signature(version),
    releaseFiles.zip(version, system),
  ] as const;
  const [sumsName, signatureName, zipName] = names;
  const [sums, signature] = [await get(sumsName), await get(signatureName)];
  await checkSignature(sums, signature, key).catch((error: unknown) => {
    const why = (error as Error).message;
    throw new Error(`refused: ${base}/${sumsName} has no signature of HashiCorp's key (${why}); nothing was written`, {
      cause: error,
    });
  });
  progress(`${sumsName} has a good signature of ${key.fingerprint}`);
  const wanted = sumIn(Buffer.from(sums).toString(), zipName);
  if (wanted === undefined) throw new Error(`${base}/${sumsName} has no line for ${zipName}: check --arch`);
  const zip = await get(zipName);
  const sum = sha256(zip);
  if (sum !== wanted) {
    throw new Error(`refused: ${base}/${zipName} has the checksum ${sum}, signed is ${wanted}; nothing was written`);
  }
  return {
    files: new Map([
      [zipName, zip],
      [sumsName, sums],
      [signatureName, signature],
    ]),
    sum,
  };
}

/** Puts a file into a directory, whole or not at all. */
function directoryWriter(directory: string) {
  return async (name: string, body: Uint8Array): Promise<void> => {
    const file = join(directory, name);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(`${file}.part`, body);
    await rename(`${file}.part`, file);
  };
}

/** Copies an image with crane. @returns the digest that both have */
async function copyImage(from: string, to: string, progress: Progress): Promise<string> {
  const crane = await buildTool("crane", progress);
  const run = async (...args: string[]): Promise<string> => {
    try {
      return (await promisify(execFile)(crane, args, { maxBuffer: 1 << 26 })).stdout.trim();
    } catch (error) {
      const said = (error as { stderr?: string }).stderr?.trim().split("\n").at(-1) ?? (error as Error).message;
      throw new Error(`cannot copy ${from} to ${to}: ${said}; does \`docker login\` know both registries?`, {
        cause: error,
      });
    }
  };
  progress(`copying ${from} to ${to}`);
  await run("copy", from, to);
  return run("digest", to);
}

/** Where the copy goes, and the URL by which servers find it. */
async function destination(to: string, region: string | undefined, endpoint: string | undefined) {
  if (!to.startsWith("oss://")) {
    return { write: directoryWriter(resolve(to)), url: "https://<where you serve that directory>" };
  }
  const place = bucketPlace(to);
  if (place === undefined) throw new Misuse(`--to ${to}: no bucket of that form; such as oss://example-mirror/consul`);
  if (region === undefined) throw new Misuse(`--region is needed for ${to}, such as --region cn-hangzhou`);
  const url = [`https://${place.bucket}.oss-${region}-internal.aliyuncs.com`, place.prefix].filter(Boolean).join("/");
  return { write: await bucketWriter(place, region, endpoint), url };
}

/** What the command was told; each as its option says. */
interface Wanted {
  readonly to?: string | undefined;
  readonly image?: string | undefined;
  readonly version: string;
  readonly arch: string;
  readonly region?: string | undefined;
  readonly endpoint?: string | undefined;
  readonly from: string;
  readonly "image-from": string;
}

/**
 * Copies what is wanted, once all of it has been checked.
 * @param say takes what is under way
 * @param key whose signature is wanted; tests have a key of their own
 * @returns the settings to put into the stack file, one line each
 * @throws Misuse where the options are wrong; one line where a copy fails, and nothing was written unless it says so
 */
export async function mirror(wanted: Partial<Wanted>, say: Progress, key = hashicorpKey): Promise<string[]> {
  const { to, image, version, arch, region, endpoint, from, "image-from": imageFrom } = { ...usual, ...wanted };
  if (to === undefined && image === undefined) throw new Misuse("--to or --image is needed; --help has more");
  if (!/^\d+\.\d+\.\d+$/.test(version)) {
    throw new Misuse(`--version ${version}: a version such as ${pinnedVersion} is wanted`);
  }
  const refusal = refusedRelease(version);
  if (refusal !== undefined) throw new Misuse(`--version ${version}: ${refusal}`);
  if (!["amd64", "arm64"].includes(arch)) throw new Misuse(`--arch ${arch}: amd64 or arm64`);
  const settings = version === pinnedVersion ? [] : [`consul:version: ${version}`];
  if (to !== undefined) {
    const { write, url } = await destination(to, region, endpoint);
    const { files, sum } = await checkedRelease(from, version, `linux_${arch}`, key, say);
    // The checksums come last: whoever reads them finds the zip.
    for (const [name, body] of files) await write(`${version}/${name}`, body);
    say(`${to} has Consul ${version} for linux_${arch}`);
    settings.push(`consul:downloadMirror: ${url}`, `consul:downloadSha256: ${sum}`);
  }
  if (image !== undefined) {
    const registry = image.replace(/\/$/, "");
    const digest = await copyImage(`${imageFrom}:${version}`, `${registry}/consul:${version}`, say);
    settings.push(`consul:imageRegistry: ${registry}`, `consul:imageDigest: ${digest}`);
  }
  return settings;
}

const usual = {
  version: pinnedVersion,
  arch: "amd64",
  from: stackConfig("local")["consul:downloadMirror"] ?? "",
  "image-from": "docker.io/hashicorp/consul",
};

export const task = defineTask({
  name: "mirror",
  usage: "-- --to PLACE [OPTION…]",
  about: `puts a release of Consul where servers reach it
HashiCorp's signature of its checksums is checked before anything is written. Then the settings are printed that go with it.`,
  after: `--image alone copies nothing but the image. Credentials for the bucket are those that the cloud's own tools find, for
registries those of docker login. docs/mainland.md has what the bucket has to allow.`,
  flags: {
    to: {
      type: "string",
      value: "PLACE",
      about: "oss://BUCKET/PREFIX, or a directory that you serve over HTTPS: consul:downloadMirror",
    },
    image: {
      type: "string",
      value: "REGISTRY",
      about: "copies the image to REGISTRY/consul:VERSION, for every architecture: consul:imageRegistry",
    },
    version: {
      type: "string",
      value: "VERSION",
      about: `of Consul, ${usual.version} unless given`,
      default: usual.version,
    },
    arch: {
      type: "string",
      value: "ARCH",
      about: "amd64 or arm64, of the servers' machines; amd64 unless given",
      default: usual.arch,
    },
    region: { type: "string", value: "REGION", about: "of the bucket, such as cn-hangzhou" },
    endpoint: { type: "string", value: "URL", about: "of OSS, where it is not https://oss-REGION.aliyuncs.com" },
    from: {
      type: "string",
      value: "URL",
      about: "another source than HashiCorp's releases; what is there has to have HashiCorp's signature",
      default: usual.from,
    },
    "image-from": {
      type: "string",
      value: "NAME",
      about: `another source than ${usual["image-from"]}`,
      default: usual["image-from"],
    },
  },
  run: async ({ flags, write }) => {
    const settings = await mirror(flags, (line) => console.error(line));
    write(settings.map((line) => `${line}\n`).join(""));
    return 0;
  },
});
