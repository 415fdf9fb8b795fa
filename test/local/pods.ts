/**
 * Pods as a kubelet starts them, on this machine and without a container engine: each with a network, a process tree and
 * a root file system of its own, its volumes at their places with the owners and modes that a kubelet gives them, the
 * user and the capabilities of its security context, its environment, probes and hooks. Needs root.
 *
 * Everything lives in one "world": a process that is the first of its own pid, network and mount namespaces and ends when
 * its standard input does. So whatever ends this process, and be it SIGKILL, ends the pods, and nothing is left behind.
 * A new pod has a new address, as on a cluster; the cluster's DNS is a real CoreDNS, which pods ask by the search list
 * that a kubelet gives them.
 *
 * What is not as on a node: "images" are this machine's own programs, seccomp is not applied, and resources are not limited.
 */
import { ChildProcess, execFile, spawn } from "child_process";
import { once } from "events";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { dirname, join } from "path";
import { createInterface } from "readline";
import { setTimeout as sleep } from "timers/promises";
import { promisify } from "util";
import { end } from "../../local/processes";
import { buildTool } from "../../tools/build";

const run = promisify(execFile);

/** The parts of a pod's specification that are carried out. */
export interface PodSpec {
  readonly containers: readonly Container[];
  readonly initContainers?: readonly Container[];
  readonly volumes?: readonly Volume[];
  readonly hostNetwork?: boolean;
  readonly securityContext?: { readonly runAsUser?: number; readonly runAsGroup?: number; readonly fsGroup?: number };
  readonly terminationGracePeriodSeconds?: number;
}

interface Container {
  readonly name: string;
  readonly command: readonly string[];
  readonly env?: readonly {
    readonly name: string;
    readonly value?: string;
    readonly valueFrom?: {
      readonly fieldRef?: { readonly fieldPath: string };
      readonly configMapKeyRef?: { readonly name: string; readonly key: string; readonly optional?: boolean };
    };
  }[];
  readonly volumeMounts?: readonly {
    readonly name: string;
    readonly mountPath: string;
    readonly subPathExpr?: string;
    readonly readOnly?: boolean;
  }[];
  readonly securityContext?: {
    readonly runAsUser?: number;
    readonly runAsGroup?: number;
    readonly allowPrivilegeEscalation?: boolean;
    readonly readOnlyRootFilesystem?: boolean;
    readonly capabilities?: { readonly drop?: readonly string[]; readonly add?: readonly string[] };
  };
  readonly readinessProbe?: { readonly exec: { readonly command: readonly string[] }; readonly timeoutSeconds: number };
  readonly lifecycle?: { readonly preStop?: { readonly exec: { readonly command: readonly string[] } } };
}

interface Item {
  readonly key: string;
  readonly path: string;
}

interface Volume {
  readonly name: string;
  readonly configMap?: { readonly name: string; readonly defaultMode: number; readonly items?: readonly Item[] };
  readonly secret?: { readonly secretName: string; readonly defaultMode: number; readonly items?: readonly Item[] };
  readonly emptyDir?: object;
  readonly hostPath?: { readonly path: string; readonly type?: string };
}

/** ConfigMaps and Secrets by name, their data as it is stored. */
export interface StoredObjects {
  readonly configMaps: ReadonlyMap<string, Readonly<Record<string, string>>>;
  readonly secrets: ReadonlyMap<string, Readonly<Record<string, string>>>;
}

export interface PodOptions {
  readonly name: string;
  readonly namespace: string;
  readonly spec: PodSpec;
  readonly objects: StoredObjects;
  /** Node that it runs on. A pod on the host's network has the node's address. */
  readonly node: string;
  /** Default: one that no pod had before. */
  readonly address?: string;
  /** What a claim of this name is bound to, made where it is missing: a directory of this machine. */
  readonly claims?: Readonly<Record<string, string>>;
}

/** What a command came to. */
export interface Finished {
  readonly code: number;
  readonly output: string;
}

export interface Pod {
  readonly name: string;
  readonly address: string;
  /** Runs a command in the container, with its environment, user and files. `input` is its standard input. */
  exec(command: readonly string[], options?: { seconds?: number; input?: string }): Promise<Finished>;
  /** Carries the readiness probe out once. */
  isReady(): Promise<boolean>;
  /** As a deletion does it: preStop, SIGTERM, and SIGKILL once the grace period is over. @returns what preStop came to */
  delete(): Promise<Finished | undefined>;
  /** As a node that loses power does it. */
  kill(): Promise<void>;
  /** Ends by itself, as a Job's pod does. */
  finished(): Promise<Finished>;
  /** What the container wrote. */
  log(): string;
}

/** Why pods cannot be run here, in one line; undefined where they can. */
export async function podsUnavailable(): Promise<string | undefined> {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return "pods are only run as root on Linux";
  for (const [tool, from] of Object.entries({ ip: "iproute2", nsenter: "util-linux", setpriv: "util-linux" })) {
    const found = await run("sh", ["-c", `command -v ${tool}`]).catch(() => undefined);
    if (!found) return `pods cannot be run: ${tool} is missing (Debian: ${from})`;
  }
  return run("unshare", ["--pid", "--net", "--mount", "--fork", "true"]).then(
    () => undefined,
    (error: unknown) => `pods cannot be run: namespaces are refused (${(error as Error).message.trim()})`,
  );
}

const domain = "cluster.local";
const gateway = "10.244.0.1";
const addresses = { pods: "10.244", nodes: "10.16" } as const;

/** A network with nodes and pods on it, and the cluster's DNS. */
export class World {
  private readonly dns = new Map<string, readonly string[]>();
  private readonly nodes = new Map<string, string>();
  private networks = 0;
  private resolver: ChildProcess | undefined;

  private constructor(
    readonly directory: string,
    /** The consul that pods find on their PATH. */
    private readonly consul: string,
    private readonly services: readonly string[],
    private readonly shell: ChildProcess,
    private readonly pid: number,
  ) {}

  /** @param services names of Services, as `resolve` has them */
  static async start(consul: string, services: readonly string[] = []): Promise<World> {
    const directory = mkdtempSync(join(tmpdir(), "consul-pods-"));
    const script = `
      mount -t tmpfs tmpfs /run
      mkdir /run/netns
      ip link set lo up
      ip link add bridge type bridge
      ip addr add ${gateway}/8 dev bridge
      ip link set bridge up
      echo ready
      while read -r _; do :; done`;
    const shell = spawn(
      "unshare",
      ["--pid", "--net", "--mount", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-euc", script],
      { stdio: ["pipe", "pipe", "inherit"], detached: true },
    );
    await once(createInterface(shell.stdout), "line");
    const pid = children(shell.pid ?? 0)[0];
    if (pid === undefined) throw new Error("the world of the pods ended at once");
    const world = new World(directory, consul, services, shell, pid);
    await world.startDns();
    return world;
  }

  /** Runs a program in the world's network. */
  spawn(command: string, args: readonly string[], stdio: "pipe" | "ignore" = "pipe"): ChildProcess {
    return spawn("nsenter", [...this.inside, command, ...args], { stdio: ["ignore", stdio, "inherit"] });
  }

  /** What a program in the world's network writes. */
  async run(command: string, args: readonly string[]): Promise<string> {
    return (await run("nsenter", [...this.inside, command, ...args], { maxBuffer: 1 << 26 })).stdout;
  }

  private get inside(): string[] {
    return [`--target=${this.pid}`, "--pid", "--net", "--mount"];
  }

  private async startDns() {
    writeFileSync(join(this.directory, "hosts"), "");
    // As ACK's: names of the cluster for 30 s, and none of them is asked for elsewhere. Services have no address of their
    // own here, and their pods' must not be old ones.
    const corefile = `.:53 {
      bind ${gateway}
      hosts ${this.directory}/hosts {
        ttl 30
        reload 100ms
      }
      cache 30 {
        ${this.services.map((name) => `disable success ${name}.${domain}`).join("\n")}
      }
    }\n`;
    writeFileSync(join(this.directory, "Corefile"), corefile);
    const coredns = await buildTool("coredns", console.error);
    this.resolver = this.spawn(coredns, ["-conf", join(this.directory, "Corefile")], "ignore");
  }

  /** Tells the cluster's DNS the addresses of a name, without the cluster's domain; none takes it away. */
  resolve(name: string, addresses: readonly string[]): void {
    if (addresses.length > 0) this.dns.set(name, addresses);
    else this.dns.delete(name);
    const lines = [...this.dns].flatMap(([name, all]) => all.map((address) => `${address} ${name}.${domain}\n`));
    const file = join(this.directory, "hosts");
    writeFileSync(`${file}.new`, lines.join(""));
    renameSync(`${file}.new`, file);
  }

  /** Makes a node, at an address of its own unless one is given. */
  async addNode(name: string, address = `${addresses.nodes}.1.${this.nodes.size + 20}`): Promise<string> {
    await this.network(name, address);
    this.nodes.set(name, address);
    return address;
  }

  private async network(name: string, address: string) {
    const link = `v${++this.networks}`;
    await this.run("sh", [
      "-euc",
      `ip netns add ${name}
      ip -n ${name} link set lo up
      ip link add ${link} type veth peer name eth0 netns ${name}
      ip link set ${link} master bridge up
      ip -n ${name} addr add ${address}/8 dev eth0
      ip -n ${name} link set eth0 up`,
    ]);
  }

  /** Starts a pod: its init containers one after another, then its only container. */
  async startPod(options: PodOptions): Promise<Pod> {
    const { spec, node } = options;
    const nodeAddress = this.nodes.get(node);
    if (nodeAddress === undefined) throw new Error(`there is no node ${node}`);
    const id = `p${++this.networks}`;
    const address = spec.hostNetwork ? nodeAddress : (options.address ?? `${addresses.pods}.1.${this.networks}`);
    const netns = spec.hostNetwork ? node : id;
    if (!spec.hostNetwork) await this.network(netns, address);
    const directory = join(this.directory, id);
    const volumes = this.volumes(options, directory);
    const fields: Readonly<Record<string, string>> = {
      "metadata.name": options.name,
      "metadata.namespace": options.namespace,
      "spec.nodeName": node,
      "status.hostIP": nodeAddress,
      "status.podIP": address,
    };
    for (const init of spec.initContainers ?? []) {
      const { code, output } = await this.startContainer(options, init, {
        directory,
        netns,
        volumes,
        fields,
      }).finished();
      if (code !== 0) throw new Error(`${options.name}: init container ${init.name} failed (${code}): ${output}`);
    }
    const [container] = spec.containers;
    if (!container || spec.containers.length > 1) throw new Error("pods of one container only");
    const started = this.startContainer(options, container, { directory, netns, volumes, fields });
    const removeNetwork = async () => {
      if (!spec.hostNetwork) await this.run("ip", ["netns", "delete", netns]);
    };
    return {
      name: options.name,
      address,
      exec: (command, given) => started.exec(command, given),
      log: () => started.log(),
      isReady: async () => {
        const probe = container.readinessProbe;
        if (!probe) return started.isRunning();
        const { code } = await started.exec(probe.exec.command, { seconds: probe.timeoutSeconds });
        return code === 0;
      },
      delete: async () => {
        const grace = spec.terminationGracePeriodSeconds ?? 30;
        const hook = container.lifecycle?.preStop?.exec.command;
        const hooked = hook && (await started.exec(hook, { seconds: grace }));
        await started.end("SIGTERM");
        await removeNetwork();
        return hooked;
      },
      kill: async () => {
        await started.end("SIGKILL");
        await removeNetwork();
      },
      finished: async () => {
        const result = await started.finished();
        await removeNetwork();
        return result;
      },
    };
  }

  /** Makes the volumes of a pod. @returns the directory of each */
  private volumes({ name, spec, objects, node, claims = {} }: PodOptions, directory: string): Map<string, string> {
    const group = spec.securityContext?.fsGroup ?? 0;
    const made = new Map<string, string>();
    const write = (volume: string, data: Readonly<Record<string, Buffer>>, mode: number, items?: readonly Item[]) => {
      const base = join(directory, "volumes", volume);
      const wanted = items ?? Object.keys(data).map((key) => ({ key, path: key }));
      mkdirSync(base, { recursive: true, mode: 0o755 });
      for (const { key, path } of wanted) {
        const content = data[key];
        if (!content) throw new Error(`${name}: volume ${volume} wants ${key}, which is not there`);
        mkdirSync(dirname(join(base, path)), { recursive: true, mode: 0o755 });
        // A kubelet adds reading for the group where there is one.
        writeFileSync(join(base, path), content, { mode: group ? mode | 0o440 : mode });
      }
      return base;
    };
    const decoded = (data: Readonly<Record<string, string>>, encoding: "utf8" | "base64") =>
      Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value, encoding)]));
    for (const { name: volume, configMap, secret, hostPath, emptyDir } of spec.volumes ?? []) {
      if (configMap) {
        const data = objects.configMaps.get(configMap.name);
        if (!data) throw new Error(`${name}: there is no ConfigMap ${configMap.name}`);
        made.set(volume, write(volume, decoded(data, "utf8"), configMap.defaultMode, configMap.items));
      } else if (secret) {
        const data = objects.secrets.get(secret.secretName);
        if (!data) throw new Error(`${name}: there is no Secret ${secret.secretName}`);
        made.set(volume, write(volume, decoded(data, "base64"), secret.defaultMode, secret.items));
      } else if (hostPath) {
        if (hostPath.type !== "DirectoryOrCreate") throw new Error(`${name}: ${hostPath.path} may not be there`);
        const path = join(this.directory, "nodes", node, hostPath.path);
        mkdirSync(path, { recursive: true, mode: 0o755 });
        made.set(volume, path);
        continue; // fsGroup does not reach it
      } else if (emptyDir) {
        const path = join(directory, "volumes", volume);
        mkdirSync(path, { recursive: true });
        made.set(volume, path);
      } else throw new Error(`${name}: volume ${volume} is of a kind that is not carried out`);
    }
    for (const [volume, path] of Object.entries(claims)) {
      mkdirSync(path, { recursive: true });
      made.set(volume, path);
    }
    return made;
  }

  private startContainer(
    { name, spec, objects }: PodOptions,
    container: Container,
    place: {
      readonly directory: string;
      readonly netns: string;
      readonly volumes: ReadonlyMap<string, string>;
      readonly fields: Readonly<Record<string, string>>;
    },
  ) {
    const environment: Record<string, string> = { PATH: "/opt/bin:/usr/bin:/bin", HOSTNAME: name, HOME: "/" };
    // $(NAME) is replaced by what is above it; what is not known stays as it is.
    const expand = (text: string) => text.replace(/\$\((\w+)\)/g, (whole, key: string) => environment[key] ?? whole);
    for (const { name: variable, value, valueFrom } of container.env ?? []) {
      const reference = valueFrom?.configMapKeyRef;
      const stored = reference && objects.configMaps.get(reference.name)?.[reference.key];
      if (reference && stored === undefined && !reference.optional) throw new Error(`there is no ${reference.name}`);
      if (reference && stored === undefined) continue;
      const path = valueFrom?.fieldRef?.fieldPath;
      const field = path === undefined ? undefined : place.fields[path];
      if (path !== undefined && field === undefined) throw new Error(`the downward API has no ${path} here`);
      environment[variable] = stored ?? field ?? expand(value ?? "");
    }
    const own = container.securityContext ?? {};
    const user = own.runAsUser ?? spec.securityContext?.runAsUser ?? 0;
    const group = own.runAsGroup ?? spec.securityContext?.runAsGroup ?? 0;
    const fsGroup = spec.securityContext?.fsGroup;
    const drop = own.capabilities?.drop?.includes("ALL") ? ["-all"] : [];
    const capabilities = [...drop, ...(own.capabilities?.add ?? []).map((cap) => `+${cap.toLowerCase()}`)].join(",");
    const privileges = [
      `--reuid=${user}`,
      `--regid=${group}`,
      ...(fsGroup === undefined ? ["--clear-groups"] : [`--groups=${fsGroup}`]),
      ...(own.allowPrivilegeEscalation === false ? ["--no-new-privs"] : []),
      ...(capabilities ? [`--bounding-set=${capabilities}`, "--inh-caps=-all"] : []),
    ];
    const variables = Object.entries(environment).map(([key, value]) => `${key}=${value}`);
    const asContainer = (command: readonly string[]) => [
      ...["env", "--ignore-environment", ...variables],
      ...["setpriv", ...privileges, "--", ...command],
    ];

    const root = join(place.directory, `root-${container.name}`);
    const mounts = (container.volumeMounts ?? []).map(({ name: volume, mountPath, subPathExpr, readOnly }) => {
      const source = place.volumes.get(volume);
      if (source === undefined) throw new Error(`${name}: there is no volume ${volume}`);
      const path = subPathExpr === undefined ? source : join(source, expand(subPathExpr));
      const ofKubelet = source.startsWith(join(place.directory, "volumes")) || !readOnly;
      return { path, mountPath, readOnly, owned: fsGroup !== undefined && ofKubelet && !source.includes("/nodes/") };
    });
    const quote = (text: string) => `'${text.replace(/'/g, "'\\''")}'`;
    const script = [
      `mkdir -p ${root}`,
      `mount -t tmpfs -o mode=0755 tmpfs ${root}`,
      `cd ${root}`,
      "mkdir usr etc proc dev opt opt/bin",
      "mount --bind /usr usr",
      "mount -o remount,bind,ro,nosuid usr",
      "for part in bin sbin lib lib32 lib64; do [ ! -e /$part ] || ln -s usr/$part $part; done",
      // Debian's awk is a link into /etc/alternatives.
      "[ ! -d /etc/alternatives ] || cp -a /etc/alternatives etc/",
      "cp -a /etc/passwd /etc/group /etc/nsswitch.conf /etc/ld.so.cache etc/",
      `printf '127.0.0.1 localhost\\n${place.fields["status.podIP"] ?? ""} ${name}\\n' >etc/hosts`,
      `printf 'search ${place.fields["metadata.namespace"] ?? ""}.svc.${domain} svc.${domain} ${domain}\\nnameserver ${gateway}\\noptions ndots:5\\n' >etc/resolv.conf`,
      "mount -t proc proc proc",
      "for device in null zero random urandom; do : >dev/$device; mount --bind /dev/$device dev/$device; done",
      "ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr",
      `: >opt/bin/consul; mount --bind ${this.consul} opt/bin/consul`,
      ...mounts.flatMap(({ path, mountPath, readOnly, owned }) => [
        `mkdir -p ${quote(path)} .${mountPath}`,
        // What a kubelet does for fsGroup: the group's, and for the group to write where it may be written.
        ...(owned ? [`chgrp -R ${fsGroup ?? 0} ${quote(path)}`] : []),
        ...(owned && !readOnly ? [`chmod g+rwxs ${quote(path)}`] : []),
        `mount --bind ${quote(path)} .${mountPath}`,
        ...(readOnly ? [`mount -o remount,bind,ro .${mountPath}`] : []),
      ]),
      ...(own.readOnlyRootFilesystem ? [`mount -o remount,ro ${root}`] : []),
      `exec chroot ${root} ${asContainer(container.command.map(expand)).map(quote).join(" ")}`,
    ].join("\n");

    let written = "";
    const inside = ["ip", "netns", "exec", place.netns, "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"];
    const child = spawn("nsenter", [...this.inside, ...inside, "sh", "-euc", script], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const collect = (chunk: Buffer) => (written += chunk.toString());
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    const exited = once(child, "close").then(([code]) => (code as number | null) ?? 137);

    /** The container's first process, as this machine numbers it. */
    const first = async (): Promise<number> => {
      for (let tries = 0; tries < 500; tries++) {
        const chain = [child.pid ?? 0];
        for (let next = children(chain[0] ?? 0)[0]; next !== undefined; next = children(next)[0]) chain.push(next);
        // nsenter, unshare (which ip has become), and the one that has changed its root.
        const last = chain[2];
        if (last !== undefined && rootOf(last) !== "/" && rootOf(last) !== "") return last;
        if (child.exitCode !== null) break;
        await sleep(20);
      }
      throw new Error(`${name}: container ${container.name} does not run: ${written.slice(-500)}`);
    };
    return {
      isRunning: () => child.exitCode === null,
      log: () => written,
      finished: async (): Promise<Finished> => ({ code: await exited, output: written }),
      end: async (signal: NodeJS.Signals) => {
        const pid = await first().catch(() => undefined);
        if (pid === undefined) return;
        process.kill(pid, signal);
        await end(
          child,
          exited.then(() => undefined),
          "SIGCONT",
        );
      },
      exec: async (command: readonly string[], { seconds = 60, input = "" } = {}): Promise<Finished> => {
        const pid = await first();
        const args = [`--target=${pid}`, "--all", "--root", "--wd", ...asContainer(command)];
        const child = spawn("nsenter", args, { stdio: ["pipe", "pipe", "pipe"] });
        let output = "";
        const collect = (chunk: Buffer) => (output += chunk.toString());
        child.stdout.on("data", collect);
        child.stderr.on("data", collect);
        child.stdin.on("error", () => undefined); // it may not want any
        child.stdin.end(input);
        const timer = setTimeout(() => {
          for (const inner of children(child.pid ?? 0)) process.kill(inner, "SIGKILL");
        }, seconds * 1000);
        const [code] = (await once(child, "close")) as [number | null];
        clearTimeout(timer);
        return { code: code ?? 137, output };
      },
    };
  }

  /** Ends every pod and removes every trace. */
  async stop(): Promise<void> {
    this.shell.stdin?.end();
    if (this.shell.exitCode === null) await once(this.shell, "exit");
    this.resolver?.kill();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function children(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number);
  } catch {
    return []; // it has ended
  }
}

function rootOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/root/etc/hosts`, "utf8").includes("127.0.0.1 localhost\n10.") ? "own" : "/";
  } catch {
    return "";
  }
}
