import { equal, match, notEqual, ok } from "assert/strict";
import { execFileSync, spawnSync } from "child_process";
import { createHash } from "crypto";
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "fs";
import { tmpdir } from "os";
import { join, resolve } from "path";
import { toolsUnavailable } from "./rootfs";

// consul/machine/disk.sh on loop devices of this machine, each run in a mount namespace of its own: what it takes for
// an empty disk, and what it leaves alone. machines.test.ts has the script in its place, on booted machines.

const script = resolve("consul/machine/disk.sh");
const tools = {
  capsh: "libcap2-bin",
  "mkfs.xfs": "xfsprogs",
  pvcreate: "lvm2",
  sgdisk: "gdisk",
  losetup: "mount",
  "mkfs.ext4": "e2fsprogs",
};
const [mib, gib] = [2 ** 20, 2 ** 30];

describe("the data disk's script", function () {
  this.timeout("2m");
  const directory = mkdtempSync(join(tmpdir(), "consul-disk-"));
  /** Stands for the system disk's /var/lib. */
  const systemDisk = join(directory, "lib");
  let [disk, device] = ["", ""];

  before(async function () {
    this.timeout("10m");
    const root = process.platform === "linux" && process.getuid?.() === 0;
    const reason = root ? await toolsUnavailable(tools) : "root on Linux";
    if (reason !== undefined) {
      console.error(`skipped: disks need ${reason}`);
      return this.skip();
    }
    mkdirSync(join(directory, "mnt"));
    mkdirSync(join(directory, "bin"));
    for (const file of ["passwd", "group"]) copyFileSync(`/etc/${file}`, join(directory, file));
    writeFileSync(join(directory, "passwd"), "consul:x:990:990::/opt/consul:/usr/sbin/nologin\n", { flag: "a" });
    writeFileSync(join(directory, "group"), "consul:x:990:\n", { flag: "a" });
  });
  afterEach(detach);
  after(() => rmSync(directory, { recursive: true, force: true }));

  const shell = (command: string, ...args: string[]) =>
    execFileSync("sh", ["-euc", command, "sh", ...args], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

  function detach() {
    if (device !== "") shell('losetup -d "$1"', device);
    [disk, device] = ["", ""];
  }

  /** A disk that nobody has used, on a machine with a new system disk. */
  function attach(size: number) {
    detach();
    rmSync(systemDisk, { recursive: true, force: true });
    mkdirSync(systemDisk);
    disk = join(directory, "disk");
    rmSync(disk, { force: true });
    writeFileSync(disk, "");
    truncateSync(disk, size);
    device = shell('losetup --find --show "$1"', disk).trim();
    // A loop device has no serial number: lsblk says it.
    writeFileSync(join(directory, "bin", "lsblk"), `#!/bin/sh\necho "${device} serial"\n`, { mode: 0o755 });
  }

  /** Runs the script, and then a command in sight of what the script mounted. */
  function run(then = ":") {
    const prepare = `
      mount --bind "$1/passwd" /etc/passwd; mount --bind "$1/group" /etc/group; mount --bind "$1/lib" /var/lib
      PATH="$1/bin:$PATH" sh "$2" serial "$1/mnt"
      cd "$1/mnt"; ${then}`;
    const { status, stdout, stderr } = spawnSync(
      "unshare",
      ["--mount", "--propagation", "private", "sh", "-euc", prepare, "sh", directory, script],
      { encoding: "utf8" },
    );
    return { status, stdout, stderr };
  }

  /** Of all that is not zeros: hashing zeros would take half a minute. */
  function checksum(): string {
    shell('sync "$1"', disk);
    const [hash, file, piece, zeros] = [
      createHash("sha256"),
      openSync(disk, "r"),
      Buffer.alloc(mib),
      Buffer.alloc(mib),
    ];
    for (let at = 0, length = 1; length > 0; at += length) {
      length = readSync(file, piece, 0, mib, at);
      if (piece.compare(zeros, 0, length, 0, length) !== 0) hash.update(`${at} `).update(piece.subarray(0, length));
    }
    closeSync(file);
    return hash.digest("hex");
  }
  const wipe = (from: number, to: number) =>
    shell(
      'dd if=/dev/zero of="$1" bs=512 seek="$2" count="$3" conv=notrunc,fsync status=none',
      device,
      String(from / 512),
      String((to - from) / 512),
    );

  it("makes a file system on a disk of zeros, of 100 GiB in seconds, and mounts it from then on", () => {
    attach(100 * gib);
    const began = Date.now();
    const first = run("echo kept >data/file; stat -c '%U %a' data; df --output=size -BG .");
    const seconds = (Date.now() - began) / 1000;
    console.log(`      100 GiB: looked through, formatted and mounted in ${seconds.toFixed(1)} s`);
    equal(first.status, 0, first.stderr);
    match(first.stdout, /made a file system on \S+, which was empty\nconsul 700\n *1G-blocks\n +9\dG\n/);
    ok(seconds < 60);
    const second = run("cat data/file");
    equal(second.stdout, "kept\n");
    // A new system disk remembers nothing, and the label says whose the file system is.
    rmSync(join(systemDisk, "consul-disk"), { recursive: true });
    equal(run("cat data/file").stdout, "kept\n");
  });

  const contents: readonly (readonly [what: string, size: number, make: () => void, blind: boolean])[] = [
    ["ext4 without its first 4 KiB", 512 * mib, () => (ext4(), wipe(0, 4096)), true],
    ["ext4 without its first 100 MiB", 512 * mib, () => (ext4(), wipe(0, 100 * mib)), true],
    ["ext4 in blocks of 1 KiB without its first 6 MiB", 512 * mib, () => (ext4("-b", "1024"), wipe(0, 6 * mib)), true],
    ["XFS without its first sector", 512 * mib, () => (xfs(), wipe(0, 512)), true],
    ["XFS without its first 200 MiB", 512 * mib, () => (xfs(), wipe(0, 200 * mib)), true],
    ["GPT without its first MiB", 512 * mib, () => (gpt(), wipe(0, mib)), true],
    [
      "an MBR",
      512 * mib,
      () => shell('printf "\\125\\252" | dd of="$1" bs=1 seek=510 conv=fsync status=none', device),
      false,
    ],
    ["a volume of LVM", 512 * mib, () => lvm(), false],
    ["a volume of LVM without its label", 512 * mib, () => (lvm(), wipe(0, 2048)), true],
    ["a member of a RAID with metadata 1.0", 512 * mib, () => raid(), true],
    ["random bytes", 32 * mib, () => shell('head -c 33554432 /dev/urandom >"$1"; sync "$1"', device), true],
    ["one sector of text in its last 4 KiB", 512 * mib, () => text(512 * mib - 4096), true],
    ["one sector of text 3 × 8 MiB in", 512 * mib, () => text(24 * mib), true],
    ["one sector of text, on a disk of an odd size", 512 * mib + 512 * 7, () => text(512 * mib + 512 * 6), true],
  ];
  const ext4 = (...options: string[]) => shell('d=$1; shift; mkfs.ext4 -q "$@" "$d"', device, ...options);
  const xfs = () => shell('mkfs.xfs -q "$1"', device);
  const gpt = () => shell('sgdisk --new=1:2048:+64M "$1"', device);
  const lvm = () => shell('pvcreate -q --config "devices/use_devicesfile=0" "$1"', device);
  const text = (at: number) =>
    shell('echo precious | dd of="$1" bs=512 seek="$2" conv=sync,fsync status=none', device, String(at / 512));
  /** md's magic number, 8 KiB before the end: no kernel has to know md. */
  const raid = () =>
    shell('printf "\\374\\116\\053\\251" | dd of="$1" bs=512 seek="$2" conv=sync,fsync status=none', device, "1048560");

  for (const [what, size, make, blind] of contents) {
    it(`leaves a disk alone that holds ${what}`, () => {
      attach(size);
      make();
      // Not vacuous: what could be found by blkid alone says so.
      const found = spawnSync("blkid", ["-p", device]).status;
      equal(found === 2, blind, `blkid says ${String(found)}`);
      const before = checksum();
      const { status, stderr } = run();
      equal(status, 1);
      match(
        stderr,
        blind ? /not known to be empty \(data after byte \d+\); it is left alone/ : /not ours .*left alone/,
      );
      equal(checksum(), before);
    });
  }

  it("finds ext4 where fsck finds it, by a copy of its superblock", () => {
    attach(512 * mib);
    ext4("-b", "1024");
    wipe(0, 4096);
    // 8 would say that there is no file system.
    notEqual(spawnSync("e2fsck", ["-n", "-b", "8193", disk]).status, 8);
    const before = checksum();
    equal(run().status, 1);
    equal(checksum(), before);
  });

  it("leaves a disk alone that it cannot read", () => {
    attach(64 * mib);
    // Beyond the end of its file a loop device answers with an I/O error.
    truncateSync(disk, 30 * mib);
    const { status, stderr } = run();
    equal(status, 1);
    match(stderr, /not known to be empty \(.*(unreadable after byte \d+|Input\/output error)\); it is left alone/);
    notEqual(spawnSync("blkid", ["-p", device]).status, 0);
  });

  it("never formats a disk that was in use here, even where nothing is left on it", () => {
    attach(64 * mib);
    equal(run().status, 0);
    wipe(0, 64 * mib);
    const { status, stderr } = run();
    equal(status, 1);
    match(stderr, /was in use here, and no file system is found on it now; it is left alone/);
    notEqual(spawnSync("blkid", ["-p", device]).status, 0);
  });

  it("finishes a file system that a power failure cut off, and only on a disk that was empty before", () => {
    attach(64 * mib);
    mkdirSync(join(systemDisk, "consul-disk"));
    writeFileSync(join(systemDisk, "consul-disk", "serial"), "begun\n");
    text(8 * mib);
    equal(run("echo x >data/file").status, 0);
    match(shell('cat "$1"', join(systemDisk, "consul-disk", "serial")), /^used$/m);
  });

  it("mounts a disk where the system disk takes no note", () => {
    attach(64 * mib);
    equal(run("echo kept >data/file").status, 0);
    rmSync(join(systemDisk, "consul-disk"), { recursive: true });
    writeFileSync(join(systemDisk, "consul-disk"), "in the way");
    const { status, stdout, stderr } = run("cat data/file");
    equal(status, 0);
    equal(stdout, "kept\n");
    match(stderr, /cannot note in/);
  });

  it("makes no file system where the system disk takes no note", () => {
    attach(64 * mib);
    writeFileSync(join(systemDisk, "consul-disk"), "in the way");
    notEqual(run().status, 0);
    equal(spawnSync("blkid", ["-p", device]).status, 2);
  });

  it("has the file system follow when the disk grows while it is mounted, and says nothing otherwise", function () {
    // ext4 asks for this one, and no namespace gives it.
    if (!has("CAP_SYS_RESOURCE")) {
      console.error("skipped: this machine's root may not resize a mounted file system (CAP_SYS_RESOURCE)");
      return this.skip();
    }
    attach(64 * mib);
    const { status, stdout, stderr } = run(
      `${size}; ${grow}; truncate -s 256M "$1/disk"; losetup -c ${device}; ${size}; ${grow}; ${size}; ${grow}`,
    );
    equal(status, 0, stderr);
    match(
      stdout,
      /^[^]*empty\n +5\dM\n +5\dM\nconsul-disk: the file system has grown: .* is now \d+ .* blocks long\.\n+ +2[34]\dM\n$/,
    );
  });

  it("says why a file system does not grow, and mounts it all the same", () => {
    attach(64 * mib);
    equal(run().status, 0);
    const refusing = join(directory, "bin", "resize2fs");
    writeFileSync(refusing, "#!/bin/sh\necho 'resize2fs: no way' >&2\nexit 1\n", { mode: 0o755 });
    const mounted = run("ls -d data");
    const alone = run(`PATH="$1/bin:$PATH" ${grow}`);
    rmSync(refusing);
    equal(mounted.stdout, "data\n");
    equal(alone.status, 1);
    for (const { stderr } of [mounted, alone]) {
      match(stderr, /the file system stays as large as it is: resize2fs: no way/);
    }
  });

  const size = "df --output=size -BM . | tail -n 1";
  const grow = `sh "$2" grow "$1/mnt"`;
  const has = (capability: string) =>
    shell("capsh --decode=$(awk '/CapEff/ { print $2 }' /proc/self/status)").includes(capability.toLowerCase());
});
