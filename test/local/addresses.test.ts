import { deepEqual, ok } from "assert/strict";
import { readdirSync, readFileSync } from "fs";
import { join } from "path";
import { programDir } from "../../local/program";

describe("files of tests, which run side by side,", () => {
  it("have no loopback network in common, with each other or with npm start", () => {
    const users = new Map<string, string[]>();
    const tests = ["unit", "program", "local"].flatMap((level) =>
      readdirSync(join(programDir, "test", level)).map((name) => join("test", level, name)),
    );
    for (const file of [...tests, "Pulumi.local.yaml"]) {
      const text = readFileSync(join(programDir, file), "utf8");
      for (const network of new Set(text.match(/\b127\.\d+\.\d+\b/g))) {
        if (network !== "127.0.0") users.set(network, [...(users.get(network) ?? []), file]);
      }
    }
    ok(users.size > 15);
    deepEqual(
      [...users].filter(([, files]) => files.length > 1),
      [],
    );
  });
});
