import { equal, match, ok, rejects } from "assert/strict";
import { createHash } from "crypto";
import { zipSync } from "fflate";
import { existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "fs";
import { createServer, Server } from "http";
import { AddressInfo } from "net";
import { tmpdir } from "os";
import { join } from "path";
import { findConsul, versionOf } from "../../local/consul-binary";

const version = "1.22.7";

describe("finding consul", () => {
  let dir: string;
  let server: Server | undefined;
  /** The mirror's answers: path below the mirror, body. */
  let mirror: Record<string, Uint8Array | string>;
  let asked: string[];
  let said: string[];

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "find-consul-"));
    mirror = {};
    asked = [];
    said = [];
  });
  afterEach(() => {
    server?.closeAllConnections();
    server?.close();
    server = undefined;
    rmSync(dir, { recursive: true });
  });

  const script = (says: string) => `#!/bin/sh\necho "${says}"\n`;
  /** A script that claims to be a consul of some version. */
  function consul(folder: string, itsVersion = version, mode = 0o755): string {
    mkdirSync(join(dir, folder), { recursive: true });
    writeFileSync(join(dir, folder, "consul"), script(`Consul v${itsVersion}`), { mode });
    return join(dir, folder, "consul");
  }

  function listen(): Promise<string> {
    const listening = createServer((request, response) => {
      asked.push(request.url ?? "");
      const body = mirror[request.url ?? ""];
      if (body === undefined) response.writeHead(404).end();
      else if (body !== "silence") response.end(body);
    });
    server = listening;
    return new Promise((resolve) =>
      listening.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${(listening.address() as AddressInfo).port}`)),
    );
  }

  /** Starts a mirror with a release for this machine. @returns the mirror's URL and the checksum of the zip */
  async function release(content: string, sum?: string): Promise<string> {
    const architecture = process.arch === "x64" ? "amd64" : process.arch;
    const name = `consul_${version}_${process.platform}_${architecture}.zip`;
    const zip = zipSync({ "LICENSE.txt": Buffer.from("words"), consul: Buffer.from(content) });
    const sha256 = sum ?? createHash("sha256").update(zip).digest("hex");
    mirror[`/${version}/${name}`] = zip;
    mirror[`/${version}/consul_${version}_SHA256SUMS`] = `${"0".repeat(64)}  other.zip\n${sha256}  ${name}\n`;
    return listen();
  }

  const find = (env: NodeJS.ProcessEnv, downloadMirror: string, build?: () => Promise<string>) =>
    findConsul(
      { version, downloadMirror, downloadSha256: "" },
      {
        env: { PATH: `${join(dir, "bin")}:/usr/bin:/bin`, XDG_CACHE_HOME: join(dir, "cache"), ...env },
        progress: (line) => said.push(line),
        build: build ?? (() => Promise.reject(new Error("go is not on PATH"))),
        timeout: 300,
      },
    );
  /** A URL where nobody listens. */
  const nowhere = "http://127.99.0.1:49151";

  it("takes CONSUL_BIN before anything else", async () => {
    consul("bin");
    const mine = consul("mine");
    equal(await find({ CONSUL_BIN: mine }, nowhere), mine);
  });

  it("says in one line what is wrong with CONSUL_BIN", async () => {
    const old = consul("old", "1.20.0");
    const plain = consul("plain", version, 0o644);
    const cases: [string, RegExp][] = [
      [
        old,
        /^CONSUL_BIN=.* is Consul 1\.20\.0, the settings want 1\.22\.7 \(consul:version\): set CONSUL_BIN to that$/,
      ],
      [
        join(dir, "none"),
        /^CONSUL_BIN=.*none cannot be run \(there is no such file\): set CONSUL_BIN to a Consul 1\.22\.7$/,
      ],
      [plain, /^CONSUL_BIN=.* cannot be run \(it is not executable\): set CONSUL_BIN to a Consul 1\.22\.7$/],
      ["/bin/true", /is Consul of no version/],
    ];
    for (const [binary, message] of cases) {
      await rejects(find({ CONSUL_BIN: binary }, nowhere), (error: Error) => {
        match(error.message, message);
        return true;
      });
    }
  });

  it("takes PATH's where it is exactly the wanted version, and otherwise says which it is", async () => {
    const onPath = consul("bin");
    equal(await find({}, nowhere), onPath);
    consul("bin", "1.22.8");
    await rejects(
      find({}, nowhere),
      /^Error: .*bin\/consul is Consul 1\.22\.8, the settings want 1\.22\.7; go is not on PATH; a release is quicker .*downloadMirror=URL .*CONSUL_BIN=FILE/,
    );
  });

  it("downloads a release once, checks it against SHA256SUMS, and keeps it", async () => {
    const url = await release(script(`Consul v${version}`));
    const downloaded = await find({}, url);
    equal(await versionOf(downloaded), version);
    const requests = asked.length;
    equal(await find({}, nowhere), downloaded);
    equal(asked.length, requests);
  });

  it("uses no download with another checksum", async () => {
    const url = await release("something else", "f".repeat(64));
    await rejects(
      find({}, url, () => Promise.resolve(consul("built"))),
      /wrong checksum of .*zip: .*, wanted f{64}; not used/,
    );
    ok(!existsSync(join(dir, "cache", "consul-alicloud", "consul", version, "consul")));
  });

  it("builds where nothing can be downloaded, and says why", async () => {
    const built = consul("built");
    const found = await find({}, nowhere, () => Promise.resolve(built));
    equal(realpathSync(found), built);
    match(said.join("\n"), /no release from http:\/\/127\.99\.0\.1:49151\/1\.22\.7 \(.*ECONNREFUSED/);
    equal(await find({}, nowhere), found, "the next time nobody builds");
    rmSync(built);
    const other = consul("built-again");
    equal(
      realpathSync(await find({}, nowhere, () => Promise.resolve(other))),
      other,
      "a build that is gone is made anew",
    );
  });

  it("gives up a mirror that does not answer, or has no such release", async () => {
    mirror[`/${version}/consul_${version}_SHA256SUMS`] = "silence";
    const url = await listen();
    await find({}, url, () => Promise.resolve(consul("built")));
    match(said.join("\n"), /no answer within 0\.3 s/);
    rmSync(join(dir, "cache"), { recursive: true });
    mirror = {};
    await find({}, url, () => Promise.resolve(consul("built")));
    match(said.join("\n"), /HTTP status 404/);
  });

  it("refuses a build of another version", async () => {
    const built = () => Promise.resolve(consul("built", "1.22.6"));
    await rejects(
      find({}, nowhere, built),
      /tools\/consul\/go\.mod pins is Consul 1\.22\.6, the settings want 1\.22\.7/,
    );
  });
});
