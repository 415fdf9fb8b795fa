import { equal, match, ok } from "assert/strict";
import { rmSync } from "fs";
import { stackConfig } from "../../local/program";
import { FixtureProviders, prodOutputs, runFixture } from "../../local/fixtures";
import { runProcess } from "../../lab/bench/process";
import { defaultWay } from "../../lab/bench/program";

describe("the program in its own process, as the Pulumi CLI starts it", function () {
  this.timeout(120_000);

  it("loads by the options of Pulumi.yaml and registers the same resources", async () => {
    const run = await runProcess("prod", new FixtureProviders(prodOutputs));
    equal(run.exitCode, 0, run.log + run.printed);
    const inProcess = await runFixture("prod");
    const types = run.types.filter((type) => type !== "pulumi:pulumi:Stack").sort();
    equal(
      types.join("\n"),
      inProcess.resources
        .map(({ type }) => type)
        .sort()
        .join("\n"),
    );
  });

  it("is the same program in the way of loading that npm run bench compares it with", async () => {
    const directory = defaultWay();
    try {
      const usual = await runProcess("dev", new FixtureProviders(prodOutputs), { directory, pulumiDefault: true });
      equal(usual.exitCode, 0, usual.log + usual.printed);
      const ours = await runProcess("dev", new FixtureProviders(prodOutputs));
      equal([...usual.types].sort().join("\n"), [...ours.types].sort().join("\n"));
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });

  it("ends with every mistake and creates nothing when a setting is wrong", async () => {
    const config = { ...stackConfig("prod"), "consul:version": "latest", "consul:serversStak": "a/b/c" };
    const run = await runProcess("prod", new FixtureProviders(prodOutputs), { config });
    ok(run.exitCode !== 0);
    match(run.log, /2 wrong settings; nothing was created/);
    match(run.log, /consul:version: "latest"/);
    match(run.log, /consul:serversStak: "a\/b\/c" - no such setting/);
    equal(run.types.filter((type) => type !== "pulumi:pulumi:Stack").length, 0);
    ok(!run.log.includes("    at "), "a wrong setting is no reason for a stack trace");
  });
});
