import assert from "assert/strict";
import { execFileSync } from "child_process";
import { mkdtempSync, rmSync } from "fs";
import { tmpdir } from "os";
import { delimiter, join } from "path";
import { perform } from "../../local/command";
import { stackConfig } from "../../local/program";
import { task as debug } from "../../operate/debug";
import { task as status } from "../../operate/status";
import { fakePulumi } from "../fake-pulumi";
import { FakeKubectl } from "./fake-kubectl";
import { DevCluster, eventually, skipWithoutPods } from "./kube-cluster";

// The pods of Pulumi.dev.yaml, started as a kubelet starts them. kubectl is played: it runs commands in their containers.

describe("servers in the cluster, asked through kubectl", function () {
  this.timeout(600_000);
  let dev: DevCluster;
  const directory = mkdtempSync(join(tmpdir(), "consul-kubectl-"));
  const path = process.env.PATH;
  let kubectl: FakeKubectl | undefined;

  before(async function () {
    this.timeout("40m"); // a first build of Consul
    await skipWithoutPods(this);
    dev = await DevCluster.create();
    await dev.start();
    process.env.PATH = [directory, path].join(delimiter);
    const values = Object.entries(dev.wanted.program.outputs).map(([name, { value }]) => [name, value] as const);
    fakePulumi(directory, stackConfig("dev"), Object.fromEntries(values));
    kubectl = await FakeKubectl.start(directory, dev.servers, "dev");
  });
  after(async () => {
    kubectl?.stop();
    process.env.PATH = path;
    await (dev as DevCluster | undefined)?.world.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  async function run(task: typeof status | typeof debug, ...args: string[]) {
    let [out, error] = ["", ""];
    const code = await perform(
      task,
      args,
      (text) => void (out += text),
      (text) => void (error += text),
    );
    return { out, error, code };
  }

  it("say how they are: `npm run status`", async () => {
    // A server that has just come back is unhealthy to autopilot for some seconds.
    const out = await eventually("all is well", async () => {
      const { out: said, error, code } = await run(status, "dev");
      assert.equal(code, 0, `${said}${error}`);
      return said;
    });
    assert.match(out, /^dev \(datacenter dc1\): all is well$/m);
    assert.match(out, /^Voters +3 of 3\nAgents +2, 0 do not answer, 0 behind$/m);
    for (const n of dev.servers.ordinals) {
      assert.match(out, new RegExp(`^consul-server-${n} .* Running +(leader|voter) +1\\..* days +\\d+ % +yes$`, "m"));
    }
  });

  it("give logs and state, and no secret: `npm run debug`", async () => {
    const file = join(directory, "dev.tar.gz");
    const { out, error, code } = await run(debug, "dev", "--output", file);
    assert.equal(code, 0, error);
    assert.doesNotMatch(out, /^Missing/m);
    const names = execFileSync("tar", ["-tzf", file], { encoding: "utf8" }).split("\n");
    for (const n of dev.servers.ordinals) {
      for (const part of ["consul", "disk", "metrics", "self"]) {
        assert.ok(names.includes(`dev/servers/consul-server-${n}/${part}.txt`), names.join(", "));
      }
      assert.ok(names.includes(`dev/kubernetes/pod/consul-server-${n}.log`), names.join(", "));
    }
    const text = execFileSync("tar", ["-xzOf", file], { encoding: "utf8", maxBuffer: 1 << 28 });
    const { managementToken, agentToken, gossipKeys } = dev.wanted.program.outputs;
    for (const secret of [managementToken?.value, agentToken?.value, ...(gossipKeys?.value as string[])]) {
      assert.ok(!text.includes(String(secret)));
    }
  });

  it("name one that is gone, and say that no other may go", async () => {
    const { servers } = dev;
    const { address } = servers.get(2);
    await servers.stop(2, "kill");
    const { out, code } = await run(status, "dev");
    assert.equal(code, 1, out);
    assert.match(out, /^- consul-server-2 has no machine: the StatefulSet consul-server has no pod of this name now$/m);
    for (const n of [0, 1]) assert.match(out, new RegExp(`^consul-server-${n} .* no$`, "m"));
    await servers.start(2, address);
    await servers.ready([2]);
  });
});
