import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { execFile } from "child_process";
import { promisify } from "util";
import { perform } from "../../local/command";
import { preview, task } from "../../local/preview";
import { render } from "../../local/preview-text";
import { programDir } from "../../local/program";
import { committedText, expectedText } from "../../local/expected";
import { environments, runFixture } from "../../local/fixtures";

/** Runs the command and returns what it printed. */
async function run(...args: string[]) {
  let out = "";
  let error = "";
  const code = await perform(
    task,
    args,
    (text) => void (out += text),
    (text) => void (error += text),
  );
  return { code, out, error };
}

describe("npm run preview", () => {
  for (const environment of environments) {
    it(`lists every resource of ${environment}, shows files as text and no secret`, async () => {
      const { resources, secrets, outputs } = await runFixture(environment);
      const { code, out } = await run(environment, "--full");
      equal(code, 0);
      const lines = out.split("\n").map((line) => line.trim());
      for (const { name } of resources) {
        ok(
          lines.some((line) => line.startsWith(`${name} (`)),
          name,
        );
      }
      match(out, /"datacenter": "[a-z0-9-]+"/, "configuration files are text");
      match(out, /^[a-z-]+: \d+ resources\n(No difference|Differences) to test\/expected\//);
      const sensitive = Object.values(outputs).flatMap(({ value, secret }) => (secret ? [String(value)] : []));
      for (const secret of [...secrets, ...sensitive]) {
        for (const form of [secret, JSON.stringify(secret).slice(1, -1), Buffer.from(secret).toString("base64")]) {
          ok(!out.includes(form), `a secret of ${environment} is in the preview`);
        }
      }
    });
  }

  it("shows user data as the text that the machine will run", async () => {
    const { out } = await run("prod", "--full");
    equal(out.match(/\| {3}#cloud-boothook$/gm)?.length, 3);
    match(out, /ExecStart=\/usr\/local\/lib\/consul\/versions\/1.22.7\/consul agent/);
  });

  it("shows the verdict, the tree, what is protected and the chain of servers, and the verdict again", async () => {
    const { out } = await run("prod");
    match(out, /^consul \(consul EcsServers\)\n {2}consul-consul-1-data \(alicloud EcsDisk, protected\)$/m);
    match(
      out,
      /^ {2}consul-consul-2 \(alicloud Instance, protected, after consul-consul-1-attachment and consul-consul-1\)$/m,
    );
    match(out, /^ {2}consul-agent \(kubernetes DaemonSet, after the servers\)$/m);
    ok(!out.includes("cloud-boothook"));
    const verdict = out.split("\n").slice(0, 3);
    match(verdict[1] ?? "", /^(No difference|Differences) to test\/expected\/prod\.json/);
    equal(verdict[2], "The policy pack has no objection.");
    ok(out.endsWith(`\n\n${verdict.join("\n")}\n`), out.slice(-300));
    ok(!out.includes("\x1b"), "no colours without a terminal");
  });

  it("has colours where it is told so, for the same text", async () => {
    const result = await preview("local");
    const coloured = render(result, { colours: true });
    match(coloured, /^\x1b\[32mThe policy pack has no objection\.\x1b\[39m$/m);
    equal(coloured.replace(/\x1b\[\d+m/g, ""), render(result));
  });

  it("ends calmly, with its own exit code, where the reader has seen enough", async () => {
    // `true` reads nothing and is gone before there is anything to read.
    const pipeline = '{ "$0" local/task.js local/preview prod; echo "status $?" >&2; } | true';
    const { stderr } = await promisify(execFile)("sh", ["-c", pipeline, process.execPath], { cwd: programDir });
    equal(stderr, "status 0\n");
  });

  it("shows what is added, removed and changed against the committed resources, line by line", async () => {
    const before = JSON.parse(committedText("prod") ?? "") as {
      resources: { urn: string; name: string; inputs: Record<string, unknown> }[];
    };
    before.resources = before.resources.filter(({ name }) => name !== "consul-sg");
    before.resources.push({ ...before.resources[0], urn: "urn:a::b::c:d:Gone::gone" } as (typeof before.resources)[0]);
    const machine = before.resources.find(({ name }) => name === "consul-consul-1");
    ok(machine);
    machine.inputs.userData = (machine.inputs.userData as string[]).map((line) => line.replace('"info"', '"debug"'));
    const text = render(await preview("prod", JSON.stringify(before)));
    match(text, /^prod: \d+ resources\nDifferences to test\/expected\/prod\.json: 1 added, 1 removed, 1 changed\.\n/);
    match(text, /^ {2}\+ consul-sg \(alicloud SecurityGroup\) added$/m);
    match(text, /^ {2}- gone \(c Gone\) removed$/m);
    match(text, /^ {2}~ consul-consul-1 \(alicloud Instance\) changed$/m);
    match(text, /^ {6}- +"log_level": "debug",$/m);
    match(text, /^ {6}\+ +"log_level": "info",$/m);
    equal(text.match(/^ {2}[~+-] /gm)?.length, 3);
  });

  it("says so where nothing differs", async () => {
    const now = expectedText(await runFixture("local"));
    match(render(await preview("local", now)), /^No difference to test\/expected\/local.json\.$/m);
  });

  it("compares with nothing where nothing is committed", async () => {
    const nothing = { ...(await preview("local")), differences: undefined };
    match(render(nothing), /^local: \d+ resources\nNothing is committed for local to compare with\.\n/);
  });

  it("gives the same as JSON", async () => {
    const { out, code } = await run("dev", "--json");
    equal(code, 0);
    const json = JSON.parse(out) as Awaited<ReturnType<typeof preview>>;
    deepEqual([json.stack, json.differences, json.violations], ["dev", json.differences, []]);
    ok(json.resources.length > 20);
  });

  it("names the rule and the resource where the policy pack refuses", async () => {
    const result = await preview("prod");
    const urn = result.resources.find(({ name }) => name === "consul-consul-1-data")?.urn;
    ok(urn);
    const refused = render({ ...result, violations: [{ rule: "encrypted-disks", urn, message: "is plain" }] });
    match(refused, /^ {2}encrypted-disks: consul-consul-1-data \(alicloud EcsDisk\) is plain$/m);
    equal(refused.match(/^The policy pack refuses this, for 1 reason\.$/gm)?.length, 2);
  });

  it("says what is wrong with the command in one line", async () => {
    const wrong = await run("porduction");
    deepEqual([wrong.code, wrong.out], [2, ""]);
    match(wrong.error, /^preview: there is no Pulumi.porduction.yaml; stacks with a file are dev, local, prod, .*\n$/);
    deepEqual(await run(), {
      code: 2,
      out: "",
      error: "preview: one stack is needed, such as: npm run preview -- prod\n",
    });
    match(
      (await run("prod", "--briefly")).error,
      /^preview: there is no option --briefly \(npm run preview -- --help\)$/m,
    );
    match((await run("--help")).out, /^npm run preview -- STACK/);
    await rejects(preview("../prod"), /there is no Pulumi/);
  });
});
