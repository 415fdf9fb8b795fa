/** Root file systems of the test machines, and the tools that make and boot them. */
import { execFile, spawn } from "child_process";
import { createHash } from "crypto";
import { accessSync, constants, existsSync, mkdirSync, readFileSync } from "fs";
import { homedir } from "os";
import { delimiter, join } from "path";
import { createInterface } from "readline";
import { promisify } from "util";

const run = promisify(execFile);

export type Progress = (line: string) => void;

/**
 * trixie has cloud-init 25.1.4, which reads ECS metadata with tokens and in its local stage; bookworm has 22.4.2, which
 * knows no tokens and reads in its network stage. Tests boot trixie unless they say otherwise.
 */
export type Suite = "trixie" | "bookworm";

/** The tools for the machines, each with its Debian package. */
const tools: Readonly<Record<string, string>> = {
  dnsmasq: "dnsmasq-base",
  flock: "util-linux",
  ip: "iproute2",
  losetup: "mount",
  mmdebstrap: "mmdebstrap",
  nsenter: "util-linux",
  "systemd-nspawn": "systemd-container",
  unshare: "util-linux",
};

/** As few packages as a public cloud image has. No unzip, so that user data does not come to depend on it. */
const packages = [
  "ca-certificates",
  "cloud-init",
  "curl",
  "dbus",
  "e2fsprogs",
  "iproute2",
  "iputils-ping",
  "kmod",
  "libpam-systemd",
  "procps",
  "python3",
  "systemd",
  "systemd-resolved",
  "systemd-sysv",
  "udev",
];

/** The image's configuration of cloud-init: no ssh, no locales, and a root file system that does not grow. */
const cloudConfig = "ssh_deletekeys: false\nssh_genkeytypes: []\nlocale: false\nresize_rootfs: false\n";

const mmdebstrap = [
  "--mode=root",
  "--variant=minbase",
  `--include=${packages.join(",")}`,
  '--aptopt=Acquire::Languages "none"',
  "--dpkgopt=path-exclude=/usr/share/man/*",
  "--dpkgopt=path-exclude=/usr/share/doc/*",
  "--dpkgopt=path-exclude=/usr/share/locale/*",
  // cloud-init leaves the network to networkd. Cloud images have networkd enabled.
  '--customize-hook=chroot "$1" systemctl enable systemd-networkd.service',
  `--customize-hook=printf '${cloudConfig.replaceAll("\n", "\\n")}' >"$1/etc/cloud/cloud.cfg.d/90_image.cfg"`,
  // No server on the tests' network answers these.
  '--customize-hook=chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer',
  // mmdebstrap copies this machine's file.
  '--customize-hook=rm -f "$1/etc/hostname" && ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"',
  // Each machine gets an id of its own at its first boot.
  '--customize-hook=: >"$1/etc/machine-id"',
];

function onPath(tool: string): boolean {
  return [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/sbin"].some((dir) => {
    try {
      accessSync(join(dir, tool), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/**
 * Which of these tools (each with its Debian package) are missing and why, or undefined where all are there. Missing
 * Debian packages are installed.
 */
export async function toolsUnavailable(
  wanted: Readonly<Record<string, string>>,
  progress: Progress = console.error,
): Promise<string | undefined> {
  const missing = Object.keys(wanted).filter((tool) => !onPath(tool));
  if (missing.length === 0) return undefined;
  const debian = [...new Set(missing.map((tool) => wanted[tool] ?? tool))];
  const command = `apt-get install ${debian.join(" ")}`;
  if (!onPath("apt-get")) return `${missing.join(", ")} (in Debian: ${command})`;
  progress(`installing ${debian.join(", ")} with apt-get`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  try {
    await run("apt-get", ["update", "-qq"], { env });
    await run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...debian], { env, maxBuffer: 1 << 26 });
  } catch (error) {
    return `${missing.join(", ")}, and "${command}" failed: ${lastLine(error)}`;
  }
  return undefined;
}

/**
 * Why machines cannot be booted here, in one line, or undefined where they can. Debian packages that are missing are
 * installed, so the first call may take half a minute.
 */
export async function machinesUnavailable(progress: Progress = console.error): Promise<string | undefined> {
  if (process.platform !== "linux") return `machines need Linux, this is ${process.platform}`;
  if (process.getuid?.() !== 0) return "machines need root (namespaces, mounts, loop devices): run the tests as root";
  const without = await toolsUnavailable(tools, progress);
  if (without !== undefined) return `machines need ${without}`;
  if (!readFileSync("/proc/filesystems", "utf8").includes("\toverlay\n")) {
    await run("modprobe", ["overlay"]).catch(() => undefined);
  }
  try {
    const probe =
      "mount -t tmpfs t /mnt && cd /mnt && mkdir l u w m && ip link add name br-test type bridge && losetup -f";
    const overlay = "mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m";
    await run("unshare", ["--mount", "--net", "--pid", "--fork", "sh", "-c", `${probe} && ${overlay}`]);
  } catch (error) {
    return `machines need namespaces, overlayfs, bridges and loop devices, and this kernel refuses: ${lastLine(error)}`;
  }
  return undefined;
}

/** What a suite of tests on machines begins with. Says why where it skips them. @param test the context of its hook */
export async function machinesOrSkip(test: Mocha.Context): Promise<void> {
  const reason = await machinesUnavailable();
  if (reason === undefined) return;
  console.error(`skipped: ${reason}`);
  test.skip();
}

function lastLine(error: unknown): string {
  const text =
    error instanceof Error && "stderr" in error && typeof error.stderr === "string" ? error.stderr : String(error);
  return text.trim().split("\n").at(-1) ?? text;
}

/**
 * Directory of a root file system. Nothing writes to it: machines put an overlay over it. mmdebstrap makes it once
 * (40 s); it stays in the cache directory, under a name that is a hash of its ingredients.
 * @throws Error with the last lines of mmdebstrap where it fails.
 */
export async function rootfs(suite: Suite = "trixie", progress: Progress = console.error): Promise<string> {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "consul-alicloud", "rootfs");
  const key = createHash("sha256")
    .update(JSON.stringify([suite, process.arch, mmdebstrap]))
    .digest("hex")
    .slice(0, 12);
  const dir = join(cache, `${suite}-${key}`);
  if (existsSync(dir)) return dir;
  mkdirSync(cache, { recursive: true });
  progress(`making a root file system: Debian ${suite} with systemd and cloud-init (once, about a minute)`);
  // One process at a time makes it; the others find it made. An interrupted run leaves only the .new for the next run
  // to remove.
  const script = 'test -d "$0" || { rm -rf "$0.new" && mmdebstrap "$@" "$0.new" && mv "$0.new" "$0"; }';
  // The suite is mmdebstrap's first operand, the directory its second.
  const argv = ["-o", join(cache, "lock"), "sh", "-c", script, dir, ...mmdebstrap, suite];
  const child = spawn("flock", argv, { stdio: ["ignore", "ignore", "pipe"] });
  const lines: string[] = [];
  createInterface(child.stderr).on("line", (line) => {
    lines.push(line);
    if (/^I: (downloading|extracting|installing|success)/.test(line)) progress(`  ${line.slice(3)}`);
  });
  const code = await new Promise<number | null>((resolve, reject) => child.on("close", resolve).on("error", reject));
  if (code !== 0) throw new Error(`mmdebstrap ${suite} failed (${String(code)}): ${lines.slice(-5).join(" | ")}`);
  return dir;
}
