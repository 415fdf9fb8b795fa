import assert from "assert";
import { spawn } from "child_process";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { createNetwork, Disk, leftovers, Machine, Network } from "./machine";
import { machinesOrSkip } from "./rootfs";

const serial = "bp1smoketest00000001";

/** The program's user data in small: a file, and a unit that waits for the data disk. */
const userData = (word: string): string => `#cloud-boothook
#!/bin/sh
set -eu
echo "${word}" >>/root/hook
cat >/etc/systemd/system/data.service <<'END'
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/bin/data
END
cat >/usr/local/bin/data <<'END'
#!/bin/sh
set -eu
disk=/dev/disk/by-id/virtio-${serial}
until test -b "$disk"; do sleep 0.2; done
blkid -p "$disk" || mkfs.ext4 -q -L data "$disk"
mkdir -p /data
mount -L data /data
END
chmod 755 /usr/local/bin/data
systemctl daemon-reload
systemctl start --no-block data.service
`;

describe("machines", function () {
  let net: Network;
  let one: Machine;
  let two: Machine;
  let disk: Disk;

  before(async function () {
    this.timeout("15m");
    await machinesOrSkip(this);
    net = await createNetwork({ vswitches: ["10.16.190.0/27", "10.16.190.32/27"] });
    one = await net.machine({ name: "smoke-1", address: "10.16.190.28", userData: userData("first") });
    two = await net.machine({ name: "smoke-2", address: "10.16.190.40" });
    disk = await net.disk({ serial, size: 64 });
    await Promise.all([one.boot(), two.boot()]);
  });

  after(async function () {
    this.timeout("1m");
    await (net as Network | undefined)?.destroy();
  });

  it("boot with cloud-init's AliYun data source, from the metadata service", async () => {
    assert.match(await one.run("cat /run/cloud-init/result.json"), /"DataSourceAliYunLocal"/);
    assert.equal(await one.run("grep -E 'WARNING|ERROR|Traceback' /var/log/cloud-init.log || true"), "");
    assert.equal(await one.run("systemctl --failed --plain --no-legend"), "");
  });

  it("have the names and addresses that they were given", async () => {
    assert.equal(await one.run("hostname"), "smoke-1\n");
    assert.equal(await two.run("hostname"), "smoke-2\n");
    assert.match(await one.run("ip -4 -br address show eth0"), / 10\.16\.190\.28\/27 /);
    assert.match(await two.run("ip -4 -br address show eth0"), / 10\.16\.190\.40\/27 /);
  });

  it("reach each other, through the router between their vSwitches", async () => {
    await one.run("ping -c 1 -W 5 10.16.190.40");
    await two.run("ping -c 1 -W 5 10.16.190.28");
  });

  it("need a token for their metadata, which cloud-init fetches", async () => {
    const requests = one.metadataRequests();
    assert(requests.some(({ method, path }) => method === "PUT" && path === "/latest/api/token"));
    const data = requests.filter(({ path }) => path.endsWith("/user-data"));
    assert(data.length > 0 && data.every(({ token, status }) => token && status === 200));
    const curl = "curl -s -o /dev/null -w '%{http_code}' http://100.100.100.200/latest";
    assert.equal(await one.run(`${curl}/user-data`), "403");
    assert.equal(await two.run(`${curl}/meta-data/instance-id`), "403");
  });

  it("see a disk that is attached while they run, by its serial", async () => {
    assert.equal(await one.run("systemctl show -P ActiveState data.service"), "activating\n");
    assert.notEqual((await one.exec(`test -e /dev/disk/by-id/virtio-${serial}`)).code, 0);
    await one.attach(disk);
    await one.until("systemctl is-active data.service");
    assert.equal((await one.run("lsblk -dno SERIAL /dev/disk/by-id/virtio-*")).trim(), serial);
    assert.equal((await one.run("findmnt -no FSTYPE /data")).trim(), "ext4");
    await one.run("echo kept >/data/file");
  });

  it("run the boothook again at the next boot, from the new user data, as the same instance", async function () {
    this.timeout("5m");
    const machineId = await one.run("cat /etc/machine-id");
    const uuid = await one.run("findmnt -no UUID /data");
    one.setUserData(userData("second"));
    await one.shutdown();
    await one.boot();
    assert.equal(await one.run("cat /root/hook"), "first\nsecond\n");
    assert.equal(await one.run("cat /etc/machine-id"), machineId);
    assert.equal(await one.run("ls /var/lib/cloud/instances"), "i-bp1smoke-1\n");
    await one.until("systemctl is-active data.service");
    assert.equal(await one.run("findmnt -no UUID /data"), uuid);
    assert.equal(await one.run("cat /data/file"), "kept\n");
  });

  it("keep the disk when the power goes, and when they get a new system disk", async function () {
    this.timeout("5m");
    const uuid = await one.run("findmnt -no UUID /data");
    await one.powerOff();
    await one.replaceSystemDisk();
    await one.boot();
    assert.equal(await one.run("cat /root/hook"), "second\n");
    await one.until("systemctl is-active data.service");
    assert.equal(await one.run("findmnt -no UUID /data"), uuid);
    assert.equal(await one.run("cat /data/file"), "kept\n");
  });

  it("can do without the disk, which stays as it is meanwhile", async function () {
    this.timeout("5m");
    await one.shutdown();
    const before = await disk.checksum();
    await one.detach(disk);
    await one.boot();
    assert.equal(await one.run("systemctl show -P ActiveState data.service"), "activating\n");
    await one.shutdown();
    assert.equal(await disk.checksum(), before);
  });

  it("download from the mirror, as long as it is well", async () => {
    const sha256 = net.mirror.offer("1.2.3", Buffer.from("not really"));
    const zip = `${net.mirror.url}/1.2.3/consul_1.2.3_linux_${process.arch === "arm64" ? "arm64" : "amd64"}.zip`;
    const sums = await two.run(`curl -sSf ${net.mirror.url}/1.2.3/consul_1.2.3_SHA256SUMS`);
    assert(sums.startsWith(`${sha256}  consul_1.2.3_linux_`));
    const fetched = `curl -sSf ${zip} | tee /tmp/zip | sha256sum`;
    assert.equal((await two.run(fetched)).split(" ")[0], sha256);
    assert.equal(await two.run("python3 -m zipfile -e /tmp/zip /tmp && cat /tmp/consul"), "not really");
    await net.mirror.setFault("checksum");
    assert.notEqual((await two.run(fetched)).split(" ")[0], sha256);
    await net.mirror.setFault("unreachable");
    assert.equal((await two.exec(`curl -sS ${zip}`)).code, 7);
    await net.mirror.setFault("none");
    assert.equal((await two.run(fetched)).split(" ")[0], sha256);
  });

  it("boot with cloud-init 22.4.2 too, where tokens are optional", async function () {
    this.timeout("15m");
    const old = await net.machine({
      name: "smoke-3",
      address: "10.16.190.41",
      suite: "bookworm",
      httpTokens: "optional",
      userData: userData("old"),
    });
    await old.boot();
    assert.equal(await old.run("hostname; cat /root/hook"), "smoke-3\nold\n");
    await old.shutdown();
  });

  it("leave nothing behind", async () => {
    assert.notDeepEqual(leftovers(net.id), []);
    await net.destroy();
    assert.deepEqual(leftovers(net.id), []);
  });

  it("leave nothing behind when the tests are killed", async function () {
    this.timeout("5m");
    const script = `
      const { createNetwork } = require(${JSON.stringify(join(__dirname, "machine"))});
      createNetwork().then(async (net) => {
        const machine = await net.machine({ name: "killed", address: "10.16.190.5" });
        await machine.attach(await net.disk({ serial: "killed", size: 16 }));
        await machine.boot();
        process.send(net.id);
      });`;
    const argv = ["-r", "sucrase/register/ts", "-e", script];
    const child = spawn(process.execPath, argv, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    const id = await new Promise<string>((resolve, reject) => {
      child.once("message", (message) => resolve(message as string));
      child.once("close", (code) => reject(new Error(`the child ended by itself (${String(code)})`)));
    });
    assert.notDeepEqual(leftovers(id), []);
    child.kill("SIGKILL");
    for (let second = 0; second < 20 && leftovers(id).length > 0; second++) await sleep(1000);
    assert.deepEqual(leftovers(id), []);
  });
});
