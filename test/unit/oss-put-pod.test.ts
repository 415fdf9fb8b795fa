import { deepEqual, equal, match, ok } from "assert/strict";
import { execFile, spawnSync } from "child_process";
import { createHash, generateKeyPairSync, KeyObject, sign } from "crypto";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { trustServiceAccount } from "../../components/backup-bucket";
import { FakeStorage, s3Authorization } from "../fake-storage";

const script = join(__dirname, "..", "..", "consul", "pod", "oss-put.sh");
const providerArn = "acs:ram::1234567890123456:oidc-provider/ack-rrsa-c1111111111111111111111111111111";
const issuerUrl = "https://oidc-ack-cn-hangzhou.oss-cn-hangzhou.aliyuncs.com/c1111111111111111111111111111111";
const roleArn = "acs:ram::1234567890123456:role/consul-dc1-snapshot-pod";
const account = { namespace: "consul", name: "consul-snapshot" };
const name = "20261121T090000Z-consul-snapshot-1.snap";

const which = (program: string) => spawnSync("which", [program], { encoding: "utf8" }).stdout.trim();

/** A token as the API server makes it for a projected volume. */
function token(key: KeyObject, claims: object = {}): string {
  const payload = {
    iss: issuerUrl,
    sub: "system:serviceaccount:consul:consul-snapshot",
    aud: ["sts.aliyuncs.com"],
    exp: Math.floor(Date.now() / 1000) + 3600,
    ...claims,
  };
  const text = [{ alg: "RS256", kid: "one" }, payload].map((part) =>
    Buffer.from(JSON.stringify(part)).toString("base64url"),
  );
  return [...text, sign("sha256", Buffer.from(text.join(".")), key).toString("base64url")].join(".");
}

describe("a copy of a snapshot in OSS, from a pod", () => {
  const issuer = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const content = Buffer.alloc(3_000_000, "consul");
  let directory: string;
  let cloud: FakeStorage;

  before(async () => {
    const Statement = [trustServiceAccount({ providerArn, issuerUrl }, account)];
    const may = { Action: ["oss:PutObject"], Effect: "Allow", Resource: ["acs:oss:*:*:ops-backups/dev/*"] };
    cloud = await FakeStorage.start({
      role: { arn: roleArn, trust: { Statement }, policy: { Statement: [may] } },
      provider: { arn: providerArn, issuer: issuerUrl, key: issuer.publicKey },
      bucket: "ops-backups",
      region: "cn-hangzhou",
    });
    directory = mkdtempSync(join(tmpdir(), "oss-put-"));
    writeFileSync(join(directory, "a.snap"), content);
    writeFileSync(join(directory, "ca.pem"), cloud.caCertificate);
  });

  beforeEach(() => {
    cloud.reset();
    writeFileSync(join(directory, "token"), token(issuer.privateKey));
  });

  after(() => {
    cloud.stop();
    rmSync(directory, { recursive: true });
  });

  function put(more: Record<string, string> = {}, prefix = "dev/"): Promise<{ code: number; error: string }> {
    const env = {
      PATH: process.env.PATH,
      ALIBABA_CLOUD_ROLE_ARN: roleArn,
      ALIBABA_CLOUD_OIDC_PROVIDER_ARN: providerArn,
      ALIBABA_CLOUD_OIDC_TOKEN_FILE: join(directory, "token"),
      ALIBABA_CLOUD_STS_ENDPOINT: cloud.host,
      OSS_ENDPOINT: cloud.host,
      OSS_REGION: "cn-hangzhou",
      CURL_CA_BUNDLE: join(directory, "ca.pem"),
      https_proxy: "http://127.0.0.1:1",
      ...more,
    };
    const args = [script, "ops-backups", prefix, join(directory, "a.snap"), name];
    return new Promise((done) => {
      const child = execFile("sh", args, { env }, (_, __, error) => done({ code: child.exitCode ?? -1, error }));
    });
  }

  it("arrives whole, by the role of the service account, over TLS and past any proxy", async () => {
    deepEqual(await put(), { code: 0, error: "" });
    deepEqual([...cloud.stored.keys()], [`dev/${name}`]);
    ok(cloud.stored.get(`dev/${name}`)?.equals(content));
  });

  const strangers = {
    "another audience, as for the API server": { aud: ["https://kubernetes.default.svc"] },
    "another service account": { sub: "system:serviceaccount:consul:default" },
    "the same name in another namespace": { sub: "system:serviceaccount:shop:consul-snapshot" },
    "another cluster": { iss: `${issuerUrl.slice(0, -1)}2` },
    "a token that has run out": { exp: Math.floor(Date.now() / 1000) - 60 },
  };
  it("is nothing for whoever is not that service account", async () => {
    const tries = Object.entries(strangers).map(async ([who, claims], i) => {
      const file = join(directory, `token-${i}`);
      writeFileSync(file, token(issuer.privateKey, claims));
      const { code, error } = await put({ ALIBABA_CLOUD_OIDC_TOKEN_FILE: file });
      equal(code, 1, who);
      match(
        error,
        /^consul-snapshot: no copy of \S+\.snap in bucket ops-backups: 127\S+: status 400 Auth\S+: \w.*\n$/,
        who,
      );
      ok(!error.includes("eyJ"), "the token is not told");
    });
    await Promise.all(tries);
    equal(cloud.stored.size, 0);
    deepEqual(cloud.asked, { sts: 3 * tries.length, oss: 0 });
  });

  it("goes below the prefix, and nowhere else", async () => {
    const { code, error } = await put({}, "prod/");
    equal(code, 1);
    match(error, /: status 403 AccessDenied: no\n$/);
  });

  it("is tried again after a passing fault of either, with credentials that are asked for anew", async () => {
    cloud.refuse = (asked, times) => (times === 1 ? [503, `<Code>Busy</Code><Message>${asked}</Message>`] : undefined);
    equal((await put()).code, 0);
    deepEqual(cloud.asked, { sts: 3, oss: 2 });
  });

  it("fails with one line that says who answered what, and has no credentials", async () => {
    cloud.refuse = (asked) => (asked === "oss" ? [403, "<Error>\n  <Code>AccessDenied</Code>\n</Error>"] : undefined);
    const { code, error } = await put();
    equal(code, 1);
    match(error, /: 127\.0\.0\.1:\d+: status 403 AccessDenied: \n$/);
    for (const secret of Object.values(FakeStorage.credentials)) ok(!error.includes(secret), error);
  });

  it("says who cannot be reached or is not whom the pod knows", async () => {
    const [noHost, notKnown, noToken] = await Promise.all([
      put({ OSS_ENDPOINT: "127.0.0.1:1" }),
      put({ CURL_CA_BUNDLE: "/etc/hostname" }),
      put({ ALIBABA_CLOUD_OIDC_TOKEN_FILE: "/nowhere" }),
    ]);
    match(noHost.error, /: 127\.0\.0\.1:1: curl: \(7\) .*\n$/);
    match(notKnown.error, /: curl: \((60|77)\) .*\n$/);
    match(noToken.error, /Couldn't read|Failed to open|JWT is invalid/);
    equal(cloud.stored.size, 0);
  });

  it("arrives by the shell and the small tools of Consul's image", async function () {
    if (spawnSync("busybox", ["true"]).status !== 0) {
      console.log("      skipped: busybox is not on PATH");
      return this.skip();
    }
    // busybox finds its own applets first, with nothing in PATH but curl.
    const bin = mkdtempSync(join(directory, "bin-"));
    for (const applet of ["sh", "sed", "cut", "tr", "date", "cat", "sha256sum", "sleep"]) {
      writeFileSync(join(bin, applet), `#!${which("busybox")} sh\nexec ${which("busybox")} ${applet} "$@"\n`, {
        mode: 0o755,
      });
    }
    symlinkSync(which("curl"), join(bin, "curl"));
    deepEqual(await put({ PATH: bin }), { code: 0, error: "" });
    ok(cloud.stored.get(`dev/${name}`)?.equals(content));
  });

  it("shows no secret in an argument list", async () => {
    // Every program that the script starts is recorded, by a shell of the same name that runs the real one.
    const log = join(directory, "arguments");
    for (const program of ["curl", "sed", "cut", "tr", "date", "cat", "sha256sum"]) {
      const recorder = `#!/bin/sh\necho ${program} "$@" >>${log}\nPATH=\${PATH#*:} exec ${program} "$@"\n`;
      writeFileSync(join(directory, program), recorder, { mode: 0o755 });
    }
    equal((await put({ PATH: `${directory}:${process.env.PATH ?? ""}` })).code, 0);
    const seen = readFileSync(log, "utf8");
    match(seen, /^curl .*--aws-sigv4 aws:amz:cn-hangzhou:s3/m);
    for (const secret of [...Object.values(FakeStorage.credentials), "eyJ"]) ok(!seen.includes(secret), secret);
  });
});

describe("the signature that the test compares with", () => {
  it("is the one of the example in S3's documentation", () => {
    const headers = {
      authorization: "AWS4-HMAC-SHA256 SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,",
      date: "Fri, 24 May 2013 00:00:00 GMT",
      host: "examplebucket.s3.amazonaws.com",
      "x-amz-content-sha256": createHash("sha256").update("Welcome to Amazon S3.").digest("hex"),
      "x-amz-date": "20130524T000000Z",
      "x-amz-storage-class": "REDUCED_REDUNDANCY",
    };
    const keys = {
      AccessKeyId: "AKIAIOSFODNN7EXAMPLE",
      AccessKeySecret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    };
    const path = "/test%24file.text";
    const made = s3Authorization({ method: "PUT", path, headers }, "us-east-1", keys);
    match(made, /Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd$/);
  });
});
