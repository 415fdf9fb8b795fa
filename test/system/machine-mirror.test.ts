import { equal, match, ok, rejects } from "assert/strict";
import { zipSync } from "fflate";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "fs";
import { createServer, Server } from "http";
import { AddressInfo } from "net";
import { createMessage, generateKey, readKey, readPrivateKey, sign } from "openpgp";
import { tmpdir } from "os";
import { join } from "path";
import { findConsul } from "../../local/consul-binary";
import { mirror } from "../../local/mirror/mirror";
import { SigningKey } from "../../local/mirror/signature";
import { pinnedVersion } from "../../local/program";
import { releaseFiles, sha256 } from "../../local/release";
import { plainProd } from "../program/edit";
import { createNetwork, Machine, Network } from "./machine";
import { mirrorAddress } from "./machine-services";
import { acceptingProviders, describeProd } from "./prod-servers";
import { machinesOrSkip } from "./rootfs";

// What `npm run mirror` leaves in a directory is what a machine installs, and nothing else is.

describe("a machine and a mirror of one's own", function () {
  this.timeout("5m");
  const version = pinnedVersion;
  const arch = process.arch === "arm64" ? "arm64" : "amd64";
  const zipName = releaseFiles.zip(version, `linux_${arch}`);
  let net: Network;
  let machine: Machine;
  let directory: string;
  let server: Server;
  let key: SigningKey;
  let files: Record<string, Uint8Array>;
  let sum: string;

  const run = () => {
    const from = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return mirror({ to: directory, from, arch }, () => undefined, key);
  };
  const installed = `/usr/local/lib/consul/versions/${version}/consul`;

  before(async function () {
    this.timeout("30m");
    await machinesOrSkip(this);
    directory = mkdtempSync(join(tmpdir(), "mirror-"));
    const consul = readFileSync(await findConsul({ version, downloadMirror: "", downloadSha256: "" }));
    const zip = zipSync({ consul }, { level: 0 });
    const sums = Buffer.from(`${sha256(zip)}  ${zipName}\n`);
    const { publicKey, privateKey } = await generateKey({
      userIDs: [{ name: "A maker of releases" }],
      format: "armored",
    });
    key = { armored: publicKey, fingerprint: (await readKey({ armoredKey: publicKey })).getFingerprint() };
    const signature = (await sign({
      message: await createMessage({ binary: sums }),
      signingKeys: await readPrivateKey({ armoredKey: privateKey }),
      detached: true,
      format: "binary",
    })) as Uint8Array;
    files = {
      [zipName]: zip,
      [releaseFiles.sums(version)]: sums,
      [releaseFiles.signature(version)]: signature,
    };
    server = createServer(({ url = "" }, response) => response.end(files[url.replace(/^.*\//, "")]));
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));

    await run();
    sum = sha256(zip);
    const { nodes } = JSON.parse(plainProd()["consul:servers"] ?? "{}") as { nodes: { vswitchCidr: string }[] };
    net = await createNetwork({ vswitches: nodes.map(({ vswitchCidr }) => vswitchCidr) });
    net.mirror.offerDirectory(directory, version);
    const settings = { "consul:downloadMirror": `http://${mirrorAddress}/consul`, "consul:downloadSha256": sum };
    const { servers } = await describeProd({ ...plainProd(), ...settings }, acceptingProviders());
    const [first] = servers;
    ok(first);
    machine = await net.machine({ ...first, userData: first.text, disk: await net.disk({ ...first, size: 512 }) });
  });

  after(async () => {
    await (net as Network | undefined)?.destroy();
    (server as Server | undefined)?.close().closeAllConnections();
    if (directory) rmSync(directory, { recursive: true, force: true });
  });

  it("is not given what has a wrong signature: the directory stays as it was", async () => {
    const good = files[releaseFiles.sums(version)] ?? Buffer.of();
    files[releaseFiles.sums(version)] = Buffer.concat([good, Buffer.from("\n")]);
    await rejects(run(), /refused: .*no signature of HashiCorp's key .*; nothing was written/);
    files[releaseFiles.sums(version)] = good;
    ok(readFileSync(join(directory, version, releaseFiles.sums(version))).equals(good));
  });

  it("refuses a zip that was replaced in the mirror, although the mirror's own checksums say otherwise", async () => {
    const evil = zipSync({ consul: Buffer.from("#!/bin/sh\necho evil\n") }, { level: 0 });
    const place = join(directory, version);
    writeFileSync(join(place, zipName), evil);
    writeFileSync(join(place, releaseFiles.sums(version)), `${sha256(evil)}  ${zipName}\n`);
    net.mirror.offerDirectory(directory, version);
    await machine.boot({ wait: false });
    await machine.until(
      `journalctl -u consul.service --no-pager | grep "wrong checksum of .*${sha256(evil)}, wanted ${sum}"`,
    );
    equal((await machine.exec(`test -e ${installed}`)).code, 1);
  });

  it("installs what the command put there", async () => {
    await run();
    net.mirror.offerDirectory(directory, version);
    await machine.until(`test -x ${installed}`, 120);
    match(await machine.run("consul version"), new RegExp(`^Consul v${version}\n`));
  });
});
