import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { delimiter, join } from "path";
import * as pulumi from "@pulumi/pulumi";
import { FakeCloud, MutableSample } from "../../components/ecs/fake-cloud";
import { askQuorum, Command } from "../../consul/machine/commands";
import { perform } from "../../local/command";
import { privateKey, selfSignedCert } from "../../local/certificates";
import { stackConfig } from "../../local/program";
import { AskedServer, Agents, Answers, Facts, readAgents, readFacts } from "../../operate/answers";
import { judge } from "../../operate/judge";
import { print } from "../../operate/print";
import { serversOf } from "../../operate/servers";
import { readStack, Stack } from "../../operate/stack";
import { statusTask } from "../../operate/status";
import { loadSettings } from "../../settings";
import { fakePulumi } from "../fake-pulumi";
import { edit } from "../program/edit";
import { names, wellServers, wellVersion } from "./servers";

const now = new Date("2026-11-29T12:00:00Z");
const inDays = (days: number, hours = 0) => new Date(now.getTime() + (days * 24 + hours) * 3_600_000);

/** An authority that was made so many days ago and is valid for ten years. */
async function authority(generation: number, daysAgo: number): Promise<string> {
  const key = privateKey({ algorithm: "ECDSA", ecdsaCurve: "P256" });
  const inputs = {
    privateKeyPem: key.outputs.privateKeyPem,
    isCaCertificate: true,
    subject: { commonName: `Consul CA ${generation} dc1` },
    allowedUses: ["cert_signing"],
    validityPeriodHours: 3650 * 24,
  };
  return String((await selfSignedCert(inputs, inDays(-daysAgo))).outputs.certPem);
}

/** Settings of prod, with the version that the servers of these tests run. */
const prodConfig = () => ({ ...stackConfig("prod"), "consul:version": wellVersion });

describe("the status of a deployment", () => {
  let stack: Stack;

  /** The stack prod with settings of its own. */
  const withSettings = (change: (config: Record<string, string>) => void = () => undefined): Stack => {
    const config = prodConfig();
    change(config);
    pulumi.runtime.setAllConfig(config);
    return { ...stack, settings: loadSettings() };
  };

  before(async () => {
    pulumi.runtime.setAllConfig(prodConfig());
    stack = {
      name: "prod",
      settings: loadSettings(),
      cloud: { region: "cn-hangzhou" },
      directory: undefined,
      outputs: {
        caCertificate: await authority(1, 100),
        gossipKeys: ["key"],
        agentToken: "agent",
        managementToken: "management",
        expiry: { ca: "", serverCertificate: "", gossipKey: inDays(200).toISOString() },
      },
    };
  });
  after(() => pulumi.runtime.setAllConfig({}));

  const wellFacts: Facts = {
    version: wellVersion,
    certificateExpires: inDays(200),
    disk: { size: 100, free: 50 },
    failedUnits: [],
    snapshotTaken: inDays(0, -1),
    snapshot: { at: inDays(0, -1), everyHours: 6, bytes: 4096 },
  };
  const wellAgents: Agents = { members: 11, failed: [], otherVersion: [], earlierTrust: [] };

  interface Changes {
    readonly look?: (look: MutableSample, name: string) => void;
    readonly server?: (server: AskedServer) => Partial<AskedServer>;
    readonly facts?: (name: string) => Partial<Facts>;
    readonly agents?: Partial<Agents> | { readonly problem: string };
  }
  const answers = ({ look, server, facts, agents }: Changes = {}): Answers => ({
    servers: wellServers(look).map(({ name, view }) => {
      const own: AskedServer = {
        name,
        view,
        machine: { id: `i-${name}`, name, status: "Running" },
        facts: { ...wellFacts, ...facts?.(name) },
      };
      return { ...own, ...server?.(own) };
    }),
    agents: agents && "problem" in agents ? agents : { ...wellAgents, ...agents },
  });
  const stopped = (name: string) => (server: AskedServer) =>
    server.name === name
      ? { machine: { ...server.machine, status: "Stopped" }, view: undefined, facts: undefined }
      : {};

  it("is well where all is well, with figures of everything", () => {
    const status = judge(stack, answers(), now);
    deepEqual(status.problems, []);
    ok(status.ok);
    deepEqual([status.leader, status.voters], ["consul-3", 3]);
    deepEqual(
      status.servers.map(({ role, version, certificate, mayGoDown }) => [
        role,
        version,
        certificate?.daysLeft,
        mayGoDown.ok,
      ]),
      [
        ["voter", wellVersion, 200, true],
        ["voter", wellVersion, 200, true],
        ["leader", wellVersion, 200, true],
      ],
    );
    deepEqual(
      status.keys.map(({ what, daysLeft }) => [what, daysLeft]),
      [
        ["certificate authority 1", 3550],
        ["gossip key", 200],
      ],
    );
    deepEqual([status.snapshots?.ageHours, status.snapshots?.copy], [1, "example-consul-prod/prod/"]);
  });

  const wrong: [what: string, changes: Changes, named: RegExp | RegExp[]][] = [
    [
      "a machine that is stopped",
      { server: stopped("consul-2") },
      /^consul-2 \(i-consul-2\) is Stopped: start it: `aliyun ecs StartInstance --InstanceId i-consul-2`$/,
    ],
    [
      "a Consul that does not answer",
      { server: ({ name }) => (name === "consul-1" ? { view: { problem: "it timed out" } } : {}) },
      /^consul-1 does not answer \(it timed out\)/,
    ],
    [
      "a server without a vote",
      {
        look: (look) =>
          look.raft?.Servers.filter(({ Node }) => Node === "consul-2").forEach((peer) => (peer.Voter = false)),
      },
      /^consul-2 is not a voter/,
    ],
    ["no leader", { look: (look) => (look.leader = "") }, [/^consul-1 sees no leader/, /^consul-2/, /^consul-3/]],
    [
      "a server of another version",
      { facts: (name) => (name === "consul-2" ? { version: "1.21.5" } : {}) },
      /^consul-2 runs Consul 1\.21\.5, not 1\.22\.3: run `pulumi up`$/,
    ],
    [
      "a certificate that runs out",
      { facts: (name) => (name === "consul-3" ? { certificateExpires: inDays(29, 23) } : {}) },
      /^the certificate of consul-3 has 29 days left: `pulumi up` makes a new one$/,
    ],
    [
      "a certificate that has run out",
      { facts: (name) => (name === "consul-3" ? { certificateExpires: inDays(-1) } : {}) },
      /^the certificate of consul-3 ran out on 2026-11-28T/,
    ],
    [
      "a server without a certificate",
      { facts: (name) => (name === "consul-3" ? { certificateExpires: undefined } : {}) },
      /^consul-3 presents no certificate on its HTTPS port$/,
    ],
    [
      "a disk that is nearly full",
      { facts: (name) => (name === "consul-1" ? { disk: { size: 1000, free: 80 } } : {}) },
      /^the data disk of consul-1 has 8 % free/,
    ],
    [
      "a unit that has failed",
      { facts: (name) => (name === "consul-1" ? { failedUnits: ["consul-snapshot.service"] } : {}) },
      /^consul-snapshot\.service of consul-1 has failed: `journalctl -u consul-snapshot\.service` there$/,
    ],
    ["autopilot that counts otherwise", { look: (look) => (look.minQuorum = 5) }, /^autopilot counts 5 servers, not 3/],
    [
      "a snapshot that is old",
      { facts: () => ({ snapshotTaken: inDays(0, -16), snapshot: { at: inDays(0, -16), everyHours: 6, bytes: 1 } }) },
      /^the last snapshot is 16 hours old, one is to be taken every 6 hours/,
    ],
    [
      "no snapshot at all",
      { facts: () => ({ snapshotTaken: undefined, snapshot: undefined }) },
      /^no snapshot was ever taken, one is to be taken every 6 hours/,
    ],
    [
      "a copy that did not arrive",
      { facts: () => ({ snapshotTaken: inDays(0, -1), snapshot: { at: inDays(0, -7), everyHours: 6, bytes: 1 } }) },
      /^the snapshot of 2026-11-29T11:00:00\.000Z is on a server's disk, and its copy in example-consul-prod\/prod\/ did not/,
    ],
    ["an agent that is gone", { agents: { failed: ["node-7"] } }, /^agents that do not answer: node-7$/],
    [
      "agents of another version",
      { agents: { otherVersion: [{ name: "node-1", version: "1.21.5" }] } },
      /^agents that run another version than 1\.22\.3: node-1 \(1\.21\.5\); run/,
    ],
    [
      "agents with earlier keys",
      { agents: { earlierTrust: ["node-1", "node-2"] } },
      /^agents with an earlier gossip key, token or authority: node-1, node-2; run/,
    ],
    ["nobody who knows the agents", { agents: { problem: "403" } }, /^nobody says how the agents are: 403$/],
  ];
  for (const [what, changes, named] of wrong) {
    it(`names ${what}, and nothing else`, () => {
      const { problems, ok: well } = judge(stack, answers(changes), now);
      const patterns = [named].flat();
      equal(problems.length, patterns.length, problems.join("\n"));
      patterns.forEach((pattern, i) => match(problems[i] ?? "", pattern));
      equal(well, false);
    });
  }

  it("names an authority and a gossip key that run out", async () => {
    const old = { ...stack.outputs, caCertificate: (await authority(1, 3640)) + (await authority(2, 1)) };
    const outputs = { ...old, expiry: { ...old.expiry, gossipKey: inDays(-3).toISOString() } };
    deepEqual(judge({ ...stack, outputs }, answers(), now).problems, [
      "the certificate authority 1 has 10 days left: introduce the next one (docs/operations.md)",
      "the gossip key was due on 2026-11-26T12:00:00.000Z: introduce the next one (docs/operations.md)",
    ]);
  });

  it("gives the gate's word for each server", () => {
    const { servers } = judge(stack, answers({ server: stopped("consul-2") }), now);
    for (const { mayGoDown } of servers) {
      equal(mayGoDown.ok, false);
      match(mayGoDown.reasons.join(), /^consul-2 \(i-consul-2\) is Stopped/);
    }
  });

  it("expects nothing of a server that is named as lost, and says so once it is back", () => {
    const lost = withSettings((config) => (config["consul:gate"] = JSON.stringify({ skip: ["consul-2"] })));
    deepEqual(judge(lost, answers({ server: stopped("consul-2") }), now).problems, []);
    deepEqual(judge(lost, answers(), now).problems, [
      "consul-2 is back: take it out of consul:gate.skip and run `pulumi up`",
    ]);
  });

  it("asks for no snapshot in the first hours, and for none where none are wanted", async () => {
    const none = answers({ facts: () => ({ snapshotTaken: undefined, snapshot: undefined }) });
    const fresh = { ...stack, outputs: { ...stack.outputs, caCertificate: await authority(1, 0.5) } };
    deepEqual(judge(fresh, none, now).problems, []);
    const without = withSettings((config) => delete config["consul:backups"]);
    const status = judge(without, none, now);
    deepEqual([status.problems, status.snapshots], [[], undefined]);
  });

  it("has no word of machines of the cloud where servers are pods", () => {
    const pods = withSettings((config) => {
      config["consul:servers"] = JSON.stringify({ platform: "kubernetes" });
      delete config["consul:backups"];
      edit(config, "agents", (agents) => delete agents.nodeSecurityGroupId);
    });
    const silent = answers({ server: ({ name }) => (name === "consul-1" ? { view: { problem: "no" } } : {}) });
    deepEqual(judge(pods, silent, now).problems, ["consul-1 does not answer (no)"]);
  });

  it("is printed with the verdict first and last, and with colours only where they are asked for", () => {
    const text = print(judge(stack, answers({ server: stopped("consul-2") }), now));
    const lines = text.trim().split("\n");
    equal(lines[0], "prod (datacenter aly-consul): NOT WELL, 1 thing is wrong");
    equal(lines.at(-1), lines[0]);
    match(text, /^consul-2 +i-consul-2 +Stopped +voter +1\.22\.3 +\? +\? +is down$/m);
    match(text, /^consul-1 may not go down: consul-2 /m);
    ok(!text.includes("consul-2 may not go down"));
    match(text, /^Voters +3 of 3, 1 of them down$/m);
    match(
      text,
      /^Snapshot +2026-11-29T11:00:00.000Z, 1 hours ago, 4 KiB, with its copy in example-consul-prod\/prod\/$/m,
    );
    ok(!text.includes("\u001b"));
    match(print(judge(stack, answers(), now), true), /^\u001b\[32mprod \(datacenter aly-consul\): all is well\u001b/);
  });

  it("is read from what the scripts print", () => {
    const metrics =
      "# TYPE consul_snapshot_last_success_timestamp_seconds gaugeconsul_snapshot_last_success_timestamp_seconds 1796000000# " +
      "HELP xconsul_snapshot_interval_seconds 21600consul_snapshot_size_bytes 10240";
    deepEqual(
      readFacts([
        "certificate Nov 29 13:40:08 2027 GMT",
        `version ${wellVersion}`,
        "disk 1000 250",
        "snapshot 20261129T061700Z-consul-1.snap",
        `metrics ${metrics}`,
        "failed consul-acl.service",
      ]),
      {
        version: wellVersion,
        certificateExpires: new Date("2027-11-29T13:40:08Z"),
        disk: { size: 1000, free: 250 },
        failedUnits: ["consul-acl.service"],
        snapshotTaken: new Date("2026-11-29T06:17:00Z"),
        snapshot: { at: new Date(1796000000_000), everyHours: 6, bytes: 10240 },
      },
    );
    const nothing = readFacts([]);
    deepEqual(nothing, {
      version: undefined,
      certificateExpires: undefined,
      disk: undefined,
      failedUnits: [],
      snapshotTaken: undefined,
      snapshot: undefined,
    });
    deepEqual(readAgents("failed a\nversion b 1.21.0\nmembers 9\nconsul-1\nc\n", names), {
      members: 9,
      failed: ["a"],
      otherVersion: [{ name: "b", version: "1.21.0" }],
      earlierTrust: ["c"],
    });
  });

  it("is of another stack where the servers are another stack's", () => {
    pulumi.runtime.setAllConfig(stackConfig("prod-agents"));
    const agents = { ...stack, name: "prod-agents", settings: loadSettings() };
    try {
      serversOf(agents);
      ok(false);
    } catch (error) {
      match((error as Error).message, /^its servers are in another stack: ask organization\/consul\/prod-servers/);
    }
  });
});

/** Machines whose servers are well, and that answer the questions of this command too. */
class AnsweringCloud extends FakeCloud {
  override answer(server: string, command: Command) {
    const quorum = super.answer(server, askQuorum);
    const script = command.map(({ script }) => script).join(" ");
    if (script === "machine/quorum.sh scripts/status.sh" && "output" in quorum) {
      return { output: `${quorum.output}version ${wellVersion}\ncertificate Nov 29 13:40:08 2099 GMT\n` };
    }
    if (script === "scripts/agents.sh scripts/behind.sh") {
      return { output: "members 2\nconsul-1\nconsul-2\nconsul-3\n" };
    }
    return quorum;
  }
}

describe("npm run status", () => {
  const path = process.env.PATH;
  let directory: string;

  const run = async (args: string[], cloud?: AnsweringCloud) => {
    let [out, error] = ["", ""];
    const code = await perform(
      statusTask(cloud),
      args,
      (text) => (out += text),
      (text) => (error += text),
    );
    return { code, out, error };
  };
  let outputs: Record<string, unknown>;

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "consul-status-"));
    process.env.PATH = `${directory}${delimiter}${path ?? ""}`;
    outputs = {
      outputsVersion: 1,
      caCertificate: await authority(1, 0),
      gossipKeys: ["key"],
      agentToken: "token",
      managementToken: "management",
      expiry: { ca: "", serverCertificate: "", gossipKey: "2099-01-01T00:00:00Z" },
    };
  });
  after(() => {
    process.env.PATH = path;
    rmSync(directory, { recursive: true });
    pulumi.runtime.setAllConfig({});
  });

  it("reads settings and outputs by Pulumi's CLI, asks the machines, and ends with 0, or with 1", async () => {
    fakePulumi(directory, prodConfig(), { ...outputs, caCertificate: await authority(1, -1) });
    const fakes = { names, version: wellVersion };
    const well = await run(["prod", "--json"], new AnsweringCloud(fakes));
    equal(well.error, "");
    const status = JSON.parse(well.out) as { ok: boolean; problems: string[]; agents: { members: number } };
    deepEqual([status.problems, status.agents.members, well.code], [[], 2, 0]);
    const other = await run(["prod"], new AnsweringCloud({ ...fakes, leader: "consul-2" }));
    equal(other.code, 0, other.out);
    class OneStopped extends AnsweringCloud {
      override async machines() {
        return (await super.machines()).map((one) => (one.name === "consul-2" ? { ...one, status: "Stopped" } : one));
      }
    }
    const stopped = await run(["prod"], new OneStopped(fakes));
    equal(stopped.code, 1);
    match(stopped.out, /^- consul-2 \(i-consul-2\) is Stopped: start it/m);
  });

  it("shows no secret", async () => {
    fakePulumi(directory, prodConfig(), {
      ...outputs,
      managementToken: "s3cret-1",
      agentToken: "s3cret-2",
      gossipKeys: ["s3cret-3"],
    });
    for (const args of [["prod"], ["prod", "--json"]]) {
      const { out, error } = await run(args, new AnsweringCloud({ names, version: wellVersion }));
      ok(!`${out}${error}`.includes("s3cret"));
    }
  });

  it("ends with 2 and the reason where nobody could be asked", async () => {
    const refused = async (args: string[], said: RegExp) => {
      const { code, out, error } = await run(args);
      deepEqual([code, out], [2, ""]);
      match(error, said);
    };
    await refused([], /^status: one stack is needed, such as: npm run status -- prod\n$/);
    await refused(["nope"], /^status: there is no Pulumi\.nope\.yaml; stacks with a file are dev, local, /);
    fakePulumi(directory, prodConfig(), {}, 'echo "error: no stack named prod found" >&2; exit 255');
    await refused(["prod"], /^status: pulumi config --json: error: no stack named prod found\n$/);
    fakePulumi(directory, prodConfig(), {});
    await refused(["prod"], /^status: nothing is deployed: run `pulumi up -s prod` first\n$/);
    fakePulumi(directory, prodConfig(), { ...outputs, outputsVersion: 2 });
    await refused(["prod"], /was deployed by another release/);
    fakePulumi(directory, stackConfig("dev"), outputs);
    writeFileSync(
      join(directory, "kubectl"),
      '#!/bin/sh\necho "error: context \\"dev\\" does not exist" >&2; exit 1\n',
    );
    chmodSync(join(directory, "kubectl"), 0o755);
    await refused(["dev"], /^status: kubectl get: error: context "dev" does not exist\n$/);
    await refused(
      ["local", "--dir", directory],
      /^status: no cluster was started in .*: npm start -- --stack local\n$/,
    );
    process.env.PATH = "";
    try {
      await refused(
        ["prod"],
        /^status: pulumi is not on PATH: settings and outputs of a deployed stack are read with it/,
      );
    } finally {
      process.env.PATH = `${directory}${delimiter}${path ?? ""}`;
    }
    await rejects(readStack("nope"), /there is no Pulumi\.nope\.yaml/);
  });
});
