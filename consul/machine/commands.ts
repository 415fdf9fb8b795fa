import { createCipheriv, pbkdf2Sync, randomBytes } from "crypto";
import { accessorId, owners } from "../acl";
import { digests, GossipKeys, keyringText } from "../gossip";
import { passes, Sample, sampleOf, View } from "../quorum";
import { ScriptPath, withApi } from "../scripts";
import { aclDir } from "./layout";

/** A script that a server's machine runs as root, and its arguments. Nothing in them is secret: the cloud keeps what it is sent for weeks. */
export interface Call {
  readonly script: ScriptPath;
  readonly args: readonly string[];
  /** More of the script's environment. */
  readonly environment?: Readonly<Record<string, string>>;
  /** A secret, for a file whose name becomes the last argument. It travels sealed with the management token. */
  readonly sealed?: { readonly secret: string; readonly managementToken: string };
}

/** What a machine is asked to do: its calls one after the other, until one fails. */
export type Command = readonly Call[];

/** Asks a server what it knows of the cluster, for one pass of the gate. */
export const askQuorum: Command = [
  { script: "machine/quorum.sh", args: [String(passes.samples), String(passes.seconds)] },
];

/** Installs a version of Consul beside the one that runs, so that nothing points to a version that cannot be had. */
export function install(version: string, mirror: string, sha256: string): Command {
  return [{ script: "machine/install.sh", args: [version, mirror, ...(sha256 === "" ? [] : [sha256])] }];
}

/** What came of applying user data to a machine that runs. */
export type Applied = "reloaded" | "restarted" | "unchanged" | "restart needed";

/** Seconds for which the metadata service may hand out older user data than what was stored. */
const staleSeconds = 120;

/** Applies the user data that was stored, once the machine's metadata service hands it out. */
export function apply(config: string, how: "reload" | "restart"): Command {
  return [{ script: "machine/apply.sh", args: [config, how, String(staleSeconds)] }];
}

/** What apply.sh printed in its last line. */
export function readApplied(output: string): Applied {
  const last = output.trim().split("\n").at(-1) ?? "";
  if (["reloaded", "restarted", "unchanged", "restart needed"].includes(last)) return last as Applied;
  throw new Error(`apply.sh printed ${JSON.stringify(output.slice(-200))}`);
}

/** Makes these keys known to every member of the cluster, and has all of them encrypt gossip with the first. */
export function useGossipKeys(keys: GossipKeys, managementToken: string): Command {
  return [{ script: "scripts/keyring.sh", args: ["use"], sealed: { secret: keyringText(keys), managementToken } }];
}

/**
 * Takes away what no node needs any more: agents' tokens but those in the files that user data left on the machine, and
 * gossip keys but these.
 */
export function retire(keys: GossipKeys): Command {
  return [
    { script: "scripts/acl.sh", args: [aclDir], environment: { ACL_OWNER: owners.agents } },
    { script: "scripts/keyring.sh", args: ["only", digests(keys)] },
  ];
}

/** Asks whether members know other gossip keys than these, or agents have other tokens than this one: a word for each. */
export function unwanted(keys: GossipKeys, agentToken: string): Command {
  return [{ script: "scripts/unwanted.sh", args: [owners.agents, accessorId(agentToken), digests(keys)] }];
}

/** Asks a server for the dates of its certificate, and for what its clock says. */
export const certificateDates: Command = [{ script: "machine/certificate.sh", args: ["dates"] }];

/** What certificate.sh says of dates: seconds since 1970. */
export interface CertificateDates {
  readonly from: number;
  readonly until: number;
  /** By the server's own clock. */
  readonly now: number;
}

/** What certificate.sh printed; undefined where that is nothing, as by machines that are not there. */
export function readDates(output: string): CertificateDates | undefined {
  const [from, until, now] = output.trim().split(" ").map(Number);
  return from && until && now ? { from, until, now } : undefined;
}

/** Gives a server another certificate while it runs. @param pem certificate and key */
export function renewCertificate(pem: string, managementToken: string): Command {
  return [{ script: "machine/certificate.sh", args: ["renew"], sealed: { secret: pem, managementToken } }];
}

/** What quorum.sh printed. */
export function readView(output: string): View {
  try {
    return {
      samples: output
        .trim()
        .split("\n")
        .map((line) => sampleOf(JSON.parse(line) as Sample)),
    };
  } catch {
    return { problem: `it printed ${JSON.stringify(output.slice(0, 200))}` };
  }
}

const end = "END_OF_SCRIPT";

const head = ["#!/bin/sh", "set -eu"];
const machine = "export CONSUL_HTTP_ADDR=http://127.0.0.1:8500 CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token";

/** A command as text for a shell of a server's machine. */
export function commandText(command: Command): string {
  return [...head, machine, ...command.flatMap(callText), ""].join("\n");
}

/** A command as text for a shell whose environment says already where Consul and its token are, as in a pod. */
export function plainCommandText(command: Command): string {
  return [...head, ...command.flatMap(callText), ""].join("\n");
}

function callText({ script, args, environment = {}, sealed }: Call): string[] {
  const words = args.map(quoted);
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${quoted(value)} `);
  const run = (all: readonly string[]) =>
    `${variables.join("")}sh -s -- ${all.join(" ")} <<'${end}'\n${withApi(script)}${end}`;
  if (sealed === undefined) return [run(words)];
  return [
    "umask 077",
    "secret=$(mktemp)",
    `trap 'rm -f "$secret"' EXIT`,
    // Every image that can check certificates has openssl.
    `openssl enc -d -aes-256-cbc -pbkdf2 -md sha256 -base64 -A -pass "file:$CONSUL_HTTP_TOKEN_FILE" <<'${end}' >"$secret"`,
    seal(sealed.secret, sealed.managementToken),
    end,
    run([...words, `"$secret"`]),
  ];
}

/** A word that a shell takes as it is, whatever is in it. */
function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** Encrypts as `openssl enc -aes-256-cbc -pbkdf2 -md sha256 -base64 -A` does, with the passphrase's first line. */
export function seal(text: string, passphrase: string): string {
  const salt = randomBytes(8);
  const derived = pbkdf2Sync(passphrase, salt, 10_000, 48, "sha256");
  const cipher = createCipheriv("aes-256-cbc", derived.subarray(0, 32), derived.subarray(32));
  return Buffer.concat([Buffer.from("Salted__"), salt, cipher.update(text), cipher.final()]).toString("base64");
}
