import assert from "assert/strict";
import { setTimeout as sleep } from "timers/promises";
import { readFileSync } from "fs";
import { join } from "path";
import { serverSet } from "../../consul/pod/pod";
import { programDir } from "../../local/program";
import { commandsOf, section } from "../documents";
import { DevCluster, eventually, namespace, skipWithoutPods, succeeded } from "./kube-cluster";

/** From "every server certificate has expired" to healthy, by what docs/operations.md says of servers in Kubernetes. */
describe("servers in the cluster whose certificates have all expired", function () {
  this.timeout(900_000);
  const seconds = 90;
  let dev: DevCluster;
  /** Milliseconds by which the clock is behind that certificates are made by. */
  let behind = 2 * 86_400_000 - seconds * 1000;
  const certificates = (serverDays: number) => ({
    "consul:certificates": JSON.stringify({ serverDays, renewDays: 1 }),
  });
  const say = (line: string) => console.log(`      ${line}`);

  before(async function () {
    this.timeout("40m"); // a first build of Consul and CoreDNS
    await skipWithoutPods(this);
    dev = await DevCluster.create(certificates(2), () => new Date(Date.now() - behind));
    await dev.start();
  });

  after(async () => {
    await (dev as DevCluster | undefined)?.world.stop();
  });

  it("are well again once their pods have been deleted together, and nothing that was written is lost", async () => {
    const { servers, agents } = dev;
    const writer = await dev.writer();
    await eventually("a certificate is good yet", async () => {
      const url = `https://${serverSet}-0.${serverSet}.${namespace}.svc:8501/v1/status/leader`;
      const { code } = await servers.get(0).exec(["curl", "-s", "--cacert", "/consul/config/ca.pem", url]);
      assert.equal(code, 60);
    });
    await sleep(2000);
    const since = Date.now();
    await eventually("raft goes on", () => assert.ok((writer.acknowledged.at(-1)?.at ?? 0) > since));
    behind = 0;
    await dev.want(certificates(3));

    // Nothing is touched without gate.skip.
    const refused = await servers.job("roll", { "600": "1" });
    assert.equal(refused.code, 1);
    assert.match(refused.output, /the servers were NOT changed: no server answers \(curl: \(60\)/);

    // The documented steps.
    const text = section(
      readFileSync(join(programDir, "docs/operations.md"), "utf8"),
      "## Expired certificates of servers in Kubernetes",
    );
    const blocks = [...text.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([block]) => commandsOf(block));
    assert.deepEqual(blocks, ["pulumi up", "kubectl -n consul delete pod -l app.kubernetes.io/component=server"]);
    const all = servers.ordinals.map((ordinal) => `${serverSet}-${ordinal}`).join(",");
    assert.match(succeeded(await servers.job("roll", { none: all })), /gate\.skip names every server/);
    // The roll begins with the last one, and waits: its peers refuse it, and it refuses them.
    const { address } = servers.get(2);
    await servers.stop(2, "delete");
    await servers.start(2, address);
    await assert.rejects(servers.ready([2], 20), /not ready within 20 s/);
    const deleted = Date.now();
    const addresses = servers.ordinals.map((ordinal) => servers.get(ordinal).address);
    await Promise.all(servers.ordinals.map((ordinal) => servers.stop(ordinal, "delete")));
    await Promise.all(servers.ordinals.map((ordinal) => servers.start(ordinal, addresses[ordinal])));
    await servers.ready(servers.ordinals);
    say(`ready ${((Date.now() - deleted) / 1000).toFixed(0)} s after the pods were deleted`);
    succeeded(await servers.job("acl"));
    await eventually("writes succeed again", () => assert.ok((writer.acknowledged.at(-1)?.at ?? 0) > deleted));
    await eventually("the agents find them again", async () => {
      for (const agent of agents) assert.ok(await agent.isReady());
      const members = await servers.consul(0, "members");
      assert.equal(members.match(/ alive /g)?.length, 5, members);
    });
    assert.match(succeeded(await servers.job("roll", { "600": "60" })), /all servers are healthy voters/);
    say(`longest time without a write ${writer.longestGap(since).toFixed(0)} s`);
    await dev.assertWritten(writer);
  });
});
