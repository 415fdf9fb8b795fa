import assert from "assert/strict";
import { spawnSync } from "child_process";
import { programDir } from "../../local/program";
import { buildFailure, cacheHome, cacheKey, missingGo, moduleVersion } from "../../tools/build";

const goMod = `module consul-tools

go 1.25.9

require (
	example.org/a/b v1.2.3
	example.org/a v0.9.0 // indirect
)

require example.org/single v2.0.0

replace example.org/c => example.org/c v0.36.3
`;

describe("tools/build", () => {
  describe("cacheKey", () => {
    const inputs = ["mod", "sum", "go1.26.8\nlinux\namd64\n", ["-trimpath"]] as const;

    it("is the same for the same inputs, and a plain folder name", () => {
      assert.match(cacheKey(...inputs), /^[0-9a-f]{16}$/);
      assert.equal(cacheKey(...inputs), cacheKey(...inputs));
    });

    it("differs when go.mod, go.sum, the Go version or an argument does", () => {
      const [mod, sum, version, args] = inputs;
      const keys = [
        cacheKey(...inputs),
        cacheKey("mod2", sum, version, args),
        cacheKey(mod, "sum2", version, args),
        cacheKey(mod, sum, "go1.26.9\nlinux\namd64\n", args),
        cacheKey(mod, sum, version, []),
        cacheKey("mods", "um", version, args),
      ];
      assert.equal(new Set(keys).size, keys.length);
    });
  });

  it("cacheHome takes XDG_CACHE_HOME where it is absolute, else ~/.cache", () => {
    assert.equal(cacheHome({ XDG_CACHE_HOME: "/var/c" }, "/home/u"), "/var/c");
    assert.equal(cacheHome({ XDG_CACHE_HOME: "c" }, "/home/u"), "/home/u/.cache");
    assert.equal(cacheHome({ XDG_CACHE_HOME: "" }, "/home/u"), "/home/u/.cache");
    assert.equal(cacheHome({}, "/home/u"), "/home/u/.cache");
  });

  it("moduleVersion finds the module that has the package, the longest path first", () => {
    assert.equal(moduleVersion(goMod, "example.org/a/b/cmd/x"), "v1.2.3");
    assert.equal(moduleVersion(goMod, "example.org/a/c"), "v0.9.0");
    assert.equal(moduleVersion(goMod, "example.org/single"), "v2.0.0");
    assert.throws(() => moduleVersion(goMod, "example.org/ab"), /no module with the package example.org\/ab/);
  });

  describe("errors", () => {
    it("a missing Go names the least version of that module", () => {
      assert.equal(missingGo("kwok", goMod), "kwok cannot be built, go is not on PATH: install Go >= 1.25.9");
    });

    it("a failed build gives Go's reason, not its list of packages and downloads, in one line", () => {
      const output = [
        "go: downloading example.org/a v0.9.0",
        "example.org/a",
        "# example.org/a/b",
        "../b/x.go:7:12: t.Name undefined",
        "",
      ].join("\n");
      assert.equal(
        buildFailure("kwok", output, "/cache/kwok.log"),
        "kwok cannot be built: # example.org/a/b; ../b/x.go:7:12: t.Name undefined; all of the output: /cache/kwok.log",
      );
    });

    it("a proxy that cannot be reached comes with the remedy", () => {
      const message = buildFailure(
        "kwok",
        'go: example.org/a@v0.9.0: Get "https://p/": dial tcp: lookup p: no such host',
      );
      assert.match(message, /^kwok cannot be built: go: example\.org.*no such host \(.*set GOPROXY to one that can\)$/);
    });

    it("a build that says nothing is not an empty message", () => {
      assert.equal(buildFailure("kwok", ""), "kwok cannot be built: go failed and printed no reason");
    });
  });

  it("is a command, which says the tools it knows", () => {
    // The command of tools/README.md: node --require sucrase/register/ts tools/build.ts kwok
    const args = ["--require", "sucrase/register/ts", "tools/build.ts", "kvok"];
    const { status, stderr } = spawnSync(process.execPath, args, { cwd: programDir, encoding: "utf8" });
    assert.equal(status, 2);
    assert.match(stderr, /^usage: .*\|kwok\|/);
  });
});
