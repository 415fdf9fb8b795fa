import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { readFileSync } from "fs";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import * as pulumi from "@pulumi/pulumi";
import { Tags } from "../../components/ecs/change";
import { findConsul } from "../../local/consul-binary";
import { programDir, stackConfig } from "../../local/program";
import { commandsOf, section } from "../documents";
import { plainProd } from "../program/edit";
import { createNetwork, Machine, Network } from "./machine";
import { MachineCloud } from "./machine-cloud";
import { mirrorAddress } from "./machine-services";
import { acceptingProviders, describeProd, gateOf, idOf, updateAll } from "./prod-servers";
import { machinesOrSkip } from "./rootfs";

const asManager = "CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token";

/** From "every server certificate has expired" to healthy, by the steps of docs/operations.md, on machines. */
describe("machines whose server certificates have all expired", function () {
  this.timeout("8m");
  const version = stackConfig("prod")["consul:version"] ?? "";
  const seconds = 60;
  /** Milliseconds by which the clock is behind that certificates are made by. */
  let behind = 0;
  const providers = acceptingProviders(idOf, () => new Date(Date.now() - behind));
  let settings: Record<string, string> = { "consul:downloadMirror": `http://${mirrorAddress}/consul` };
  let net: Network;
  let machines: Machine[] = [];
  let cloud: MachineCloud;
  const committed: Record<string, Tags> = {};
  const said: string[] = [];
  const { info, warn } = pulumi.log;
  const say = (line: string) => Promise.resolve(void said.push(line));

  async function up(changed: Readonly<Record<string, string>> = {}): Promise<number> {
    const began = Date.now();
    settings = { ...settings, ...changed };
    const described = await describeProd({ ...plainProd(), ...settings }, providers);
    const gate = gateOf(cloud, described, { waitMinutes: 3, skip: [] }, 500);
    await updateAll(gate, described.servers, committed);
    return (Date.now() - began) / 1000;
  }

  before(async function () {
    this.timeout("30m");
    await machinesOrSkip(this);
    Object.assign(pulumi.log, { info: say, warn: say });
    const given = JSON.parse(stackConfig("prod")["consul:servers"] ?? "{}") as { nodes: { vswitchCidr: string }[] };
    net = await createNetwork({ vswitches: given.nodes.map(({ vswitchCidr }) => vswitchCidr) });
    const consul = readFileSync(await findConsul({ version, downloadMirror: "", downloadSha256: "" }));
    settings["consul:downloadSha256"] = net.mirror.offer(version, consul);
    for (const server of (await describeProd({ ...plainProd(), ...settings }, providers)).servers) {
      const machine = await net.machine({ name: server.name, address: server.address, userData: server.text });
      machines = [...machines, machine];
      await machine.attach(await net.disk({ serial: server.serial, size: 512 }));
      committed[server.name] = server.tags;
    }
    await Promise.all(machines.map((machine) => machine.boot()));
    cloud = new MachineCloud(machines);
    await up();
  });
  after(async () => {
    Object.assign(pulumi.log, { info, warn });
    await (net as Network | undefined)?.destroy();
  });

  /** Gives the servers certificates that expire in a moment, and lets them. @param serverDays other days than before */
  async function expire(serverDays: number): Promise<void> {
    behind = serverDays * 86_400_000 - seconds * 1000;
    await up({ "consul:certificates": JSON.stringify({ serverDays, renewDays: 1 }) });
    behind = 0;
    for (const machine of machines) {
      await machine.until("! openssl x509 -in /etc/consul.d/server.pem -noout -checkend 0 >/dev/null", seconds + 30);
    }
    said.length = 0;
  }

  /** The documented steps, each one carried out. */
  async function runbook(changed: Readonly<Record<string, string>>): Promise<void> {
    const text = section(
      readFileSync(join(programDir, "docs/operations.md"), "utf8"),
      "## Certificates that have expired",
    );
    const steps = [...text.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([block]) => commandsOf(block));
    const [first, ...then] = steps;
    equal(first, "pulumi up");
    console.log(`      healthy after ${(await up(changed)).toFixed(0)} s`);
    match(said.join("\n"), /consul-3: its certificate has expired today; it gets the new one before anything else/);
    for (const command of then) {
      const shown = await machines[0]?.run(`${asManager} ${command}`);
      equal(shown?.match(/\btrue\b/g)?.length, 3, shown);
    }
    for (const machine of machines) {
      await machine.run("openssl x509 -in /etc/consul.d/server.pem -noout -checkend 86400");
      equal(await machine.run("stat -c '%a %U:%G' /etc/consul.d/server-key.pem"), "640 root:consul\n");
    }
  }

  it("and nobody has restarted anything: a change that restarts Consul comes after the certificates", async () => {
    await expire(3);
    await runbook({ "consul:telemetryRetention": "3h" });
  });

  it("and every machine was rebooted since, so that there is no leader", async () => {
    await expire(4);
    await Promise.all(machines.map((machine) => machine.shutdown()));
    // cloud-init ends after multi-user.target, which waits for policies and tokens, and so for a leader.
    for (const machine of machines) await machine.boot({ wait: false });
    for (const machine of machines) await machine.until("systemctl is-active consul.service", 120);
    await sleep(5000);
    for (const machine of machines) {
      ok(!(await machine.run("curl -s http://127.0.0.1:8500/v1/status/leader")).includes(":"), "there is a leader");
    }
    await runbook({ "consul:telemetryRetention": "4h" });
    await up();
  });

  it("or were made by a clock that is a day ahead: no machine is given them, and all get others once the clock is right", async () => {
    const sums = () => Promise.all(machines.map((machine) => machine.run("sha256sum /etc/consul.d/server.pem")));
    const before = await sums();
    behind = -86_400_000;
    const certificates = (serverDays: number) => ({
      "consul:certificates": JSON.stringify({ serverDays, renewDays: 1 }),
    });
    await rejects(up(certificates(9)), /made by a clock that is ahead: .* by the clock of consul-\d \(i-consul-\d\)/);
    behind = 0;
    deepEqual(await sums(), before);
    await up(certificates(10));
    for (const machine of machines) {
      await machine.run("openssl x509 -in /etc/consul.d/server.pem -noout -checkend 777600");
    }
  });
});
