import { deepEqual, equal, match, ok } from "assert/strict";
import { execFile, spawnSync } from "child_process";
import { createHash, createHmac } from "crypto";
import { mkdtempSync, rmSync, writeFileSync } from "fs";
import { createServer, IncomingMessage, Server } from "http";
import { AddressInfo } from "net";
import { tmpdir } from "os";
import { join } from "path";

const script = join(__dirname, "..", "..", "consul", "machine", "oss-put.py");
const credentials = { AccessKeyId: "STS.exampleid", AccessKeySecret: "examplesecret", SecurityToken: "exampletoken" };

/** A version 4 signature as the documentation of OSS describes it, written independently of the script. */
function expectedAuthorization(request: IncomingMessage, bucket: string, region: string): string {
  const { headers, method = "", url = "" } = request;
  const moment = String(headers["x-oss-date"]);
  const signed = Object.keys(headers)
    .filter((name) => name === "content-type" || name === "content-md5" || name.startsWith("x-oss-"))
    .sort();
  const canonical = [
    method,
    `/${bucket}${url}`,
    "",
    signed.map((name) => `${name}:${String(headers[name]).trim()}\n`).join(""),
    "",
    "UNSIGNED-PAYLOAD",
  ].join("\n");
  const scope = `${moment.slice(0, 8)}/${region}/oss/aliyun_v4_request`;
  const text = ["OSS4-HMAC-SHA256", moment, scope, createHash("sha256").update(canonical).digest("hex")].join("\n");
  const hmac = (key: string | Buffer, value: string) => createHmac("sha256", key).update(value).digest();
  const key = scope.split("/").reduce<string | Buffer>(hmac, `aliyun_v4${credentials.AccessKeySecret}`);
  return `OSS4-HMAC-SHA256 Credential=${credentials.AccessKeyId}/${scope},Signature=${hmac(key, text).toString("hex")}`;
}

describe("a copy of a snapshot in OSS", function () {
  let server: Server;
  let url: string;
  let directory: string;
  let stored: Map<string, Buffer>;
  let refuse: (attempt: number) => [number, string] | undefined;
  let attempts: number;

  before(function () {
    if (spawnSync("python3", ["--version"]).status !== 0) {
      console.log("      skipped: python3 is not on PATH (the servers' images have it)");
      this.skip();
    }
  });

  beforeEach(async () => {
    stored = new Map();
    attempts = 0;
    refuse = () => undefined;
    directory = mkdtempSync(join(tmpdir(), "oss-put-"));
    writeFileSync(join(directory, "a.snap"), Buffer.alloc(3_000_000, "consul"));
    server = createServer((request, response) => {
      const answer = (status: number, body = "") => response.writeHead(status).end(body);
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const path = request.url ?? "";
        if (path === "/latest/api/token") return answer(request.method === "PUT" ? 200 : 405, "metadata token");
        if (path.startsWith("/latest/")) {
          if (request.headers["x-aliyun-ecs-metadata-token"] !== "metadata token") return answer(403);
          return answer(200, metadata[path] ?? "");
        }
        attempts += 1;
        const refused = refuse(attempts);
        if (refused) return answer(...refused);
        const body = Buffer.concat(chunks);
        const md5 = createHash("md5").update(body).digest("base64");
        if (request.headers.authorization !== expectedAuthorization(request, "ops-backups", "cn-hangzhou")) {
          return answer(403, "<Error><Code>SignatureDoesNotMatch</Code></Error>");
        }
        if (request.headers["x-oss-security-token"] !== credentials.SecurityToken) return answer(403, "no token");
        if (request.headers["content-md5"] !== md5) return answer(400, "<Error><Code>InvalidDigest</Code></Error>");
        stored.set(path, body);
        return answer(200);
      });
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  afterEach(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });

  const metadata: Readonly<Record<string, string>> = {
    "/latest/meta-data/region-id": "cn-hangzhou",
    "/latest/meta-data/ram/security-credentials/": "consul-servers",
    "/latest/meta-data/ram/security-credentials/consul-servers": JSON.stringify({ Code: "Success", ...credentials }),
  };

  function put(): Promise<{ code: number; error: string }> {
    const args = [script, "ops-backups", "consul/prod/", join(directory, "a.snap"), "20261121T090000Z-consul-1.snap"];
    const env = { PATH: process.env.PATH, METADATA_URL: url, OSS_ENDPOINT: url, http_proxy: "http://127.0.0.1:1" };
    return new Promise((done) => {
      const child = execFile("python3", args, { env }, (_, __, error) => done({ code: child.exitCode ?? -1, error }));
    });
  }

  it("arrives whole, signed as the documentation says, with the machine's role and past any proxy", async () => {
    deepEqual(await put(), { code: 0, error: "" });
    deepEqual([...stored.keys()], ["/consul/prod/20261121T090000Z-consul-1.snap"]);
    equal(stored.values().next().value?.length, 3_000_000);
  });

  it("is tried again after a passing fault", async () => {
    refuse = (attempt) => (attempt < 3 ? [503, "<Error><Code>ServiceUnavailable</Code></Error>"] : undefined);
    equal((await put()).code, 0);
    equal(attempts, 3);
  });

  it("fails with one line that has OSS's own words", async () => {
    refuse = () => [403, "<Error>\n  <Code>AccessDenied</Code>\n</Error>"];
    const { code, error } = await put();
    equal(code, 1);
    match(error, /^consul-snapshot: no copy of \S+\.snap in bucket ops-backups: HTTP Error 403.*AccessDenied.*\n$/);
    ok(!error.includes(credentials.AccessKeySecret) && !error.includes(credentials.SecurityToken));
  });

  it("goes to the region's internal endpoint over TLS, with the signature that the cloud's own SDK makes", () => {
    // alibabacloud-oss-v2 1.4.1 made this signature for the same request at the same moment.
    const program = `
import importlib.util, io, sys, time
spec = importlib.util.spec_from_file_location("oss_put", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
answers = {"region-id": "cn-hangzhou", "ram/security-credentials/": "r", "ram/security-credentials/r": sys.argv[2]}
module.metadata = answers.__getitem__
module.time.gmtime = lambda: (2026, 11, 21, 9, 0, 0, 5, 325, 0)
module.request = lambda method, url, headers, body, timeout: print(method, url, headers["authorization"])
module.put("ops-backups", "consul/20261121T090000Z-consul-1.snap", io.BytesIO(b"hello world"))
`;
    const run = spawnSync("python3", ["-c", program, script, JSON.stringify(credentials)], { encoding: "utf8" });
    equal(run.stderr, "");
    deepEqual(run.stdout.trim().split(" "), [
      "PUT",
      "https://ops-backups.oss-cn-hangzhou-internal.aliyuncs.com/consul/20261121T090000Z-consul-1.snap",
      "OSS4-HMAC-SHA256",
      "Credential=STS.exampleid/20261121/cn-hangzhou/oss/aliyun_v4_request,Signature=7ba5d77bfc84658c7a9684e0efcc315a0ead9818763c7f8695ea48f4d28e5e3d",
    ]);
  });
});
