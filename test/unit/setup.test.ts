import { ok } from "assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
// local/setup.js is plain JavaScript and has no types.
const { isInstalled } = require("../../local/setup.js") as { isInstalled: (directory?: string) => boolean };

describe("set-up", () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), "setup-"))));
  afterEach(() => rmSync(dir, { recursive: true }));

  it("is needed where packages are missing or of other versions, and not otherwise", () => {
    const lock = (file: string, packages: object) => writeFileSync(join(dir, file), JSON.stringify({ packages }));
    const root = { "": { version: "0.1.0" } };
    const a = { "node_modules/a": { version: "1.0.0" } };
    const optional = { "node_modules/a-windows": { version: "1.0.0", optional: true } };
    lock("package-lock.json", { ...root, ...a, ...optional });
    ok(!isInstalled(dir), "no node_modules");
    mkdirSync(join(dir, "node_modules"));
    lock("node_modules/.package-lock.json", a);
    ok(isInstalled(dir), "an optional package of another platform may be missing");
    lock("node_modules/.package-lock.json", { "node_modules/a": { version: "1.0.1" } });
    ok(!isInstalled(dir), "another version");
    lock("node_modules/.package-lock.json", {});
    ok(!isInstalled(dir), "a package is missing");
    ok(isInstalled(), "these tests run");
  });
});
