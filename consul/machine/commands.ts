import { createCipheriv, pbkdf2Sync, randomBytes } from "crypto";
import { passes, Sample, View } from "../quorum";
import { ScriptPath, withApi } from "../scripts";

/** The arguments of quorum.sh for one pass. */
export const quorumArguments = [String(passes.samples), String(passes.seconds)];

/** What quorum.sh printed. */
export function readView(output: string): View {
  try {
    return {
      samples: output
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Sample),
    };
  } catch {
    return { problem: `it printed ${JSON.stringify(output.slice(0, 200))}` };
  }
}

const end = "END_OF_SCRIPT";

/**
 * Commands for a server machine, to be run there as root through Cloud Assistant: scripts with their arguments, one
 * after the other until one fails. Arguments hold no quotes and no secrets: the cloud keeps what it is sent for weeks.
 */
export function machineCommand(...steps: readonly (readonly [ScriptPath, ...string[]])[]): string {
  return [
    ...machineHead,
    ...steps.map(([name, ...words]) => {
      const quoted = words.map((word) => `'${word}'`).join(" ");
      return `sh -s -- ${quoted} <<'${end}'\n${withApi(name)}${end}`;
    }),
    "",
  ].join("\n");
}

const machineHead = [
  "#!/bin/sh",
  "set -eu",
  "export CONSUL_HTTP_ADDR=http://127.0.0.1:8500 CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token",
];

/**
 * As machineCommand, for `keyring.sh use`: the key travels sealed with the management token, which the machine has in
 * a file that only root reads. Needs openssl there, which every image has that can check certificates.
 */
export function machineKeyring(gossipKey: string, managementToken: string): string {
  return [
    ...machineHead,
    "umask 077",
    "key=$(mktemp)",
    `trap 'rm -f "$key"' EXIT`,
    `openssl enc -d -aes-256-cbc -pbkdf2 -md sha256 -base64 -A -pass "file:$CONSUL_HTTP_TOKEN_FILE" <<'${end}' >"$key"`,
    seal(gossipKey, managementToken),
    end,
    `sh -s -- use "$key" <<'${end}'\n${withApi("scripts/keyring.sh")}${end}`,
    "",
  ].join("\n");
}

/**
 * Takes away what no node needs any more: gossip keys but the one with this digest, agents' tokens but those in the
 * files that user data left on the machine. No policy goes with them: none begins with a capital letter.
 */
export function machineRetire(gossipDigest: string): string {
  const revoke = "ACL_PREFIX=Agents /usr/local/lib/consul/acl.sh /etc/consul.acl\n";
  return machineCommand(["scripts/keyring.sh", "only", gossipDigest]) + revoke;
}

/** Encrypts as `openssl enc -aes-256-cbc -pbkdf2 -md sha256 -base64 -A` does, with the passphrase's first line. */
export function seal(text: string, passphrase: string): string {
  const salt = randomBytes(8);
  const derived = pbkdf2Sync(passphrase, salt, 10_000, 48, "sha256");
  const cipher = createCipheriv("aes-256-cbc", derived.subarray(0, 32), derived.subarray(32));
  return Buffer.concat([Buffer.from("Salted__"), salt, cipher.update(text), cipher.final()]).toString("base64");
}
