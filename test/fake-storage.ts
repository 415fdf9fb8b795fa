import { createHash, createHmac, KeyObject, verify } from "crypto";
import { IncomingMessage } from "http";
import { createServer, Server } from "https";
import { AddressInfo } from "net";
import { privateKey, selfSignedCert } from "../local/certificates";

/** A document of RAM: who may assume a role, or what the role may do. */
export interface RamDocument {
  readonly Statement: readonly {
    readonly Action: string | readonly string[];
    readonly Effect: string;
    readonly Principal?: { readonly Federated?: readonly string[] };
    readonly Resource?: readonly string[];
    readonly Condition?: { readonly StringEquals?: Readonly<Record<string, string | readonly string[]>> };
  }[];
}

export interface StorageArgs {
  /** Whose role the service account of a pod may assume. */
  readonly role: { readonly arn: string; readonly trust: RamDocument; readonly policy: RamDocument };
  /** The OIDC provider in RAM: its ARN, its issuer, and the key by which the issuer's tokens are known. */
  readonly provider: { readonly arn: string; readonly issuer: string; readonly key: KeyObject };
  readonly bucket: string;
  readonly region: string;
}

/** What the cloud says instead of its answer. */
export type Refusal = (asked: "sts" | "oss", times: number) => [status: number, body: string] | undefined;

const credentials = {
  AccessKeyId: "STS.exampleid",
  AccessKeySecret: "example+/secret=",
  SecurityToken: "example/token+=",
};

/** STS and OSS at one address over TLS, by the documentation and without any part of what is tested. */
export class FakeStorage {
  static readonly credentials = credentials;
  /** What arrived, by its key in the bucket. */
  readonly stored = new Map<string, Buffer>();
  refuse: Refusal = () => undefined;
  /** How often each was asked. */
  asked = { sts: 0, oss: 0 };

  private constructor(
    private readonly args: StorageArgs,
    private readonly server: Server,
    readonly caCertificate: string,
  ) {
    server.on("request", (request: IncomingMessage, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const [status, body] = this.answer(request, Buffer.concat(chunks));
        response.writeHead(status).end(body);
      });
    });
  }

  static async start(args: StorageArgs): Promise<FakeStorage> {
    const key = String(privateKey({ algorithm: "ECDSA", ecdsaCurve: "P256" }).outputs.privateKeyPem);
    const { outputs } = await selfSignedCert(
      {
        privateKeyPem: key,
        subject: { commonName: "fake storage" },
        ipAddresses: ["127.0.0.1"],
        allowedUses: ["digital_signature", "server_auth"],
        validityPeriodHours: 1,
      },
      new Date(),
    );
    const cert = String(outputs.certPem);
    const server = createServer({ key, cert });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    return new FakeStorage(args, server, cert);
  }

  get host(): string {
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  reset(): void {
    this.stored.clear();
    this.asked = { sts: 0, oss: 0 };
    this.refuse = () => undefined;
  }

  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
  }

  private answer(request: IncomingMessage, body: Buffer): [number, string] {
    const asked = request.method === "POST" ? "sts" : "oss";
    this.asked[asked] += 1;
    return (
      this.refuse(asked, this.asked[asked]) ?? (asked === "sts" ? this.sts(request, body) : this.oss(request, body))
    );
  }

  /** AssumeRoleWithOIDC: the token decides, by the role's trust policy. */
  private sts({ url = "" }: IncomingMessage, body: Buffer): [number, string] {
    const no = (Code: string, Message: string): [number, string] => [
      400,
      JSON.stringify({ RequestId: "1", Code, Message }),
    ];
    const query = new URL(url, "https://sts").searchParams;
    const form = new URLSearchParams(body.toString());
    const { Action, Version, Format, Timestamp = "", SignatureNonce } = Object.fromEntries(query);
    if (Action !== "AssumeRoleWithOIDC" || Version !== "2015-04-01" || Format !== "JSON" || !SignatureNonce) {
      return no("InvalidParameter", url);
    }
    if (
      !/^\d{4}(-\d\d){2}T\d\d(:\d\d){2}Z$/.test(Timestamp) ||
      Math.abs(Date.parse(Timestamp) - Date.now()) > 900_000
    ) {
      return no("IllegalTimestamp", Timestamp);
    }
    const { role, provider } = this.args;
    if (form.get("RoleArn") !== role.arn) return no("EntityNotExist.Role", form.get("RoleArn") ?? "");
    if (!/^[\w.@-]{2,64}$/.test(form.get("RoleSessionName") ?? "")) return no("InvalidParameter.RoleSessionName", "");
    if (form.get("OIDCProviderArn") !== provider.arn) return no("EntityNotExist.OIDCProvider", "");
    const claims = claimsOf(form.get("OIDCToken") ?? "", provider.key);
    if (claims?.iss !== provider.issuer || (claims.exp ?? 0) * 1000 < Date.now()) {
      return no("AuthenticationFail.OIDCToken.Invalid", "This JWT is invalid");
    }
    if (!trusts(role.trust, provider.arn, claims)) {
      return no("AuthenticationFail.NoPermission", "not by the trust policy");
    }
    const until = new Date(Date.now() + 3_600_000).toISOString();
    return [200, JSON.stringify({ RequestId: "1", Credentials: { ...credentials, Expiration: until } })];
  }

  /** PutObject with an S3 signature. */
  private oss(request: IncomingMessage, body: Buffer): [number, string] {
    const no = (status: number, code: string): [number, string] => [
      status,
      `<?xml version="1.0" encoding="UTF-8"?>\n<Error>\n  <Code>${code}</Code>\n  <Message>no</Message>\n</Error>\n`,
    ];
    const { headers, method = "", url = "" } = request;
    const { role, bucket, region } = this.args;
    if (method !== "PUT") return no(405, "MethodNotAllowed");
    const wanted = s3Authorization({ method, path: url, headers }, region, credentials);
    if (headers.authorization !== wanted) return no(403, "SignatureDoesNotMatch");
    if (headers["x-amz-security-token"] !== credentials.SecurityToken) return no(403, "InvalidSecurityToken");
    if (headers["content-encoding"] !== undefined || headers["transfer-encoding"] !== undefined) {
      return no(400, "chunked");
    }
    const digest = createHash("sha256").update(body).digest("hex");
    if (headers["x-amz-content-sha256"] !== digest) return no(400, "XAmzContentSHA256Mismatch");
    const object = `acs:oss:*:*:${bucket}${url}`;
    const may = role.policy.Statement.some(
      ({ Effect, Action, Resource = [] }) =>
        Effect === "Allow" &&
        [Action].flat().includes("oss:PutObject") &&
        Resource.some((resource) => resource.endsWith("/*") && object.startsWith(resource.slice(0, -1))),
    );
    if (!may) return no(403, "AccessDenied");
    this.stored.set(url.slice(1), body);
    return [200, ""];
  }
}

interface Claims {
  readonly iss?: string;
  readonly sub?: string;
  readonly aud?: string | readonly string[];
  readonly exp?: number;
}

/** @returns undefined where the token is not signed by that key */
function claimsOf(token: string, key: KeyObject): Claims | undefined {
  const [header = "", payload = "", signature = ""] = token.split(".");
  if (!verify("sha256", Buffer.from(`${header}.${payload}`), key, Buffer.from(signature, "base64url"))) {
    return undefined;
  }
  return JSON.parse(Buffer.from(payload, "base64url").toString()) as Claims;
}

/** Whether a trust policy lets whoever has these claims assume its role. */
function trusts({ Statement }: RamDocument, provider: string, { iss, sub, aud }: Claims): boolean {
  const claims: Readonly<Record<string, readonly (string | undefined)[]>> = {
    "oidc:iss": [iss],
    "oidc:sub": [sub],
    "oidc:aud": [aud].flat(),
  };
  return Statement.some(({ Effect, Action, Principal, Condition }) => {
    const equal = Object.entries(Condition?.StringEquals ?? {});
    return (
      Effect === "Allow" &&
      Action === "sts:AssumeRole" &&
      (Principal?.Federated ?? []).includes(provider) &&
      equal.every(([key, value]) => [value].flat().some((one) => claims[key]?.includes(one)))
    );
  });
}

/** A version 4 signature as the documentation of S3 describes it. */
export function s3Authorization(
  request: { readonly method: string; readonly path: string; readonly headers: IncomingMessage["headers"] },
  region: string,
  { AccessKeyId, AccessKeySecret }: { readonly AccessKeyId: string; readonly AccessKeySecret: string },
): string {
  const { method, path, headers } = request;
  const signed = /SignedHeaders=([^,]+)/.exec(headers.authorization ?? "")?.[1] ?? "";
  const names = signed.split(";");
  const must = Object.keys(headers).filter((name) => name === "host" || name.startsWith("x-amz-"));
  if (must.some((name) => !names.includes(name))) return "headers that count are not signed";
  const moment = String(headers["x-amz-date"]);
  const lines = names.map((name) => `${name}:${String(headers[name]).trim()}\n`).join("");
  const canonical = [method, path, "", lines, signed, headers["x-amz-content-sha256"]].join("\n");
  const scope = `${moment.slice(0, 8)}/${region}/s3/aws4_request`;
  const text = ["AWS4-HMAC-SHA256", moment, scope, createHash("sha256").update(canonical).digest("hex")].join("\n");
  const hmac = (key: string | Buffer, value: string) => createHmac("sha256", key).update(value).digest();
  const key = scope.split("/").reduce<string | Buffer>(hmac, `AWS4${AccessKeySecret}`);
  const signature = hmac(key, text).toString("hex");
  return `AWS4-HMAC-SHA256 Credential=${AccessKeyId}/${scope}, SignedHeaders=${signed}, Signature=${signature}`;
}
