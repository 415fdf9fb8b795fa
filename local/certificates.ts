import "reflect-metadata"; // @peculiar/x509 asks for it
import * as x509 from "@peculiar/x509";
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, webcrypto } from "crypto";
import { isIP } from "net";

// Keys and certificates as the tls provider makes them.

/** The inputs of a resource, by name. */
export type Inputs = Readonly<Record<string, unknown>>;

/** What a provider makes of a resource's inputs. */
export interface Made {
  readonly id: string;
  /** The outputs that are not inputs. */
  readonly outputs: Readonly<Record<string, unknown>>;
}

export const millisecondsPerHour = 3_600_000;

/** As the tls provider does: an ECDSA key in SEC 1, beside it the same in PKCS #8. */
export function privateKey(inputs: Inputs): Made {
  if (inputs.algorithm !== "ECDSA" || inputs.ecdsaCurve !== "P256") {
    throw new Error(`the local PrivateKey makes ECDSA keys on P256, not ${JSON.stringify(inputs)}`);
  }
  const pair = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const publicKeyPem = pair.publicKey.export({ type: "spki", format: "pem" }).toString();
  return {
    id: fingerprint(publicKeyPem),
    outputs: {
      privateKeyPem: pair.privateKey.export({ type: "sec1", format: "pem" }).toString(),
      privateKeyPemPkcs8: pair.privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
      publicKeyPem,
    },
  };
}

export async function selfSignedCert(inputs: Inputs, now: Date): Promise<Made> {
  const keys = await keyPair(inputs.privateKeyPem);
  const publicKey = await x509.PublicKey.create(keys.publicKey);
  return certificate(inputs, now, {
    subject: subject(inputs.subject),
    issuer: subject(inputs.subject),
    publicKey,
    signingKey: keys.privateKey,
    extensions: [
      ...alternativeNames(inputs),
      ...(inputs.setAuthorityKeyId ? [await x509.AuthorityKeyIdentifierExtension.create(publicKey)] : []),
    ],
  });
}

export async function certRequest(inputs: Inputs): Promise<Made> {
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: subject(inputs.subject),
    keys: await keyPair(inputs.privateKeyPem),
    signingAlgorithm: signing,
    extensions: alternativeNames(inputs),
  });
  const certRequestPem = pem(request);
  return { id: fingerprint(certRequestPem), outputs: { certRequestPem, keyAlgorithm: "ECDSA" } };
}

export async function locallySignedCert(inputs: Inputs, now: Date): Promise<Made> {
  const request = new x509.Pkcs10CertificateRequest(String(inputs.certRequestPem));
  if (!(await request.verify())) throw new Error("the certificate request is not signed by its own key");
  const ca = new x509.X509Certificate(String(inputs.caCertPem));
  const caKeyId = ca.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
  return certificate(inputs, now, {
    subject: request.subjectName.toJSON(),
    issuer: ca.subjectName.toJSON(),
    publicKey: request.publicKey,
    signingKey: (await keyPair(inputs.caPrivateKeyPem)).privateKey,
    extensions: [
      ...request.extensions.filter((extension) => extension instanceof x509.SubjectAlternativeNameExtension),
      ...(caKeyId === undefined ? [] : [new x509.AuthorityKeyIdentifierExtension(caKeyId)]),
    ],
  });
}

interface CertificateParts {
  readonly subject: x509.JsonName;
  readonly issuer: x509.JsonName;
  readonly publicKey: x509.PublicKey;
  readonly signingKey: webcrypto.CryptoKey;
  readonly extensions: readonly x509.Extension[];
}

async function certificate(inputs: Inputs, now: Date, parts: CertificateParts): Promise<Made> {
  // A certificate has whole seconds.
  const start = new Date(Math.floor(now.getTime() / 1000) * 1000);
  const end = new Date(start.getTime() + Number(inputs.validityPeriodHours) * millisecondsPerHour);
  const made = await x509.X509CertificateGenerator.create({
    // Positive, as RFC 5280 wants it, and not to be guessed.
    serialNumber: `01${randomBytes(15).toString("hex")}`,
    subject: parts.subject,
    issuer: parts.issuer,
    notBefore: start,
    notAfter: end,
    publicKey: parts.publicKey,
    signingKey: parts.signingKey,
    signingAlgorithm: signing,
    extensions: [
      new x509.BasicConstraintsExtension(inputs.isCaCertificate === true, undefined, true),
      ...uses(inputs.allowedUses as readonly string[]),
      ...(inputs.setSubjectKeyId ? [await x509.SubjectKeyIdentifierExtension.create(parts.publicKey)] : []),
      ...parts.extensions,
    ],
  });
  const certPem = pem(made);
  const time = (date: Date) => date.toISOString().replace(".000Z", "Z");
  return {
    id: fingerprint(certPem),
    outputs: {
      certPem,
      keyAlgorithm: "ECDSA",
      readyForRenewal: false,
      validityStartTime: time(start),
      validityEndTime: time(end),
    },
  };
}

const signing = { name: "ECDSA", hash: "SHA-256" };
const curve = { name: "ECDSA", namedCurve: "P-256" };

/** A PEM key for the web's crypto interface, which x509 works with. */
async function keyPair(keyPem: unknown): Promise<webcrypto.CryptoKeyPair> {
  const key = createPrivateKey(String(keyPem));
  const privateDer = key.export({ type: "pkcs8", format: "der" });
  const publicDer = createPublicKey(key).export({ type: "spki", format: "der" });
  return {
    privateKey: await webcrypto.subtle.importKey("pkcs8", privateDer, curve, false, ["sign"]),
    publicKey: await webcrypto.subtle.importKey("spki", publicDer, curve, true, ["verify"]),
  };
}

function subject(given: unknown): x509.JsonName {
  const { commonName, organization, ...others } = given as Record<string, string | undefined>;
  const unknown = Object.keys(others);
  if (unknown.length > 0) throw new Error(`a local certificate's subject does not know ${unknown.join(", ")}`);
  return [...(organization ? [{ O: [organization] }] : []), ...(commonName ? [{ CN: [commonName] }] : [])];
}

function alternativeNames({ dnsNames, ipAddresses }: Inputs): x509.Extension[] {
  const names = ((dnsNames ?? []) as string[]).map((value) => ({ type: "dns" as const, value }));
  const addresses = ((ipAddresses ?? []) as string[]).map((value) => ({ type: "ip" as const, value }));
  const wrong = addresses.find(({ value }) => isIP(value) === 0);
  if (wrong) throw new Error(`${wrong.value} is not an IP address that a certificate could name`);
  const all = [...names, ...addresses];
  return all.length > 0 ? [new x509.SubjectAlternativeNameExtension(all)] : [];
}

const keyUses: Readonly<Record<string, number>> = {
  digital_signature: x509.KeyUsageFlags.digitalSignature,
  key_encipherment: x509.KeyUsageFlags.keyEncipherment,
  cert_signing: x509.KeyUsageFlags.keyCertSign,
  crl_signing: x509.KeyUsageFlags.cRLSign,
};
const extendedUses: Readonly<Record<string, string>> = {
  server_auth: x509.ExtendedKeyUsage.serverAuth,
  client_auth: x509.ExtendedKeyUsage.clientAuth,
};

function uses(allowed: readonly string[]): x509.Extension[] {
  const unknown = allowed.filter((use) => !Object.hasOwn(keyUses, use) && !Object.hasOwn(extendedUses, use));
  if (unknown.length > 0) throw new Error(`a local certificate's allowedUses do not know ${unknown.join(", ")}`);
  const flags = allowed.reduce((sum, use) => sum | (keyUses[use] ?? 0), 0);
  const extended = allowed.flatMap((use) => extendedUses[use] ?? []);
  return [
    // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment -- flags that are added up are a number
    ...(flags > 0 ? [new x509.KeyUsagesExtension(flags, true)] : []),
    ...(extended.length > 0 ? [new x509.ExtendedKeyUsageExtension(extended)] : []),
  ];
}

/** PEM with the newline at its end that files and other tools expect. */
function pem(data: { toString(format: "pem"): string }): string {
  return `${data.toString("pem").trimEnd()}\n`;
}

function fingerprint(text: string): string {
  return createHash("sha1").update(text).digest("hex");
}
