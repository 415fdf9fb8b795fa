import { equal, match } from "assert/strict";
import { spawnSync } from "child_process";
import { join } from "path";
import { programDir } from "../../local/program";
import { exampleOutputs } from "../program/example";

/** Go compiles Pulumi's SDK for Kubernetes for some minutes, once: so this is not among the quick tests. */
describe("an application's stack in Go", function () {
  this.timeout("25m");

  it("gives its container the environment that the Consul stack made, and says what to do where there is none", () => {
    const { status, stdout, stderr } = spawnSync("go", ["test", "-count=1", "-v", "./..."], {
      cwd: join(programDir, "examples/stack-go"),
      env: { ...process.env, OUTPUTS: JSON.stringify(exampleOutputs) },
      encoding: "utf8",
    });
    equal(status, 0, stdout + stderr);
    for (const test of ["TestEnvironment", "TestUnknown"]) match(stdout, new RegExp(`--- PASS: ${test}`));
  });
});
