import { deepEqual, equal, match, rejects } from "assert/strict";
import { ChildProcessByStdio, execFile, execFileSync, spawn } from "child_process";
import { once } from "events";
import { mkdtempSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { createInterface } from "readline";
import { Readable } from "stream";
import { promisify } from "util";
import { mirror } from "../../local/mirror/mirror";
import { pinnedVersion } from "../../local/program";
import { buildTool } from "../../tools/build";

describe("npm run mirror -- --image", function () {
  this.timeout("10m");
  let crane: string;
  let directory: string;
  let registry: ChildProcessByStdio<null, null, Readable>;
  let address: string;
  const run = async (...args: string[]) => (await promisify(execFile)(crane, args)).stdout.trim();

  before(async () => {
    crane = await buildTool("crane", console.error);
    directory = mkdtempSync(join(tmpdir(), "mirror-image-"));
    registry = spawn(crane, ["registry", "serve", "--address", "127.0.0.1:0"], { stdio: ["ignore", "ignore", "pipe"] });
    for await (const line of createInterface(registry.stderr)) {
      const port = /serving on port (\d+)/.exec(line)?.[1] ?? /127\.0\.0\.1:(\d+)/.exec(line)?.[1];
      if (port === undefined) continue;
      address = `127.0.0.1:${port}`;
      break;
    }
    writeFileSync(join(directory, "consul"), "not really");
    execFileSync("tar", ["-cf", join(directory, "layer.tar"), "-C", directory, "consul"]);
    await run("append", "-f", join(directory, "layer.tar"), "-t", `${address}/hashicorp/consul:${pinnedVersion}`);
  });
  after(async () => {
    if (registry.exitCode === null && registry.kill()) await once(registry, "exit");
    rmSync(directory, { recursive: true, force: true });
  });

  it("copies the image into another registry, and names registry and digest for the settings", async () => {
    const from = `${address}/hashicorp/consul`;
    const settings = await mirror({ image: `${address}/ops/`, "image-from": from }, () => undefined);
    const digest = await run("digest", `${from}:${pinnedVersion}`);
    match(digest, /^sha256:[0-9a-f]{64}$/);
    deepEqual(settings, [`consul:imageRegistry: ${address}/ops`, `consul:imageDigest: ${digest}`]);
    equal(await run("digest", `${address}/ops/consul:${pinnedVersion}`), digest);
  });

  it("says why where there is no such image", async () => {
    const from = `${address}/nobody/consul`;
    await rejects(
      mirror({ image: `${address}/ops2`, "image-from": from }, () => undefined),
      /^Error: cannot copy 127\.0\.0\.1:\d+\/nobody\/consul:\S+ to \S+: .*; does `docker login` know both registries\?$/,
    );
    await rejects(run("digest", `${address}/ops2/consul:${pinnedVersion}`));
  });
});
