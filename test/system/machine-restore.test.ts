import { deepEqual, equal, match, notEqual, ok } from "assert/strict";
import { readFileSync } from "fs";
import { join } from "path";
import * as pulumi from "@pulumi/pulumi";
import { Tags } from "../../components/ecs/change";
import { findConsul } from "../../local/consul-binary";
import { stackConfig } from "../../local/program";
import { createNetwork, Disk, Machine, Network } from "./machine";
import { MachineCloud } from "./machine-cloud";
import { mirrorAddress } from "./machine-services";
import { acceptingProviders, allReady, describeProd, DescribedServer, gateOf, idOf } from "./prod-servers";
import { machinesOrSkip } from "./rootfs";

// docs/restore.md, carried out: the commands are read from the page, and each does to machines of this level what the
// cloud, Pulumi or a shell on a server does. A command that is not known here fails the test.

const asManager = "CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token";
const allWell = `${asManager} consul operator autopilot state -format=json |
  python3 -c 'import json,sys; s=json.load(sys.stdin); sys.exit(not (s["Healthy"] and len(s["Voters"]) == 3))'`;

/** The commands below a heading of docs/restore.md, without comments. */
function commandsOf(heading: string): string[] {
  const page = readFileSync(join(__dirname, "..", "..", "docs", "restore.md"), "utf8");
  const [, section = ""] = page.split(new RegExp(`^### ${heading}$`, "m"));
  const block = /^```sh\n([^]*?)^```$/m.exec(section.split(/^##/m)[0] ?? "")?.[1] ?? "";
  const commands = block.split("\n").map((line) => line.replace(/ *#.*$/, ""));
  return commands.filter((line) => line !== "");
}

describe("docs/restore.md, carried out on machines", function () {
  this.timeout("10m");
  const version = stackConfig("prod")["consul:version"] ?? "";
  let net: Network;
  let sha256 = "";
  const machines: Machine[] = [];
  let cloud: MachineCloud;
  /** The disks that Pulumi's state has after a refresh, by server. */
  const disks = new Map<string, Disk>();
  /** How many disks each server has had. */
  const generations = new Map<string, number>();
  const committed = new Map<string, Tags>();
  const snapshotFile = join("/root", "from-the-bucket.snap");
  const { info, warn } = pulumi.log;

  const diskId = (server: string) => idOf(`${server} ${generations.get(server) ?? 0}`);

  const providers = acceptingProviders((name) => diskId(/^consul-(.*)-data$/.exec(name)?.[1] ?? ""));

  function describeServers() {
    const mirror = { "consul:downloadMirror": `http://${mirrorAddress}/consul`, "consul:downloadSha256": sha256 };
    return describeProd({ ...stackConfig("prod"), ...mirror }, providers);
  }

  /** Makes what is not there, in the engine's order: disks, then each machine and its attachment; the check at the end. */
  async function up(): Promise<void> {
    const described = await describeServers();
    for (const server of described.servers) {
      if (!disks.has(server.name)) {
        disks.set(server.name, await net.disk({ serial: diskId(server.name), size: 512 }));
      }
    }
    for (const server of described.servers) {
      const machine = of(server.name);
      if (cloud.on.has(server.name)) {
        // The engine would ask the gate: no step may depend on that.
        deepEqual(server.tags, committed.get(server.name), `${server.name} would change`);
      } else await create(machine, server);
    }
    await allReady(gateOf(cloud, described, { waitMinutes: 5, skip: [] }, 1000), described.servers);
  }

  async function create(machine: Machine, { name, text, tags }: DescribedServer): Promise<void> {
    machine.setUserData(text);
    await machine.replaceSystemDisk();
    await machine.boot({ wait: false });
    cloud.on.add(name);
    committed.set(name, tags);
    await machine.attach(disks.get(name) ?? notThere(name));
  }

  const notThere = (name: string): never => {
    throw new Error(`there is no ${name}`);
  };
  const of = (name: string) => machines.find((machine) => machine.name === name) ?? notThere(name);

  async function deleteInstance(name: string): Promise<void> {
    await of(name).powerOff();
    cloud.on.delete(name);
    const disk = disks.get(name);
    if (disk) await of(name).detach(disk);
  }

  /** Carries out a section's commands; those for a server's shell run on `shell`. */
  async function carryOut(heading: string, lost: readonly string[], shell = "consul-1"): Promise<void> {
    const commands = commandsOf(heading);
    ok(commands.length > 0, `docs/restore.md has no commands below "${heading}"`);
    const began = Date.now();
    cloud.log.length = 0;
    for (const command of commands) {
      if (command === "aliyun ecs DeleteInstance --InstanceId INSTANCE --Force true") {
        for (const name of lost) await deleteInstance(name);
      } else if (command === "aliyun ecs DeleteDisk --DiskId DISK") {
        for (const name of lost) {
          ok(!cloud.on.has(name), "the cloud deletes no disk of a machine that is there");
          disks.delete(name);
          generations.set(name, (generations.get(name) ?? 0) + 1);
        }
      } else if (command === "pulumi up --refresh") await up();
      else if (/^(CONSUL_HTTP_TOKEN_FILE=\S+ )?consul |^systemctl /.test(command)) {
        await of(shell).run(command.replace(/ FILE$/, ` ${snapshotFile}`));
      } else throw new Error(`docs/restore.md has a command that this test does not know: ${command}`);
    }
    console.log(`      ${((Date.now() - began) / 1000).toFixed(0)} s: ${commands.join("; ")}`);
    // Servers are asked how they are and, until all are well, for the dates of their certificates; none is changed.
    const asked = ["quorum.sh", "certificate.sh"];
    deepEqual(
      [...new Set(cloud.log.map((call) => call.split(" ")[0] ?? ""))].filter((call) => !asked.includes(call)),
      [],
    );
  }

  const nodeId = (name: string) => of(name).run("cat /opt/consul/data/node-id");
  const put = (key: string) => of("consul-3").until(`${asManager} consul kv put ${key} ${key}`);
  const has = async (...keys: string[]) => {
    for (const machine of machines) {
      for (const key of keys) equal(await machine.until(`${asManager} consul kv get ${key}`), `${key}\n`);
    }
  };

  before(async function () {
    this.timeout("30m");
    await machinesOrSkip(this);
    const quiet = () => Promise.resolve();
    Object.assign(pulumi.log, { info: quiet, warn: quiet });
    const { nodes } = JSON.parse(stackConfig("prod")["consul:servers"] ?? "{}") as { nodes: { vswitchCidr: string }[] };
    net = await createNetwork({ vswitches: nodes.map(({ vswitchCidr }) => vswitchCidr) });
    const consul = await findConsul({ version, downloadMirror: "", downloadSha256: "" });
    sha256 = net.mirror.offer(version, readFileSync(consul));
    for (const { name, address } of (await describeServers()).servers) {
      machines.push(await net.machine({ name, address }));
    }
    cloud = new MachineCloud(machines);
    cloud.on.clear();
    await up();
    await put("old");
  });
  after(async () => {
    Object.assign(pulumi.log, { info, warn });
    await (net as Network | undefined)?.destroy();
  });

  it("brings back a machine that is gone, with its disk", async () => {
    const id = await nodeId("consul-2");
    await deleteInstance("consul-2");
    await put("without-2");
    await carryOut("A machine", []);
    equal(await nodeId("consul-2"), id);
    await has("old", "without-2");
  });

  it("brings back one server whose disk is lost, the cluster at work", async () => {
    const id = await nodeId("consul-1");
    await carryOut("Disks, and one is left", ["consul-1"]);
    notEqual(await nodeId("consul-1"), id);
    await has("old", "without-2");
    await of("consul-1").run(allWell);
  });

  it("brings everything back from the one disk that is left", async () => {
    await put("last");
    const id = await nodeId("consul-3");
    for (const { name } of machines) {
      await of(name).powerOff();
      cloud.on.delete(name);
    }
    // "or is started"
    await of("consul-3").boot({ wait: false });
    cloud.on.add("consul-3");
    await carryOut("Disks, and one is left", ["consul-1", "consul-2"]);
    equal(await nodeId("consul-3"), id);
    await has("old", "without-2", "last");
    await of("consul-1").run(allWell);
  });

  it("brings back a snapshot after all disks are lost", async () => {
    const tokens = `${asManager} consul acl token list | grep -E 'AccessorID|Description' | sort`;
    const before = await of("consul-1").run(tokens);
    match(before, /Agents/);
    await of("consul-3").run(`${asManager} consul snapshot save /root/taken.snap`);
    const file = await of("consul-3").run("base64 -w 0 /root/taken.snap");
    await put("too-late");
    await carryOut(
      "All disks",
      machines.map(({ name }) => name),
    );
    notEqual((await of("consul-1").exec(`${asManager} consul kv get old`)).code, 0);
    await of("consul-2").run(`base64 -d >${snapshotFile}`, { input: file });
    await carryOut("A snapshot", [], "consul-2");
    await has("old", "without-2", "last");
    notEqual((await of("consul-1").exec(`${asManager} consul kv get too-late`)).code, 0);
    await of("consul-2").until("systemctl is-active consul-acl.service");
    equal(await of("consul-1").run(tokens), before);
    await of("consul-1").until(allWell, 120);
  });
});
