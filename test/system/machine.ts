/**
 * Machines as ECS boots them, on this one: systemd in a systemd-nspawn container, cloud-init with its own AliYun data
 * source, a network with the metadata service on it, data disks that come and go. Needs root.
 *
 * Everything lives in one "world": the first process of its own pid, mount and network namespaces. The world ends when
 * its standard input ends. So whatever ends this process, even SIGKILL, ends the machines; their mounts, bridges and
 * disks go with the namespaces. The world's parent waits outside and removes what no namespace holds: a control group,
 * loop devices, one empty directory.
 *
 * How the guest looks like an ECS machine. Each point was found by trying:
 * - DMI: containers have no /sys/class/dmi, and sysfs takes no new directory. An overlay of a directory that holds
 *   dmi/id/product_name with /sys/class itself does (ds-identify and cloud-init read it, links into /sys/devices work).
 * - Both ignore DMI where they see a container. PID 1 must know that it is in one (/run/host/container-manager tells it),
 *   the others must not: `container` is taken out of PID 1's environment, a systemd-detect-virt earlier in PATH says
 *   "kvm", and the generator of cloud-init is called with the SYSTEMD_VIRTUALIZATION of a virtual machine.
 * - BPF: nspawn refuses BPF to containers, and systemd then silently leaves out IPAddressDeny and the device rules of
 *   PrivateDevices. The units must be tried with both, so the harness allows BPF.
 * - Control groups: nspawn sees a unified hierarchy, whatever this machine has; systemd 257 needs it.
 *
 * Data disks: a kernel without modules offers no disk with a serial number (virtio, SCSI, NVMe, nbd, null_blk), so a
 * disk is a loop device on a file. A loop device has no serial, and no udev runs in a container. The harness makes what
 * udev makes: the device node, /dev/disk/by-id/virtio-<serial>, and the serial in udev's database for lsblk. Everything
 * above (blkid, mkfs, mount by label, resize) is real. Not covered: udev's by-label links. `mount -L` then reads the
 * labels itself, as it does where udev is late.
 */
import { ChildProcess, execFile, spawn } from "child_process";
import { randomBytes } from "crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync } from "fs";
import { mkdir, writeFile } from "fs/promises";
import { tmpdir } from "os";
import { basename, join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { cidrContains, firstAndLast } from "../../settings/ip";
import {
  Metadata,
  metadataAddress,
  metadataService,
  Mirror,
  mirrorAddress,
  mirrorService,
  ServedRequest,
} from "./machine-services";
import { Progress, rootfs, Suite } from "./rootfs";

export interface ExecResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ExecOptions {
  readonly timeout?: number;
  readonly input?: string;
}

/** A data disk. It outlives reboots and new system disks, and ends with its network. */
export interface Disk {
  /** The serial number as on ECS: the disk's id without "d-". */
  readonly serial: string;
  /** Kernel name of the device, in the machine too: loop3. */
  readonly device: string;
  /** SHA-256 of the whole disk. Only while the machine is off: a mounted file system may have changes in memory. */
  checksum(): Promise<string>;
  /** As ResizeDisk with `type: online`: the device is larger at once, in a machine that runs too. `size` in MiB. */
  grow(size: number): Promise<void>;
}

export interface MachineOptions {
  /** Host name, and name in messages. */
  readonly name: string;
  /** Private address, in one of the network's vSwitches. */
  readonly address: string;
  /** Default: an id made from the name. */
  readonly instanceId?: string;
  readonly userData?: string;
  /** Attached from the first boot on; on ECS a disk comes later, by `attach`. */
  readonly disk?: Disk;
  /** Default "required", which cloud-init 22.4.2 (bookworm) cannot do. */
  readonly httpTokens?: "required" | "optional";
  /** Default trixie. */
  readonly suite?: Suite;
}

export interface Machine {
  readonly name: string;
  readonly address: string;
  /** The machine's requests to the metadata service, over all boots. */
  metadataRequests(): readonly ServedRequest[];
  /** Takes effect at the next boot, as ModifyInstanceAttribute does. */
  setUserData(text: string): void;
  /** Takes effect at once, as ModifyInstanceMetadataOptions does. */
  setMetadataTokens(tokens: "required" | "optional"): void;
  /**
   * Switches the machine on and waits until cloud-init has ended, with any result. `wait: false` waits only for PID 1.
   * @throws Error with the end of the console where this takes over three minutes.
   */
  boot(options?: { wait?: boolean }): Promise<void>;
  /** Waits until cloud-init has finished with this boot. */
  booted(): Promise<void>;
  /** Shuts down as ACPI does: systemd stops every unit. @throws Error where this takes over two minutes. */
  shutdown(): Promise<void>;
  /**
   * Pulls the plug: every process is killed at once. Data that was written and not synced stays all the same, since the
   * data is in this machine's memory, not in the guest's.
   */
  powerOff(): Promise<void>;
  /** As ReplaceSystemDisk, machine off: a new system disk with the same instance id, address and data disks. */
  replaceSystemDisk(suite?: Suite): Promise<void>;
  /** AttachDisk and DetachDisk, for a machine that is on or off. */
  attach(disk: Disk): Promise<void>;
  detach(disk: Disk): Promise<void>;
  /**
   * Runs a command with bash as root, `input` as its standard input (default: nothing). It is killed after `timeout`
   * seconds (default 60), which is code 124.
   */
  exec(command: string, options?: ExecOptions): Promise<ExecResult>;
  /** Standard output of a command. @throws Error with both outputs where it fails. */
  run(command: string, options?: ExecOptions): Promise<string>;
  /** Repeats a command for up to `timeout` seconds (default 60). @returns its output. @throws the last failure. */
  until(command: string, timeout?: number): Promise<string>;
  /** The messages of a unit in this boot. */
  journal(unit: string): Promise<string>;
  /** The output of PID 1 on the console, over all boots. */
  console(): string;
}

export interface Network {
  /** Name of the network on this machine. */
  readonly id: string;
  readonly mirror: Mirror;
  machine(options: MachineOptions): Promise<Machine>;
  /** Makes an empty disk; `size` in MiB. Two disks may have one serial, but not in one machine. */
  disk(options: { serial: string; size: number }): Promise<Disk>;
  /** Ends every machine and removes every trace. May be called twice. */
  destroy(): Promise<void>;
}

/** Runs outside the world: makes mounts, waits for the world, removes what no namespace holds. $1 id, $2 directory. */
const worldScript = `
set -eu
trap '' INT TERM HUP
mount -t tmpfs -o mode=0755 tmpfs "$2"
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/netns /run/systemd/nspawn
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$1"
unshare --pid --net --mount --fork --kill-child=KILL --mount-proc sh -euc '
  echo 0 >"/sys/fs/cgroup/$1/cgroup.procs"
  ip link set lo up
  echo 1 >/proc/sys/net/ipv4/ip_forward
  echo ready
  while read -r _; do :; done
' sh "$1" || :
losetup --noheadings --output NAME,BACK-FILE | grep -F "$1" | while read -r device _; do losetup -d "$device"; done || :
for _ in 1 2 3 4 5 6 7 8 9 10; do
  find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} + 2>/dev/null && break
  sleep 0.5
done
umount -l "$2"
rmdir "$2"
`;

/** The guest's kernel command line, instead of this machine's own. */
const kernelCommandLine = "BOOT_IMAGE=/boot/vmlinuz root=LABEL=root ro console=tty0 console=ttyS0,115200n8\n";

/** Runs before systemd and does what the hypervisor and its firmware do. */
const initScript = `#!/bin/sh
set -e
mount -t overlay -o lowerdir=/run/ecs/class:/sys/class overlay /sys/class
mount --bind /run/ecs/cmdline /proc/cmdline
# As in any network namespace of its own; dhcpcd sets some of these.
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,rw /proc/sys/net
/run/ecs/disks.sh
unset container
exec /lib/systemd/systemd
`;

/** Makes in /dev what /run/ecs/disks says (a line per disk: name, major, minor, serial), as udev does. */
const disksScript = `#!/bin/sh
set -e
mkdir -p /dev/disk/by-id /run/udev/data
rm -f /dev/disk/by-id/virtio-* /dev/loop[0-9]* /run/udev/data/b7:*
while read -r name major minor serial; do
  mknod -m 0660 "/dev/$name" b "$major" "$minor"
  ln -s "../../$name" "/dev/disk/by-id/virtio-$serial"
  printf 'I:1\\nE:ID_SERIAL=%s\\n' "$serial" >"/run/udev/data/b$major:$minor"
done </run/ecs/disks
`;

const detectVirtScript = `#!/bin/sh
case " $* " in *" --container "* | *" -c "*) exit 1 ;; *" -q "* | *" --quiet "*) ;; *) echo kvm ;; esac
`;

const generatorScript = `#!/bin/sh
SYSTEMD_VIRTUALIZATION=vm:kvm exec /lib/systemd/system-generators/cloud-init-generator "$@"
`;

const capabilities = "CAP_NET_ADMIN,CAP_IPC_LOCK,CAP_BPF,CAP_PERFMON,CAP_SYSLOG";

function execute(command: string, argv: readonly string[], input = ""): Promise<ExecResult> {
  return new Promise((resolve, reject) => {
    const child = execFile(command, argv, { maxBuffer: 1 << 28 }, (error, stdout, stderr) => {
      if (error && typeof error.code !== "number") {
        reject(new Error(`${command} ended without a result: ${error.message}`));
      } else resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
    });
    // A process may end without reading its input.
    child.stdin?.on("error", () => undefined).end(input);
  });
}

/** First child of a process, or undefined. */
function childOf(pid: number): number | undefined {
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      // "pid (name) state ppid": the name may hold anything.
      const parent = /^.*\) \S (\d+) /s.exec(readFileSync(`/proc/${entry}/stat`, "utf8"))?.[1];
      if (Number(parent) === pid) return Number(entry);
    } catch {
      // The process has ended meanwhile.
    }
  }
  return undefined;
}

function namespaceIds(pid: number): string[] {
  const line = /^NSpid:\t(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "";
  return line.split("\t");
}

async function poll<T>(seconds: number, probe: () => T | undefined | Promise<T | undefined>): Promise<T | undefined> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const result = await probe();
    if (result !== undefined || Date.now() >= deadline) return result;
    await sleep(100);
  }
}

const exited = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null;

const dotted = (n: number): string => [24, 16, 8, 0].map((shift) => Math.floor(n / 2 ** shift) % 256).join(".");

/** The gateway of a vSwitch is the third address from its end. */
const gatewayOf = (cidr: string): string => dotted(firstAndLast(cidr)[1] - 2);

/**
 * Makes a network: one bridge per vSwitch, routed, with DHCP, the metadata service and a download mirror.
 * @param options vswitches: CIDRs, default 10.16.190.0/24. progress: default standard error.
 * @throws Error where this machine cannot make one (see machinesUnavailable).
 */
export async function createNetwork(
  options: { vswitches?: readonly string[]; progress?: Progress } = {},
): Promise<Network> {
  const { vswitches = ["10.16.190.0/24"], progress = console.error } = options;
  const directory = mkdtempSync(join(tmpdir(), "consul-machines-"));
  const id = basename(directory);
  // A session of its own: Ctrl-C in a terminal must reach the tests, which then end the world in order.
  const world = spawn(
    "unshare",
    ["--mount", "--propagation", "private", "sh", "-c", worldScript, "sh", id, directory],
    {
      stdio: ["pipe", "pipe", "pipe"],
      detached: true,
    },
  );
  let worldErrors = "";
  world.stderr.on("data", (data: Buffer) => (worldErrors += data.toString()));
  await new Promise<void>((resolve, reject) => {
    world.stdout.once("data", () => resolve());
    world.once("error", reject);
    world.once("close", () => reject(new Error(`cannot make a network for machines: ${worldErrors.trim()}`)));
  });
  // The first unshare has become sh, which runs unshare, which runs the world.
  const inner = childOf(world.pid ?? 0);
  const pid = inner && childOf(inner);
  if (!pid) throw new Error(`the machines' network ended at once: ${worldErrors.trim()}`);

  const root = `/proc/${pid}/root`;
  const inWorld = async (script: string, ...argv: string[]): Promise<string> => {
    const enter = ["-t", String(pid), "-m", "-n", "-p", "--", "sh", "-euc", script, "sh", ...argv];
    const result = await execute("nsenter", enter);
    if (result.code !== 0) throw new Error(`cannot prepare machines (${script.trim()}): ${result.stderr.trim()}`);
    return result.stdout.trim();
  };

  const machines: Metadata[] = [];
  const netns = `/proc/${pid}/ns/net`;
  const running = new Set<ChildProcess>();
  let destroyed: Promise<void> | undefined;
  const closers: (() => Promise<void>)[] = [];

  const destroy = (): Promise<void> =>
    (destroyed ??= (async () => {
      world.stdin.end();
      for (const close of closers) await close();
      if (!exited(world)) await new Promise((resolve) => world.once("close", resolve));
      for (const child of running) if (!exited(child)) await new Promise((resolve) => child.once("close", resolve));
    })());

  try {
    await inWorld(`ip address add ${metadataAddress}/32 dev lo; ip address add ${mirrorAddress}/32 dev lo`);
    for (const [index, cidr] of vswitches.entries()) {
      const bridge = `vsw${index}`;
      const address = `${gatewayOf(cidr)}/${cidr.split("/")[1] ?? ""}`;
      await inWorld(`ip link add ${bridge} type bridge forward_delay 0; ip address add ${address} dev ${bridge}
        ip link set ${bridge} up`);
    }
    await inWorld('mkdir "$1/dhcp" "$1/disks" "$1/machines"', directory);
    const dnsmasq = spawn(
      "nsenter",
      ["-t", String(pid), "-m", "-n", "-p", "--", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"].concat(
        ["--port=0", "--user=root", "--group=root", "--pid-file=", "--dhcp-authoritative", "--no-ping"],
        [`--dhcp-leasefile=${directory}/leases`, `--dhcp-hostsdir=${directory}/dhcp`, "--log-facility=-"],
        vswitches.map((cidr) => `--dhcp-range=${dotted(firstAndLast(cidr)[0])},static,${netmaskOf(cidr)},infinite`),
        // No name servers: no name server answers here.
        ["--dhcp-option=6"],
      ),
      { stdio: ["ignore", "ignore", "pipe"], detached: true },
    );
    let dhcpLog = "";
    dnsmasq.stderr.on("data", (data: Buffer) => (dhcpLog += data.toString()));
    running.add(dnsmasq);
    if (!(await poll(10, () => (exited(dnsmasq) || dhcpLog.includes("DHCP") ? true : undefined))) || exited(dnsmasq)) {
      throw new Error(`dnsmasq did not start: ${dhcpLog.trim()}`);
    }
    const metadata = await metadataService(netns, () => machines);
    closers.push(() => metadata.close());
    const mirror = await mirrorService(netns);
    closers.push(() => mirror.close());

    const network: World = {
      id,
      directory,
      root,
      inWorld,
      enter: ["-t", String(pid), "-m", "-n", "-p"],
      running,
      progress,
    };
    return {
      id,
      mirror,
      destroy,
      disk: (disk) => makeDisk(network, disk),
      machine: (wanted) => {
        const index = vswitches.findIndex((cidr) => cidrContains(cidr, wanted.address));
        const cidr = vswitches[index];
        if (!cidr) throw new Error(`${wanted.name}: ${wanted.address} is in no vSwitch (${vswitches.join(", ")})`);
        const described: Metadata = {
          instanceId: wanted.instanceId ?? `i-bp1${wanted.name}`,
          hostname: wanted.name,
          address: wanted.address,
          mac: `00:16:3e:${randomBytes(3)
            .toString("hex")
            .replace(/..(?=.)/g, "$&:")}`,
          cidr,
          netmask: netmaskOf(cidr),
          userData: wanted.userData,
          httpTokens: wanted.httpTokens ?? "required",
        };
        machines.push(described);
        return makeMachine(network, `vsw${index}`, described, wanted, metadata.requests);
      },
    };
  } catch (error) {
    await destroy();
    throw error;
  }
}

const netmaskOf = (cidr: string): string => {
  const [first, last] = firstAndLast(cidr);
  return dotted(2 ** 32 - (last - first + 1));
};

/** Values that the parts of a network share. */
interface World {
  readonly id: string;
  /** Scratch directory: a tmpfs that only the world sees. */
  readonly directory: string;
  /** The world's root directory as a path of this machine. */
  readonly root: string;
  inWorld(script: string, ...argv: string[]): Promise<string>;
  /** Arguments of nsenter for a process inside the world. */
  readonly enter: readonly string[];
  readonly running: Set<ChildProcess>;
  readonly progress: Progress;
}

/** Everything of a network that is left on this machine: processes, mounts, devices, control groups, files. */
export function leftovers(id: string): string[] {
  const found: string[] = [];
  const directory = join(tmpdir(), id);
  for (const entry of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const text = readFileSync(`/proc/${entry}/cgroup`, "utf8") + readFileSync(`/proc/${entry}/cmdline`, "utf8");
      if (text.includes(id)) found.push(`process ${entry}: ${text.replace(/\0/g, " ")}`);
    } catch {
      // The process has ended meanwhile.
    }
  }
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    if (line.includes(id)) found.push(`mount ${line}`);
  }
  for (const device of readdirSync("/sys/block").filter((name) => name.startsWith("loop"))) {
    const file = `/sys/block/${device}/loop/backing_file`;
    if (existsSync(file) && readFileSync(file, "utf8").includes(id)) found.push(`device ${device}`);
  }
  for (const group of ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map((mount) => join(mount, id))) {
    if (existsSync(group)) found.push(`control group ${group}`);
  }
  if (existsSync(directory)) found.push(`directory ${directory}`);
  return found;
}

async function makeDisk(world: World, { serial, size }: { serial: string; size: number }): Promise<Disk> {
  // The name has the id: seen from outside, a path begins where the world's tmpfs begins.
  const file = `${world.directory}/disks/${world.id}-${randomBytes(4).toString("hex")}`;
  const path = await world.inWorld(`truncate -s ${size}M "$1"; losetup --find --show "$1"`, file);
  return {
    serial,
    device: basename(path),
    checksum: async () => (await world.inWorld('sync "$1"; sha256sum "$1"', file)).split(" ")[0] ?? "",
    grow: async (more) => void (await world.inWorld(`truncate -s ${more}M "$1"; losetup -c "$2"`, file, path)),
  };
}

async function makeMachine(
  world: World,
  bridge: string,
  metadata: Metadata,
  options: MachineOptions,
  requests: readonly ServedRequest[],
): Promise<Machine> {
  const { name, address } = options;
  const home = `${world.directory}/machines/${name}`;
  const disks = new Map<string, Disk>();
  let nspawn: ChildProcess | undefined;
  let output = "";

  const write = (path: string, text: string, mode = 0o644): Promise<void> =>
    writeFile(`${world.root}${home}/${path}`, text, { mode });

  const newSystemDisk = async (suite: Suite): Promise<void> => {
    const base = await rootfs(suite, world.progress);
    await world.inWorld(
      `cd "$1"; ! mountpoint -q root || umount root; rm -rf upper work; mkdir -p root upper work
       mount -t overlay -o "lowerdir=$2,upperdir=upper,workdir=work" overlay root`,
      home,
      base,
    );
  };

  const writeDisks = async (): Promise<void> => {
    const lines = [...disks.values()].map(({ device, serial }) => {
      const numbers = readFileSync(`/sys/block/${device}/dev`, "utf8").trim().replace(":", " ");
      return `${device} ${numbers} ${serial}\n`;
    });
    await write("ecs/disks", lines.join(""));
    if (leader() !== undefined) await machine.run("/run/ecs/disks.sh");
  };

  /** PID 1 of the guest as a process of this machine; undefined while the guest is off. A reboot gives another one. */
  const leader = (): number | undefined => {
    if (!nspawn?.pid || exited(nspawn)) return undefined;
    // nsenter forked, its child became systemd-nspawn, whose child is PID 1 of a third pid namespace.
    const supervisor = childOf(nspawn.pid);
    const init = supervisor && childOf(supervisor);
    try {
      return init && namespaceIds(init).length === 3 && namespaceIds(init)[2] === "1" ? init : undefined;
    } catch {
      return undefined;
    }
  };

  const ended = async (seconds: number): Promise<boolean> => {
    const child = nspawn;
    return !child || (await poll(seconds, () => (exited(child) ? true : undefined))) === true;
  };

  const machine: Machine = {
    name,
    address,
    metadataRequests: () => requests.filter((request) => request.address === address),
    setUserData: (text) => {
      metadata.userData = text;
    },
    setMetadataTokens: (tokens) => {
      metadata.httpTokens = tokens;
    },
    async boot({ wait = true } = {}) {
      if (nspawn && !exited(nspawn)) throw new Error(`${name} is on already`);
      const script = `echo 0 >"/sys/fs/cgroup/$1/cgroup.procs"; shift; exec nsenter "--net=/run/netns/$1" systemd-nspawn \\
        --quiet --register=no --keep-unit --settings=no --directory="$2/root" --machine="$1" --hostname=localhost \\
        --console=pipe --link-journal=no --resolv-conf=off --timezone=off --capability=${capabilities} --system-call-filter=bpf \\
        --bind-ro="$2/ecs:/run/ecs" --bind-ro="$2/ecs/detect-virt:/usr/local/bin/systemd-detect-virt" \\
        --bind-ro="$2/ecs/generator:/etc/systemd/system-generators/cloud-init-generator" \\
        /run/ecs/init`;
      await world.inWorld('mkdir -p "/sys/fs/cgroup/$1"', `${world.id}/${name}`);
      const argv = [...world.enter, "--", "sh", "-euc", script, "sh", `${world.id}/${name}`, name, home];
      const child = spawn("nsenter", argv, { stdio: ["ignore", "pipe", "pipe"], detached: true });
      for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (data: Buffer) => (output = (output + data.toString()).slice(-100_000)));
      }
      world.running.add(child);
      child.once("close", () => world.running.delete(child));
      nspawn = child;
      const systemd = await poll(30, () => {
        const init = leader();
        if (exited(child)) return false;
        return init && readFileSync(`/proc/${init}/comm`, "utf8") === "systemd\n" ? true : undefined;
      });
      if (!systemd) throw new Error(`${name} did not boot; its console: ${output.slice(-2000)}`);
      if (wait) await machine.booted();
    },
    async booted() {
      // The file is in /run and therefore of this boot.
      const done = await poll(180, () => {
        if (!nspawn || exited(nspawn)) return false;
        return existsSync(`/proc/${leader() ?? 0}/root/run/cloud-init/result.json`) ? true : undefined;
      });
      if (done) return;
      const asked = [
        "cloud-init status --long",
        "systemctl list-jobs --no-pager",
        "journalctl --boot --unit=consul-acl --unit=consul --lines=60 --no-pager --output=cat",
      ];
      const state = leader() ? await machine.exec(asked.join("; ")).catch(String) : "it is off";
      throw new Error(
        `cloud-init on ${name} did not finish: ${JSON.stringify(state)}; its console: ${output.slice(-2000)}`,
      );
    },
    async shutdown() {
      const init = leader();
      // SIGRTMIN+4 is poweroff.target; Node has no name for it.
      if (init) process.kill(init, 38);
      if (!(await ended(120))) throw new Error(`${name} did not shut down; its console: ${output.slice(-2000)}`);
    },
    async powerOff() {
      const init = leader();
      if (init) process.kill(init, "SIGKILL");
      if (!(await ended(30))) throw new Error(`${name} outlived its plug`);
    },
    async replaceSystemDisk(suite = options.suite ?? "trixie") {
      if (nspawn && !exited(nspawn)) throw new Error(`${name} is on: shut it down before its system disk is replaced`);
      await newSystemDisk(suite);
    },
    async attach(disk) {
      disks.set(disk.serial, disk);
      await writeDisks();
    },
    async detach(disk) {
      disks.delete(disk.serial);
      await writeDisks();
    },
    async exec(command, { timeout = 60, input } = {}) {
      const init = leader();
      if (!init) throw new Error(`${name} is off: cannot run "${command}"`);
      const environment = [
        "HOME=/root",
        "LANG=C.UTF-8",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      ];
      const limited = ["timeout", "-k", "5", String(timeout), "bash", "-c", command];
      return execute(
        "nsenter",
        ["-t", String(init), "-a", "-r", "-w", "--", "env", "-i", ...environment, ...limited],
        input,
      );
    },
    async run(command, options) {
      const { code, stdout, stderr } = await machine.exec(command, options);
      if (code !== 0) throw new Error(`"${command}" on ${name} failed (${code}): ${stderr.trim()} ${stdout.trim()}`);
      return stdout;
    },
    async until(command, timeout = 60) {
      let last: ExecResult | undefined;
      const done = await poll(timeout, async () => {
        last = await machine.exec(command, { timeout });
        return last.code === 0 ? last.stdout : undefined;
      });
      if (done !== undefined) return done;
      throw new Error(
        `"${command}" on ${name} failed for ${timeout} s: ${last?.stderr.trim() ?? ""} ${last?.stdout.trim() ?? ""}`,
      );
    },
    journal: (unit) => machine.run(`journalctl --boot --unit='${unit}' --no-pager --output=cat`),
    console: () => output,
  };

  await mkdir(`${world.root}${home}/ecs/class/dmi/id`, { recursive: true });
  await write("ecs/class/dmi/id/product_name", "Alibaba Cloud ECS\n");
  await write("ecs/class/dmi/id/sys_vendor", "Alibaba Cloud\n");
  await write("ecs/cmdline", kernelCommandLine);
  await write("ecs/init", initScript, 0o755);
  await write("ecs/disks.sh", disksScript, 0o755);
  await write("ecs/detect-virt", detectVirtScript, 0o755);
  await write("ecs/generator", generatorScript, 0o755);
  await newSystemDisk(options.suite ?? "trixie");
  await world.inWorld(
    `ip netns add "$1"
     ip link add "$2" master "$3" type veth peer name eth0 address "$4" netns "$1"
     ip link set "$2" up`,
    name,
    `to-${address.split(".").slice(2).join("-")}`,
    bridge,
    metadata.mac,
  );
  await writeFile(`${world.root}${world.directory}/dhcp/${name}`, `${metadata.mac},${address},infinite\n`);
  if (options.disk) disks.set(options.disk.serial, options.disk);
  await writeDisks();
  return machine;
}
