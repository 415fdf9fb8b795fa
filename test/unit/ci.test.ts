import { deepEqual, equal, match, ok } from "assert/strict";
import { spawnSync } from "child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { parse } from "yaml";
import { environments } from "../../local/fixtures";
import { pinnedVersion, programDir } from "../../local/program";

interface Step {
  name?: string;
  uses?: string;
  run?: string;
  env?: Record<string, string>;
  with?: Record<string, unknown>;
}
interface Job {
  "timeout-minutes"?: number;
  if?: string;
  environment?: string;
  permissions?: Record<string, string>;
  secrets?: string;
  uses?: string;
  steps?: Step[];
  needs?: string;
  with?: Record<string, string>;
  strategy?: { matrix: { stack: string[] } };
}
interface Workflow {
  on: Record<string, unknown>;
  permissions: unknown;
  jobs: Record<string, Job>;
}

const github = join(programDir, ".github");
const workflows = readdirSync(join(github, "workflows")).map((file) => {
  const text = readFileSync(join(github, "workflows", file), "utf8");
  return { file, text, workflow: parse(text) as Workflow };
});
const action = readFileSync(join(github, "actions/setup/action.yml"), "utf8");
const jobs = workflows.flatMap(({ file, workflow }) =>
  Object.entries(workflow.jobs).map(([name, job]) => ({ id: `${file}: ${name}`, job })),
);
const gitlabText = readFileSync(join(programDir, ".gitlab-ci.yml"), "utf8");
const gitlab = parse(gitlabText) as Record<
  string,
  { script?: string[]; timeout?: string; rules?: { if: string; when?: string }[] }
>;
/** The stacks that the pipelines deploy, in this order. */
const deployed = environments.filter((name) => name !== "local");
/** Each stack's job with the job that it waits for. */
const chain = deployed.map((name, i) => [name, deployed[i - 1]]);
const cli = (
  JSON.parse(readFileSync(join(programDir, "package.json"), "utf8")) as { dependencies: Record<string, string> }
).dependencies["@pulumi/pulumi"];

describe("the stacks of the pipelines", () => {
  const workflow = (file: string) => workflows.find((one) => one.file === file)?.workflow.jobs ?? {};

  it("are all that are committed, in an order in which each has what it needs before it", () => {
    deepEqual(deployed, ["dev", "staging", "prod", "prod-servers", "prod-agents"]);
    const files = readdirSync(programDir).flatMap((file) => /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1] ?? []);
    deepEqual(files.sort(), [...environments].sort());
    const jobs = Object.entries(workflow("deploy.yml"));
    deepEqual(
      jobs.map(([name, { needs }]) => [name, needs]),
      chain,
    );
    for (const [name, job] of jobs) {
      deepEqual([job.uses, job.with], ["./.github/workflows/deploy-stack.yml", { stack: name }]);
    }
    const ups = Object.entries(gitlab).filter(([, job]) => (job as { extends?: string }).extends === ".up");
    deepEqual(
      ups.map(([name, job]) => [name, (job as { needs?: string[] }).needs?.join()]),
      chain,
    );
    for (const [name, job] of ups) deepEqual((job as { variables?: unknown }).variables, { STACK: name });
  });

  it("are each previewed: offline for every request, and for real", () => {
    deepEqual(workflow("preview.yml").preview?.strategy?.matrix.stack, deployed);
    deepEqual((gitlab.preview as { parallel?: unknown }).parallel, { matrix: [{ STACK: deployed }] });
    const loop = `for stack in ${environments.join(" ")}; do npm run preview -- "$stack"; done`;
    ok(workflow("preview.yml").offline?.steps?.some(({ run }) => run === loop));
    ok(gitlab.offline?.script?.includes(loop));
  });
});

describe("the pipelines", () => {
  it("run unit and program levels on every Node that package.json allows: the least, and each line after it", () => {
    const { engines } = JSON.parse(readFileSync(join(programDir, "package.json"), "utf8")) as {
      engines: { node: string };
    };
    const least = engines.node.replace(">=", "");
    const matrix = workflows.find(({ file }) => file === "preview.yml")?.workflow.jobs.node;
    deepEqual((matrix?.strategy?.matrix as unknown as { node: string[] }).node, [least, "24"]);
    equal(/node:\n[^]*?default: "(\d+)"/.exec(action)?.[1], "22");
    deepEqual((gitlab.node as { parallel?: unknown }).parallel, { matrix: [{ NODE: [least, "22", "24"] }] });
    for (const script of [matrix?.steps?.at(-1)?.run, gitlab.node?.script?.join(" && ")]) {
      equal(script, "npm run test:unit && npm run test:program");
    }
  });

  it("make the site for each request, and publish it from the main branch, where somebody said where it is", () => {
    const jobsOf = (file: string) => workflows.find((one) => one.file === file)?.workflow.jobs ?? {};
    ok(jobsOf("preview.yml").offline?.steps?.some(({ run }) => run === "npm run site"));
    ok(gitlab.offline?.script?.includes("npm run site"));
    deepEqual(workflows.find(({ file }) => file === "site.yml")?.workflow.on, { push: { branches: ["main"] } });
    equal(jobsOf("site.yml").build?.if, "vars.SITE_BASE != ''");
    const command =
      /^npm run site -- --base "\$SITE_BASE" --sources "\$(SOURCES|CI_PROJECT_URL\/-\/blob\/\$CI_COMMIT_SHA)"$/;
    ok(jobsOf("site.yml").build?.steps?.some(({ run }) => command.test(run ?? "")));
    match(gitlab.pages?.script?.[0] ?? "", command);
    deepEqual(gitlab.pages?.rules, [
      { if: '$CI_PIPELINE_SOURCE != "schedule" && $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH && $SITE_BASE' },
    ]);
  });

  describe("make a release of what CHANGELOG.md says", () => {
    let directory: string;
    const { version } = JSON.parse(readFileSync(join(programDir, "package.json"), "utf8")) as { version: string };
    const notes = (tag: string, changelog: string) => {
      writeFileSync(join(directory, "CHANGELOG.md"), changelog);
      return spawnSync(join(directory, ".ci/release-notes"), [tag], { encoding: "utf8" });
    };
    const text = `# Changelog\n\n## [Unreleased]\n\n- later\n\n## [${version}] - 2026-12-01\n\n- this\n\n## [0.0.1] - 2026-01-01\n\n- before\n`;
    before(() => {
      directory = mkdtempSync(join(tmpdir(), "consul-release-"));
      mkdirSync(join(directory, ".ci"));
      copyFileSync(join(programDir, ".ci/release-notes"), join(directory, ".ci/release-notes"));
      copyFileSync(join(programDir, "package.json"), join(directory, "package.json"));
    });
    after(() => rmSync(directory, { recursive: true }));

    it("of the version that is tagged, and nothing else", () => {
      const { status, stdout, stderr } = notes(`v${version}`, text);
      deepEqual([status, stdout, stderr], [0, "- this\n", ""]);
    });

    it("refuse another tag, a version without a section or a day, and an empty one", () => {
      for (const [tag, changelog, why] of [
        ["v9.9.9", text, /the tag is v9\.9\.9, package\.json has version/],
        [`v${version}`, text.replace(`[${version}]`, "[8.0.0]"), /CHANGELOG\.md has no section/],
        [`v${version}`, text.replace(" - 2026-12-01", ""), /has no date, such as/],
        [`v${version}`, text.replace("- this\n", ""), /is empty/],
      ] as const) {
        const { status, stdout, stderr } = notes(tag, changelog);
        deepEqual([status, stdout], [1, ""]);
        match(stderr, why);
      }
    });
  });

  it("have Renovate look after every place that pins a version which npm, Go and actions do not name", () => {
    const renovate = JSON.parse(readFileSync(join(github, "renovate.json"), "utf8")) as {
      customManagers: { managerFilePatterns: string[]; matchStrings: string[] }[];
    };
    const found = renovate.customManagers.map(({ managerFilePatterns: [files = ""], matchStrings: [pattern = ""] }) => {
      const file = files.slice(2, -2).replaceAll("\\", "");
      return new RegExp(pattern).exec(readFileSync(join(programDir, file), "utf8"))?.groups?.currentValue;
    });
    deepEqual(found.slice(0, 2), [pinnedVersion, cli]);
    match(found[2] ?? "", /^\d+\.\d+\.\d+-alpine$/);
  });
});

describe("the workflows on GitHub", () => {
  it("are there: a preview of requests, a deployment of what is merged, what looks after it, a release, and the documents", () => {
    deepEqual(workflows.map(({ file }) => file).sort(), [
      "deploy-stack.yml",
      "deploy.yml",
      "maintain.yml",
      "preview.yml",
      "release.yml",
      "site.yml",
    ]);
  });

  it("use every action at a commit, with the version beside it, or from this repository", () => {
    const uses = [...workflows.map(({ text }) => text), action].flatMap((text) => text.match(/uses: .*/g) ?? []);
    ok(uses.length > 10);
    for (const line of uses) match(line, /^uses: (\.\/\S+|[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+\b.*)$/);
    const commits = new Map<string, Set<string>>();
    for (const [, name = "", commit = ""] of uses.join("\n").matchAll(/uses: ([\w-]+\/[\w-]+)@([0-9a-f]{40})/g)) {
      commits.set(name, (commits.get(name) ?? new Set()).add(commit));
    }
    for (const [name, found] of commits) equal(found.size, 1, `${name} is used at two commits`);
  });

  it("give no right by default and each job the least it needs", () => {
    const allowed = [
      "actions: read",
      "contents: read",
      "contents: write",
      "id-token: write",
      "pages: write",
      "pull-requests: read",
      "pull-requests: write",
    ];
    for (const { file, workflow } of workflows) deepEqual(workflow.permissions, {}, file);
    for (const { id, job } of jobs) {
      ok(job.permissions, id);
      for (const [what, right] of Object.entries(job.permissions)) {
        ok(allowed.includes(`${what}: ${right}`), `${id}: ${what}`);
      }
    }
    const publishers = jobs.filter(({ job }) => job.permissions?.contents === "write").map(({ id }) => id);
    deepEqual(publishers, ["release.yml: release"]);
    const sites = jobs.filter(({ job }) => job.permissions?.pages === "write");
    deepEqual(
      sites.map(({ id, job }) => [id, job.permissions, job.environment, job.needs]),
      [["site.yml: deploy", { pages: "write", "id-token": "write" }, "github-pages", "build"]],
    );
    const writers = jobs.filter(({ job }) => job.permissions?.["pull-requests"] === "write").map(({ id }) => id);
    deepEqual(writers, ["preview.yml: preview"]);
  });

  it("show no secret to a fork: none without an environment, and no job with one for another repository's code", () => {
    for (const { workflow } of workflows) {
      ok(!("pull_request_target" in workflow.on) && !("workflow_run" in workflow.on));
    }
    for (const { id, job } of jobs) {
      const text = JSON.stringify(job);
      if (job.uses === undefined && /secrets\.|id-token/.test(text)) {
        ok(job.environment, `${id} has secrets and no environment`);
      }
      if (!id.startsWith("preview.yml")) continue;
      const guarded = job.if === "github.event.pull_request.head.repo.full_name == github.repository";
      ok(guarded || !/secrets|vars\.|id-token|token/.test(text), `${id} has a secret and runs for forks`);
    }
  });

  it("leave no credentials in the checkout and put no expression into a shell", () => {
    for (const { id, job } of jobs) {
      for (const step of job.steps ?? []) {
        if (step.uses?.startsWith("actions/checkout@")) equal(step.with?.["persist-credentials"], false, id);
        ok(!step.run?.includes("${{"), `${id}: ${step.name ?? ""}`);
      }
    }
  });

  it("deploy from main alone, one at a time, each stack after its approval and after a look at what is lost", () => {
    const deploy = workflows.find(({ file }) => file === "deploy.yml")?.workflow as Workflow & { concurrency: unknown };
    deepEqual(deploy.on, { push: { branches: ["main"] } });
    deepEqual(deploy.concurrency, { group: "deploy", "cancel-in-progress": false });
    const stack = workflows.find(({ file }) => file === "deploy-stack.yml")?.workflow.jobs as Record<
      string,
      Job & { needs?: string }
    >;
    equal(stack.up?.environment, "${{ inputs.stack }}");
    equal(stack.up.needs, "plan");
    ok(stack.plan?.steps?.some(({ run }) => run?.includes("policy/precious.ts")));
  });

  it("plan and deploy in environments that main alone may use, and preview in others, which reviewers guard", () => {
    const environmentOf = Object.fromEntries(jobs.map(({ id, job }) => [id, job.environment]));
    equal(environmentOf["preview.yml: preview"], "preview-${{ matrix.stack }}");
    equal(environmentOf["deploy-stack.yml: plan"], "plan-${{ inputs.stack }}");
    const header = (file: string) => (workflows.find((one) => one.file === file)?.text ?? "").split("\nname:")[0] ?? "";
    match(header("preview.yml"), /"Required reviewers"[^]*whoever can push a branch can have the passphrase printed/);
    match(header("deploy-stack.yml"), /main as their only deployment\n# branch/);
    match(gitlabText, /preview\/<stack> starts its previews[^]*can have the passphrase printed/);
  });

  it("run the policy pack wherever they ask Pulumi, with the version of the program's SDK", () => {
    const asked = [...workflows.map(({ text }) => text), gitlabText].flatMap(
      (text) => text.match(/pulumi (preview|up) --.*/g) ?? [],
    );
    equal(asked.length, 6);
    for (const line of asked) {
      match(line, /--stack "\$STACK"/);
      match(line, /--policy-pack policy/);
      match(line, /--non-interactive/);
    }
    match(action, new RegExp(`pulumi-version: ${cli ?? ""}\\n`));
    match(gitlabText, new RegExp(`^image: pulumi/pulumi-nodejs:${cli ?? ""}$`, "m"));
  });
});

describe("the pipeline on GitLab", () => {
  it("shows no variable to a fork, and deploys by hand from the default branch", () => {
    deepEqual(gitlab.preview?.rules, [
      {
        if: '$CI_PIPELINE_SOURCE == "merge_request_event" && $CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_PROJECT_ID',
        when: "manual",
        allow_failure: true,
      },
    ]);
    const up = gitlab[".up"] as unknown as Record<string, unknown>;
    deepEqual(up.rules, [
      { if: '$CI_PIPELINE_SOURCE == "schedule"', when: "never" },
      { if: "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH", when: "manual", allow_failure: false },
    ]);
    deepEqual(up.environment, { name: "$STACK" });
    equal(up.interruptible, false);
    equal(up.resource_group, "$STACK");
    ok(!JSON.stringify(gitlab.offline).includes("TOKEN"));
  });
});

/** Runs the scripts of both pipelines. `pulumi` answers with a preview, `curl` and `gh` answer with labels. */
describe("the scripts of both", () => {
  let directory: string;
  const urn = "urn:pulumi:prod::consul::alicloud:ecs/ecsDisk:EcsDisk::data";

  before(() => {
    directory = mkdtempSync(join(tmpdir(), "consul-ci-"));
    for (const name of ["policy", "node_modules", "package.json"]) {
      symlinkSync(join(programDir, name), join(directory, name));
    }
    const command = (name: string, text: string) => {
      writeFileSync(join(directory, name), `#!/bin/sh\n${text}\n`);
      chmodSync(join(directory, name), 0o755);
    };
    command("pulumi", 'echo "pulumi $*" >>"$CALLS"; [ "$1" = up ] || cat "$PREVIEW"; exit "${PULUMI_CODE:-0}"');
    command("gh", 'printf "%s\\n" $LABELS');
    command("curl", 'printf \'[{"labels":["%s"]}]\' "$LABELS"');
  });
  after(() => rmSync(directory, { recursive: true }));

  function run(script: string, op: string, env: Record<string, string> = {}) {
    for (const file of ["calls", "summary", "comment.md", "preview.json"]) {
      rmSync(join(directory, file), { force: true });
    }
    const steps = [{ op, urn, oldState: {}, newState: {}, detailedDiff: null }];
    writeFileSync(join(directory, "answer.json"), JSON.stringify({ steps, changeSummary: {} }));
    const result = spawnSync("bash", ["-e", "-o", "pipefail", "-c", script], {
      cwd: directory,
      encoding: "utf8",
      env: {
        PATH: `${directory}:${process.env.PATH ?? ""}`,
        STACK: "prod",
        PREVIEW: join(directory, "answer.json"),
        CALLS: join(directory, "calls"),
        GITHUB_STEP_SUMMARY: join(directory, "summary"),
        ...env,
      },
    });
    const calls = existsSync(join(directory, "calls")) ? readFileSync(join(directory, "calls"), "utf8") : "";
    return { code: result.status, out: result.stdout + result.stderr, calls };
  }
  const scripts = (file: string, job: string) =>
    workflows
      .find((one) => one.file === file)
      ?.workflow.jobs[job]?.steps?.flatMap(({ run }) => run ?? [])
      .join("\n") ?? "";

  it("write a kubeconfig that nobody else may read where there is one, and only there", () => {
    const steps = jobs.flatMap(({ id, job }) =>
      (job.steps ?? []).filter(({ name }) => name?.startsWith("Kubeconfig")).map((step) => ({ id, ...step })),
    );
    deepEqual(
      steps.map(({ id }) => id),
      ["deploy-stack.yml: plan", "deploy-stack.yml: up", "maintain.yml: maintain", "preview.yml: preview"],
    );
    const config = join(directory, "kubeconfig");
    const env = { RUNNER_TEMP: directory, GITHUB_ENV: join(directory, "env") };
    for (const { run: script = "", env: given } of steps) {
      deepEqual(given, { CONTENT: "${{ secrets.KUBECONFIG }}" });
      equal(run(script, "update", { ...env, CONTENT: "" }).code, 0);
      ok(!existsSync(config) && !existsSync(env.GITHUB_ENV));
      equal(run(script, "update", { ...env, CONTENT: "a: b\nc: d" }).code, 0);
      equal(readFileSync(config, "utf8"), "a: b\nc: d\n");
      equal(statSync(config).mode & 0o777, 0o600);
      equal(readFileSync(env.GITHUB_ENV, "utf8"), `KUBECONFIG=${config}\n`);
      for (const file of [config, env.GITHUB_ENV]) rmSync(file);
    }
  });

  it("fail on a replaced disk unless the request has the label: GitHub's preview", () => {
    const script = scripts("preview.yml", "preview").replace(/^node .*comment\.ts.*$/m, "");
    equal(run(script, "update").code, 0);
    const replaced = run(script, "replace", { ALLOW: "" });
    equal(replaced.code, 1, replaced.out);
    match(replaced.out, /a disk is lost/);
    equal(run(script, "replace", { ALLOW: "--allow" }).code, 0);
    equal(run(script, "update", { PULUMI_CODE: "255" }).code, 255);
  });

  it("fail on a replaced disk unless the merged request had the label: GitHub's deployment", () => {
    const script = scripts("deploy-stack.yml", "plan");
    equal(run(script, "update").code, 0);
    equal(run(script, "replace").code, 1);
    equal(run(script, "replace", { LABELS: "not-allow-replacement" }).code, 1);
    equal(run(script, "replace", { LABELS: "allow-replacement other" }).code, 0);
  });

  it("fail on a replaced disk unless the request has the label: GitLab's preview", () => {
    const script = (gitlab.preview?.script ?? []).join("\n").replace(/^.*comment\.ts.*$/m, "");
    equal(run(script, "update").code, 0);
    equal(run(script, "delete").code, 1);
    equal(run(script, "delete", { CI_MERGE_REQUEST_LABELS: "a,allow-replacement" }).code, 0);
    equal(run(script, "delete", { CI_MERGE_REQUEST_LABELS: "disallow-replacement" }).code, 1);
    equal(run(script, "update", { PULUMI_CODE: "255" }).code, 1);
  });

  it("go on to `up` only where nothing is lost or the label was there: GitLab's deployment", () => {
    const script = (gitlab[".up"]?.script ?? []).join("\n");
    match(run(script, "update").calls, /^pulumi preview .*\npulumi up --stack prod --yes/);
    const stopped = run(script, "replace");
    equal(stopped.code, 1);
    ok(!stopped.calls.includes("pulumi up"));
    match(run(script, "replace", { LABELS: "allow-replacement" }).calls, /pulumi up/);
  });

  it("give an `up` more time than what it may wait for: each server's gate, and the agents' roll", () => {
    type Resource = { name: string; type: string; options: { customTimeouts?: { update: string } } };
    const prod = JSON.parse(readFileSync(join(programDir, "test/expected/prod.json"), "utf8")) as {
      resources: Record<string, Resource> | Resource[];
    };
    const roll = Object.values(prod.resources).find(({ type }) => type.endsWith(":DaemonSet"));
    const hours = Number(/^(\d+)h$/.exec(roll?.options.customTimeouts?.update ?? "")?.[1]);
    const gates = 4 * 10; // three servers and the last look, gate.waitMinutes each
    const up = workflows.find(({ file }) => file === "deploy-stack.yml")?.workflow.jobs.up;
    ok(Number(up?.["timeout-minutes"]) > hours * 60 + gates, `${up?.["timeout-minutes"]} minutes, ${hours} hours`);
    const gitlabHours = /^(\d+)h$/.exec(String(gitlab[".up"]?.timeout))?.[1];
    ok(Number(gitlabHours) * 60 > hours * 60 + gates, `${gitlabHours} hours`);
  });
});
