import { readFileSync } from "fs";
import { join } from "path";

/** A public key, and the fingerprint that says whose it is. */
export interface SigningKey {
  /** ASCII-armoured. */
  readonly armored: string;
  /** Of the primary key, as hexadecimal digits with or without spaces. */
  readonly fingerprint: string;
}

/** HashiCorp's key for releases; docs/facts/consul.md says where it comes from. */
export const hashicorpKey: SigningKey = {
  armored: readFileSync(join(__dirname, "hashicorp.asc"), "utf8"),
  fingerprint: "C874 011F 0AB4 0511 0D02 1055 3436 5D94 72D7 468F",
};

/**
 * Checks a detached signature.
 * @throws one line, where the key is not the one of the fingerprint, or the signature is not of that key, made while it was
 * valid, and for these bytes
 */
export async function checkSignature(signed: Uint8Array, signature: Uint8Array, key: SigningKey): Promise<void> {
  // Loaded here and not above: nothing else needs it.
  const openpgp = await import("openpgp");
  const verificationKeys = (await openpgp.readKey({ armoredKey: key.armored })).toPublic();
  const wanted = key.fingerprint.replace(/\s/g, "").toLowerCase();
  if (verificationKeys.getFingerprint() !== wanted) {
    throw new Error(`the committed key has the fingerprint ${verificationKeys.getFingerprint()}, not ${wanted}`);
  }
  const { signatures } = await openpgp.verify({
    message: await openpgp.createMessage({ binary: signed }),
    signature: await openpgp.readSignature({ binarySignature: signature }).catch((cause: unknown) => {
      throw new Error(`what should be a signature is none (${(cause as Error).message})`, { cause });
    }),
    verificationKeys,
    format: "binary",
  });
  const [first] = signatures;
  if (first === undefined) throw new Error("there is no signature in it");
  await first.verified;
}
