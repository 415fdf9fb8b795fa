import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import * as pulumi from "@pulumi/pulumi";
import "../../local/program"; // teaches the mock monitor about hooks
import { configTags } from "../../components/ecs/change";
import { Machine, MustBeStoppedError, Outcome, RefusedError } from "../../components/ecs/cloud";
import { FakeCloud, MutableSample, wellLooks, words } from "../../components/ecs/fake-cloud";
import { QuorumGate } from "../../components/ecs/gate";
import { askQuorum, certificateDates, Command, commandText } from "../../consul/machine/commands";
import { assess, Sample } from "../../consul/quorum";
import { names, samples, wellFakes } from "./servers";

/** Servers' machines that answer what `looks` says and record the commands that they get. */
class BreakableCloud extends FakeCloud {
  readonly log: string[] = [];
  status: Record<string, string> = {};
  looks: (name: string, pass: number) => readonly Sample[] | { problem: string } = (name) => samples(name, this.leader);
  behind: string[] = [];
  /** Seconds for which a server's certificate is valid yet; for long unless given. */
  left: Record<string, number> = {};
  /** Seconds since which a server's certificate is valid; for a day unless given. */
  age: Record<string, number> = {};
  /** Seconds by which a server's clock is ahead. */
  ahead: Record<string, number> = {};
  /** Why a server does not take its new certificate. */
  renewing: Record<string, string> = {};
  /** Machines that were asked for the dates of their certificates, a line for each time. */
  dated: string[] = [];
  /** What unwanted.sh finds. */
  unwanted = "";
  passes = 0;
  /** Errors that the next calls throw, in this order. */
  failures: Error[] = [];
  leader = "consul-3";
  /** Whether the cloud refuses to store user data for machines that run. */
  mustBeStopped = false;
  installing: Outcome = { output: "" };
  /** What applying comes to, in this order; then it works. */
  applying: Outcome[] = [];

  constructor() {
    super({ ...wellFakes(), runs: Object.fromEntries(names.map((name) => [name, "c2"])) });
  }

  override machines(): Promise<Machine[]> {
    const failure = this.failures.shift();
    if (failure) return Promise.reject(failure);
    const listed = names.filter((name) => this.status[name] !== "gone");
    return Promise.resolve(listed.map((name) => ({ id: `i-${name}`, name, status: this.status[name] ?? "Running" })));
  }

  /** What machines were asked, each with their ids. */
  readonly asked: (readonly [what: string, ids: readonly string[]])[] = [];

  override run(ids: readonly string[], command: Command) {
    if (command === askQuorum) this.passes += 1;
    this.asked.push([this.described(ids, command), ids]);
    if (command === certificateDates) this.dated.push(ids.map((id) => id.replace("i-", "")).join(" "));
    else this.log.push(this.described(ids, command));
    return super.run(ids, command);
  }

  private described(ids: readonly string[], command: Command): string {
    const said = words(command);
    if (command === askQuorum) return `ask ${ids.map((id) => id.replace("i-", "")).join(" ")}`;
    if (said.startsWith("machine/hand-over.sh")) return `hand over to ${said.replace(/.* id-of-/, "")}`;
    if (said.startsWith("scripts/behind.sh")) return "who is behind";
    if (said.startsWith("scripts/unwanted.sh")) return "what is unwanted";
    const who = ids.map((id) => id.replace("i-", "")).join(" ");
    if (said.startsWith("machine/install.sh")) return `install ${said.split(" ")[1] ?? ""} on ${who}`;
    if (said.startsWith("machine/certificate.sh")) return `certificate of ${who}`;
    if (said.startsWith("machine/apply.sh")) return `${said.split(" ")[2] ?? ""} ${who}`;
    return said === "scripts/keyring.sh use" ? "use key" : said.includes("acl.sh") ? "retire" : "?";
  }

  override storeUserData(id: string, userData: string): Promise<void> {
    this.log.push(`store on ${id.replace("i-", "")}`);
    if (this.mustBeStopped && !this.powered.includes(`stop ${id}`)) {
      return Promise.reject(new MustBeStoppedError("IncorrectInstanceStatus"));
    }
    return super.storeUserData(id, userData);
  }

  override power(id: string, action: "reboot" | "stop" | "start"): Promise<void> {
    this.log.push(`${action} ${id.replace("i-", "")}`);
    this.status[id.replace("i-", "")] = action === "stop" ? "Stopped" : "Running";
    return super.power(id, action);
  }

  /** Names the questions and hand-overs alone. */
  get gated(): string[] {
    return this.log.filter((line) => !/^(install|store|restart|reload) /.test(line));
  }

  protected override answer(name: string, command: Command): Outcome {
    const said = words(command);
    if (command === certificateDates) {
      if ("problem" in this.looks(name, this.passes)) return { problem: "its Cloud Assistant is not there" };
      const now = Math.floor(Date.now() / 1000) + (this.ahead[name] ?? 0);
      return { output: `${now - (this.age[name] ?? 86_400)} ${now + (this.left[name] ?? 9_000_000)} ${now}\n` };
    }
    if (command === askQuorum) {
      const looks = this.looks(name, this.passes);
      if ("problem" in looks) return looks;
      const runs = this.servers.runs?.[name] ?? "";
      return { output: looks.map((look) => `${JSON.stringify({ ...look, runs: look.runs || runs })}\n`).join("") };
    }
    if (said.startsWith("machine/install.sh")) return this.installing;
    if (said.startsWith("machine/apply.sh")) {
      return this.applying.shift() ?? super.answer(name, command);
    }
    if (said.startsWith("scripts/unwanted.sh")) return { output: this.unwanted };
    const problem = said.startsWith("machine/certificate.sh renew") ? this.renewing[name] : undefined;
    if (problem !== undefined) return { problem, ran: true };
    if (said.startsWith("machine/hand-over.sh")) this.leader = said.replace(/.* id-of-/, "");
    return { output: said.startsWith("scripts/behind.sh") ? [...this.behind, "consul-1", ""].join("\n") : "" };
  }
}

const gossipKeys = ["Zml4dHVyZSBnb3NzaXAga2V5IGZvciB0aGUgZ2F0ZSE=", "dGhlIG90aGVyIGZpeHR1cmUga2V5IG9mIHRoZSBnYXQ="];
const day = 86_400_000;

const managementToken = "11111111-2222-4333-8444-555555555555";

describe("the gate before a server goes down", () => {
  let fake: BreakableCloud;
  beforeEach(async () => {
    await pulumi.runtime.setMocks({ newResource: ({ name }) => ({ id: name, state: {} }), call: () => ({}) });
    fake = new BreakableCloud();
  });

  // The messages that people see while the gate waits.
  const said: string[] = [];
  const { info, warn } = pulumi.log;
  before(() => Object.assign(pulumi.log, { info: say, warn: say }));
  after(() => Object.assign(pulumi.log, { info, warn }));
  beforeEach(() => (said.length = 0));
  const say = (line: string) => Promise.resolve(void said.push(line));

  const settings = {
    version: "1.22.3",
    downloadMirror: "https://mirror.example",
    downloadSha256: "",
    gossip: { generation: 1, alsoAccepted: [] as number[], lifetimeDays: 365 },
    certificates: { caGeneration: 1, caAlsoTrusted: [], caDays: 1, serverDays: 1, renewDays: 1, warnDays: 1 },
    tokens: { agentGeneration: 1 },
    gate: { waitMinutes: 1, skip: [] as string[] },
  };
  const secret = (text: string) => pulumi.secret(text);
  /** When the servers' certificates were made, in milliseconds. */
  let madeAt = Date.now();
  beforeEach(() => (madeAt = Date.now()));
  function gateOf(change: Partial<typeof settings> = {}, servers: readonly string[] = names): QuorumGate {
    return new QuorumGate({
      cloud: fake,
      pause: 1,
      servers,
      vpcId: "vpc-1",
      tag: { key: "consul-datacenter", value: "dc1" },
      settings: { ...settings, ...change },
      trust: {
        servers: names.map((name) => ({
          name,
          cert: pulumi.output(`certificate of ${name}`),
          key: secret(`key of ${name}`),
          agentToken: secret("agent"),
          certFrom: pulumi.output(""),
          certExpires: pulumi.output(""),
        })),
        certificatesFrom: pulumi.output(new Date(madeAt).toISOString()),
        caCertificate: pulumi.output("ca"),
        gossipKeys: pulumi.secret(gossipKeys),
        agentToken: secret("agent"),
        managementToken: secret(managementToken),
      },
    });
  }
  const userData = {
    text: "secret text",
    config: "c2",
    start: "s2",
    files: "aaabbb",
    paths: ["/a/consul.json", "/a/b"],
  };
  const unchanged = {
    "consul-datacenter": "dc1",
    "consul-version": "1.22.3",
    "consul-gossip": "1",
    "consul-ca": "1",
    ...configTags(userData),
  };
  /** Of a server that takes a restart. */
  const tags = { ...unchanged, "consul-config": "c1", "consul-start": "s1", "consul-files": "aaaccc" };
  const reloads = { tags: { ...tags, "consul-start": "s2" } };
  /** Calls the hook as the engine does before it updates a server. `old` and `wanted` are the inputs that differ. */
  async function update(
    gate: QuorumGate,
    server: string,
    old: Record<string, unknown> = {},
    wanted: Record<string, unknown> = {},
    data: pulumi.Output<typeof userData> = pulumi.secret(userData),
  ) {
    const same = { instanceName: server, userData: secret("first"), imageId: "m-1" };
    const args = { urn: "", id: `i-${server}`, name: server, type: "" };
    await gate.hook(server, data).callback({
      ...args,
      oldInputs: { ...same, tags, ...old },
      newInputs: { ...same, tags: unchanged, ...wanted },
    });
  }
  const settle = (output: pulumi.Output<void>) => (output as unknown as { promise(): Promise<void> }).promise();
  const bring = (server: string) => [`install 1.22.3 on ${server}`, `store on ${server}`, `restart ${server}`];
  /** Makes the deadline pass at once. */
  const impatient = { gate: { waitMinutes: 0, skip: [] } };

  it("asks the other servers, then installs, stores and applies", async () => {
    await update(gateOf(), "consul-1");
    deepEqual(fake.log, ["ask consul-2 consul-3", ...bring("consul-1")]);
    equal(Buffer.from(fake.stored.get("i-consul-1") ?? "", "base64").toString(), userData.text);
  });

  it("reloads without asking anybody where nothing has to be restarted", async () => {
    await update(gateOf(), "consul-1", reloads);
    deepEqual(fake.log, ["store on consul-1", "reload consul-1"]);
  });

  it("asks the others after all where the machine says that a reload is not enough", async () => {
    fake.applying = [{ output: "restart needed\n" }];
    await update(gateOf(), "consul-1", reloads);
    deepEqual(fake.log, ["store on consul-1", "reload consul-1", "ask consul-2 consul-3", ...bring("consul-1")]);
  });

  it("brings a machine of an earlier release over, gated: it has no such tags", async () => {
    const isNew = (tag: string) => /^consul-(config|start|files)$/.test(tag);
    const earlier = Object.fromEntries(Object.entries(tags).filter(([tag]) => !isNew(tag)));
    await update(gateOf(), "consul-1", { tags: earlier });
    deepEqual(fake.log, ["ask consul-2 consul-3", ...bring("consul-1")]);
  });

  it("applies also where the machine is stopped for something else, and where a refresh has filled old inputs", async () => {
    await update(gateOf(), "consul-1", {}, { imageId: "m-2" });
    deepEqual(fake.log, ["ask consul-2 consul-3", ...bring("consul-1")]);
    fake.log.length = 0;
    const refreshed = { autoRenewPeriod: 0, periodUnit: "", renewalStatus: "Normal", stoppedMode: "Not-applicable" };
    await update(gateOf(), "consul-1", { ...reloads, ...refreshed });
    deepEqual(fake.log, ["store on consul-1", "reload consul-1"]);
  });

  it("asks a Consul again that has just started and knows no token yet, and says to restart one that does not answer", async () => {
    const failed = (problem: string) => ({ problem: `the command ended as Failed (1): ${problem}`, ran: true });
    fake.applying = [failed("consul-converge: Consul refuses to reload: ACL not found 403")];
    await update(gateOf(), "consul-1", reloads);
    deepEqual(fake.log, ["store on consul-1", "reload consul-1", "reload consul-1"]);
    fake.applying = [failed("consul-converge: Consul does not answer: curl: (28)")];
    await rejects(
      update(gateOf(), "consul-1", reloads),
      /does not answer: curl: \(28\)\. Restart it \(`aliyun ecs RebootInstance --InstanceId i-consul-1`\), once the servers reach each other on ports 8300 and 8301 \(security group, routes\), and run `pulumi up` again/,
    );
  });

  it("stores nothing where the version cannot be had, and says so", async () => {
    fake.installing = { problem: "the command ended as Failed (1): consul-install: cannot fetch https://m", ran: true };
    await rejects(
      update(gateOf(), "consul-1"),
      /^Error: consul-1 \(i-consul-1\) is not updated: .*cannot fetch https:\/\/m\. Put that right and run `pulumi up` again/,
    );
    deepEqual(fake.log, ["ask consul-2 consul-3", "install 1.22.3 on consul-1"]);
  });

  it("says why Consul refuses a configuration, and asks again where the machine could not be asked", async () => {
    fake.applying = [{ problem: "the command ended as Failed (1): Consul refuses the new configuration", ran: true }];
    await rejects(update(gateOf(), "consul-1", reloads), /Consul refuses the new configuration\. Put that right/);
    fake.log.length = 0;
    fake.applying = [{ problem: "its Cloud Assistant is not there" }, { problem: "its answer did not come" }];
    await update(gateOf(), "consul-1", reloads);
    deepEqual(fake.log, ["store on consul-1", "reload consul-1", "reload consul-1", "reload consul-1"]);
  });

  it("reboots a machine that takes no commands only where gate.skip names its server", async () => {
    fake.installing = { problem: "its Cloud Assistant is not there" };
    await rejects(update(gateOf(impatient), "consul-1"), /its Cloud Assistant is not there\. Start or reboot it/);
    fake.installing = { problem: "the command ended as Timeout: it takes longer than 120 s" };
    await rejects(
      update(gateOf(impatient), "consul-1"),
      /120 s\. See that the servers reach each other on ports 8300 and 8301 .*\. Start or reboot it \(`aliyun/,
    );
    fake.installing = { problem: "its Cloud Assistant is not there" };
    fake.log.length = 0;
    await update(gateOf({ gate: { waitMinutes: 0, skip: ["consul-1"] } }), "consul-1");
    deepEqual(fake.log, ["install 1.22.3 on consul-1", "store on consul-1", "reboot consul-1"]);
    match(said.at(-1) ?? "", /takes no commands, and consul:gate.skip names it: it is rebooted into its new user data/);
  });

  it("stops and starts the machine, gated, where the cloud stores nothing while it runs", async () => {
    fake.mustBeStopped = true;
    await update(gateOf(), "consul-1", reloads);
    deepEqual(fake.log, [
      "store on consul-1",
      "ask consul-2 consul-3",
      "stop consul-1",
      "store on consul-1",
      "start consul-1",
    ]);
    match(said.find((line) => line.includes("is stopped and started")) ?? "", /IncorrectInstanceStatus/);
  });

  it("says in a preview what happens to each server, and which files change", async () => {
    await pulumi.runtime.setMocks(
      { newResource: ({ name }) => ({ id: name, state: {} }), call: () => ({}) },
      "p",
      "s",
      true,
    );
    await update(gateOf(), "consul-1");
    await update(gateOf(), "consul-2", reloads);
    await update(gateOf(), "consul-3", { tags: unchanged }, { imageId: "m-2" });
    await update(gateOf(), "consul-1", {}, { tags: pulumi.unknown }, pulumi.secret(pulumi.unknown as never));
    await new Promise((resolve) => setTimeout(resolve, 10));
    deepEqual([...said].sort(), [
      "consul-1: Consul reloads or restarts: it depends on values that the update makes first",
      "consul-1: Consul restarts, the machine runs on (b)",
      "consul-2: Consul reloads (b)",
      "consul-3: the machine stops and starts (imageId)",
    ]);
    deepEqual(fake.log, []);
  });

  it("asks nobody for an update that leaves the machine running", async () => {
    for (const change of [
      { tags: { ...unchanged, team: "b" } },
      { instanceName: "b" },
      { description: "b" },
      { securityGroups: ["sg-2"] },
      { httpTokens: "optional" },
    ]) {
      await update(gateOf(), "consul-1", { tags: unchanged }, { tags: unchanged, ...change });
    }
    deepEqual(fake.log, []);
  });

  it("asks for every change that stops the machine, and for any that it does not know", async () => {
    for (const change of [
      { imageId: "m-2" },
      { instanceType: "b" },
      { privateIp: "b" },
      { vswitchId: "b" },
      { hostName: "b" },
      { keyName: "b" },
      { somethingNew: 1 },
    ]) {
      fake.log.length = 0;
      await update(gateOf(), "consul-1", { tags: unchanged }, change);
      deepEqual(fake.log, ["ask consul-2 consul-3", ...bring("consul-1")], JSON.stringify(change));
    }
  });

  it("hands the leadership over first, to the server updated just before, and looks again", async () => {
    await update(gateOf(), "consul-3");
    deepEqual(fake.gated, ["ask consul-1 consul-2", "hand over to consul-2", "ask consul-1 consul-2"]);
    fake.leader = "consul-1";
    fake.log.length = 0;
    await update(gateOf(), "consul-1");
    deepEqual(fake.gated, ["ask consul-2 consul-3", "hand over to consul-3", "ask consul-2 consul-3"]);
  });

  it("waits for a server that is coming back", async () => {
    fake.looks = (name, pass) =>
      name === "consul-2" && pass < 4 ? { problem: "its Cloud Assistant is not there" } : samples(name, "consul-3");
    await update(gateOf(), "consul-1");
    equal(fake.passes, 4);
    match(
      said[0] ?? "",
      /^consul-1: waiting, a start has 60 s more: consul-2 does not answer \(its Cloud Assistant is not there\)$/,
    );
    equal(said.at(-1), "consul-1: Consul runs with its new configuration");
  });

  const broken =
    (change: (look: MutableSample) => void, who = "consul-2") =>
    (name: string) => {
      const looks = samples(name);
      if (name === who) looks.forEach(change);
      return looks;
    };
  const refusals: [string, () => void, RegExp][] = [
    [
      "one server is down",
      () => (fake.looks = (name) => (name === "consul-2" ? { problem: "the command ended as Failed" } : samples(name))),
      /consul-2 does not answer \(the command ended as Failed\).*RebootInstance --InstanceId i-consul-2/,
    ],
    [
      "one is paused",
      () =>
        (fake.looks = broken((look) =>
          Object.assign(look, { leader: null, health: null, raft: null, members: null, self: null }),
        )),
      /consul-2 runs, but its Consul does not answer/,
    ],
    [
      "one is lagging",
      () => (fake.looks = broken((look) => look.self && (look.self.applied_index = "7"))),
      /consul-2 has yet to catch up/,
    ],
    [
      "there is no leader",
      () => (fake.looks = (name) => samples(name).map((look) => ({ ...look, leader: "" }))),
      /\n {2}consul-2 sees no leader.*\n {2}consul-3 sees no leader/,
    ],
    [
      "a peer answers nonsense",
      () => (fake.looks = (name) => (name === "consul-2" ? ([{}] as Sample[]) : samples(name))),
      /consul-2 runs, but its Consul does not answer/,
    ],
    [
      "the API fails for good",
      () => (fake.failures = Array<Error>(3).fill(new Error("the ECS API fails: Throttling.User"))),
      /the ECS API fails: Throttling.User/,
    ],
  ];
  for (const [what, arrange, said] of refusals) {
    it(`refuses at its deadline where ${what}`, async () => {
      arrange();
      const failed = rejects(update(gateOf(impatient), "consul-1"), (error: Error) => {
        ok(pulumi.RunError.isInstance(error));
        match(
          error.message,
          /^consul-1 is not updated \(configuration\) after 0 minutes:\n( {2}.*\n)+.*run `pulumi up` again: it asks again, and goes on from there\.\nIf it is to repair consul-1 itself: consul:gate.skip\.$/,
        );
        match(error.message, said);
        return true;
      });
      await failed;
      ok(!fake.log.some((line) => line.startsWith("hand over")));
    });
  }

  it("does not wait for a machine that is stopped, one that goes included, and asks none", async () => {
    for (const [stopped, goes] of [
      ["consul-2", "consul-1"],
      ["consul-1", "consul-1"],
      ["consul-3", "consul-2"],
    ] as const) {
      fake.status = { [stopped]: "Stopped" };
      await rejects(
        update(gateOf(), goes),
        new RegExp(
          `^Error: ${goes} is not updated \\(configuration\\):\n  ${stopped} \\(i-${stopped}\\) is Stopped: start it: \`aliyun ecs StartInstance --InstanceId i-${stopped}\`\n`,
        ),
      );
    }
    fake.status = { "consul-2": "gone" };
    await rejects(
      update(gateOf(), "consul-1"),
      /consul-2 has no machine: none of its name is tagged consul-datacenter dc1 in vpc-1/,
    );
    // A machine that is missing may never have existed. The other servers know.
    deepEqual(fake.log, ["ask consul-3"]);
  });

  it("lets three become five: those that are yet to be made are not waited for, nor given the leadership", async () => {
    const gate = gateOf({}, [...names, "consul-4", "consul-5"]);
    for (const name of names) {
      fake.leader = name;
      await update(gate, name);
    }
    deepEqual(
      fake.log.filter((line) => line.startsWith("hand")),
      ["hand over to consul-3", "hand over to consul-1", "hand over to consul-2"],
    );
    match(fake.log[0] ?? "", /^ask consul-2 consul-3$/);
    const five = gateOf(impatient, [...names, "consul-4", "consul-5"]);
    await rejects(
      settle(five.ready([], [])),
      /the servers are not all well:\n {2}consul-4 has no machine: .*\n {2}consul-5 has no machine/,
    );
  });

  it("gives up at once where the cloud refuses", async () => {
    fake.failures = Array<Error>(3).fill(new RefusedError("the cloud refuses: Forbidden.RAM"));
    await rejects(
      update(gateOf(), "consul-1"),
      /^Error: consul-1 is not updated \(configuration\):\n {2}the cloud refuses: Forbidden.RAM/,
    );
  });

  it("asks again after a failure of the API", async () => {
    fake.failures = Array<Error>(3).fill(new Error("the ECS API fails: 500"));
    await update(gateOf(), "consul-1");
    deepEqual(fake.gated, ["ask consul-2 consul-3"]);
  });

  it("lets a server that gate.skip names go, and only that one", async () => {
    fake.status = { "consul-1": "Stopped" };
    const gate = gateOf({ gate: { waitMinutes: 0, skip: ["consul-1"] } });
    await rejects(
      update(gate, "consul-2"),
      /consul-2 cannot be spared while consul-1 is lost: 1 of 3 servers would be left\n/,
    );
    fake.log.length = 0;
    await update(gate, "consul-1");
    deepEqual(fake.log, ["store on consul-1", "start consul-1"]);
  });

  it("refuses a downgrade and a step too far, by the tags and by what the servers run", async () => {
    const version = (v: string) => ({ tags: { ...tags, "consul-version": v } });
    await rejects(
      update(gateOf(), "consul-1", version("1.22.5")),
      /consul-1 is not updated: Consul cannot go back from 1.22.5 to 1.22.3/,
    );
    await rejects(update(gateOf(), "consul-1", version("1.19.0")), /too far/);
    deepEqual(fake.log, []);
    // An interrupted update left one server at an old version.
    fake.looks = (name) =>
      samples(name).map((look) => {
        for (const server of look.health?.Servers ?? []) if (server.Name === "consul-3") server.Version = "1.19.2";
        return look;
      });
    await rejects(update(gateOf(), "consul-1", version("1.21.0")), /from 1.19.2 to 1.22.3 is too far/);
    fake.looks = (name) => samples(name);
    await update(gateOf(), "consul-1", version("1.21.0"));
  });

  it("refuses a step between authorities that somebody could not follow", async () => {
    const ca = (text: string) => ({ tags: { ...tags, "consul-ca": text } });
    const signs2 = { certificates: { ...settings.certificates, caGeneration: 2, caAlsoTrusted: [1] as never[] } };
    await rejects(update(gateOf(signs2), "consul-1", ca("1")), /nobody trusts certificate authority 2 yet/);
    fake.behind = ["node-7"];
    await rejects(
      update(gateOf({ ...signs2, ...impatient }), "consul-1", ca("1+2")),
      /these nodes do not trust the new authority yet: node-7\n/,
    );
    fake.behind = [];
    await update(gateOf(signs2), "consul-1", ca("1+2"));
  });

  it("refuses a step in a preview as well, and asks nobody there", async () => {
    await pulumi.runtime.setMocks(
      { newResource: ({ name }) => ({ id: name, state: {} }), call: () => ({}) },
      "p",
      "s",
      true,
    );
    await rejects(update(gateOf(), "consul-1", { tags: { ...tags, "consul-version": "1.22.5" } }), /cannot go back/);
    deepEqual(fake.log, []);
  });

  describe("of gossip keys", () => {
    const gossip = (generation: number, ...alsoAccepted: number[]) =>
      gateOf({
        gossip: { generation, alsoAccepted, lifetimeDays: 365 },
        gate: { waitMinutes: fake.behind.length > 0 ? 0 : 1, skip: [] },
      });
    const from = (tag: string) => ({ tags: { ...tags, "consul-start": "s2", "consul-gossip": tag } });

    it("makes the next one known to every member before the first server with it, and restarts nothing", async () => {
      await update(gossip(1, 2), "consul-3", from("1"));
      deepEqual(
        fake.log,
        // Nothing goes down: nobody is asked whether the others can do without this one, and the leader goes on leading.
        ["use key", "store on consul-3", "reload consul-3"],
      );
      // The cloud keeps each command: neither a key nor the token may be in a command.
      for (const text of fake.commands.map(commandText)) {
        for (const secret of [...gossipKeys, managementToken]) ok(!text.includes(secret));
      }
      await update(gossip(1, 2), "consul-1", from("1+2"));
      equal(fake.log.filter((line) => line === "use key").length, 1);
    });

    it("switches, and drops the last one, once every node starts with what that takes", async () => {
      for (const [wanted, tag] of [
        [() => gossip(2, 1), "1+2"],
        [() => gossip(2), "2+1"],
      ] as const) {
        fake.log.length = 0;
        fake.behind = ["node-7"];
        await rejects(
          update(wanted(), "consul-1", from(tag)),
          /consul-1 is not updated .*:\n {2}these nodes do not start with the gossip keys for this step yet: node-7: run `pulumi up` for the stack that has them, then here again/,
        );
        ok(!fake.log.includes("use key") && !fake.log.some((line) => line.startsWith("store")));
        fake.behind = [];
        await update(wanted(), "consul-1", from(tag));
        ok(fake.log.indexOf("who is behind") < fake.log.indexOf("use key"));
      }
    });

    it("takes a key away again whose first step was taken back", async () => {
      const gate = gossip(1);
      await update(gate, "consul-1", from("1+2"));
      fake.log.length = 0;
      fake.unwanted = "key\n";
      await settle(gate.retire("done"));
      deepEqual(fake.log, ["what is unwanted", "who is behind", "retire"]);
      equal(await (gate.retire("done") as unknown as { isSecret: Promise<boolean> }).isSecret, false);
    });

    it("refuses to leave a step out", async () => {
      await rejects(update(gossip(2), "consul-1", from("1")), /no node knows gossip key 2 yet/);
      await rejects(update(gossip(2), "consul-1", from("1+2")), /the nodes still start with gossip key 1/);
      deepEqual(fake.log, []);
    });
  });

  describe("where certificates have expired", () => {
    beforeEach(() => (fake.left = { "consul-1": -100, "consul-2": -200_000, "consul-3": 80_000 }));
    const all = `ask ${names.join(" ")}`;
    const renewed = names.map((name) => `certificate of ${name}`);

    it("gives every server its new one first, whatever the change is, and looks once in an `up`", async () => {
      const gate = gateOf();
      await update(gate, "consul-1");
      deepEqual(fake.log, [...renewed, all, "ask consul-2 consul-3", ...bring("consul-1")]);
      match(said.join("\n"), /^consul-1: its certificate has expired today; it gets the new one before anything else/);
      match(said.join("\n"), /consul-2: its certificate has expired 2 days ago.*\n.*consul-3: .* expires within a day/);
      await update(gate, "consul-2", reloads);
      equal(fake.log.filter((line) => renewed.includes(line)).length, 3);
      fake.log.length = 0;
      await update(gateOf(), "consul-2", reloads);
      deepEqual(fake.log, [...renewed, all, "store on consul-2", "reload consul-2"]);
      for (const text of fake.commands.map(commandText)) {
        for (const name of names) ok(!text.includes(`key of ${name}`) && !text.includes(managementToken));
      }
    });

    it("leaves those alone that are valid for longer, and machines that do not run", async () => {
      fake.left = { "consul-2": -200_000, "consul-3": -1 };
      fake.status = { "consul-3": "Stopped" };
      await update(gateOf(), "consul-1", reloads);
      deepEqual(fake.log, ["certificate of consul-2", "ask consul-1 consul-2", "store on consul-1", "reload consul-1"]);
    });

    it("goes on past a server that does not take it, and past one that gate.skip names without an error", async () => {
      fake.renewing = { "consul-1": "exit 1: as played" };
      await rejects(
        update(gateOf(), "consul-2", reloads),
        /^Error: consul-1 \(i-consul-1\) has not got its new certificate: exit 1/,
      );
      deepEqual(fake.log.slice(0, 3), renewed);
      fake.log.length = 0;
      await update(gateOf({ gate: { waitMinutes: 1, skip: ["consul-1"] } }), "consul-2", reloads);
      deepEqual(fake.log.slice(0, 3), renewed);
      match(
        said.join("\n"),
        /consul-1 \(i-consul-1\) has not got its new certificate: .*; consul:gate.skip names consul-1/,
      );
    });

    it("gives none out of its turn where another authority signs", async () => {
      const ca = { tags: { ...tags, "consul-ca": "1+2" } };
      const signs2 = { certificates: { ...settings.certificates, caGeneration: 2, caAlsoTrusted: [1] as never[] } };
      await update(gateOf(signs2), "consul-1", ca);
      ok(!fake.log.some((line) => line.startsWith("certificate")));
    });
  });

  describe("where the clock that certificates are made by is ahead of a server's", () => {
    beforeEach(() => (madeAt = Date.now() + day));
    const ahead =
      /^Error: the servers are not updated: .* a clock that is ahead: they are valid from 20\S+Z on, and by the clock of consul-\d \(i-consul-\d\) it is 20\S+Z\. By the clock here, .* it is 20\S+Z\. No server was given them\. Mend the clock .* another number of consul:certificates\.serverDays/;

    it("does nothing to any server, and names both clocks and the remedy, whatever the change is", async () => {
      await rejects(update(gateOf(), "consul-1", reloads), ahead);
      await rejects(update(gateOf(), "consul-1"), ahead);
      fake.left = { "consul-2": -1 };
      const signs2 = { certificates: { ...settings.certificates, caGeneration: 2, caAlsoTrusted: [1] as never[] } };
      await rejects(update(gateOf(signs2), "consul-1", { tags: { ...tags, "consul-ca": "1+2" } }), ahead);
      deepEqual(fake.log, []);
    });

    it("looks at the clock of every server, but of none that gate.skip names", async () => {
      madeAt = Date.now();
      await update(gateOf(), "consul-1", reloads);
      fake.ahead = { "consul-3": -86_400 };
      await rejects(update(gateOf(), "consul-1", reloads), /by the clock of consul-3 \(i-consul-3\) it is/);
      await update(gateOf({ gate: { waitMinutes: 1, skip: ["consul-3"] } }), "consul-1", reloads);
    });

    it("asks a machine that does not answer again, and no other", async () => {
      madeAt = Date.now();
      fake.looks = (name, pass) =>
        name === "consul-2" && pass < 4 ? { problem: "its Cloud Assistant is not there" } : samples(name);
      await update(gateOf(), "consul-1");
      deepEqual(fake.dated.slice(0, 3), ["consul-1 consul-2 consul-3", "consul-2", "consul-2"]);
      ok(fake.dated.slice(1).every((asked) => asked === "consul-2"));
    });

    it("waits where it is ahead by little", async () => {
      madeAt = Date.now() + 2500;
      const began = Date.now();
      await update(gateOf(), "consul-1", reloads);
      ok(Date.now() - began > 1000, String(Date.now() - began));
      match(said.join("\n"), /servers: waiting [123] s, a clock there is behind/);
      deepEqual(fake.log, ["store on consul-1", "reload consul-1"]);
    });

    it("says so at the first start, and waits for nothing", async () => {
      fake.looks = (name) => samples(name).map((look) => ({ ...look, leader: "" }));
      await rejects(
        settle(
          gateOf().ready(
            [],
            names.map(() => pulumi.secret(userData)),
          ),
        ),
        /^Error: the servers are not all well:\n {2}servers' certificates were made by a clock that is ahead/,
      );
    });

    it("renews what servers have that is not valid yet, before anything else", async () => {
      madeAt = Date.now();
      fake.age = { "consul-2": -7200 };
      await update(gateOf(), "consul-1", reloads);
      deepEqual(fake.log, [
        "certificate of consul-2",
        `ask ${names.join(" ")}`,
        "store on consul-1",
        "reload consul-1",
      ]);
      match(said.join("\n"), /consul-2: its certificate is not valid yet; it gets the new one before anything else/);
    });
  });

  it("has one name for each server, which the engine keeps", () => {
    deepEqual(
      names.map((name) => gateOf().hook(name, pulumi.secret(userData)).name),
      names.map((name) => `consul-${name}-quorum-gate`),
    );
    equal(gateOf().hook("consul-1", pulumi.secret(userData)).opts?.onDryRun, true);
  });

  describe("when `up` ends", () => {
    const current = names.map(() => pulumi.output({ "consul-config": userData.config }));
    const wanted = names.map(() => pulumi.secret(userData));

    it("asks all servers, waits until they are well, and asks again at the next", async () => {
      fake.looks = (name, pass) => (pass < 3 ? { problem: "its Cloud Assistant is not there" } : samples(name));
      await settle(gateOf().ready(current, wanted));
      await settle(gateOf().ready(current, wanted));
      deepEqual(fake.log, Array(4).fill("ask consul-1 consul-2 consul-3"));
    });

    it("fails where one is not, or runs another version", async () => {
      fake.status = { "consul-2": "Stopped" };
      await rejects(
        settle(gateOf().ready(current, wanted)),
        /^Error: the servers are not all well:\n {2}consul-2 \(i-consul-2\) is Stopped.*\n.*run `pulumi up` again: it asks again, and goes on from there\.\nA server that is lost for longer: name it in consul:gate.skip, and all that does not need it goes on\.$/,
      );
      fake.status = {};
      await rejects(
        settle(gateOf({ ...impatient, version: "1.22.5" }).ready(current, wanted)),
        /consul-1 runs Consul 1.22.3, not 1.22.5/,
      );
    });

    it("brings a server that runs something else to what it is to run, whatever its tags say", async () => {
      fake.looks = (name, pass) =>
        samples(name).map((look) => ({ ...look, runs: name === "consul-2" && pass < 2 ? "c1" : "c2" }));
      await settle(gateOf().ready(current, wanted));
      const all = "ask consul-1 consul-2 consul-3";
      deepEqual(fake.log, [all, "store on consul-2", "reload consul-2", all]);
      fake.log.length = 0;
      fake.looks = (name) => samples(name).map((look) => ({ ...look, runs: name === "consul-2" ? "c1" : "c2" }));
      await rejects(settle(gateOf(impatient).ready(current, wanted)), /consul-2 does not run what it is to run/);
    });

    it("leaves a server alone whose update was not part of this run, and says so", async () => {
      fake.looks = (name) => samples(name).map((look) => ({ ...look, runs: name === "consul-2" ? "c1" : "c2" }));
      const untargeted = names.map((name) => pulumi.output({ "consul-config": name === "consul-2" ? "c1" : "c2" }));
      await settle(gateOf(impatient).ready(untargeted, wanted));
      deepEqual(fake.log, ["ask consul-1 consul-2 consul-3"]);
      equal(said.at(-1), "consul-2: not updated by this run; `pulumi up` without --target does it");
    });

    it("goes on without a server that is named as lost, and says so", async () => {
      fake.status = { "consul-3": "Stopped" };
      fake.leader = "consul-1";
      fake.looks = (name) =>
        samples(name, fake.leader).map((look) => {
          for (const server of look.health?.Servers ?? []) if (server.Name === "consul-3") server.Healthy = false;
          return {
            ...look,
            members: look.members?.map((m) => (m.Name === "consul-3" ? { ...m, Status: 4 } : m)) ?? null,
          };
        });
      const named = { gate: { waitMinutes: 0, skip: ["consul-3"] } };
      await settle(gateOf(named).ready(current, wanted));
      deepEqual(fake.log, ["ask consul-1 consul-2"]);
      match(said.join("\n"), /nothing is expected of consul-3: consul:gate.skip names what is lost/);
      // What needs no restart goes on with each of the others.
      fake.log.length = 0;
      await update(gateOf(named), "consul-1", reloads);
      deepEqual(fake.log, ["store on consul-1", "reload consul-1"]);
      // Nor does the update stop at the lost one.
      fake.status = { "consul-3": "gone" };
      await update(gateOf(named), "consul-3", reloads);
      match(said.at(-1) ?? "", /consul-3 has no machine: .*; consul:gate.skip names consul-3, so the update goes on/);
    });

    it("tells autopilot how many servers there are, where autopilot thinks otherwise", async () => {
      fake.looks = (name) => samples(name).map((look) => ({ ...look, minQuorum: 5 }));
      await settle(gateOf().ready(current, wanted));
      deepEqual(fake.commands.map(words).at(-1), "machine/autopilot.sh 3");
    });

    it("spares one of five while another is lost, and none of three", () => {
      const five = ["consul-1", "consul-2", "consul-3", "consul-4", "consul-5"];
      const looks = wellLooks({ names: five, version: "1.22.3" }, "consul-1");
      const servers = five.map((name) => ({
        name,
        machine: { id: name, status: "Running" },
        view: { samples: looks },
      }));
      ok(assess(servers, { candidate: "consul-2", lost: ["consul-5"] }).ok);
      ok(!assess(servers, { candidate: "consul-2", lost: ["consul-4", "consul-5"] }).ok);
    });

    it("takes a raft peer without a name for the server that is lost, and for no other", () => {
      // As a leader reports that was started after consul-5 had been lost.
      const five = ["consul-1", "consul-2", "consul-3", "consul-4", "consul-5"];
      const looks = wellLooks({ names: five, version: "1.22.3" }, "consul-1").map((look) => {
        const rename = (Node: string) => (Node === "consul-5" ? "(unknown)" : Node);
        for (const server of look.raft?.Servers ?? []) server.Node = rename(server.Node);
        return { ...look, members: look.members?.filter(({ Name }) => Name !== "consul-5") ?? null };
      });
      const servers = five.map((name) => ({
        name,
        machine: { id: name, status: "Running" },
        view: { samples: looks },
      }));
      ok(assess(servers, { lost: ["consul-5"] }).ok);
      ok(assess(servers, { candidate: "consul-2", lost: ["consul-5"] }).ok);
      const four = servers.slice(0, 4);
      const verdict = assess(four);
      ok(!verdict.ok && JSON.stringify(verdict.reasons).includes("(unknown)"));
    });

    it("hands over to the server before, although the first ones of the list are yet to be made", async () => {
      fake.leader = "consul-3";
      fake.looks = (name) => samples(name, fake.leader);
      await update(gateOf({}, ["consul-4", "consul-5", ...names]), "consul-3");
      ok(fake.log.includes("hand over to consul-2"), fake.log.join());
    });

    it("puts nothing into a command that a machine says of itself, unless it has the form of a raft id", async () => {
      fake.looks = (name) =>
        samples(name, "consul-1").map((look) => {
          for (const server of look.raft?.Servers ?? []) server.ID = "x'; touch /tmp/owned; echo '";
          return look;
        });
      await rejects(update(gateOf(), "consul-1"), /consul-3 has an impossible raft id/);
      ok(!fake.log.some((line) => line.startsWith("hand over")));
      match(commandText([{ script: "machine/hand-over.sh", args: ["a'b"] }]), /sh -s -- 'a'\\''b' <</);
    });

    it("asks nobody in a preview", async () => {
      await pulumi.runtime.setMocks(
        { newResource: ({ name }) => ({ id: name, state: {} }), call: () => ({}) },
        "p",
        "s",
        true,
      );
      await settle(gateOf().ready(current, wanted));
      await settle(gateOf({ gossip: { generation: 2, alsoAccepted: [], lifetimeDays: 1 } }).retire("done"));
      deepEqual(fake.log, []);
    });

    it("asks no server that gate.skip names to take tokens away: its files may have an earlier one", async () => {
      await settle(
        gateOf({ tokens: { agentGeneration: 2 }, gate: { waitMinutes: 1, skip: ["consul-1"] } }).retire("done"),
      );
      deepEqual(
        fake.asked.filter(([line]) => line === "retire").map(([, ids]) => ids),
        [["i-consul-2"]],
      );
    });

    it("takes old keys and tokens away once no node needs them, and only if there were any", async () => {
      await settle(gateOf().retire("done"));
      deepEqual(fake.log, ["what is unwanted"]);
      fake.log.length = 0;
      fake.unwanted = "key\n";
      await settle(gateOf().retire("done"));
      deepEqual(fake.log, ["what is unwanted", "who is behind", "retire"]);
      fake.log.length = 0;
      await settle(gateOf({ tokens: { agentGeneration: 2 } }).retire("done"));
      deepEqual(fake.log, ["who is behind", "retire"]);
      fake.log.length = 0;
      fake.behind = ["node-7"];
      await settle(gateOf({ tokens: { agentGeneration: 2 } }).retire("done"));
      deepEqual(fake.log, Array(4).fill("who is behind"));
      match(said.at(-1) ?? "", /^with an earlier gossip key, token or authority: node-7\. What they need is kept/);
    });
  });
});
