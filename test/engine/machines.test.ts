import { deepEqual, equal, match, ok } from "assert/strict";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "fs";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { needPrograms, Project } from "./project";
import { changeRegion, readRegion } from "./region";

// The stack prod-servers by the real engine. The cloud is played (`region.ts`): what is tried here is the order in which
// the engine, the gate's hooks and the provider change servers, and what becomes of an `up` that is killed.

const preview = "pulumi preview -s prod-servers --non-interactive";

describe("the stack prod-servers, by the real engine", function () {
  this.timeout(900_000);
  let project: Project;
  let file: string;

  before(async function () {
    needPrograms(this, "pulumi");
    project = new Project("prod-servers");
    file = join(project.workDir, "region.json");
    const plugins = join(project.workDir, "plugins");
    mkdirSync(plugins);
    const command = `exec node --require '${require.resolve("sucrase/register/ts")}' '${join(__dirname, "region-provider.ts")}' "$@"`;
    writeFileSync(join(plugins, "pulumi-resource-alicloud"), `#!/bin/sh\n${command}\n`);
    chmodSync(join(plugins, "pulumi-resource-alicloud"), 0o755);
    Object.assign(project.envVars, { PATH: `${plugins}:${process.env.PATH}`, REGION_FILE: file });
    const index = join(project.workDir, "index.ts");
    const cloud = `new (require(${JSON.stringify(join(__dirname, "region"))}).RegionCloud)(process.env.REGION_FILE)`;
    const own = readFileSync(index, "utf8").replace("new EcsApi(loadCloudConfig())", cloud);
    ok(own.includes("RegionCloud"));
    writeFileSync(index, own);
    project.edit((config) => (config["consul:gate"] = { waitMinutes: 1 }));
    await project.done("pulumi stack init prod-servers");
  });

  after(() => (project as Project | undefined)?.remove());

  const refused = async (command: string, reason: RegExp) => {
    const { status, text } = await project.run(command);
    ok(status !== 0, command);
    match(text, reason);
  };
  const set = (path: string, value: string) =>
    project.done(`pulumi config set -s prod-servers --path '${path}' ${value}`);
  const servers = ["consul-1", "consul-2", "consul-3"];
  /** What was done to the machines since this was asked last; what a server says of its certificate left out. */
  const happened = () =>
    changeRegion(file, ({ log }) => log.splice(0)).filter((line) => !/certificate\.sh|unwanted\.sh/.test(line));
  const found = (name: string) => Object.entries(readRegion(file).machines).find(([, each]) => each.name === name);
  const idOf = (name: string) => found(name)?.[0] ?? "";
  const machine = (name: string) => found(name)?.[1];
  const made = async (name: string) => {
    while (!machine(name)) await sleep(50);
  };
  let duration = 0;

  it("comes up, one machine after another, and then has nothing to do", async () => {
    const begun = Date.now();
    await project.done(project.up);
    duration = Date.now() - begun;
    deepEqual(
      happened(),
      servers.map((name) => `${name}: made`),
    );
    await project.done(`${project.up} --expect-no-changes`);
    deepEqual(happened(), []);
  });

  it("stores and reloads a setting on one server after another, and tags each once it runs with it", async () => {
    await set("consul:logLevel", "debug");
    const text = await project.done(preview);
    for (const name of servers) match(text, new RegExp(`${name}: Consul reloads`));
    await project.done(project.up);
    const steps = (name: string) =>
      ["user data is stored", "machine/apply.sh", "the provider changes tags"].map((step) => `${name}: ${step}`);
    const told = happened();
    const wanted = servers.flatMap(steps);
    deepEqual(
      told.map((line, i) => line.slice(0, wanted[i]?.length)),
      wanted,
    );
    ok(told.filter((line) => line.includes("apply.sh")).every((line) => line.includes(" reload ")));
  });

  it("lets a machine stop for another type only after the others were asked, and hands the leadership on before", async () => {
    await set("consul:servers.instanceType", "ecs.g7.xlarge");
    await project.done(project.up);
    const told = happened();
    const stops = told
      .filter((line) => /stops and starts|hand-over/.test(line))
      .map((line) => line.replace(/id-of-/, ""));
    deepEqual(stops, [
      "consul-2: machine/hand-over.sh consul-3",
      "consul-1: the provider stops and starts it",
      "consul-2: the provider stops and starts it",
      "consul-1: machine/hand-over.sh consul-2",
      "consul-3: the provider stops and starts it",
    ]);
  });

  it("refuses in the preview what would make a machine beside the old one", async () => {
    await set("consul:servers.nodes[0].zone", "cn-shanghai-g");
    await refused(preview, /consul-1 cannot be moved to another zone/);
    await set("consul:servers.nodes[0].zone", "cn-shanghai-l");
    deepEqual(happened(), []);
  });

  it("names a machine that is stopped with the command that starts it, and goes on where gate.skip names it", async () => {
    changeRegion(file, ({ machines }) => ((machines[idOf("consul-2")] ?? { status: "" }).status = "Stopped"));
    await set("consul:logLevel", "warn");
    await refused(project.up, new RegExp(`aliyun ecs StartInstance --InstanceId ${idOf("consul-2")}`));
    await set("consul:gate.skip[0]", "consul-2");
    match(await project.done(project.up), /nothing is expected of consul-2/);
    ok(happened().includes("consul-2: start"));
    await project.done("pulumi config rm -s prod-servers --path consul:gate.skip");
    await project.done(project.up);
    equal(machine("consul-2")?.runs, machine("consul-2")?.tags["consul-config"]);
    happened();
  });

  it("makes a machine that is gone anew by the command that the refusal names, with its own disk", async () => {
    const [disk] = machine("consul-2")?.disks ?? [];
    changeRegion(file, ({ machines }) => Reflect.deleteProperty(machines, idOf("consul-2")));
    await set("consul:logLevel", "info");
    await refused(project.up, /consul-2 has no machine: [^]*`pulumi up --refresh` makes one/);
    await set("consul:logLevel", "warn");
    await project.done(`${project.up} --refresh`);
    deepEqual(machine("consul-2")?.disks, [disk]);
    await project.done(`${project.up} --expect-no-changes`);
  });

  /** Runs `up` until it succeeds, and does what each message says. @returns how many machines were taken away */
  async function finish(): Promise<number> {
    await project.unlock();
    for (let taken = 0; ; taken++) {
      const { status, text } = await project.run(project.up);
      if (status === 0) return taken;
      const address = /A machine with \S+ address (\S+) is there already[^]*DeleteInstance/.exec(text)?.[1];
      ok(address !== undefined && taken < 3, text);
      changeRegion(file, ({ machines }) => {
        const [id = "", left] = Object.entries(machines).find(([, each]) => each.address === address) ?? [];
        deepEqual(left?.disks, [], "a machine that was left behind has no data disk");
        Reflect.deleteProperty(machines, id);
      });
    }
  }

  it("ends a change that was killed at any moment with the next `up`", async () => {
    const kills = 6;
    for (let i = 1; i <= kills; i++) {
      await set("consul:logLevel", i % 2 === 0 ? "warn" : "info");
      await project.run(project.up, sleep((duration * i) / kills));
      equal(await finish(), 0);
      await project.done(`${project.up} --expect-no-changes`);
      for (const name of servers) equal(machine(name)?.runs, machine(name)?.tags["consul-config"], name);
    }
  });

  it("is brought to its end by what the messages say, wherever its first `up` was killed", async () => {
    const kills = 8;
    let taken = 0;
    for (let i = 1; i <= kills; i++) {
      await project.done("pulumi state unprotect --all --yes -s prod-servers");
      await project.done(project.destroy);
      changeRegion(file, ({ machines }) => Object.keys(machines).forEach((id) => Reflect.deleteProperty(machines, id)));
      // The last time just when a machine was made, and Pulumi does not know it yet.
      const until = i < kills ? sleep((duration * i) / kills) : made("consul-2");
      await project.run(project.up, until);
      const left = await finish();
      if (i === kills) equal(left, 1);
      taken += left;
      await project.done(`${project.up} --expect-no-changes`);
      deepEqual(
        Object.values(readRegion(file).machines).map(({ disks }) => disks.length),
        [1, 1, 1],
      );
    }
    console.log(`      ${kills} kills, ${taken} machines taken away`);
  });

  it("is not destroyed while it is protected", async () => {
    await refused("pulumi destroy -s prod-servers --yes --non-interactive", /is protected/);
    equal(Object.keys(readRegion(file).machines).length, 3);
    await project.done("pulumi state unprotect --all --yes -s prod-servers");
    await project.done("pulumi destroy -s prod-servers --yes --non-interactive");
    deepEqual(readRegion(file).machines, {});
  });
});
