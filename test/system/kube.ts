/** A Kubernetes cluster on loopback: API server, controllers and scheduler are the real ones, kwok plays the kubelets. */
import "reflect-metadata"; // @peculiar/x509 needs this to be loaded first
import * as k8s from "@kubernetes/client-node";
import * as x509 from "@peculiar/x509";
import { ChildProcess, execFile, spawn } from "child_process";
import { generateKeyPairSync, webcrypto } from "crypto";
import { closeSync, existsSync, openSync, readFileSync, rmSync } from "fs";
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from "fs/promises";
import { AddressInfo, createServer } from "net";
import { homedir, tmpdir } from "os";
import { delimiter, join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { promisify } from "util";
import { buildTool, cacheHome, Tool } from "../../tools/build";
import { kwokConfiguration, Manifest, Pace, realNodes, virtualNodes } from "./kube-objects";

const run = promisify(execFile);

type Progress = (line: string) => void;

/** The programs that a cluster is made of, by name, as absolute paths. */
type Programs = Readonly<Record<(typeof builtTools)[number] | "etcd", string>>;

const builtTools = [
  "kube-apiserver",
  "kube-controller-manager",
  "kube-scheduler",
  "kwok",
] as const satisfies readonly Tool[];

/** A running cluster. Its nodes are `realNodes` and `virtualNodes`. */
export interface Kube {
  /** For a test's own clients; the user is an administrator. */
  readonly kubeconfig: k8s.KubeConfig;
  /** The same kubeconfig as a file, for programs. */
  readonly kubeconfigFile: string;
  readonly objects: k8s.KubernetesObjectApi;
  /**
   * Applies objects one after another on the server's side, as Pulumi's provider does (field manager "pulumi"):
   * namespaces first, workloads last, so they may come in any order.
   * @returns the server's warnings, each with the object that caused it
   * @throws where the server refuses an object, with its kind, name and the reason
   */
  apply(objects: readonly Manifest[]): Promise<string[]>;
  /** Deletes objects, workloads first and what they own with them, and waits until all are gone (default 60 s). */
  remove(objects: readonly Manifest[], seconds?: number): Promise<void>;
  /**
   * Repeats a check until the check no longer throws. @returns the check's result
   * @param seconds after which the check's own error is thrown; default 60
   */
  waitFor<T>(what: string, check: () => Promise<T>, seconds?: number): Promise<T>;
  /** Counts the ready pods with these labels, from now on. */
  followPods(namespace: string, labelSelector: string): Promise<PodCount>;
  /** Ends the cluster's processes and removes its files. The end of this process, and Ctrl-C, do the same. */
  stop(): Promise<void>;
}

export interface PodCount {
  /** Names of the pods that are ready and not being deleted. */
  ready(): string[];
  /** The smallest number of ready pods since counting began. */
  fewest(): number;
  stop(): void;
}

/**
 * Why a cluster cannot be run here, in one line, or undefined where it can. Builds and downloads what is missing:
 * minutes the first time.
 */
export async function kubeUnavailable(progress: Progress = console.error): Promise<string | undefined> {
  try {
    await programs(progress);
    return undefined;
  } catch (error) {
    return `a Kubernetes cluster cannot be run: ${(error as Error).message}`;
  }
}

/** For a `before` hook: starts a cluster, or skips what follows and says why. */
export async function startKubeOrSkip(context: Mocha.Context): Promise<Kube> {
  context.timeout("40m"); // a fresh machine builds Kubernetes first
  const reason = await kubeUnavailable();
  if (reason !== undefined) {
    console.error(`skipped: ${reason}`);
    context.skip();
  }
  return startKube();
}

/** Starts a cluster and waits until all its nodes are ready. */
export async function startKube(
  pace: Pace = { start: 300, stop: 200, work: 300 },
  progress: Progress = console.error,
): Promise<Kube> {
  const binaries = await programs(progress);
  const directory = await mkdtemp(join(tmpdir(), "consul-kube-"));
  const processes = new Processes(directory);
  try {
    return await startIn(directory, processes, binaries, pace);
  } catch (error) {
    await processes.stop();
    throw error;
  }
}

async function startIn(directory: string, processes: Processes, binaries: Programs, pace: Pace): Promise<Kube> {
  const file = (name: string) => join(directory, name);
  const write = (name: string, content: string) => writeFile(file(name), content, { mode: 0o600 });
  const [etcdPort, peerPort, apiPort] = (await freePorts(3)) as [number, number, number];
  const server = `https://127.0.0.1:${apiPort}`;

  const authority = await createAuthority();
  const serving = await authority.issue([{ CN: ["kube-apiserver"] }], "127.0.0.1");
  const accounts = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const kubeconfigOf = async (user: string, group?: string) => {
    const { certificate, key } = await authority.issue([...(group ? [{ O: [group] }] : []), { CN: [user] }]);
    return kubeconfig(server, authority.certificate, certificate, key);
  };
  const admin = await kubeconfigOf("admin", "system:masters");
  await Promise.all([
    write("ca.crt", authority.certificate),
    write("server.crt", serving.certificate),
    write("server.key", serving.key),
    write("accounts.key", accounts.privateKey.export({ type: "sec1", format: "pem" }) as string),
    write("accounts.pub", accounts.publicKey.export({ type: "spki", format: "pem" }) as string),
    write("admin.json", admin),
    write("controllers.json", await kubeconfigOf("system:kube-controller-manager")),
    write("scheduler.json", await kubeconfigOf("system:kube-scheduler")),
    write(
      "kwok.yaml",
      kwokConfiguration(pace)
        .map((document) => JSON.stringify(document))
        .join("\n---\n"),
    ),
  ]);

  processes.start(binaries.etcd, [
    `--data-dir=${file("etcd")}`,
    `--listen-client-urls=http://127.0.0.1:${etcdPort}`,
    `--advertise-client-urls=http://127.0.0.1:${etcdPort}`,
    `--listen-peer-urls=http://127.0.0.1:${peerPort}`,
    `--initial-advertise-peer-urls=http://127.0.0.1:${peerPort}`,
    `--initial-cluster=default=http://127.0.0.1:${peerPort}`,
  ]);
  processes.start(binaries["kube-apiserver"], [
    "--bind-address=127.0.0.1",
    `--secure-port=${apiPort}`,
    // The address of the `kubernetes` Service, which may not be on loopback. Nothing here uses the Service.
    "--advertise-address=10.16.0.1",
    "--endpoint-reconciler-type=none",
    `--etcd-servers=http://127.0.0.1:${etcdPort}`,
    `--tls-cert-file=${file("server.crt")}`,
    `--tls-private-key-file=${file("server.key")}`,
    `--client-ca-file=${file("ca.crt")}`,
    "--service-account-issuer=https://kubernetes.default.svc",
    `--service-account-key-file=${file("accounts.pub")}`,
    `--service-account-signing-key-file=${file("accounts.key")}`,
    "--service-cluster-ip-range=172.21.0.0/20",
    "--authorization-mode=Node,RBAC",
    "--enable-admission-plugins=NodeRestriction,PodSecurity",
    "--allow-privileged=true",
    "--anonymous-auth=false",
    // Debian's etcd (3.4.23) is too old for WatchList, and kwok's watches do not fall back by themselves.
    "--feature-gates=WatchList=false",
  ]);

  const config = new k8s.KubeConfig();
  config.loadFromString(admin);
  const kube = new RunningKube(config, file("admin.json"), processes);
  await kube.waitFor("the API server becomes ready", async () => {
    if (!(await new k8s.Health(config).readyz({}))) throw new Error("/readyz does not say ok");
  });
  processes.start(binaries["kube-controller-manager"], [
    `--kubeconfig=${file("controllers.json")}`,
    "--leader-elect=false",
    "--secure-port=0",
    "--use-service-account-credentials=true",
    // The manager gets a token for each controller before it begins: 4 s at the default of 20 requests a second.
    "--kube-api-qps=500",
    "--kube-api-burst=500",
    `--service-account-private-key-file=${file("accounts.key")}`,
    `--root-ca-file=${file("ca.crt")}`,
  ]);
  processes.start(binaries["kube-scheduler"], [
    `--kubeconfig=${file("scheduler.json")}`,
    "--leader-elect=false",
    "--secure-port=0",
  ]);
  processes.start(binaries.kwok, [
    `--kubeconfig=${file("admin.json")}`,
    `--config=${file("kwok.yaml")}`,
    "--manage-all-nodes=true",
    "--node-lease-duration-seconds=40",
  ]);
  const nodes = [...realNodes, ...virtualNodes];
  for (const node of nodes) await kube.objects.create(node);
  await kube.waitFor("all nodes become ready", async () => {
    const { items } = await config.makeApiClient(k8s.CoreV1Api).listNode();
    // The controllers remove the taint once the node is ready. Until then nothing is placed on the node.
    const ready = items.filter(
      ({ spec, status }) =>
        status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") &&
        !spec?.taints?.some(({ key }) => key === "node.kubernetes.io/not-ready"),
    );
    if (ready.length < nodes.length) throw new Error(`${ready.length} of ${nodes.length} nodes are ready`);
  });
  await kube.waitFor("the default namespace has its service account", () =>
    config.makeApiClient(k8s.CoreV1Api).readNamespacedServiceAccount({ name: "default", namespace: "default" }),
  );
  return kube;
}

class RunningKube implements Kube {
  readonly objects: k8s.KubernetesObjectApi;

  constructor(
    readonly kubeconfig: k8s.KubeConfig,
    readonly kubeconfigFile: string,
    private readonly processes: Processes,
  ) {
    this.objects = k8s.KubernetesObjectApi.makeApiClient(kubeconfig);
  }

  async apply(objects: readonly Manifest[]): Promise<string[]> {
    const ordered = inOrder(objects);
    const [first] = ordered;
    if (first === undefined) return [];
    let current = first;
    const warnings: string[] = [];
    const client = objectClient(this.kubeconfig, {
      pre: (request) => {
        // The client would drop unknown fields. A misspelt field has to reach the server.
        if (request.getHttpMethod() === k8s.HttpMethod.PATCH) request.setBody(JSON.stringify(current));
        return Promise.resolve(request);
      },
      post: (response) => {
        const header = response.headers.warning ?? "";
        for (const [, text = ""] of header.matchAll(/\d{3} \S+ "((?:[^"\\]|\\.)*)"/g)) {
          warnings.push(`${nameOf(current)}: ${text.replace(/\\(.)/g, "$1")}`);
        }
        return Promise.resolve(response);
      },
    });
    for (const object of ordered) {
      current = structuredClone(object);
      await client
        .patch(current, undefined, undefined, "pulumi", undefined, k8s.PatchStrategy.ServerSideApply)
        .catch((error: unknown) => {
          throw new Error(`${nameOf(object)} was refused: ${reason(error)}`, { cause: error });
        });
    }
    return warnings;
  }

  async remove(objects: readonly Manifest[], seconds = 60): Promise<void> {
    const unlessGone = (error: unknown) => {
      if (!(error instanceof k8s.ApiException && error.code === 404)) throw error;
      return undefined;
    };
    const reversed = inOrder(objects).reverse();
    for (const object of reversed) {
      await this.objects
        .delete(structuredClone(object), undefined, undefined, undefined, undefined, "Foreground")
        .catch(unlessGone);
    }
    for (const object of reversed) {
      await this.waitFor(
        `${nameOf(object)} is gone`,
        async () => {
          if (await this.objects.read(structuredClone(object)).catch(unlessGone)) throw new Error("it is still there");
        },
        seconds,
      );
    }
  }

  async waitFor<T>(what: string, check: () => Promise<T>, seconds = 60): Promise<T> {
    const deadline = Date.now() + seconds * 1000;
    for (;;) {
      this.processes.check();
      try {
        return await check();
      } catch (error) {
        if (Date.now() > deadline) {
          throw new Error(`waited ${seconds} s until ${what}: ${reason(error)}`, { cause: error });
        }
      }
      await sleep(100);
    }
  }

  async followPods(namespace: string, labelSelector: string): Promise<PodCount> {
    const pods = this.kubeconfig.makeApiClient(k8s.CoreV1Api);
    const ready = new Set<string>();
    let fewest = Infinity;
    const informer = k8s.makeInformer(
      this.kubeconfig,
      `/api/v1/namespaces/${namespace}/pods`,
      () => pods.listNamespacedPod({ namespace, labelSelector }),
      labelSelector,
    );
    const seen = ({ metadata, status }: k8s.V1Pod, gone: boolean) => {
      const isReady = status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") ?? false;
      const name = metadata?.name ?? "";
      if (isReady && !gone && metadata?.deletionTimestamp === undefined) ready.add(name);
      else ready.delete(name);
      fewest = Math.min(fewest, ready.size);
    };
    informer.on("add", (pod) => seen(pod, false));
    informer.on("update", (pod) => seen(pod, false));
    informer.on("delete", (pod) => seen(pod, true));
    await informer.start();
    // The pods of the first list came one by one.
    fewest = ready.size;
    return { ready: () => [...ready], fewest: () => fewest, stop: () => void informer.stop() };
  }

  async stop(): Promise<void> {
    await this.processes.stop();
  }
}

/** The cluster's processes and their directory. */
class Processes {
  private readonly running: { readonly name: string; readonly child: ChildProcess }[] = [];
  private broken: Error | undefined;
  private stopping = false;

  constructor(private readonly directory: string) {
    process.once("exit", this.onExit);
    for (const signal of signals) process.once(signal, this.onSignal);
  }

  start(binary: string, args: readonly string[]): void {
    const name = binary.slice(binary.lastIndexOf("/") + 1);
    const log = join(this.directory, `${name}.log`);
    const output = openSync(log, "a", 0o600);
    // Debian's etcd refuses to run on arm64 without this variable.
    const env = { PATH: process.env.PATH, ETCD_UNSUPPORTED_ARCH: process.arch };
    // With setpriv the kernel kills the child when this process is killed and cannot clean up.
    const argv = ["--pdeathsig", "KILL", binary, ...args];
    const child = spawn("setpriv", argv, { cwd: this.directory, env, stdio: ["ignore", output, output] });
    closeSync(output);
    this.running.push({ name, child });
    child.once("error", (error) => (this.broken ??= error));
    child.once("exit", (code, signal) => {
      if (this.stopping) return;
      const last = readFileSync(log, "utf8").trimEnd().split("\n").slice(-5).join("\n  ");
      this.broken ??= new Error(`${name} ended by itself (${code ?? signal ?? ""}); its last lines:\n  ${last}`);
    });
  }

  /** @throws where a process has ended unexpectedly */
  check(): void {
    if (this.broken) throw this.broken;
  }

  /** Stops the processes in reverse order, so that none loses a process that it needs. Kills what does not stop. */
  async stop(): Promise<void> {
    this.stopping = true;
    for (const { child } of [...this.running].reverse()) {
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) continue;
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 3_000);
      await ended;
      clearTimeout(timer);
    }
    process.off("exit", this.onExit);
    for (const signal of signals) process.off(signal, this.onSignal);
    await rm(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }

  private readonly onExit = () => {
    this.stopping = true;
    for (const { child } of this.running) child.kill("SIGKILL");
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
  };

  private readonly onSignal = (signal: NodeJS.Signals) => process.exit(signal === "SIGINT" ? 130 : 143);
}

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Builds or finds every program. Only the first call takes long. */
async function programs(progress: Progress): Promise<Programs> {
  if (process.platform !== "linux") throw new Error(`it needs Linux, this is ${process.platform}`);
  const found: Record<string, string> = { etcd: await etcd(progress) };
  for (const tool of builtTools) found[tool] = await buildTool(tool, progress);
  return found as Programs;
}

/**
 * etcd from PATH, or out of Debian's package: unpacked into the cache, not installed, so that nothing is started on this
 * machine and no root is needed.
 */
async function etcd(progress: Progress): Promise<string> {
  const installed = (process.env.PATH ?? "")
    .split(delimiter)
    .map((folder) => join(folder, "etcd"))
    .find(existsSync);
  if (installed !== undefined) return installed;
  const home = join(cacheHome(process.env, homedir()), "consul-alicloud", "etcd");
  const cached = join(home, "usr/bin/etcd");
  if (existsSync(cached)) return cached;
  progress("getting etcd from Debian's etcd-server, only this once");
  await mkdir(join(home, ".."), { recursive: true });
  const work = await mkdtemp(`${home}.`);
  try {
    const download = () => run("apt-get", ["download", "etcd-server"], { cwd: work });
    await download().catch(() => run("apt-get", ["update"]).then(download));
    const [archive = ""] = await readdir(work);
    await run("dpkg-deb", ["--extract", archive, "root"], { cwd: work });
    await rename(join(work, "root"), home).catch((error: unknown) => {
      if (!existsSync(cached)) throw error; // another process was faster
    });
    return cached;
  } catch (error) {
    throw new Error(`etcd is not on PATH, and not to be had by apt-get (${reason(error)}): install etcd-server`, {
      cause: error,
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Different free ports of loopback. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once("error", reject).listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port));
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/** A certificate authority for one test run; everything is PEM. */
async function createAuthority() {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const newKeys = () => webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const day = 24 * 3600 * 1000;
  const validity = { notBefore: new Date(Date.now() - 3600_000), notAfter: new Date(Date.now() + day) };
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity,
    name: "CN=kube-ca",
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  /** A server's certificate for an address; without an address, a client's certificate. */
  async function issue(subject: x509.JsonName, address?: string): Promise<{ certificate: string; key: string }> {
    const own = await newKeys();
    const usage = address === undefined ? x509.ExtendedKeyUsage.clientAuth : x509.ExtendedKeyUsage.serverAuth;
    const names = address === undefined ? [] : [{ type: "ip" as const, value: address }];
    const issued = await x509.X509CertificateGenerator.create({
      ...validity,
      subject,
      issuer: certificate.subject,
      publicKey: own.publicKey,
      signingKey: keys.privateKey,
      signingAlgorithm: algorithm,
      extensions: [
        new x509.ExtendedKeyUsageExtension([usage]),
        ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
      ],
    });
    const key = x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", own.privateKey), "PRIVATE KEY");
    return { certificate: issued.toString("pem"), key };
  }
  return { certificate: certificate.toString("pem"), issue };
}

/** A kubeconfig as JSON, which is YAML too. */
function kubeconfig(server: string, authority: string, certificate: string, key: string): string {
  const base64 = (text: string) => Buffer.from(text).toString("base64");
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "test", cluster: { server, "certificate-authority-data": base64(authority) } }],
    users: [{ name: "test", user: { "client-certificate-data": base64(certificate), "client-key-data": base64(key) } }],
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    "current-context": "test",
  });
}

/** KubeConfig.makeApiClient, with access to the requests and answers. */
function objectClient(config: k8s.KubeConfig, middleware: k8s.Middleware): k8s.KubernetesObjectApi {
  const server = config.getCurrentCluster()?.server ?? "";
  return new k8s.KubernetesObjectApi(
    k8s.createConfiguration({
      baseServer: new k8s.ServerConfiguration(server, {}),
      authMethods: { default: config },
      promiseMiddleware: [middleware],
    }),
  );
}

function inOrder(objects: readonly Manifest[]): Manifest[] {
  const workloads = ["DaemonSet", "Deployment", "Job", "Pod", "StatefulSet"];
  const rank = ({ kind }: Manifest) => (kind === "Namespace" ? 0 : workloads.includes(kind) ? 2 : 1);
  return [...objects].sort((a, b) => rank(a) - rank(b));
}

function nameOf({ kind, metadata }: Manifest): string {
  return [kind, metadata.namespace, metadata.name].filter(Boolean).join(" ");
}

/** The API server's words, or a program's last line, or the error's message. */
function reason(error: unknown): string {
  if (error instanceof k8s.ApiException) {
    const body: unknown = typeof error.body === "string" ? JSON.parse(error.body) : error.body;
    return (body as { message?: string }).message ?? error.message;
  }
  const { stderr, message } = error as Error & { stderr?: string };
  return stderr?.trim().split("\n").at(-1) ?? message;
}
