import assert from "assert/strict";
import { serverSet } from "../../consul/pod/pod";
import { DevCluster, eventually, namespace, skipWithoutPods, succeeded } from "./kube-cluster";

// The pods of Pulumi.dev.yaml as the program describes them, started as a kubelet starts them, with keys, certificates and
// tokens as the real providers make them. Each test goes on from where the one before left the cluster.

describe("servers in the cluster, started as a kubelet starts them", function () {
  this.timeout(900_000);
  let dev: DevCluster;
  const say = (line: string) => console.log(`      ${line}`);

  before(async function () {
    this.timeout("40m"); // a first build of Consul and CoreDNS
    await skipWithoutPods(this);
    dev = await DevCluster.create();
  });

  after(async () => {
    await (dev as DevCluster | undefined)?.world.stop();
  });

  it("become a cluster when all three start at once", async () => {
    const { servers } = dev;
    assert.match(succeeded(await servers.job("roll")), /there are no servers yet/);
    await Promise.all(servers.ordinals.map((ordinal) => servers.start(ordinal)));
    const seconds = await servers.ready(servers.ordinals);
    say(`ready after ${seconds.toFixed(1)} s`);
    const peers = await servers.consul(0, "operator", "raft", "list-peers");
    assert.equal(peers.match(/consul-server-\d .* true /g)?.length, 3, peers);
  });

  it("get their policies and tokens from the Job, as often as it runs", async () => {
    const { servers } = dev;
    for (const run of [1, 2]) {
      assert.match(succeeded(await servers.job("acl")), /policies and tokens are in place/, `run ${run}`);
    }
    const tokens = await servers.consul(0, "acl", "token", "list");
    for (const what of ["Agents", ...servers.ordinals.map((n) => `Server ${serverSet}-${n}`)]) {
      assert.match(tokens, new RegExp(`Description: +${what} \\[consul-alicloud:(agents|servers)\\]\n`));
    }
    // The servers register themselves with tokens of their own: none of them is turned away any more.
    await eventually("the servers are in the catalog", async () => {
      const nodes = await servers.consul(0, "catalog", "nodes", "-service=consul");
      assert.equal(nodes.match(/consul-server-\d/g)?.length, 3, nodes);
    });
  });

  it("are joined by agents on the same cluster without any setting", async () => {
    await dev.startAgents();
  });

  it("are the ones that the outputs speak of", async () => {
    const agent = dev.agents[1];
    assert.ok(agent);
    const ca = "/consul/config/ca.pem";
    assert.equal(succeeded(await agent.exec(["cat", ca])), dev.wanted.output("caCertificate"));
    const get = async (url: string) =>
      succeeded(await agent.exec(["curl", "-sS", "--cacert", ca, `${url}/v1/status/leader`]));
    const urls = dev.wanted.outputList("serverUrls");
    assert.equal(urls.length, 3);
    for (const url of [...urls, `https://consul-api.${namespace}.svc:8501`]) {
      assert.match(await get(url), /^"10\..*:8300"$/);
    }
    assert.deepEqual(dev.wanted.outputList("serverNames"), ["consul-server-0", "consul-server-1", "consul-server-2"]);
  });

  it("have nothing in their containers that is not theirs", async () => {
    const { servers } = dev;
    const pod = servers.get(1);
    assert.equal(succeeded(await pod.exec(["id", "-u"])), "100\n");
    assert.equal(
      succeeded(await pod.exec(["sh", "-c", "grep CapBnd /proc/self/status"])).trim(),
      "CapBnd:\t0000000000000000",
    );
    assert.equal(
      succeeded(await pod.exec(["sh", "-c", "cat /proc/1/comm"])),
      "consul\n",
      "SIGTERM reaches Consul itself",
    );
    const files = succeeded(await pod.exec(["sh", "-c", "cd /consul/secrets && stat -c '%n %a %g' *"]))
      .trim()
      .split("\n");
    assert.deepEqual(files, [
      "gossip.keyring 440 1000",
      "management-token 440 1000",
      "secrets.json 440 1000",
      "server-key.pem 440 1000",
      "server.pem 440 1000",
    ]);
    const certificate = succeeded(
      await pod.exec(["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", "/consul/secrets/server.pem"]),
    );
    assert.match(certificate, /DNS:consul-server-1\.consul-server\.consul\.svc,/);
    assert.doesNotMatch(certificate, /consul-server-[02]/);
    for (const path of ["/consul/config/x", "/consul/secrets/x", "/x", "/usr/x"]) {
      assert.notEqual((await pod.exec(["touch", path])).code, 0, path);
    }
    const { output } = await pod.exec(["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"]);
    for (const name of ["managementToken", "gossipKey"]) assert.ok(!output.includes(dev.wanted.output(name)), name);
  });

  it("give snapshots, although their root file system is read-only", async () => {
    const { servers } = dev;
    assert.match(await servers.consul(1, "snapshot", "save", "/tmp/test.snap"), /Saved and verified snapshot/);
  });

  it("are not ready while they are strangers to raft or see no leader", async () => {
    const { servers } = dev;
    const pod = servers.get(0);
    const ready = async (address: string, api = "http://127.0.0.1:8500") =>
      (await pod.exec(["env", `CONSUL_HTTP_ADDR=${api}`, "sh", "/consul/config/ready.sh", address])).code;
    assert.equal(await ready(pod.address), 0);
    assert.notEqual(await ready("10.244.9.9"), 0, "another address");
    assert.notEqual(await ready(pod.address, "http://127.0.0.1:1"), 0, "nobody listens");
  });

  it("go one after another under load: leadership handed over, nothing lost, one with another address", async () => {
    const { servers } = dev;
    const writer = await dev.writer();
    const since = Date.now();
    // A changed setting: new names of ConfigMap and Secret, a new pod from the old data.
    await dev.want({ "consul:logLevel": "info" });
    assert.match(succeeded(await servers.job("roll")), /all servers are healthy voters/);
    await servers.roll((ordinal) => ordinal !== 1, say);
    const gap = writer.longestGap(since);
    say(`${writer.acknowledged.length} writes, ${writer.errors} errors, longest gap ${gap.toFixed(2)} s`);
    assert.ok(gap < 2, `longest gap ${gap} s`);
    await dev.assertWritten(writer);
  });
});
