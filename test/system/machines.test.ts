import assert from "assert";
import { readFileSync } from "fs";
import { apply, commandText } from "../../consul/machine/commands";
import { readableUserData } from "../../consul/machine/user-data";
import { findConsul } from "../../local/consul-binary";
import { Providers, stackConfig } from "../../local/program";
import { plainProd } from "../program/edit";
import { createNetwork, Disk, leftovers, Machine, Network } from "./machine";
import { mirrorAddress } from "./machine-services";
import { acceptingProviders, describeProd, resigned } from "./prod-servers";
import { machinesOrSkip } from "./rootfs";
import { newerThan, relabelled } from "./versions";

// The servers of Pulumi.prod.yaml, booted from exactly the user data that the program renders for them, with keys,
// certificates and tokens as the real providers make them. Each test goes on with the cluster that the last test left.

/** Runs the program for prod with some settings changed, and returns its servers in order. */
async function describeServers(
  providers: Providers,
  settings: Readonly<Record<string, string>>,
  servers: Readonly<Record<string, unknown>> = {},
) {
  const config: Record<string, string> = { ...plainProd(), ...settings };
  const given = JSON.parse(config["consul:servers"] ?? "{}") as Record<string, unknown>;
  config["consul:servers"] = JSON.stringify({ ...given, ...servers });
  const described = await describeProd(config, providers);
  return described.servers.map(({ text, ...server }) => ({
    ...server,
    // The mirror here has no certificate, and over http the settings ask for a checksum instead of SHA256SUMS.
    userData: readableUserData(text).replaceAll(`https://${mirrorAddress}`, "http://" + mirrorAddress),
  }));
}

const vswitches = (): string[] => {
  const servers = JSON.parse(stackConfig("prod")["consul:servers"] ?? "{}") as { nodes: { vswitchCidr: string }[] };
  return servers.nodes.map(({ vswitchCidr }) => vswitchCidr);
};

const asManager = "CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token";
const asManagerByHttp = `printf 'X-Consul-Token: %s' "$(cat /etc/consul.management-token)" | curl -sSf -H @-`;
const threeVoters = `${asManager} consul operator autopilot state -format=json |
  python3 -c 'import json,sys; s=json.load(sys.stdin); sys.exit(not (s["Healthy"] and len(s["Voters"]) == 3))'`;

describe("machines from the program's user data", function () {
  this.timeout("5m");
  const providers = acceptingProviders();
  const version = stackConfig("prod")["consul:version"] ?? "";
  const newer = newerThan(version);
  // Here the mirror itself says which checksum is right; the other tests of machines have the sum in the settings.
  const settings = { "consul:downloadMirror": `https://${mirrorAddress}/consul`, "consul:downloadSha256": "" };
  let net: Network;
  let described: Awaited<ReturnType<typeof describeServers>>;
  let machines: Machine[];
  let disks: Disk[];
  let one: Machine;
  let two: Machine;
  let three: Machine;
  const secrets: string[] = [];

  const change = async (changed: Readonly<Record<string, string>>, servers = {}): Promise<void> => {
    described = await describeServers(providers, { ...settings, ...changed }, servers);
    for (const [index, machine] of machines.entries()) {
      machine.setUserData(described[index]?.userData ?? assert.fail("a server is gone"));
      machine.setMetadataTokens(described[index]?.httpTokens ?? "required");
    }
  };
  const nodeId = (machine: Machine): Promise<string> => machine.run("cat /opt/consul/data/node-id");
  // The machine that was switched off may have been the leader.
  const put = (machine: Machine, key: string): Promise<string> =>
    machine.until(`${asManager} consul kv put ${key} ${key}`);
  const get = (machine: Machine, key: string): Promise<string> => machine.run(`${asManager} consul kv get ${key}`);
  const healthy = (machine: Machine): Promise<string> => machine.until(threeVoters, 120);

  before(async function () {
    this.timeout("30m");
    await machinesOrSkip(this);
    const consul = readFileSync(await findConsul({ version, downloadMirror: "", downloadSha256: "" }));
    net = await createNetwork({ vswitches: vswitches() });
    net.mirror.offer(version, consul);
    net.mirror.offer(newer, relabelled(consul, version, newer));
    described = await describeServers(providers, settings);
    disks = await Promise.all(described.map(({ serial }) => net.disk({ serial, size: 512 })));
    machines = [];
    for (const server of described) machines.push(await net.machine(server));
    [one, two, three] = machines as [Machine, Machine, Machine];
  });

  after(async function () {
    await (net as Network | undefined)?.destroy();
  });

  it("become a cluster with no further help, disks attached after the boot as on ECS", async () => {
    await Promise.all(
      machines.map(async (machine, index) => {
        await machine.boot({ wait: false });
        // The boot waits for Consul, and Consul waits for its disk.
        await machine.until("systemctl list-jobs --plain --no-legend | grep -w consul.service");
        await machine.attach(disks[index] ?? assert.fail("no disk"));
        await machine.booted();
      }),
    );
    await healthy(one);
    for (const machine of machines) {
      assert.equal(await machine.run("hostname"), `${machine.name}\n`);
      await machine.until("systemctl is-active consul.service consul-acl.service");
      assert.equal(await machine.run("systemctl --failed --plain --no-legend"), "");
      assert.equal(await machine.run("systemctl show -P NRestarts consul.service"), "0\n");
      assert.match(await machine.run("consul version"), new RegExp(`^Consul v${version}\n`));
    }
    const members = await one.run(`${asManager} consul members | awk 'NR > 1 { print $1, $2, $3, $4 }' | sort`);
    const wanted = described.map(({ name, address }) => `${name} ${address}:8301 alive server\n`);
    assert.equal(members, wanted.join(""));
    for (const machine of machines) secrets.push(...(await secretsOf(machine)));
  });

  it("leave cloud-init with nothing to complain about", async () => {
    for (const machine of machines) {
      assert.match(await machine.run("cat /run/cloud-init/result.json"), /"DataSourceAliYunLocal"/);
      assert.equal(await machine.run("grep -E 'WARNING|ERROR|Traceback' /var/log/cloud-init.log || true"), "");
      assert.match(await machine.run("cloud-init status --long"), /^extended_status: done$/m);
      // The check judges cloud-config only. About a boothook it says that it is a boothook.
      const verdict = await machine.run("cloud-init schema --system 2>&1");
      assert.match(verdict, /User-data type 'text\/cloud-boothook' not currently evaluated/);
      assert.doesNotMatch(verdict, /invalid|error/i);
    }
  });

  it("read user data with tokens only", () => {
    for (const machine of machines) {
      const requests = machine.metadataRequests().filter(({ method }) => method === "GET");
      assert(requests.some(({ path, status }) => path.endsWith("/user-data") && status === 200));
      assert.deepEqual(
        requests.filter(({ token }) => !token),
        [],
      );
    }
  });

  it("listen where they should and nowhere else", async () => {
    for (const machine of machines) {
      const listening = await machine.run(`ss -ltnupH | awk '/"consul"/ { print $1, $5 }' | sort`);
      const own = ["tcp 8300", "tcp 8301", "tcp 8501", "udp 8301"].map((port) =>
        port.replace(" ", ` ${machine.address}:`),
      );
      const loopback = ["tcp 127.0.0.1:8500", "tcp 127.0.0.1:8600", "udp 127.0.0.1:8600"];
      assert.deepEqual(listening.trim().split("\n"), [...own, ...loopback].sort());
    }
    assert.equal((await two.exec(`curl -sS http://${one.address}:8500/v1/status/leader`)).code, 7);
  });

  it("speak TLS, with certificates of the program's own authority", async () => {
    const leader = `https://${one.address}:8501/v1/status/leader`;
    assert.match(await two.run(`curl -sSf --cacert /etc/consul.d/ca.pem ${leader}`), /:8300"$/);
    assert.equal((await two.exec(`curl -sS ${leader}`)).code, 60, "trusted without the CA's certificate");
    const named = `https://${one.name}.server.aly-consul.consul:8501/v1/status/leader`;
    const resolve = `--resolve ${one.name}.server.aly-consul.consul:8501`;
    await two.run(`curl -sSf --cacert /etc/consul.d/ca.pem ${resolve}:${one.address} ${named}`);
    // Also code 60: the right authority, but another machine's name.
    const other = await two.exec(`curl -sS --cacert /etc/consul.d/ca.pem ${resolve}:${three.address} ${named}`);
    assert.equal(other.code, 60, "a server passes for another one");
  });

  it("let nobody in without a token, and everyone with one do what it is for", async () => {
    const http = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8500/v1";
    const header = (token: string) => ({ input: `header = "X-Consul-Token: ${token}"\n` });
    assert.equal(await one.run(`${http}/kv/x -X PUT -d x`), "403");
    assert.equal(await one.run(`${http}/kv/x`), "403");
    assert.equal(await one.run(`${http}/catalog/nodes`), "200");
    assert.equal(await one.run(`${http}/catalog/nodes -K -`, header("00000000-1111-2222-3333-444444444444")), "403");
    for (const machine of machines) {
      // For each token that the machine has: the API's own account of the token.
      const files = await machine.run("cd /etc/consul.acl && grep -l SecretID token.*.json | sort");
      assert.equal(files.trim().split("\n").length, machines.length + 1, "a token per server, one for the agents");
      for (const file of files.trim().split("\n")) {
        const token = JSON.parse(await machine.run(`cat /etc/consul.acl/${file}`)) as Record<string, string>;
        const self = "curl -sSf http://127.0.0.1:8500/v1/acl/token/self -K -";
        const known = JSON.parse(await machine.run(self, header(token.SecretID ?? ""))) as Record<string, string>;
        assert.equal(known.AccessorID, token.AccessorID);
        assert.equal(known.Description, token.Description);
      }
    }
    const agents = (await one.run("grep -l '\"Agents ' /etc/consul.acl/token.*.json")).trim();
    // As after a restore: the script puts back what was taken away.
    const accessor = agents.replace(/.*token\.|\.json/g, "");
    await one.run(`${asManagerByHttp} -X DELETE http://127.0.0.1:8500/v1/acl/token/${accessor}`);
    await one.run("systemctl restart consul-acl && systemctl status consul-acl");
    await one.run(`${asManagerByHttp} http://127.0.0.1:8500/v1/acl/token/${accessor}`);
    const agent = (JSON.parse(await one.run(`cat ${agents}`)) as { SecretID: string }).SecretID;
    assert.equal(await one.run(`${http}/kv/x -X PUT -d x -K -`, header(agent)), "403");
    // The token may write a new node name, and not a server's.
    const register = (node: string) => `-X PUT -d '{"Node":"${node}","Address":"10.9.8.7"}'`;
    assert.equal(await one.run(`${http}/catalog/register ${register("node-x")} -K -`, header(agent)), "200");
    assert.equal(await one.run(`${http}/catalog/register ${register("consul-2")} -K -`, header(agent)), "403");
    await put(one, "first");
    await one.run(`${asManagerByHttp} -X PUT -d '{"Node":"node-x"}' http://127.0.0.1:8500/v1/catalog/deregister`);
  });

  it("encrypt gossip with the one key that they were given", async () => {
    const key = (JSON.parse(await one.run("cat /etc/consul.d/secrets.json")) as { encrypt: string }).encrypt;
    const keys = await one.run(`${asManager} consul keyring -list`);
    assert.deepEqual(keys.match(/\S+ \[\d\/\d\]/g), [`${key} [3/3]`]);
    const keyring = await one.run("cd /opt/consul/data/serf && stat -c '%a %U' local.keyring && cat local.keyring");
    assert.equal(keyring, `600 consul\n["${key}"]\n`);
  });

  it("have the files, owners and modes of the design", async () => {
    for (const machine of machines) {
      const acl = await machine.run("ls /etc/consul.acl");
      const wanted: Readonly<Record<string, string>> = {
        "/etc/consul.acl": "700 root root",
        ...Object.fromEntries(
          acl
            .trim()
            .split("\n")
            .map((name) => [`/etc/consul.acl/${name}`, "600 root root"]),
        ),
        "/etc/consul.d": "750 root consul",
        "/etc/consul.d/ca.pem": "640 root consul",
        "/etc/consul.d/consul.json": "640 root consul",
        "/etc/consul.d/gossip.keyring": "640 root consul",
        "/etc/consul.d/secrets.json": "640 root consul",
        "/etc/consul.d/server-key.pem": "640 root consul",
        "/etc/consul.d/server.pem": "640 root consul",
        "/etc/consul.management-token": "600 root root",
        "/etc/systemd/system/consul-acl.service": "644 root root",
        "/etc/systemd/system/consul-disk.service": "644 root root",
        "/etc/systemd/system/consul-grow.service": "644 root root",
        "/etc/systemd/system/consul-grow.timer": "644 root root",
        "/etc/systemd/system/consul.service": "644 root root",
        "/opt/consul": "755 root root",
        "/opt/consul/data": "700 consul consul",
        "/usr/local/bin/consul": "777 root root",
        "/usr/local/lib/consul": "755 root root",
        "/usr/local/lib/consul/acl.sh": "755 root root",
        "/usr/local/lib/consul/disk.sh": "755 root root",
        "/usr/local/lib/consul/install.sh": "755 root root",
        "/usr/local/lib/consul/mirror": "644 root root",
        "/usr/local/lib/consul/versions": "755 root root",
        [`/usr/local/lib/consul/versions/${version}`]: "755 root root",
        [`/usr/local/lib/consul/versions/${version}/consul`]: "755 root root",
        "/usr/local/lib/consul/wanted": "644 root root",
      };
      const places =
        "/etc/consul* /etc/systemd/system/consul* /opt/consul /opt/consul/data /usr/local/bin/consul /usr/local/lib/consul";
      const found = await machine.run(
        `find ${places} -path '/opt/consul/*/*' -prune -o -path /opt/consul/lost+found -prune -o -printf '%p %m %u %g\n' | sort -u`,
      );
      const list = Object.entries(wanted).map(([path, mode]) => `${path} ${mode}`);
      assert.deepEqual(found.trim().split("\n").sort(), list.sort());
      assert.equal(await machine.run("ps -o user= -C consul"), "consul\n");
    }
  });

  it("keep every secret from everyone else on the machine", async () => {
    assert(secrets.length >= 3 * 8);
    const input = `${[...new Set(secrets)].join("\n")}\n`;
    for (const machine of machines) {
      // The search finds the secrets as root. So it would find them as nobody in any file that nobody can read.
      const search = "grep -rIlF -f - --devices=skip --exclude-dir=proc --exclude-dir=sys / 2>/dev/null";
      const seen = await machine.run(`${search} | sort`, { input, timeout: 120 });
      for (const path of [
        "/etc/consul.d/secrets.json",
        "/etc/consul.d/server-key.pem",
        "/etc/consul.management-token",
      ]) {
        assert(seen.includes(`${path}\n`), `the search is blind: not in ${path}`);
      }
      const nobody = await machine.exec(`setpriv --reuid=nobody --regid=nogroup --clear-groups ${search}`, { input });
      assert.equal(nobody.stdout, "");
      const consul = await machine.exec(`setpriv --reuid=consul --regid=consul --clear-groups ${search}`, { input });
      assert.deepEqual(consul.stdout.trim().split("\n").sort(), [
        "/etc/consul.d/gossip.keyring",
        "/etc/consul.d/secrets.json",
        "/etc/consul.d/server-key.pem",
        "/opt/consul/data/serf/local.keyring",
      ]);
      // Both searches find only the line that the test put there.
      const count = "cat /etc/consul.management-token; } | grep -acF -f <(cat <&3)";
      assert.equal(await machine.run(`exec 3<&0; { cat /proc/[0-9]*/cmdline; echo; ${count}`, { input }), "1\n");
      assert.equal(await machine.run(`exec 3<&0; { journalctl --no-pager; ${count}`, { input }), "1\n");
    }
  });

  it("keep Consul itself from the metadata service", async () => {
    const ask = "curl -s --max-time 3 -o /dev/null -w '%{http_code}' http://100.100.100.200/latest/user-data";
    assert.equal(await one.run(ask), "403");
    const group = "/sys/fs/cgroup/system.slice/consul.service/cgroup.procs";
    assert.equal((await one.exec(`echo $$ >${group} && ${ask}`)).stdout, "000");
  });

  it("leave for good where that is wanted, and stay away until they are started", async () => {
    const last = machines.at(-1) ?? assert.fail("no machine");
    await last.run(`${asManager} consul leave && systemctl stop consul`);
    const voters = `test "$(${asManager} consul operator raft list-peers | grep -cw true)" = 2`;
    await one.until(voters);
    // Longer than systemd's pause before it starts a service again.
    assert.notEqual((await last.exec("sleep 7; systemctl is-active consul")).code, 0);
    await one.run(voters);
    await last.run("systemctl start consul");
    await healthy(one);
  });

  it("rejoin after a reboot with the same node id and the same data", async () => {
    const id = await nodeId(three);
    const peers = await one.run(`${asManager} consul operator raft list-peers | awk '{ print $1, $2, $3 }' | sort`);
    await three.shutdown();
    await put(one, "meanwhile");
    await three.boot();
    await healthy(three);
    assert.equal(await nodeId(three), id);
    assert.equal(await get(three, "first"), "first\n");
    assert.equal(await get(three, "meanwhile"), "meanwhile\n");
    assert.equal(
      await one.run(`${asManager} consul operator raft list-peers | awk '{ print $1, $2, $3 }' | sort`),
      peers,
    );
    await three.until("systemctl is-active consul-acl.service");
  });

  it("come back by themselves when the power fails everywhere at once", async () => {
    const ids = await Promise.all(machines.map(nodeId));
    await Promise.all(machines.map((machine) => machine.powerOff()));
    await Promise.all(machines.map((machine) => machine.boot()));
    await healthy(one);
    assert.deepEqual(await Promise.all(machines.map(nodeId)), ids);
    assert.equal(await get(two, "meanwhile"), "meanwhile\n");
  });

  it("take a changed log level at the next boot, as the same machine", async () => {
    const before = await one.run("cat /etc/machine-id /opt/consul/data/node-id");
    const level = async (): Promise<string> => {
      const self = await one.until(`${asManagerByHttp} http://127.0.0.1:8500/v1/agent/self`);
      return (JSON.parse(self) as { DebugConfig: { Logging: { LogLevel: string } } }).DebugConfig.Logging.LogLevel;
    };
    assert.equal(await level(), "info");
    await change({ "consul:logLevel": "debug" });
    assert.match(await one.run("cat /etc/consul.d/consul.json"), /"log_level": "info"/);
    const unenforced =
      "journalctl --boot --output=cat | grep -c 'control groups v1: systemd leaves out IPAddressDeny' || :";
    assert.equal(await one.run(unenforced), "0\n");
    // As on a machine with control groups v1.
    await one.run("printf '#!/bin/sh\\necho tmpfs\\n' >/usr/local/bin/stat; chmod 755 /usr/local/bin/stat");
    await one.shutdown();
    await one.boot();
    await one.run("rm /usr/local/bin/stat");
    assert.notEqual(await one.run(unenforced), "0\n");
    await healthy(one);
    assert.equal(await level(), "debug");
    assert.equal(await one.run("cat /etc/machine-id /opt/consul/data/node-id"), before);
    assert.equal(await one.run("ls /var/lib/cloud/instances | wc -l"), "1\n");
  });

  it("take a new Consul version at the next boot, one after another", async () => {
    await change({ "consul:version": newer });
    for (const machine of machines) {
      const before = await machine.run("cat /etc/machine-id /opt/consul/data/node-id");
      await machine.shutdown();
      await machine.boot();
      await healthy(machine);
      assert.match(await machine.run("consul version"), new RegExp(`^Consul v${newer}\n`));
      assert.equal(await machine.run("cat /etc/machine-id /opt/consul/data/node-id"), before);
    }
    const builds = await one.run(`${asManager} consul members | awk 'NR > 1 { print $5 }' | sort -u`);
    assert.equal(builds, `${newer}\n`);
    assert.equal(await get(one, "first"), "first\n");
    // One download at the first boot, one now: an installed version is not fetched again.
    const fetched = net.mirror.requests.filter(({ path }) => path.endsWith(".zip"));
    assert.equal(fetched.length, 2 * machines.length);
  });

  it("have the file system follow a disk that grows, while Consul runs", async function () {
    const pid = await one.run("systemctl show -P MainPID consul.service");
    assert.match(await one.run("systemctl list-timers --no-legend consul-grow.timer"), /:\d3:00 /);
    await one.run("systemctl start consul-grow.service");
    assert.equal(await one.run("journalctl --boot --unit=consul-grow.service --output=cat"), "");
    await disks[0]?.grow(700);
    const size = "df --output=size -BM /opt/consul | tail -n 1";
    const before = Number.parseInt(await one.run(size));
    const { code } = await one.exec("systemctl start consul-grow.service");
    const said = await one.run("journalctl --boot --unit=consul-grow.service --output=cat");
    assert.equal(await one.run("systemctl show -P MainPID consul.service"), pid);
    if (code !== 0) {
      // ext4 asks for CAP_SYS_RESOURCE, which the root of this machine may lack, and no namespace gives it.
      assert.match(said, /the file system stays as large as it is: [^]*Permission denied/);
      await one.run("systemctl reset-failed");
      console.error("skipped: this machine's root may not resize a mounted file system (CAP_SYS_RESOURCE)");
      return this.skip();
    }
    assert.match(said, /the file system has grown: .* blocks long/);
    assert(Number.parseInt(await one.run(size)) > before + 150);
  });

  it("have made a file system once, at the first boot of all", async () => {
    for (const machine of machines) {
      const made = await machine.run("journalctl --no-pager --output=cat | grep -c 'made a file system'");
      assert.equal(made, "1\n");
      assert(Number(await machine.run("journalctl --list-boots | grep -c .")) >= 4);
    }
  });

  it("are the same node on a new system disk", async () => {
    const id = await nodeId(three);
    await three.shutdown();
    await three.replaceSystemDisk();
    await three.boot();
    await healthy(three);
    assert.equal(await nodeId(three), id);
    assert.doesNotMatch(await three.run("journalctl --no-pager --output=cat"), /made a file system/);
  });

  it("install nothing with a wrong checksum, and recover with the next boot", () =>
    withoutConsul(
      () => net.mirror.setFault("checksum"),
      /wrong checksum of http:\S+\.zip: [0-9a-f]{64}, wanted [0-9a-f]{64}; not installed/,
    ));

  it("say which mirror cannot be reached, and recover with the next boot", () =>
    withoutConsul(
      () => net.mirror.setFault("unreachable"),
      new RegExp(`cannot fetch http://${mirrorAddress}/\\S+\\.zip .*consul:downloadMirror`),
    ));

  it("take another mirror while they run, where Consul was never installed: nothing could go down", async () => {
    const given = described[2]?.userData ?? assert.fail("there is no third server");
    const right = resigned(given);
    const id = await nodeId(three);
    await three.shutdown();
    await three.replaceSystemDisk();
    three.setUserData(given.replaceAll(`${mirrorAddress}/consul`, `${mirrorAddress}/nowhere`));
    await three.boot({ wait: false });
    await three.until("journalctl --boot --unit=consul.service | grep -E 'cannot fetch'", 120);
    const booted = () => three.run("cat /proc/sys/kernel/random/boot_id /proc/1/stat | awk '{ print $1, $22 }'");
    const boot = await booted();
    three.setUserData(right.text);
    const applied = await three.exec("sh", { input: commandText(apply(right.digest, "reload")), timeout: 120 });
    assert.match(applied.stdout, /restarted\n$/, applied.stderr);
    await healthy(three);
    assert.equal(await booted(), boot);
    assert.equal(await nodeId(three), id);
  });

  /** A new system disk for the third machine, on which Consul cannot be installed until it boots again. */
  async function withoutConsul(fault: () => Promise<void>, line: RegExp): Promise<void> {
    const id = await nodeId(three);
    await three.shutdown();
    await three.replaceSystemDisk();
    await fault();
    await three.boot({ wait: false });
    await three.until("journalctl --boot --unit=consul.service | grep -E 'wrong checksum|cannot fetch'", 120);
    assert.match(await three.journal("consul.service"), line);
    assert.equal((await three.exec("test -e /usr/local/bin/consul || pgrep -x consul")).code, 1);
    await net.mirror.setFault("none");
    await three.shutdown();
    await three.boot();
    await healthy(three);
    assert.equal(await nodeId(three), id);
  }

  it("wait for a disk that is missing, say so, and recover with the next boot", async () => {
    const [, , disk] = disks as [Disk, Disk, Disk];
    const id = await nodeId(three);
    await three.shutdown();
    await three.detach(disk);
    await three.boot({ wait: false });
    await three.until(`journalctl --boot | grep 'no disk with serial ${disk.serial}'`, 120);
    assert.equal((await three.exec("pgrep -x consul || mountpoint -q /opt/consul")).code, 32);
    await three.shutdown();
    await three.attach(disk);
    await three.boot();
    await healthy(three);
    assert.equal(await nodeId(three), id);
  });

  it("leave a disk alone that holds something else", async () => {
    const [, , disk] = disks as [Disk, Disk, Disk];
    const foreign = await net.disk({ serial: disk.serial, size: 64 });
    await two.attach(foreign);
    await two.run(`mkfs.ext4 -q -L precious /dev/${foreign.device}`);
    await two.detach(foreign);
    await three.shutdown();
    await three.detach(disk);
    await three.attach(foreign);
    const before = await foreign.checksum();
    await three.boot({ wait: false });
    await three.until("journalctl --boot | grep 'holds something that is not ours.*LABEL=precious'", 120);
    assert.equal((await three.exec("pgrep -x consul")).code, 1);
    await three.shutdown();
    assert.equal(await foreign.checksum(), before);
    await three.detach(foreign);
    await three.attach(disk);
    await three.boot();
    await healthy(three);
  });

  it("do the same on cloud-init 22.4.2 (Debian 12), where tokens must be optional", async () => {
    const id = await nodeId(three);
    await change({ "consul:version": newer }, { metadataTokens: "optional" });
    await three.shutdown();
    await three.replaceSystemDisk("bookworm");
    await three.boot();
    await healthy(three);
    assert.match(await three.run("cloud-init --version"), / 22\.4\.2/);
    assert.equal(await nodeId(three), id);
    await three.until("systemctl is-active consul.service consul-acl.service");
    assert.equal(await get(three, "first"), "first\n");
    // The boothook ran and succeeded. This version's other complaints are about an image without ssh.
    assert.doesNotMatch(await three.run("cat /var/log/cloud-init.log"), /boothook.*fail|fail.*boothook/i);
  });

  it("leave nothing behind", async () => {
    await net.destroy();
    assert.deepEqual(leftovers(net.id), []);
  });
});

/** Every secret that a server holds, as text that a search can find. */
async function secretsOf(machine: Machine): Promise<string[]> {
  const config = JSON.parse(await machine.run("cat /etc/consul.d/secrets.json")) as {
    encrypt: string;
    acl: { tokens: Record<string, string> };
  };
  const key = (await machine.run("cat /etc/consul.d/server-key.pem")).split("\n")[1] ?? "";
  const tokens = await machine.run(`cat /etc/consul.acl/token.*.json | sed -n 's/.*"SecretID": "\\(.*\\)".*/\\1/p'`);
  return [config.encrypt, ...Object.values(config.acl.tokens), key, ...tokens.trim().split("\n")];
}
