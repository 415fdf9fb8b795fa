import "reflect-metadata"; // @peculiar/x509 asks for it
import * as x509 from "@peculiar/x509";
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  randomInt,
  webcrypto,
} from "crypto";
import { chmodSync, existsSync, readFileSync, renameSync, writeFileSync } from "fs";
import { isIP } from "net";
import { stableJson } from "../consul/node";
import { uuid } from "../consul/secrets";
import type { Provided, Providers } from "./program";

type Inputs = Readonly<Record<string, unknown>>;

/** What is remembered of one resource: a fingerprint of its inputs, and what was made for them. */
interface Remembered extends Made {
  readonly inputs: string;
}

interface StateFile {
  /** Names these keys: data that was written with them carries it too. */
  readonly id: string;
  readonly resources: Record<string, Remembered>;
}

interface Made {
  readonly id: string;
  /** The outputs that are not inputs. */
  readonly outputs: Readonly<Record<string, unknown>>;
}

/** One type of resource: the inputs that it heeds, and how it is made from them. */
interface Kind {
  readonly inputs: readonly string[];
  readonly make: (inputs: Inputs, now: Date) => Made | Promise<Made>;
}

/**
 * Answers for the random and tls resources of this program as their providers would: with real passwords, keys and
 * certificates. It remembers them in a file, so the same inputs give the same result at the next start; what has other
 * inputs, or a certificate inside its `earlyRenewalHours`, is made anew.
 */
export class LocalProviders implements Providers {
  private readonly state: StateFile;

  /**
   * @param file where results are kept, mode 0600: it holds private keys
   * @param now the clock that certificates go by
   * @throws where the file is there and cannot be read
   */
  constructor(
    private readonly file: string,
    private readonly now: () => Date = () => new Date(),
  ) {
    this.state = existsSync(file) ? readState(file) : { id: randomBytes(8).toString("hex"), resources: {} };
  }

  /** Names the keys in the file; made with the file and never changed. */
  get id(): string {
    return this.state.id;
  }

  async resource({ type, name, inputs }: Parameters<Providers["resource"]>[0]): Promise<Provided> {
    const given = inputs as Inputs;
    const kind = Object.hasOwn(kinds, type) ? kinds[type] : undefined;
    if (!kind) throw new Error(`${name}: there is no local provider for a ${type}, see local/providers.ts`);
    const unknown = Object.keys(given).filter((key) => !kind.inputs.includes(key));
    if (unknown.length > 0) throw new Error(`${name}: the local ${type} does not know ${unknown.join(", ")}`);

    const key = `${type}::${name}`;
    const fingerprint = createHash("sha256").update(stableJson(given)).digest("hex");
    let known = this.state.resources[key];
    if (known?.inputs !== fingerprint || this.isDue(known, given)) {
      known = { inputs: fingerprint, ...(await kind.make(given, this.now())) };
      this.state.resources[key] = known;
    }
    return { id: known.id, state: { ...given, ...known.outputs } };
  }

  call({ token }: Parameters<Providers["call"]>[0]): never {
    throw new Error(`there is no local provider for the function ${token}, see local/providers.ts`);
  }

  /** Writes what is remembered, all of it or nothing. */
  save(): void {
    const temporary = `${this.file}.${process.pid}.tmp`;
    writeFileSync(temporary, stableJson(this.state), { mode: 0o600 });
    chmodSync(temporary, 0o600);
    renameSync(temporary, this.file);
  }

  private isDue({ outputs }: Remembered, inputs: Inputs): boolean {
    if (typeof outputs.validityEndTime !== "string") return false;
    const early = Number(inputs.earlyRenewalHours ?? 0) * hour;
    return this.now().getTime() + early >= Date.parse(outputs.validityEndTime);
  }
}

function readState(file: string): StateFile {
  try {
    const state = JSON.parse(readFileSync(file, "utf8")) as Partial<StateFile>;
    if (typeof state.id !== "string" || typeof state.resources !== "object") throw new Error("it has no keys in it");
    return state as StateFile;
  } catch (error) {
    const [why = ""] = (error as Error).message.split("\n");
    throw new Error(`${file} cannot be read (${why}): put a copy of it back, or forget keys and data with --reset`, {
      cause: error,
    });
  }
}

const hour = 3_600_000;
const certificateInputs = [
  ...["allowedUses", "dnsNames", "earlyRenewalHours", "ipAddresses", "isCaCertificate", "privateKeyPem"],
  ...["setAuthorityKeyId", "setSubjectKeyId", "subject", "validityPeriodHours"],
];

const kinds: Readonly<Record<string, Kind>> = {
  "random:index/randomPassword:RandomPassword": {
    inputs: ["length", "lower", "upper", "numeric", "special", "overrideSpecial"],
    make: randomPassword,
  },
  "random:index/randomUuid7:RandomUuid7": { inputs: [], make: randomUuid7 },
  "tls:index/privateKey:PrivateKey": { inputs: ["algorithm", "ecdsaCurve"], make: privateKey },
  "tls:index/selfSignedCert:SelfSignedCert": { inputs: certificateInputs, make: selfSignedCert },
  "tls:index/certRequest:CertRequest": {
    inputs: ["privateKeyPem", "subject", "dnsNames", "ipAddresses"],
    make: certRequest,
  },
  "tls:index/locallySignedCert:LocallySignedCert": {
    inputs: [
      ...["allowedUses", "caCertPem", "caPrivateKeyPem", "certRequestPem", "earlyRenewalHours"],
      ...["isCaCertificate", "setSubjectKeyId", "validityPeriodHours"],
    ],
    make: locallySignedCert,
  },
};

function randomPassword(inputs: Inputs): Made {
  const alphabet = [
    inputs.lower === false ? "" : "abcdefghijklmnopqrstuvwxyz",
    inputs.upper === false ? "" : "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    inputs.numeric === false ? "" : "0123456789",
    inputs.special === false ? "" : ((inputs.overrideSpecial as string | undefined) ?? "!@#$%&*()-_=+[]{}<>:?"),
  ].join("");
  const result = Array.from({ length: Number(inputs.length) }, () => alphabet.charAt(randomInt(alphabet.length)));
  return { id: "none", outputs: { result: result.join("") } };
}

function randomUuid7(_: Inputs, now: Date): Made {
  const time = now.getTime().toString(16).padStart(12, "0");
  const random = randomBytes(10).toString("hex");
  const variant = ((parseInt(random.charAt(3), 16) & 0x3) | 0x8).toString(16);
  const digits = `${time}7${random.slice(0, 3)}${variant}${random.slice(4, 19)}`;
  const result = uuid(digits);
  return { id: result, outputs: { result } };
}

/** As the tls provider does: an ECDSA key in SEC 1, beside it the same in PKCS #8. */
function privateKey(inputs: Inputs): Made {
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

async function selfSignedCert(inputs: Inputs, now: Date): Promise<Made> {
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

async function certRequest(inputs: Inputs): Promise<Made> {
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: subject(inputs.subject),
    keys: await keyPair(inputs.privateKeyPem),
    signingAlgorithm: signing,
    extensions: alternativeNames(inputs),
  });
  const certRequestPem = pem(request);
  return { id: fingerprint(certRequestPem), outputs: { certRequestPem, keyAlgorithm: "ECDSA" } };
}

async function locallySignedCert(inputs: Inputs, now: Date): Promise<Made> {
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
  const end = new Date(start.getTime() + Number(inputs.validityPeriodHours) * hour);
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
