import { deepEqual, equal, match, ok } from "assert/strict";
import { spawnSync } from "child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { serverAclObjects } from "../../consul/acl";
import { serverNode } from "../../consul/config";
import { cronSchedule, snapshotFiles } from "../../consul/machine/snapshots";
import { machineLayout } from "../../consul/machine/layout";
import { readScript } from "../../consul/scripts";
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
      grpc: true,
      localAddress: "127.0.0.1",
      extra: {},
    },
    pem(11) + pem(11),
    { gossipKeys: ["k".repeat(44)], cert: pem(14), key: pem(3), managementToken: uuid(1), agentToken: uuid(2) },
    { name: "consul-server-1", address: "10.16.190.100" },
    machineLayout("1.22.6"),
  );
  return renderUserData({
    node,
    version: "1.22.6",
    downloadMirror: "https://ops-mirror.oss-cn-hangzhou-internal.aliyuncs.com/consul",
    downloadSha256: "a".repeat(64),
    diskId: "d-bp1abcdefghijklmnopq",
    managementToken: uuid(1),
    acl: serverAclObjects({
      version: "1.22.6",
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

// The script with commands that play the server and its disk. On real servers: test/local/restore.test.ts.
describe("the script that takes snapshots", () => {
  /** @param commands by name, as text for a shell @param before snapshots that are there already */
  function run(commands: Readonly<Record<string, string>>, before: readonly string[] = []) {
    const directory = mkdtempSync(join(tmpdir(), "consul-snapshot-"));
    try {
      for (const name of ["bin", "snapshots"]) mkdirSync(join(directory, name));
      for (const name of before) writeFileSync(join(directory, "snapshots", name), "before");
      for (const [name, text] of Object.entries({ sleep: `echo slept >>${directory}/slept`, ...commands })) {
        writeFileSync(join(directory, "bin", name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
      }
      const { status, stdout, stderr } = spawnSync("sh", ["-s", "--", join(directory, "snapshots"), "3", "6"], {
        encoding: "utf8",
        input: readScript("scripts/snapshot.sh"),
        env: {
          PATH: `${join(directory, "bin")}:${process.env.PATH ?? ""}`,
          CONSUL_HTTP_ADDR: "http://127.0.0.1:8500",
          SNAPSHOT_SERVER: "10.0.0.1",
        },
      });
      return { status, stdout, stderr, kept: readdirSync(join(directory, "snapshots")).sort() };
    } finally {
      rmSync(directory, { recursive: true });
    }
  }

  it("keeps the one that it has taken, also where a clock was ahead once, and as many as asked for", () => {
    const consul = `case $2 in
      save) echo new >"$3" ;;
      inspect) echo "Index 5" ;;
      put) cat ;;
    esac`;
    const later = ["20990101T000000Z-a.snap", "20990102T000000Z-a.snap", "20990103T000000Z-a.snap"];
    const leads = { curl: `echo '"10.0.0.1:8300"'`, consul };
    const { status, kept, stderr } = run(leads, later);
    equal(status, 0, stderr);
    equal(kept.length, 3);
    deepEqual(kept.slice(1), later.slice(1));
    ok(!later.includes(kept[0] ?? ""));
  });

  it("says what to look at where the leader gives none, as one does that the network has cut off", () => {
    const cutOff = {
      curl: `echo '"10.0.0.1:8300"'`,
      consul: "echo 'Error saving snapshot: 500 (No cluster leader)' >&2; exit 1",
    };
    const { status, stderr } = run(cutOff);
    equal(status, 1);
    match(stderr, /^consul-snapshot: none was taken, the leader gives none\. .* ports 8300 and 8301 .*npm run status/m);
  });

  it("has nothing to do at a server that knows another leader, and says nothing of an error", () => {
    const { status, stdout, stderr } = run({ curl: `echo '"10.0.0.2:8300"'` });
    deepEqual(
      [status, stdout, stderr],
      [0, 'consul-snapshot: nothing to do here, the leader is "10.0.0.2:8300"\n', ""],
    );
  });

  it("waits for an election", () => {
    const { status, stdout } = run({
      curl: `[ -e "\${0%/*}/../slept" ] && echo '"10.0.0.2:8300"' || echo '""'`,
    });
    deepEqual([status, stdout], [0, 'consul-snapshot: nothing to do here, the leader is "10.0.0.2:8300"\n']);
  });

  for (const [what, curl] of [
    ["knows no leader", `echo '""'`],
    ["does not answer", "exit 7"],
  ] as const) {
    it(`fails where the server ${what}: nobody takes a snapshot then`, () => {
      const { status, stderr } = run({ curl });
      equal(status, 1);
      match(stderr, /^consul-snapshot: none was taken, this server knows no leader\. .*npm run status/);
    });
  }

  it("says of a disk that is too full how much is there, never less than nothing", () => {
    const { status, stderr } = run({
      curl: `echo '"10.0.0.1:8300"'`,
      df: "printf 'Filesystem 1024-blocks Used Available Capacity Mounted\\n/dev/vdb 262144 262144 0 100%% /\\n'",
      du: "printf '0\\tsnapshots\\n'",
    });
    equal(status, 1);
    match(stderr, /is too full: 1 KiB are needed, 0 are there beside what stays free for raft/);
  });
});
