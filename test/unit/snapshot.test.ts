import { equal, match, ok } from "assert/strict";
import { serverAclObjects } from "../../consul/acl";
import { serverNode } from "../../consul/config";
import { cronSchedule, snapshotFiles } from "../../consul/machine/snapshots";
import { machineLayout } from "../../consul/machine/layout";
import { readableUserData, renderUserData, userDataLimit } from "../../consul/machine/user-data";

const pem = (lines: number) =>
  `-----BEGIN CERTIFICATE-----\n${`${"A".repeat(64)}\n`.repeat(lines)}-----END CERTIFICATE-----\n`;
const uuid = (n: number) => `f1c70e5a-0000-4000-8000-${String(n).padStart(12, "0")}`;

/** The largest user data that a real deployment has: two CAs, two tokens of the agents, long names. */
function userData(servers: number, snapshots: Parameters<typeof renderUserData>[0]["snapshots"]): string {
  const names = Array.from({ length: servers }, (_, i) => `consul-server-${i + 1}`);
  const node = serverNode(
    {
      datacenter: "aly-consul",
      logLevel: "info",
      retryJoin: names.map((_, i) => `10.16.190.${100 + i}`),
      telemetryRetention: "360s",
      raftMultiplier: 1,
      serverCount: servers,
      ui: true,
      localAddress: "127.0.0.1",
      extra: {},
    },
    pem(11) + pem(11),
    { gossipKeys: ["k".repeat(44)], cert: pem(14), key: pem(3), managementToken: uuid(1), agentToken: uuid(2) },
    { name: "consul-server-1", address: "10.16.190.100" },
    machineLayout("1.22.7"),
  );
  return renderUserData({
    node,
    version: "1.22.7",
    downloadMirror: "https://ops-mirror.oss-cn-hangzhou-internal.aliyuncs.com/consul",
    downloadSha256: "a".repeat(64),
    diskId: "d-bp1abcdefghijklmnopq",
    managementToken: uuid(1),
    acl: serverAclObjects({
      datacenter: "aly-consul",
      servers: names.map((name, i) => ({ node: name, secret: uuid(10 + i) })),
      agents: [uuid(3), uuid(4)],
    }),
    snapshots,
  }).text;
}

const copies = { bucket: "ops-consul-backups-cn-hangzhou", prefix: "consul/prod/" };

describe("snapshots on a machine", () => {
  it("fit into the user data of three and of five servers, copies and all", () => {
    for (const servers of [3, 5]) {
      const text = userData(servers, { everyHours: 6, keep: 28, copies });
      ok(Buffer.byteLength(text) < userDataLimit - 1024, `${servers} servers: ${Buffer.byteLength(text)} bytes`);
    }
  });

  it("have a timer that is started, and the script that only the leader follows", () => {
    const text = readableUserData(userData(3, { everyHours: 6, keep: 28 }));
    match(text, /^units="[^"]*consul-snapshot\.timer"$/m);
    match(text, /OnCalendar=\*-\*-\* 00\/6:17:00 UTC/);
    match(text, /ExecStart=\S+\/snapshot\.sh \/opt\/consul\/snapshots 28 6\n/);
    match(text, /SNAPSHOT_SERVER=10\.16\.190\.100\n/);
    ok(!text.includes("oss-put.py <<"), "no bucket, no script for it");
  });

  it("go when they are no longer asked for", () => {
    const text = readableUserData(userData(3, undefined));
    ok(!text.includes("consul-snapshot.timer\n[Unit]"));
    match(text, /for path in .*\/etc\/systemd\/system\/consul-snapshot\.\*; do/);
    match(text, /^units="consul\.service consul-acl\.service consul-grow\.timer"$/m);
  });

  it("hold no token, in no file and in no argument", () => {
    for (const file of snapshotFiles(
      { everyHours: 6, keep: 28, copies },
      { address: "10.0.0.1" },
      "/usr/local/lib/consul",
    )) {
      ok(!file.secret && !/[0-9a-f]{8}-[0-9a-f]{4}-4/.test(file.content), file.path);
    }
  });
});

describe("the schedule of a CronJob", () => {
  it("is the timer's", () => {
    equal(cronSchedule({ everyHours: 6, keep: 1 }), "17 */6 * * *");
    equal(cronSchedule({ everyHours: 24, keep: 1 }), "17 0 * * *");
  });
});
