import { deepEqual, equal, match, ok } from "assert/strict";
import { readFileSync } from "fs";
import { findConsul } from "../../local/consul-binary";
import { stackConfig } from "../../local/program";
import { plainProd } from "../program/edit";
import { createNetwork, Machine, Network } from "./machine";
import { mirrorAddress } from "./machine-services";
import { acceptingProviders, describeProd } from "./prod-servers";
import { machinesOrSkip } from "./rootfs";

// The timer and the service for snapshots, on machines booted from the program's user data.

describe("snapshots on machines", function () {
  this.timeout("5m");
  const providers = acceptingProviders();
  const version = stackConfig("prod")["consul:version"] ?? "";
  let sha256 = "";
  let net: Network;
  let machines: Machine[] = [];

  const servers = async (settings: Readonly<Record<string, string>>) => {
    const mirror = { "consul:downloadMirror": `http://${mirrorAddress}/consul`, "consul:downloadSha256": sha256 };
    const described = await describeProd({ ...plainProd(), ...mirror, ...settings }, providers);
    return described.servers.map(({ text, ...server }) => ({ ...server, userData: text }));
  };

  before(async function () {
    this.timeout("30m");
    await machinesOrSkip(this);
    const { nodes } = JSON.parse(stackConfig("prod")["consul:servers"] ?? "{}") as { nodes: { vswitchCidr: string }[] };
    net = await createNetwork({ vswitches: nodes.map(({ vswitchCidr }) => vswitchCidr) });
    sha256 = net.mirror.offer(
      version,
      readFileSync(await findConsul({ version, downloadMirror: "", downloadSha256: "" })),
    );
    const described = await servers({ "consul:backups": JSON.stringify({ everyHours: 1, keep: 2 }) });
    machines = await Promise.all(
      described.map(async (server) => net.machine({ ...server, disk: await net.disk({ ...server, size: 512 }) })),
    );
    // A boot ends when the ACLs are in place. ACLs need a leader, so the machines boot together.
    await Promise.all(machines.map((machine) => machine.boot()));
    await machines[0]?.until("curl -s http://127.0.0.1:8500/v1/status/leader | grep :8300");
    await machines[0]?.until("systemctl is-active consul-acl.service");
  });

  after(async () => {
    await (net as Network | undefined)?.destroy();
  });

  it("wait for their hour on every server", async () => {
    for (const machine of machines) {
      equal((await machine.run("systemctl is-active consul-snapshot.timer")).trim(), "active");
      match(await machine.run("systemctl list-timers --no-legend consul-snapshot.timer"), / \d\d:17:00 /);
      equal(await machine.run("systemctl --failed --plain --no-legend"), "");
    }
  });

  it("are taken by the leader's unit alone, onto the data disk, for root only", async () => {
    for (const machine of machines) await machine.run("systemctl start consul-snapshot.service");
    const journals = await Promise.all(machines.map((machine) => machine.journal("consul-snapshot.service")));
    const taken = await Promise.all(machines.map((machine) => machine.run("ls -A /opt/consul/snapshots || :")));
    const leader = taken.findIndex((files) => files !== "");
    equal(taken.filter((files) => files !== "").length, 1, journals.join("\n"));
    match(taken[leader] ?? "", new RegExp(`^\\d{8}T\\d{6}Z-${machines[leader]?.name ?? ""}\\.snap\n$`));
    const on = machines[leader];
    equal(await on?.run("stat -c '%a %U' /opt/consul/snapshots /opt/consul/snapshots/*"), "700 root\n600 root\n");
    equal(await on?.run("findmnt -n -o LABEL --target /opt/consul/snapshots"), "consul-data\n");
    match((await on?.run("consul snapshot inspect /opt/consul/snapshots/*.snap")) ?? "", /ACLToken/);
    journals.forEach((journal, i) => match(journal, i === leader ? /raft index \d+/ : /nothing to do here/));
  });

  it("are taken by the next leader when leadership moves, and kept as many as asked for", async () => {
    const asManager = "CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token";
    const [one] = machines;
    await one?.run(`${asManager} consul operator raft transfer-leader`);
    await one?.until("curl -s http://127.0.0.1:8500/v1/status/leader | grep :8300");
    for (let round = 0; round < 3; round++) {
      for (const machine of machines) await machine.run("systemctl start consul-snapshot.service; sleep 1");
    }
    const counts = await Promise.all(
      machines.map((machine) => machine.run("ls /opt/consul/snapshots 2>/dev/null | wc -l")),
    );
    deepEqual(counts.map(Number).sort(), [0, 1, 2]);
  });

  it("are not taken where they would fill the disk of raft; the oldest go first, raft runs on, and the unit says why", async () => {
    const leader = await machines[0]?.run("curl -s http://127.0.0.1:8500/v1/status/leader");
    const on = machines.find(({ address }) => leader?.includes(address));
    ok(on);
    const files = "ls /opt/consul/snapshots | wc -l";
    // Two more than are kept, as where `keep` was lowered; then all but a twentieth of the disk full.
    await on.run(
      "mkdir -p /opt/consul/snapshots; cd /opt/consul/snapshots; touch 19990101T000000Z-a.snap 19990102T000000Z-a.snap 19990103T000000Z-a.snap",
    );
    const fill = "set -- $(df -Pk /opt/consul | tail -n 1); fallocate -l $(($4 - $2 / 20))K /opt/consul/fill";
    await on.run(fill);
    equal((await on.exec("systemctl start consul-snapshot.service")).code, 1);
    match(
      await on.journal("consul-snapshot.service"),
      /none was taken, the disk of \/opt\/consul\/snapshots is too full: \d+ KiB/,
    );
    equal(await on.run(files), "2\n");
    equal(await on.run("ls /opt/consul/snapshots | grep -c partial || :"), "0\n");
    await on.run(
      "systemctl is-active consul.service && CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token consul kv put full x",
    );
    await on.run(
      "rm /opt/consul/fill; systemctl reset-failed consul-snapshot; systemctl start consul-snapshot.service",
    );
    match(await on.run("ls -1 /opt/consul/snapshots | tail -n 1"), /^2\d{7}T/);
  });

  it("leave nothing of one that failed in the middle on the disk", async () => {
    const leader = await machines[0]?.run("curl -s http://127.0.0.1:8500/v1/status/leader");
    const on = machines.find(({ address }) => leader?.includes(address));
    ok(on);
    // A consul that writes until the disk is full.
    await on.run(
      "mkdir -p /run/full; printf '#!/bin/sh\\nfor last; do :; done; head -c 1M /dev/zero >\"$last\"; exit 1\\n' >/run/full/consul; chmod 755 /run/full/consul",
    );
    const again = "systemctl show -P ExecStart consul-snapshot | sed 's/.*argv\\[\\]=\\([^;]*\\);.*/\\1/'";
    const call = (await on.run(again)).trim();
    const { code } = await on.exec(
      `PATH=/run/full:$PATH CONSUL_HTTP_ADDR=http://127.0.0.1:8500 SNAPSHOT_SERVER=${on.address} ${call}`,
    );
    equal(code, 1);
    equal(await on.run("ls /opt/consul/snapshots | grep -c partial || :"), "0\n");
  });

  it("end when they are no longer asked for, at the next boot; what was taken stays", async () => {
    const without = await servers({});
    for (const [i, machine] of machines.entries()) machine.setUserData(without[i]?.userData ?? "");
    const [one] = machines;
    const before = await one?.run("ls -A /opt/consul/snapshots 2>/dev/null || :");
    await one?.shutdown();
    await one?.boot();
    equal((await one?.exec("systemctl cat consul-snapshot.timer consul-snapshot.service"))?.code, 1);
    equal(await one?.run("systemctl list-timers --all --no-legend 'consul-snapshot*'"), "");
    equal(await one?.run("systemctl --failed --plain --no-legend"), "");
    equal(await one?.run("ls -A /opt/consul/snapshots 2>/dev/null || :"), before);
  });
});
