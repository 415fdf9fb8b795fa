import { deepEqual, equal, match, notEqual, ok, rejects, throws } from "assert/strict";
import { createPrivateKey, createPublicKey, X509Certificate } from "crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { uuid7Time } from "../../consul/secrets";
import { LocalProviders } from "../../local/providers";

const types = {
  password: "random:index/randomPassword:RandomPassword",
  uuid7: "random:index/randomUuid7:RandomUuid7",
  key: "tls:index/privateKey:PrivateKey",
  selfSigned: "tls:index/selfSignedCert:SelfSignedCert",
  request: "tls:index/certRequest:CertRequest",
  signed: "tls:index/locallySignedCert:LocallySignedCert",
};
const p256 = { algorithm: "ECDSA", ecdsaCurve: "P256" };
const day = 24 * 3600 * 1000;

describe("local providers", () => {
  let dir: string;
  let file: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "providers-"));
    file = join(dir, "state.json");
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  const make = async (providers: LocalProviders, type: string, name: string, inputs: Record<string, unknown>) =>
    (await providers.resource({ type, name, inputs })).state as Record<string, string>;

  /** A CA and a server's certificate signed by the CA, requested as components/trust.ts requests them. */
  async function trust(providers: LocalProviders, addresses = ["127.0.0.1", "10.0.0.1"]) {
    const caKey = (await make(providers, types.key, "ca-key", p256)).privateKeyPem;
    const ca = await make(providers, types.selfSigned, "ca", {
      privateKeyPem: caKey,
      isCaCertificate: true,
      setSubjectKeyId: true,
      subject: { commonName: "Consul CA 1 dc1", organization: "Consul" },
      allowedUses: ["cert_signing", "crl_signing", "digital_signature"],
      validityPeriodHours: 3650 * 24,
    });
    const key = (await make(providers, types.key, "server-key", p256)).privateKeyPem;
    const request = await make(providers, types.request, "request", {
      privateKeyPem: key,
      subject: { commonName: "server.dc1.consul" },
      dnsNames: ["server.dc1.consul", "localhost"],
      ipAddresses: addresses,
    });
    const cert = await make(providers, types.signed, "cert", {
      certRequestPem: request.certRequestPem,
      caPrivateKeyPem: caKey,
      caCertPem: ca.certPem,
      allowedUses: ["digital_signature", "key_encipherment", "server_auth", "client_auth"],
      validityPeriodHours: 365 * 24,
      earlyRenewalHours: 60 * 24,
    });
    return { ca, cert, key: key ?? "", parsedCa: parsed(ca), parsedCert: parsed(cert) };
  }
  const parsed = ({ certPem }: Record<string, string>) => new X509Certificate(certPem ?? "");

  it("makes passwords of the length and the characters that are asked for", async () => {
    const providers = new LocalProviders(file);
    const hexOnly = { special: true, overrideSpecial: "0123456789abcdef", lower: false, upper: false, numeric: false };
    const { result } = await make(providers, types.password, "a", { ...hexOnly, length: 64 });
    match(result ?? "", /^[0-9a-f]{64}$/);
    const other = await make(providers, types.password, "b", { ...hexOnly, length: 64 });
    notEqual(other.result, result);
    const letters = await make(providers, types.password, "c", { length: 200, special: false, numeric: false });
    match(letters.result ?? "", /^[A-Za-z]{200}$/);
  });

  it("makes version 7 UUIDs that hold the time", async () => {
    const now = new Date("2026-11-21T08:00:00.123Z");
    const { result = "" } = await make(new LocalProviders(file, () => now), types.uuid7, "since", {});
    match(result, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    equal(uuid7Time(result).getTime(), now.getTime());
  });

  it("makes a CA that may sign, and a server's certificate that it has signed, with its names and uses", async () => {
    const now = new Date("2026-11-21T08:00:00.900Z");
    const { ca, cert, key, parsedCa, parsedCert } = await trust(new LocalProviders(file, () => now));
    ok(parsedCa.ca);
    ok(parsedCa.verify(parsedCa.publicKey));
    ok(parsedCa.subject.includes("CN=Consul CA 1 dc1") && parsedCa.subject.includes("O=Consul"), parsedCa.subject);
    equal(parsedCa.keyUsage, undefined, "the CA's certificate is for signing, not for servers");

    ok(!parsedCert.ca);
    ok(parsedCert.checkIssued(parsedCa));
    ok(parsedCert.verify(parsedCa.publicKey));
    ok(!parsedCert.verify(parsedCert.publicKey));
    ok(parsedCert.checkPrivateKey(createPrivateKey(key)));
    match(key, /^-----BEGIN EC PRIVATE KEY-----\n/);
    equal(createPublicKey(key).asymmetricKeyDetails?.namedCurve, "prime256v1");
    equal(parsedCert.subjectAltName, "DNS:server.dc1.consul, DNS:localhost, IP Address:127.0.0.1, IP Address:10.0.0.1");
    deepEqual(parsedCert.keyUsage, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"], "server and client");

    for (const [certificate, outputs, days] of [
      [parsedCa, ca, 3650],
      [parsedCert, cert, 365],
    ] as const) {
      equal(outputs.validityStartTime, "2026-11-21T08:00:00Z");
      equal(Date.parse(certificate.validTo), Date.parse(outputs.validityEndTime ?? ""));
      equal(Date.parse(certificate.validTo) - Date.parse(certificate.validFrom), days * day);
    }
    notEqual(parsedCa.serialNumber, parsedCert.serialNumber);
  });

  it("gives the same again for the same inputs, at the next start too, and something new for others", async () => {
    const first = new LocalProviders(file);
    const before = await trust(first);
    first.save();
    const second = new LocalProviders(file);
    const after = await trust(second);
    equal(second.id, first.id);
    deepEqual([after.ca, after.cert, after.key], [before.ca, before.cert, before.key]);
    const moved = await trust(second, ["127.0.0.1", "10.0.0.9"]);
    equal(moved.key, before.key);
    equal(moved.ca.certPem, before.ca.certPem);
    match(moved.parsedCert.subjectAltName ?? "", /10\.0\.0\.9/);
    notEqual(new LocalProviders(join(dir, "other.json")).id, first.id);
  });

  it("renews a certificate inside its early renewal, and the CA's with all that it has signed once it has ended", async () => {
    let now = new Date("2026-01-01T00:00:00Z");
    const providers = new LocalProviders(file, () => now);
    const first = await trust(providers);
    now = new Date(now.getTime() + (365 - 60) * day - 1000);
    equal((await trust(providers)).cert.certPem, first.cert.certPem, "a second before");
    now = new Date(now.getTime() + 1000);
    const renewed = await trust(providers);
    notEqual(renewed.cert.certPem, first.cert.certPem);
    equal(renewed.key, first.key);
    equal(renewed.ca.certPem, first.ca.certPem);
    ok(renewed.parsedCert.verify(first.parsedCa.publicKey));
    now = new Date(Date.parse(first.parsedCa.validTo));
    const later = await trust(providers);
    notEqual(later.ca.certPem, first.ca.certPem);
    ok(later.parsedCert.checkIssued(later.parsedCa));
  });

  it("keeps the file to its owner, and leaves no half-written one", async () => {
    const providers = new LocalProviders(file);
    await trust(providers);
    providers.save();
    equal(statSync(file).mode & 0o777, 0o600);
    writeFileSync(file, readFileSync(file, "utf8").slice(0, 100));
    throws(() => new LocalProviders(file), /state\.json cannot be read \(.*--reset/);
  });

  it("refuses what it cannot answer for", async () => {
    const providers = new LocalProviders(file);
    await rejects(
      make(providers, "random:index/randomPet:RandomPet", "pet", {}),
      /^Error: pet: .* RandomPet|randomPet/,
    );
    await rejects(make(providers, types.key, "rsa", { algorithm: "RSA" }), /ECDSA keys on P256, not .*RSA/);
    await rejects(make(providers, types.password, "p", { length: 8, minUpper: 3 }), /minUpper/);
    throws(() => providers.call({ token: "tls:index/getCertificate:getCertificate", inputs: {} }), /getCertificate/);
    const key = (await make(providers, types.key, "k", p256)).privateKeyPem;
    const cert = { privateKeyPem: key, subject: { commonName: "x" }, validityPeriodHours: 1, allowedUses: ["any"] };
    await rejects(make(providers, types.selfSigned, "c", cert), /allowedUses .* any/);
  });
});
