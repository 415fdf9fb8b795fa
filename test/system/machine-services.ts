/** The services of Alibaba Cloud's network for machines: the metadata service, and a mirror with Consul. */
import { spawn } from "child_process";
import { createHash, randomUUID } from "crypto";
import { zipSync } from "fflate";
import { readdirSync, readFileSync } from "fs";
import { createServer, IncomingMessage, Server, ServerResponse } from "http";
import { Server as NetServer } from "net";
import { join } from "path";

/** Addresses of the cloud: the metadata service, and the mirror. */
export const metadataAddress = "100.100.100.200";
export const mirrorAddress = "100.100.2.148";

/** One machine's metadata. */
export interface Metadata {
  instanceId: string;
  hostname: string;
  address: string;
  /** MAC address of the machine's one network interface, in lower case. */
  mac: string;
  /** CIDR of the vSwitch. */
  cidr: string;
  netmask: string;
  /** The user data; undefined gives 404, as on a machine without user data. */
  userData: string | undefined;
  /** "required" refuses requests without a token with 403, as ECS does. */
  httpTokens: "required" | "optional";
}

/** One request that a machine made to the metadata service or the mirror. */
export interface ServedRequest {
  address: string;
  method: string;
  path: string;
  status: number;
  /** Whether the request carried a valid token. */
  token: boolean;
}

/**
 * Listens inside a network namespace and hands the socket to this process: a child enters the namespace, binds, and
 * passes the handle over. So the services are plain functions in the test's own process.
 */
async function listenIn(netns: string, host: string, port: number): Promise<NetServer> {
  const script = `require("net").createServer().listen(${port}, "${host}", function () { process.send("", this); })
    .on("error", (error) => process.send(error.message)); process.on("disconnect", () => process.exit())`;
  const child = spawn("nsenter", [`--net=${netns}`, process.execPath, "-e", script], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  try {
    return await new Promise<NetServer>((resolve, reject) => {
      child.once("message", (problem, handle) => {
        if (handle instanceof NetServer) resolve(handle);
        else reject(new Error(`cannot listen on ${host}:${port} of the machines' network: ${JSON.stringify(problem)}`));
      });
      child.once("error", reject).once("exit", () => reject(new Error(`cannot listen on ${host}:${port}`)));
    });
  } finally {
    if (child.connected) child.disconnect();
  }
}

type Answer = { status: number; body?: string | Buffer };

async function serve(
  netns: string,
  address: string,
  answer: (request: IncomingMessage) => Answer & { token?: boolean },
  requests: ServedRequest[],
): Promise<Server> {
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const { status, body = "", token = false } = answer(request);
    const from = request.socket.remoteAddress ?? "";
    requests.push({ address: from, method: request.method ?? "", path: request.url ?? "", status, token });
    response.writeHead(status, { "Content-Length": Buffer.byteLength(body) }).end(body);
  });
  const socket = await listenIn(netns, address, 80);
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  return server;
}

const stop = (server: Server): Promise<void> =>
  new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });

/** The tree below /latest/meta-data/, as far as cloud-init's AliYun data source reads it. */
function metadataTree(machine: Metadata): Record<string, unknown> {
  return {
    "dns-conf": { nameservers: "100.100.2.136\n100.100.2.138" },
    hostname: machine.hostname,
    instance: { "instance-name": machine.hostname, "instance-type": "ecs.g7.large" },
    "instance-id": machine.instanceId,
    mac: machine.mac,
    network: {
      interfaces: { macs: { [machine.mac]: { "primary-ip-address": machine.address, netmask: machine.netmask } } },
    },
    "network-type": "vpc",
    "private-ipv4": machine.address,
    "region-id": "cn-hangzhou",
    "vswitch-cidr-block": machine.cidr,
  };
}

/**
 * The metadata service on 100.100.100.200: tokens by PUT /latest/api/token, then /<version>/meta-data/…,
 * /<version>/user-data. The service knows a machine by its address, as on ECS.
 */
export async function metadataService(
  netns: string,
  machines: () => readonly Metadata[],
): Promise<{ requests: ServedRequest[]; close(): Promise<void> }> {
  const tokens = new Map<string, string>();
  const requests: ServedRequest[] = [];
  const answer = (request: IncomingMessage): Answer & { token?: boolean } => {
    const from = request.socket.remoteAddress;
    const machine = machines().find(({ address }) => address === from);
    if (!machine) return { status: 404 };
    const path = (request.url ?? "").replace(/\?.*/, "");
    if (path === "/latest/api/token") {
      if (request.method !== "PUT") return { status: 405 };
      const ttl = Number(request.headers["x-aliyun-ecs-metadata-token-ttl-seconds"]);
      if (!(ttl >= 1 && ttl <= 21600)) return { status: 400 };
      const token = randomUUID();
      tokens.set(token, machine.instanceId);
      return { status: 200, body: token };
    }
    if (request.method !== "GET") return { status: 405 };
    const token = tokens.get(String(request.headers["x-aliyun-ecs-metadata-token"])) === machine.instanceId;
    if (!token && machine.httpTokens === "required") return { status: 403 };
    const [, version, root, ...rest] = path.split("/");
    if (!/^(latest|\d{4}-\d{2}-\d{2})$/.test(version ?? "")) return { status: 404, token };
    if (root === "user-data") {
      return machine.userData === undefined ? { status: 404, token } : { status: 200, body: machine.userData, token };
    }
    if (root === "vendor-data") return { status: 200, token };
    if (root !== "meta-data") return { status: 404, token };
    const tree = metadataTree(machine);
    const keys = rest.filter(Boolean);
    if (keys.join("/") === "all") return { status: 200, body: JSON.stringify(tree), token };
    const found = keys.reduce<unknown>((node, key) => (isTree(node) ? node[key] : undefined), tree);
    if (typeof found === "string") return { status: 200, body: found, token };
    if (!isTree(found)) return { status: 404, token };
    const list = Object.entries(found).map(([key, value]) => (isTree(value) ? `${key}/` : key));
    return { status: 200, body: list.join("\n"), token };
  };
  const server = await serve(netns, metadataAddress, answer, requests);
  return { requests, close: () => stop(server) };
}

function isTree(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** A fault of the mirror: a zip that was changed on its way, or no listener at all. */
export type MirrorFault = "none" | "checksum" | "unreachable";

/** Takes the place of releases.hashicorp.com: consul/<version>/consul_<version>_linux_amd64.zip and its SHA256SUMS. */
export interface Mirror {
  /** For the setting downloadMirror. */
  readonly url: string;
  readonly requests: readonly ServedRequest[];
  /** Offers this program as a version; returns the SHA-256 of the zip. */
  offer(version: string, program: Uint8Array): string;
  /** Offers what is in a directory's subdirectory of that name, as it is there. */
  offerDirectory(directory: string, version: string): void;
  setFault(fault: MirrorFault): Promise<void>;
  close(): Promise<void>;
}

export async function mirrorService(netns: string): Promise<Mirror> {
  const files = new Map<string, Buffer>();
  const requests: ServedRequest[] = [];
  let fault: MirrorFault = "none";
  const answer = (request: IncomingMessage): Answer => {
    const path = request.url ?? "";
    const body = files.get(path);
    if (!body) return { status: 404 };
    const broken = fault === "checksum" && path.endsWith(".zip");
    return { status: 200, body: broken ? Buffer.concat([body, Buffer.of(0)]) : body };
  };
  let server: Server | undefined = await serve(netns, mirrorAddress, answer, requests);
  const close = async (): Promise<void> => {
    if (server) await stop(server);
    server = undefined;
  };
  return {
    url: `http://${mirrorAddress}/consul`,
    requests,
    offer(version, program) {
      const arch = process.arch === "arm64" ? "arm64" : "amd64";
      const name = `consul_${version}_linux_${arch}.zip`;
      // Stored, not deflated: this takes a third of a second for 180 MB, and every unzip can read it.
      const zip = Buffer.from(zipSync({ consul: program }, { level: 0 }));
      const sha256 = createHash("sha256").update(zip).digest("hex");
      files.set(`/consul/${version}/${name}`, zip);
      files.set(`/consul/${version}/consul_${version}_SHA256SUMS`, Buffer.from(`${sha256}  ${name}\n`));
      return sha256;
    },
    offerDirectory(directory, version) {
      for (const name of readdirSync(join(directory, version))) {
        files.set(`/consul/${version}/${name}`, readFileSync(join(directory, version, name)));
      }
    },
    async setFault(next) {
      fault = next;
      if (next === "unreachable") await close();
      else server ??= await serve(netns, mirrorAddress, answer, requests);
    },
    close,
  };
}
