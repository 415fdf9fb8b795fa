import { createHash } from "crypto";
import { gunzipSync, gzipSync } from "fflate";
import { AclObject } from "../acl";
import { startConfig } from "../extra-config";
import { ConsulFile, ConsulNode, stableJson } from "../node";
import { readScript, ScriptPath, withApi, withoutComments } from "../scripts";
import { aclDir, consulPath, dataMount, etcDir, scriptDir, unitDir } from "./layout";
import { snapshotFiles, Snapshots } from "./snapshots";
import { serverUnits } from "./units";

/** The cloud takes 32 KB of user data, counted before base64 (RunInstances, ModifyInstanceAttribute). */
export const userDataLimit = 32 * 1024;

/** What a server's machine is to run. */
export interface ServerMachine {
  readonly node: ConsulNode;
  /** Consul version to have installed, where from, and the zip's SHA-256 ("" for the mirror's SHA256SUMS). */
  readonly version: string;
  readonly downloadMirror: string;
  readonly downloadSha256: string;
  /** Id of the data disk, d-...; in the machine its serial is this without the prefix. */
  readonly diskId: string;
  readonly managementToken: string;
  readonly acl: readonly AclObject[];
  /** Snapshots to take, if any. */
  readonly snapshots?: Snapshots | undefined;
}

/** User data, and what tells it from another one. The digests give nothing away. */
export interface UserData {
  /** Secret. */
  readonly text: string;
  /** Digest of the whole. */
  readonly config: string;
  /** Digest of what Consul reads at its start alone: another one takes a restart, the same one a reload. */
  readonly start: string;
  /** Three characters for each file, from its path and content: tells in a preview which files change. */
  readonly files: string;
  /** Paths of the files, in the order of `files`. */
  readonly paths: readonly string[];
}

/** User data in the form in which the cloud takes it. What is read back is then what was given. */
export function encoded({ text }: UserData): string {
  return Buffer.from(text).toString("base64");
}

/**
 * User data of one server machine: a boothook, because cloud-init fetches it anew and runs it at each boot. It only
 * writes files and starts units: it runs before sysinit.target, and the units do the waiting (docs/facts/cloud.md).
 * On a machine that runs it is applied by apply.sh.
 * @throws Error where the text is over the cloud's limit, with its size.
 */
export function renderUserData(machine: ServerMachine): UserData {
  const { node, snapshots } = machine;
  const timers = ["consul-grow.timer", ...(snapshots ? ["consul-snapshot.timer"] : [])];
  const units = ["consul.service", "consul-acl.service", ...timers];
  const files = filesOf(machine);
  const start = startDigest(machine, files);
  const head = [
    "#cloud-boothook",
    "#!/bin/sh",
    `# Consul server ${node.name}. Runs at every boot; written by Pulumi, changes made here by hand are lost.`,
  ];
  const body = [
    `start=${start}`,
    ...hookBody({
      names: [
        `lib=${scriptDir} etc=${etcDir} acl=${aclDir} consul=${consulPath(machine.version)}`,
        `units="${units.join(" ")}"`,
      ],
      prepare: [`install -d -m 0700 ${aclDir}`, `install -d -m 0755 ${scriptDir}`],
      staged: [etcDir, aclDir, scriptDir, unitDir],
      files,
      script: "machine/converge.sh",
    }),
  ];
  const config = shortDigest([...head, ...body].join("\n"));
  const text = withinLimit([...head, `config=${config}`, ...body].join("\n"), node.name);
  const paths = files.map(({ path }) => path);
  return { text, config, start, files: files.map(fingerprint).join(""), paths };
}

interface Hook {
  /** Shell variables that the script needs. */
  readonly names: readonly string[];
  /** Commands that make directories, beside those of the configuration. */
  readonly prepare: readonly string[];
  /** Every directory that gets a file. */
  readonly staged: readonly string[];
  readonly files: readonly ConsulFile[];
  /** What brings the machine to the staged files. */
  readonly script: ScriptPath;
}

/** A boothook below its first lines: waits for its turn, stages the files, and goes on as a script. */
export function hookBody({ names, prepare, staged, files, script }: Hook): string[] {
  const [secretFiles, publicFiles] = [files.filter(({ secret }) => secret), files.filter(({ secret }) => !secret)];
  return [
    "set -eu",
    "umask 077",
    "# One at a time: a boot, or a change that `pulumi up` applies.",
    "exec 9>/run/consul.lock",
    "flock -w 300 9",
    ...names,
    "stage=/run/consul.stage",
    "trap 'rm -rf \"$stage\"' EXIT",
    "getent passwd consul >/dev/null ||",
    `  useradd --system --user-group --home-dir ${dataMount} --no-create-home --shell /usr/sbin/nologin consul`,
    `install -d -m 0750 -o root -g consul ${etcDir}`,
    ...prepare,
    'rm -rf "$stage"',
    `mkdir -p ${staged.map((directory) => `"$stage${directory}"`).join(" ")}`,
    "",
    "# put PATH MODE GROUP: standard input is to become the file.",
    "put() {",
    '  cat >"$stage$1"',
    '  echo "$1 $2 $3" >>"$stage/list"',
    "}",
    "",
    ...secretFiles.flatMap(put),
    ...packed([...publicFiles.flatMap(put), withoutComments(readScript(script))].join("\n")),
    "",
  ];
}

/** @throws Error where user data is over the cloud's limit, with its size. */
export function withinLimit(text: string, whose: string): string {
  const size = Buffer.byteLength(text);
  if (size <= userDataLimit) return text;
  throw new Error(
    `the user data of ${whose} has ${size} bytes, the cloud takes ${userDataLimit} (32 KB): shorten the settings that go into it`,
  );
}

const packStart = "base64 -d <<'END_OF_PACK' | gzip -dc >\"$stage/pack\"";
const packEnd = "END_OF_PACK";

/**
 * Text for a shell, packed: scripts and units are two thirds of the user data, and would not fit with everything on.
 * By a library of a fixed version, so that every version of Node makes the same bytes.
 */
function packed(text: string): string[] {
  const base64 = Buffer.from(gzipSync(Buffer.from(text), { level: 9, mtime: 0 })).toString("base64");
  return [packStart, ...(base64.match(/.{1,120}/g) ?? []), packEnd, '. "$stage/pack"'];
}

/** User data with its pack in the clear, for people and for tests: the same to a machine. */
export function readableUserData(text: string): string {
  const [before = "", after = ""] = text.split(`${packStart}\n`);
  const [base64 = ""] = after.split(`\n${packEnd}\n`);
  if (base64 === "") return text;
  const unpacked = Buffer.from(gunzipSync(Buffer.from(base64.replace(/\n/g, ""), "base64"))).toString();
  return `${before}# In the text that the machine gets, what follows is packed.\n${unpacked}`;
}

function filesOf(machine: ServerMachine): ConsulFile[] {
  const { node, snapshots } = machine;
  const script = (name: string, content: string) => ({
    path: `${scriptDir}/${name}`,
    mode: "0755",
    content: withoutComments(content),
    secret: false,
  });
  return [
    ...node.files,
    script("install.sh", readScript("machine/install.sh")),
    mirrorFile(machine),
    script("disk.sh", readScript("machine/disk.sh")),
    script("acl.sh", withApi("scripts/acl.sh")),
    { path: "/etc/consul.management-token", mode: "0600", content: `${machine.managementToken}\n`, secret: true },
    ...machine.acl.map(({ file, content }) => ({ path: `${aclDir}/${file}`, mode: "0600", content, secret: true })),
    ...serverUnits(machine),
    ...(snapshots ? snapshotFiles(snapshots, node, scriptDir) : []),
  ];
}

/** Where install.sh finds what it is to install. Not in the unit: another mirror is no reason to restart Consul. */
export function mirrorFile(machine: Pick<ServerMachine, "downloadMirror" | "downloadSha256">): ConsulFile {
  const { downloadMirror, downloadSha256 } = machine;
  const content = `${[downloadMirror, downloadSha256].filter(Boolean).join(" ")}\n`;
  return { path: `${scriptDir}/mirror`, mode: "0644", content, secret: false };
}

function put(file: ConsulFile): string[] {
  const group = file.path.startsWith(`${etcDir}/`) ? "consul" : "root";
  const end = "END_OF_FILE";
  if (file.content.split("\n").includes(end)) throw new Error(`${file.path} has a line ${end}`);
  const content = file.content.endsWith("\n") ? file.content : `${file.content}\n`;
  return [`put ${file.path} ${file.mode} ${group} <<'${end}'`, `${content}${end}`];
}

/** Digest of the unit, which names the version, and of what of the configuration takes a restart. */
function startDigest(machine: ServerMachine, files: readonly ConsulFile[]): string {
  const content = (name: string) => files.find(({ path }) => path.endsWith(`/${name}`))?.content ?? "";
  const config = JSON.parse(content("consul.json")) as Record<string, unknown>;
  const kept = startConfig(config);
  // Certificates, keys and the agent's token are reloaded; gossip keys are changed by the keyring's API.
  return shortDigest(stableJson([content("consul.service"), kept, machine.managementToken]));
}

function shortDigest(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

function fingerprint({ path, content }: ConsulFile): string {
  return createHash("sha256").update(`${path}\n${content}`).digest("base64url").slice(0, fingerprintLength);
}

const fingerprintLength = 3;

/** Names of the files that are new or changed, by the fingerprints of those before. */
export function changedFiles(before: string, { files, paths }: Pick<UserData, "files" | "paths">): string[] {
  const cut = (text: string) => text.match(new RegExp(`.{${fingerprintLength}}`, "g")) ?? [];
  const known = new Set(cut(before));
  return cut(files).flatMap((print, i) => (known.has(print) ? [] : [(paths[i] ?? "").replace(/^.*\//, "")]));
}
