import { deepEqual, equal, match, ok, throws } from "assert/strict";
import { execFileSync, spawnSync } from "child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "fs";
import { tmpdir } from "os";
import { delimiter, join } from "path";
import { parse } from "yaml";
import { environments } from "../../local/fixtures";
import { programDir, runProgram, stackConfig } from "../../local/program";
import { LocalProviders } from "../../local/providers";
import { onLoopback } from "../../local/supervisor";
import { deployedCommit, openStacks } from "../../operate/due";
import { Deployed, dueAt } from "../../operate/due-list";
import { isOpen, nextOpening } from "../../operate/window";
import { MaintenanceSettings, parseSettings, Settings } from "../../settings";
import { maintenance } from "../../settings/maintenance";
import type { Expiry } from "../../stacks/expiry";
import { fakePulumi } from "../fake-pulumi";

const day = 86_400_000;
const at = (text: string) => new Date(text);

describe("the maintenance window", () => {
  const usual = maintenance.parse({});
  const window = (given: object): MaintenanceSettings => maintenance.parse(given);

  it("is open on its days between its times, in its time zone", () => {
    deepEqual(usual, { days: ["tue", "wed", "thu"], from: "02:00", to: "05:00", timeZone: "UTC" });
    // 1 December 2026 is a Tuesday.
    const open = (text: string, given: object = {}) => isOpen(window(given), at(text));
    deepEqual(
      ["01:59", "02:00", "04:59", "05:00"].map((time) => open(`2026-12-01T${time}:30Z`)),
      [false, true, true, false],
    );
    ok(!open("2026-11-30T03:00:00Z") && !open("2026-12-04T03:00:00Z"));
    const shanghai = { timeZone: "Asia/Shanghai" };
    ok(open("2026-11-30T18:30:00Z", shanghai), "it is 2:30 on Tuesday there");
    ok(!open("2026-12-01T02:30:00Z", shanghai) && open("2026-12-02T20:00:00Z", shanghai));
    ok(!open("2026-12-03T18:30:00Z", shanghai), "it is Friday there");
  });

  it("may pass midnight, and is that of the day on which it opened", () => {
    const night = window({ days: ["sat"], from: "23:00", to: "01:30" });
    deepEqual(
      ["2026-12-05T22:59Z", "2026-12-05T23:00Z", "2026-12-06T01:29Z", "2026-12-06T01:30Z", "2026-12-05T00:30Z"].map(
        (text) => isOpen(night, at(text)),
      ),
      [false, true, true, false, false],
    );
  });

  it("has hours as people there have them when clocks change", () => {
    const berlin = window({ days: ["sun"], from: "03:00", to: "04:00", timeZone: "Europe/Berlin" });
    // In winter 2:30 UTC is 3:30 there, in summer 1:30 UTC is.
    ok(isOpen(berlin, at("2027-03-21T02:30:00Z")) && !isOpen(berlin, at("2027-03-21T01:30:00Z")));
    ok(isOpen(berlin, at("2027-04-04T01:30:00Z")) && !isOpen(berlin, at("2027-04-04T02:30:00Z")));
  });

  it("opens next when it says", () => {
    equal(nextOpening(usual, at("2026-12-03T05:00:00Z")).toISOString(), "2026-12-08T02:00:00.000Z");
    equal(nextOpening(usual, at("2026-12-01T03:00:20Z")).toISOString(), "2026-12-01T03:01:00.000Z");
  });

  it("is refused with what would be accepted", () => {
    const base = { ...settingsOf("prod"), gossip: {}, certificates: {} };
    const refused = (given: object, said: RegExp) => throws(() => parseSettings({ ...base, maintenance: given }), said);
    refused({ days: ["tuesday"] }, /maintenance\.days.*one of sun, mon/s);
    refused({ days: [] }, /maintenance\.days.*one day or more/s);
    refused({ from: "2:00" }, /maintenance\.from.*a time of day such as 02:00/s);
    refused({ from: "02:00", to: "02:30" }, /maintenance\.to.*an hour or more after maintenance\.from/s);
    refused({ timeZone: "Asia/Peking" }, /maintenance\.timeZone.*a time zone such as Asia\/Shanghai/s);
  });
});

/** The settings of a stack as they are given. */
function settingsOf(stack: string): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(stackConfig(stack)).flatMap(([key, value]) => {
      if (!key.startsWith("consul:")) return [];
      const name = key.slice("consul:".length);
      return [
        [
          name,
          /^[[{]/.test(value) ? (JSON.parse(value) as unknown) : name === "raftMultiplier" ? Number(value) : value,
        ],
      ];
    }),
  );
}

describe("what is due", () => {
  const now = at("2026-12-01T00:00:00Z");
  const inDays = (days: number) => new Date(now.getTime() + days * day).toISOString();
  const settings = (change: object = {}): Settings => parseSettings({ ...settingsOf("prod"), ...change });
  const deployed = (expiry: Partial<Expiry> = {}, consulVersion = settings().version): Deployed => ({
    consulVersion,
    expiry: { ca: inDays(3000), serverCertificate: inDays(200), gossipKey: inDays(200), ...expiry },
  });
  const due = (change: object = {}, expiry: Partial<Expiry> = {}, version?: string) =>
    dueAt(settings(change), deployed(expiry, version), now).map(({ what, by, remedy }) => `${by}: ${what}: ${remedy}`);

  it("is nothing where nothing is", () => deepEqual(due(), []));

  it("is a certificate from the day on which `up` makes it anew", () => {
    deepEqual(due({}, { serverCertificate: inDays(60.5) }), []);
    match(due({}, { serverCertificate: inDays(60) }).join(), /^up: a server certificate runs out on 2027-01-30T/);
    match(due({ certificates: { renewDays: 100 } }, { serverCertificate: inDays(99) }).join(), /^up: /);
  });

  it("is a later patch that was merged; everything else that was merged takes a person", () => {
    deepEqual(due({ version: "2.0.3" }, {}, "2.0.1"), [
      "up: Consul 2.0.3 is merged, 2.0.1 is deployed: `pulumi up` installs it",
    ]);
    match(due({ version: "2.0.0" }, {}, "2.0.1").join(), /^person: /);
    match(due({ version: "2.0.1" }, {}, "1.22.5").join(), /^person: /);
    match(due({ version: "2.0.10" }, {}, "2.0.9").join(), /^up: /);
  });

  it("is a gossip key for a person, with the next of its three steps", () => {
    const steps = [
      [{}, "gossip: { generation: 1, alsoAccepted: [2] }"],
      [{ gossip: { generation: 1, alsoAccepted: [2] } }, "gossip: { generation: 2, alsoAccepted: [1] }"],
      [{ gossip: { generation: 2, alsoAccepted: [1] } }, "gossip: { generation: 2 }"],
    ] as const;
    for (const [change, next] of steps) {
      const [line = "", ...rest] = due(change, { gossipKey: inDays(-1) });
      deepEqual(rest, []);
      ok(line.startsWith("person: ") && line.includes(`the next step is ${next} `), line);
    }
    deepEqual(due({}, { gossipKey: inDays(1) }), []);
  });

  it("is an authority for a person, before a server's certificate would outlive it", () => {
    match(due({}, { ca: inDays(364) }).join(), /^person: .*certificates: \{ caGeneration: 1, caAlsoTrusted: \[2\] \}/);
    deepEqual(due({}, { ca: inDays(366) }), []);
    const half = due({ certificates: { caGeneration: 1, caAlsoTrusted: [2] } }).join();
    match(half, /^person: a new certificate authority is half introduced: .*caGeneration: 2, caAlsoTrusted: \[1\]/);
  });

  it("is of a stack with agents alone only the version", () => {
    const agents = parseSettings(settingsOf("prod-agents"));
    deepEqual(dueAt(agents, deployed({ serverCertificate: inDays(-1), gossipKey: inDays(-1) }), now), []);
  });

  it("has no certificate run out in fifteen months in which nobody does anything", async function () {
    this.timeout("1m");
    const directory = mkdtempSync(join(tmpdir(), "consul-months-"));
    try {
      let clock = at("2026-11-29T12:00:00Z");
      const config = { ...stackConfig("local"), ...onLoopback("127.58.0") };
      /** `pulumi up`: the tls provider makes anew what is within its early renewal. */
      const up = async (): Promise<Deployed> => {
        const providers = new LocalProviders(join(directory, "state.json"), () => clock);
        const { outputs } = await runProgram("local", config, providers);
        providers.save();
        return { expiry: outputs.expiry?.value as Expiry, consulVersion: String(outputs.consulVersion?.value) };
      };
      const local = parseSettings({ ...settingsOf("local"), maintenance: {} });
      let state = await up();
      const first = state.expiry.serverCertificate;
      const ups: string[] = [];
      let least = Infinity;
      // As the pipeline: once an hour, and only in the window.
      for (
        const end = new Date(clock.getTime() + 456 * day);
        clock < end;
        clock = new Date(clock.getTime() + 3_600_000)
      ) {
        least = Math.min(least, Date.parse(state.expiry.serverCertificate) - clock.getTime());
        ok(least > 0, `a certificate ran out on ${state.expiry.serverCertificate}`);
        if (!local.maintenance || !isOpen(local.maintenance, clock)) continue;
        if (!dueAt(local, state, clock).some(({ by }) => by === "up")) continue;
        ups.push(clock.toISOString());
        state = await up();
      }
      ok(Date.parse(first) < clock.getTime(), "without an `up` it would have run out");
      // Once: it was due on Thursday the 30th at 12:00, and the window opened on Tuesday.
      deepEqual(ups, ["2027-10-05T02:00:00.000Z"]);
      ok(least > 55 * day, `${least / day} days were left`);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe("what the scheduled pipeline goes by", () => {
  it("is the commit of the last update that succeeded", () => {
    const update = (head: string | undefined, more: object = {}) => ({
      kind: "update",
      result: "succeeded",
      environment: { "git.head": head },
      ...more,
    });
    const [a, b] = ["a".repeat(40), "b".repeat(40)];
    equal(deployedCommit([update(a, { result: "failed" }), update(b, { kind: "preview" }), update(b), update(a)]), b);
    for (const none of [[], [update(undefined)], [update("--orphan")], [update(a, { result: "failed" })]]) {
      equal(deployedCommit(none), undefined);
    }
  });

  it("are the stacks whose window is open, by their files", () => {
    const directory = mkdtempSync(join(tmpdir(), "consul-open-"));
    try {
      cpSync(join(programDir, "Pulumi.yaml"), join(directory, "Pulumi.yaml"));
      const file = (name: string, text: string) => writeFileSync(join(directory, `Pulumi.${name}.yaml`), text);
      file("a", "config:\n  consul:maintenance: { days: [tue] }\n");
      file("b", "config:\n  consul:maintenance: {}\n");
      file("c", "config: {}\n");
      deepEqual(openStacks(at("2026-12-01T03:00:00Z"), directory), ["a", "b"]);
      deepEqual(openStacks(at("2026-12-02T03:00:00Z"), directory), ["b"]);
      deepEqual(openStacks(at("2026-12-02T06:00:00Z"), directory), []);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  it("are all stacks that are deployed, one after another, in both pipelines", () => {
    const deployed = environments.filter((name) => name !== "local");
    const tuesday = at("2026-11-30T18:30:00Z");
    deepEqual(openStacks(tuesday), [...deployed].sort());
    const workflow = readFileSync(join(programDir, ".github/workflows/maintain.yml"), "utf8");
    const { on, concurrency, jobs } = parse(workflow) as {
      on: { schedule: { cron: string }[] };
      concurrency: unknown;
      jobs: Record<string, { environment?: string; strategy?: object; steps: { run?: string }[] }>;
    };
    deepEqual(on.schedule, [{ cron: "23 * * * *" }]);
    deepEqual(concurrency, { group: "maintain", "cancel-in-progress": false });
    deepEqual(jobs.maintain?.strategy, {
      "fail-fast": false,
      "max-parallel": 1,
      matrix: { stack: "${{ fromJSON(needs.window.outputs.stacks) }}" },
    });
    equal(jobs.maintain.environment, "maintain-${{ matrix.stack }}");
    equal(jobs.maintain.steps.at(-1)?.run, '.ci/maintain "$STACK"');
    const gitlab = parse(readFileSync(join(programDir, ".gitlab-ci.yml"), "utf8")) as Record<
      string,
      { extends?: string; needs?: string[]; variables?: object; script?: string[]; resource_group?: string }
    >;
    deepEqual(gitlab[".maintain"]?.script, ['.ci/maintain "$STACK"']);
    equal(gitlab[".maintain"].resource_group, "$STACK");
    const chain = Object.entries(gitlab).filter(([, job]) => job.extends === ".maintain");
    deepEqual(
      chain.map(([name, { needs, variables }]) => [name, needs, variables]),
      deployed.map((name, i) => [
        `maintain-${name}`,
        i === 0 ? [] : [`maintain-${deployed[i - 1] ?? ""}`],
        { STACK: name },
      ]),
    );
  });

  it("asks GitHub whether a deployment runs, and lets it be", () => {
    const workflow = parse(readFileSync(join(programDir, ".github/workflows/maintain.yml"), "utf8")) as {
      jobs: Record<string, { steps: { id?: string; run?: string }[] }>;
    };
    const script = workflow.jobs.window?.steps.find(({ id }) => id === "open")?.run ?? "";
    const directory = mkdtempSync(join(tmpdir(), "consul-window-"));
    try {
      const command = (name: string, text: string) => {
        writeFileSync(join(directory, name), `#!/bin/sh\n${text}\n`);
        chmodSync(join(directory, name), 0o755);
      };
      command("gh", 'echo "$RUNNING"');
      command("npm", `echo '["prod"]'`);
      const stacks = (RUNNING: string) => {
        const output = join(directory, "output");
        rmSync(output, { force: true });
        const env = { PATH: `${directory}${delimiter}${process.env.PATH ?? ""}`, RUNNING, GITHUB_OUTPUT: output };
        equal(spawnSync("bash", ["-e", "-o", "pipefail", "-c", script], { env }).status, 0);
        return readFileSync(output, "utf8");
      };
      deepEqual([stacks("0"), stacks("1")], ['stacks=["prod"]\n', "stacks=[]\n"]);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe(".ci/maintain", function () {
  this.timeout("5m");
  let directory: string;
  let commit: string;
  const git = (...args: string[]) =>
    execFileSync("git", ["-c", "user.name=t", "-c", "user.email=t@example.com", ...args], {
      cwd: join(directory, "program"),
      encoding: "utf8",
    }).trim();

  before(() => {
    directory = mkdtempSync(join(tmpdir(), "consul-maintain-"));
    const program = join(directory, "program");
    mkdirSync(join(program, ".ci"), { recursive: true });
    // The clock is moved: everything else is as it is committed.
    const script = readFileSync(join(programDir, ".ci/maintain"), "utf8");
    const moved = script.replaceAll('operate/due "$stack"', 'operate/due "$stack" --at "$AT"');
    ok(moved.length > script.length);
    writeFileSync(join(program, ".ci/maintain"), moved, { mode: 0o755 });
    for (const name of ["package.json", "Pulumi.yaml", "Pulumi.prod.yaml"]) {
      cpSync(join(programDir, name), join(program, name));
    }
    for (const name of ["operate", "policy", "settings", "local", "stacks", "components", "consul", "node_modules"]) {
      symlinkSync(join(programDir, name), join(program, name));
    }
    writeFileSync(join(program, ".gitignore"), "node_modules\n");
    git("init", "--quiet");
    git("add", ".");
    git("commit", "--quiet", "-m", "deployed");
    commit = git("rev-parse", "HEAD");
    git("commit", "--quiet", "--allow-empty", "-m", "merged since");
  });
  after(() => rmSync(directory, { recursive: true }));

  interface Case {
    readonly at?: string;
    readonly expiry?: Partial<Expiry>;
    readonly version?: string;
    readonly head?: string;
    /** What a preview would do to the disk. */
    readonly op?: string;
    readonly drift?: boolean;
  }
  function maintain({ at: AT = "2026-11-30T18:30:00Z", expiry, version, head = commit, op = "update", drift }: Case) {
    const bin = join(directory, "bin");
    rmSync(bin, { recursive: true, force: true });
    mkdirSync(bin);
    const calls = join(directory, "calls");
    writeFileSync(calls, "");
    const far = "2099-01-01T00:00:00Z";
    const outputs = {
      consulVersion: version ?? stackConfig("prod")["consul:version"],
      expiry: { ca: far, serverCertificate: far, gossipKey: far, ...expiry },
    };
    const history = [{ kind: "update", result: "succeeded", environment: { "git.head": head } }];
    const urn = "urn:pulumi:prod::consul::alicloud:ecs/ecsDisk:EcsDisk::data";
    const preview = { steps: [{ op, urn, oldState: {}, newState: {}, detailedDiff: null }], changeSummary: {} };
    writeFileSync(join(directory, "history.json"), JSON.stringify(history));
    writeFileSync(join(directory, "preview.json"), JSON.stringify(preview));
    const script = `
case "$1 $2" in "stack history") cat '${directory}/history.json'; exit ;; esac
case "$1" in
  preview | up) echo "$PWD $(git rev-parse HEAD) pulumi $*" >>'${calls}' ;;
esac
case "$*" in
  preview*--expect-no-changes*) exit ${drift ? 1 : 0} ;;
  preview*) cat '${directory}/preview.json' ;;
esac`;
    fakePulumi(bin, stackConfig("prod"), outputs, script);
    writeFileSync(join(bin, "npm"), "#!/bin/sh\nexit 0\n", { mode: 0o755 });
    const { status, stdout, stderr } = spawnSync(join(directory, "program/.ci/maintain"), ["prod"], {
      encoding: "utf8",
      env: { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH ?? ""}`, AT },
    });
    equal(git("worktree", "list").split("\n").length, 1, "a worktree is left");
    const made = readFileSync(calls, "utf8").trim().split("\n").filter(Boolean);
    return { status, said: stdout + stderr, calls: made };
  }
  const soon = { serverCertificate: "2026-12-20T00:00:00Z" };

  it("does nothing outside of the window, whatever is due", () => {
    const { status, calls, said } = maintain({ at: "2026-12-01T12:00:00Z", expiry: soon });
    deepEqual([status, calls], [0, []]);
    match(said, /the window of prod is closed: nothing is done/);
  });

  it("looks for drift where nothing is due, from the commit that was deployed, and fails where there is some", () => {
    const { status, calls, said } = maintain({});
    equal(status, 0, said);
    equal(calls.length, 1);
    match(
      calls[0] ?? "",
      new RegExp(`/program ${commit} pulumi preview --stack prod .*--refresh .*--expect-no-changes`),
    );
    ok(!calls[0]?.startsWith(join(directory, "program")), "the merged commit was used");
    ok(!existsSync((calls[0] ?? "").split(" ")[0] ?? ""), "the deployed program is left");
    const drifted = maintain({ drift: true });
    equal(drifted.status, 1);
    match(drifted.said, /prod has drifted/);
  });

  it("runs `up` where a certificate is due, from the commit that was deployed", () => {
    const { status, calls, said } = maintain({ expiry: soon });
    equal(status, 0, said);
    const version = stackConfig("prod")["consul:version"] ?? "";
    equal(calls.length, 2);
    match(calls[0] ?? "", new RegExp(`${commit} pulumi preview --stack prod .*--policy-pack policy`));
    match(
      calls[1] ?? "",
      new RegExp(`${commit} pulumi up --stack prod --yes .*--policy-pack policy.*--config consul:version=${version}$`),
    );
  });

  it("installs a later patch that was merged, and keeps the deployed version for all else", () => {
    const version = stackConfig("prod")["consul:version"] ?? "";
    const [minor, patch] = [version.replace(/\.\d+$/, ""), version.split(".")[2]];
    const earlier = `${minor}.${Number(patch) - 1}`;
    // The checksum and the digest belong to the version, and come with it.
    const merged = `--config consul:version=${version} --config consul:downloadSha256=[0-9a-f]{64} --config consul:imageDigest=$`;
    match(maintain({ version: earlier }).calls[1] ?? "", new RegExp(`pulumi up .*${merged}`));
    const other = maintain({ version: "1.20.1", expiry: soon });
    match(other.calls[1] ?? "", /pulumi up .*--config consul:version=1\.20\.1$/);
    equal(other.status, 1);
    match(other.said, /something is due that takes a person/);
  });

  it("stops before anything precious is lost", () => {
    const { status, calls, said } = maintain({ expiry: soon, op: "replace" });
    equal(status, 1);
    match(said, /a disk is lost/);
    ok(!calls.some((call) => call.includes("pulumi up")));
  });

  it("fails where a person has something to do, and says what", () => {
    const { status, said } = maintain({ expiry: { gossipKey: "2026-11-01T00:00:00Z" } });
    equal(status, 1);
    match(
      said,
      /the gossip key was due on 2026-11-01[^]*the next step is gossip: \{ generation: 1, alsoAccepted: \[2\] \}/,
    );
  });

  it("does nothing where Pulumi does not know what was deployed, or that is of another branch", () => {
    for (const head of ["", "f".repeat(40)]) {
      const { status, calls, said } = maintain({ head, expiry: soon });
      deepEqual([status, calls], [1, []]);
      match(said, /Pulumi's history names no commit of this branch as deployed/);
    }
  });
});
