import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { createHash, createHmac } from "crypto";
import { zipSync } from "fflate";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "fs";
import { createServer, IncomingMessage, Server } from "http";
import { AddressInfo } from "net";
import { createMessage, generateKey, readKey, readPrivateKey, sign } from "openpgp";
import { tmpdir } from "os";
import { join } from "path";
import { Misuse } from "../../local/command";
import { bucketPlace } from "../../local/mirror/bucket";
import { mirror } from "../../local/mirror/mirror";
import { checkSignature, hashicorpKey, SigningKey } from "../../local/mirror/signature";
import { pinnedVersion } from "../../local/program";

const version = pinnedVersion;
const zipName = `consul_${version}_linux_amd64.zip`;
const sumsName = `consul_${version}_SHA256SUMS`;
const secrets = { id: "LTAI-example", secret: "examplesecret" };

interface Signer {
  readonly key: SigningKey;
  signed(text: Uint8Array): Promise<Uint8Array>;
}

async function signer(): Promise<Signer> {
  const { publicKey, privateKey } = await generateKey({
    userIDs: [{ name: "A maker of releases" }],
    format: "armored",
  });
  const fingerprint = (await readKey({ armoredKey: publicKey })).getFingerprint().toUpperCase();
  const signingKeys = await readPrivateKey({ armoredKey: privateKey });
  return {
    key: { armored: publicKey, fingerprint },
    signed: async (text) => {
      const message = await createMessage({ binary: text });
      return (await sign({ message, signingKeys, detached: true, format: "binary" })) as Uint8Array;
    },
  };
}

/** A version 4 signature of OSS for a request whose body is not signed, written independently of the library. */
function signatureOf(request: IncomingMessage, bucket: string, region: string): string {
  const { headers, method = "", url = "" } = request;
  const moment = String(headers["x-oss-date"]);
  const names = Object.keys(headers).filter((name) => /^(content-type|content-md5|x-oss-.*)$/.test(name));
  const lines = names.sort().map((name) => `${name}:${String(headers[name]).trim()}\n`);
  const path = url.startsWith(`/${bucket}/`) ? url : `/${bucket}${url}`;
  const canonical = [method, path, "", lines.join(""), "", "UNSIGNED-PAYLOAD"].join("\n");
  const scope = `${moment.slice(0, 8)}/${region}/oss/aliyun_v4_request`;
  const text = ["OSS4-HMAC-SHA256", moment, scope, createHash("sha256").update(canonical).digest("hex")].join("\n");
  const hmac = (key: string | Buffer, value: string) => createHmac("sha256", key).update(value).digest();
  return hmac(scope.split("/").reduce<string | Buffer>(hmac, `aliyun_v4${secrets.secret}`), text).toString("hex");
}

describe("npm run mirror", function () {
  this.timeout(60_000);
  let maker: Signer;
  let directory: string;
  let servers: Server[];
  let said: string[];
  const zip = zipSync({ consul: Buffer.from("not really"), "LICENSE.txt": Buffer.from("words") });
  const sum = createHash("sha256").update(zip).digest("hex");
  const sums = Buffer.from(`${"0".repeat(64)}  consul_${version}_linux_arm64.zip\n${sum}  ${zipName}\n`);

  before(async () => (maker = await signer()));
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "mirror-"));
    servers = [];
    said = [];
  });
  afterEach(() => {
    for (const server of servers) server.close().closeAllConnections();
    rmSync(directory, { recursive: true });
  });

  async function listen(server: Server): Promise<string> {
    servers.push(server);
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  /** A server of releases; undefined files are not there. */
  async function releases(changed: Readonly<Record<string, Uint8Array | undefined>> = {}): Promise<string> {
    const files: Record<string, Uint8Array | undefined> = {
      [zipName]: zip,
      [sumsName]: sums,
      [`${sumsName}.sig`]: await maker.signed(sums),
      ...changed,
    };
    const prefix = `/consul/${version}/`;
    const server = createServer(({ url = "" }, response) => {
      const body = url.startsWith(prefix) ? files[url.slice(prefix.length)] : undefined;
      if (body === undefined) response.writeHead(404).end();
      else response.end(body);
    });
    return `${await listen(server)}/consul`;
  }

  const run = (wanted: Parameters<typeof mirror>[0]) => mirror(wanted, (line) => said.push(line), maker.key);

  it("puts a signed release where downloadMirror finds it, and says which settings go with it", async () => {
    const to = join(directory, "new", "consul");
    deepEqual(await run({ to, from: await releases() }), [
      "consul:downloadMirror: https://<where you serve that directory>",
      `consul:downloadSha256: ${sum}`,
    ]);
    deepEqual(readdirSync(join(to, version)).sort(), [sumsName, `${sumsName}.sig`, zipName].sort());
    ok(readFileSync(join(to, version, zipName)).equals(zip));
    ok(said.some((line) => line.endsWith(`has a good signature of ${maker.key.fingerprint}`)));
  });

  describe("refuses, and writes nothing,", () => {
    const refused = async (why: RegExp, changed: Readonly<Record<string, Uint8Array | undefined>>) => {
      const to = join(directory, "consul");
      await rejects(run({ to, from: await releases(changed) }), why);
      ok(!existsSync(to));
    };

    it("a signature of somebody else", async () => {
      const other = await (await signer()).signed(sums);
      await refused(/^Error: refused: .*SHA256SUMS has no signature of HashiCorp's key \(.*\); nothing was written$/, {
        [`${sumsName}.sig`]: other,
      });
    });

    it("checksums that were changed after they were signed, with a zip that goes with them", async () => {
      const evil = zipSync({ consul: Buffer.from("something else") });
      const evilSum = createHash("sha256").update(evil).digest("hex");
      await refused(/refused: .*no signature of HashiCorp's key/, {
        [zipName]: evil,
        [sumsName]: Buffer.from(`${evilSum}  ${zipName}\n`),
      });
    });

    it("a zip that is not the signed one", () =>
      refused(
        /refused: .*linux_amd64\.zip has the checksum [0-9a-f]{64}, signed is [0-9a-f]{64}; nothing was written$/,
        {
          [zipName]: zipSync({ consul: Buffer.from("something else") }),
        },
      ));

    it("what is no signature", () =>
      refused(/no signature of HashiCorp's key \(what should be a signature is none/, {
        [`${sumsName}.sig`]: Buffer.from("<html>captive portal</html>"),
      }));

    it("a release without a signature, or that is not there", async () => {
      await refused(/cannot fetch .*SHA256SUMS\.sig \(HTTP status 404\): check --version and --from$/, {
        [`${sumsName}.sig`]: undefined,
      });
      await refused(/cannot fetch .*linux_amd64\.zip \(HTTP status 404\)/, { [zipName]: undefined });
    });

    it("an architecture that was not signed for", async () => {
      const only = Buffer.from(`${sum}  ${zipName}\n`);
      const from = await releases({ [sumsName]: only, [`${sumsName}.sig`]: await maker.signed(only) });
      await rejects(run({ to: directory, from, arch: "arm64" }), /has no line for .*arm64\.zip: check --arch/);
      deepEqual(readdirSync(directory), []);
    });

    it("a key that is not the one of the fingerprint", async () => {
      const signature = await maker.signed(sums);
      const swapped = { armored: maker.key.armored, fingerprint: hashicorpKey.fingerprint };
      await rejects(
        checkSignature(sums, signature, swapped),
        /the committed key has the fingerprint [0-9a-f]{40}, not c874/,
      );
    });
  });

  it("has HashiCorp's key for releases, which is good for more than a year", async () => {
    const key = await readKey({ armoredKey: hashicorpKey.armored });
    equal(key.getFingerprint(), hashicorpKey.fingerprint.replace(/ /g, "").toLowerCase());
    match(key.getUserIDs()[0] ?? "", /^HashiCorp Security \(hashicorp\.com\/security\)/);
    const expires = await key.getExpirationTime();
    ok(expires instanceof Date && expires.getTime() > Date.now() + 365 * 86_400_000, String(expires));
    // A newer copy has the same fingerprint; Go's hc-install has it, see docs/facts/consul.md.
    await rejects(checkSignature(sums, await maker.signed(sums), hashicorpKey), /./);
  });

  describe("to a bucket", () => {
    const stored = new Map<string, Buffer>();
    let environment: NodeJS.ProcessEnv;
    let endpoint: string;
    let refuse = false;
    before(() => {
      environment = process.env;
      const { id, secret } = secrets;
      process.env = { ...environment, ALIBABA_CLOUD_ACCESS_KEY_ID: id, ALIBABA_CLOUD_ACCESS_KEY_SECRET: secret };
    });
    after(() => (process.env = environment));
    beforeEach(async () => {
      stored.clear();
      refuse = false;
      const server = createServer((request, response) => {
        const pieces: Buffer[] = [];
        request.on("data", (piece: Buffer) => pieces.push(piece));
        request.on("end", () => {
          const signature = signatureOf(request, "example-mirror", "cn-hangzhou");
          const good = String(request.headers.authorization).endsWith(`Signature=${signature}`);
          const code = refuse ? "AccessDenied" : good ? "" : "SignatureDoesNotMatch";
          if (code === "") {
            stored.set(request.url ?? "", Buffer.concat(pieces));
            response.writeHead(200).end();
          } else response.writeHead(403).end(`<Error><Code>${code}</Code><Message>no</Message></Error>`);
        });
      });
      endpoint = await listen(server);
    });
    const toBucket = async (changed = {}) =>
      run({ to: "oss://example-mirror/consul/", region: "cn-hangzhou", endpoint, from: await releases(changed) });

    it("puts zip, checksums and signature there, and names the internal endpoint", async () => {
      deepEqual(await toBucket(), [
        "consul:downloadMirror: https://example-mirror.oss-cn-hangzhou-internal.aliyuncs.com/consul",
        `consul:downloadSha256: ${sum}`,
      ]);
      const keys = [zipName, sumsName, `${sumsName}.sig`].map((name) => `/consul/${version}/${name}`);
      deepEqual([...stored.keys()], keys);
      ok(stored.get(keys[0] ?? "")?.equals(zip));
    });

    it("puts nothing there where the signature is wrong", async () => {
      await rejects(toBucket({ [`${sumsName}.sig`]: Buffer.from("no") }), /refused: /);
      equal(stored.size, 0);
    });

    it("says what the credentials lack", async () => {
      refuse = true;
      await rejects(
        toBucket(),
        /cannot write oss:\/\/example-mirror\/consul\/.*\.zip: AccessDenied(Error)? no; the credentials need oss:PutObject there/,
      );
    });
  });

  it("takes a bucket with or without a prefix, and nothing else for one", () => {
    deepEqual(bucketPlace("oss://a-mirror"), { bucket: "a-mirror", prefix: "" });
    deepEqual(bucketPlace("oss://a-mirror/x/y/"), { bucket: "a-mirror", prefix: "x/y" });
    for (const text of ["oss://", "oss://A", "oss://a-mirror//x", "oss://a-mirror/x?y", "s3://a-mirror"]) {
      equal(bucketPlace(text), undefined, text);
    }
  });

  it("says in one line what is wrong with the command", async () => {
    for (const [wanted, why] of [
      [{}, /^Error: --to or --image is needed; --help has more$/],
      [{ to: "oss://a_b" }, /^Error: --to oss:\/\/a_b: no bucket of that form/],
      [{ to: "oss://a-mirror" }, /^Error: --region is needed for oss:\/\/a-mirror/],
      [{ to: directory, version: "1.22.4" }, /^Error: --version 1\.22\.4: HashiCorp took 1\.22\.4 back/],
      [{ to: directory, version: "latest" }, /^Error: --version latest: a version such as/],
      [{ to: directory, arch: "mips" }, /^Error: --arch mips: amd64 or arm64$/],
    ] as const) {
      await rejects(run(wanted), why);
      await rejects(run(wanted), Misuse);
    }
  });
});
