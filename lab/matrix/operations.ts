import { deepEqual, equal, notEqual, ok, rejects } from "assert/strict";
import { existsSync, readdirSync } from "fs";
import { join } from "path";
import { appRules, grantObjects, grantOwner } from "../../consul/access";
import { stackConfig } from "../../local/program";
import { eventually, names } from "../healthy";
import { certificateOf, keyring } from "../trust";
import { Beginning, Subject } from "./subject";

/** Something that people do to a running cluster. */
export interface Operation {
  readonly title: string;
  /** What exactly is done, for the document. */
  readonly means: string;
  readonly beginning?: Beginning;
  /** What comes before the step that the fault happens to. */
  prepare?(subject: Subject): Promise<void>;
  /** The step that the fault happens to. It is done again after the remedy. */
  run(subject: Subject): Promise<void>;
  /** What comes after it. */
  finish?(subject: Subject): Promise<void>;
  /** @throws where it is not done */
  check(subject: Subject): Promise<void> | void;
  /** Whether the fault together with the operation may take the quorum. */
  readonly takesQuorum?: boolean;
  /** Faults that it cannot meet on this level, with the reason. */
  readonly unfit?: Readonly<Record<string, string>>;
}

const json = (key: string, value: object) => ({ [`consul:${key}`]: JSON.stringify(value) });
const serversOf = ({ cluster }: Subject) => names(cluster, "server");
const noUp = {
  interrupted: "one request, which Consul carries out whole or not at all: no `up` is there to be killed",
  twice: "no `up`: Consul does one such request after another",
  behind: "no agent takes part",
};
const noDownload = { mirror: "nothing is fetched" };
const atBoot = { mirror: "a new machine, or system disk, fetches at its first boot, which a process does not have" };

async function serials(subject: Subject): Promise<string[]> {
  const shown = serversOf(subject).map(async (name) => (await certificateOf(subject.cluster, name)).serialNumber);
  return Promise.all(shown);
}

/** Every operation, in the order of the table. */
export const operations: Readonly<Record<string, Operation>> = {
  setting: {
    title: "setting",
    means: "`telemetryRetention`, for which Consul restarts on every node",
    run: (subject) => subject.up({ "consul:telemetryRetention": "400s" }),
    check: async ({ cluster }) => {
      for (const name of names(cluster, "server")) {
        type Self = { DebugConfig: { Telemetry: { PrometheusOpts: { Expiration: string } } } };
        const { DebugConfig } = await cluster.api(name).get<Self>("agent/self");
        equal(DebugConfig.Telemetry.PrometheusOpts.Expiration, "6m40s", name);
      }
    },
  },
  version: {
    title: "version",
    means: "from the minor version before to the one in the settings",
    beginning: { earlierVersion: true },
    run: (subject) => {
      subject.cluster.consul = subject.consul;
      return subject.up({ "consul:version": wantedVersion() });
    },
    check: async ({ cluster }) => {
      const members = await cluster.api("server-1").get<{ Tags: { build: string }; Status: number }[]>("agent/members");
      const builds = members.filter(({ Status }) => Status === 1).map(({ Tags }) => Tags.build.replace(/:.*/, ""));
      deepEqual(new Set(builds), new Set([wantedVersion()]));
    },
  },
  image: {
    title: "image",
    means:
      "`servers.imageId`: each machine stops and starts. The provider's part is played by a stop and a start of the process",
    run: async (subject) => {
      subject.rollout.image = "image-2";
      await subject.up();
    },
    check: ({ rollout }) => {
      deepEqual(new Set(rollout.imagesOfServers), new Set(["image-2"]));
    },
    unfit: atBoot,
  },
  gossip: {
    title: "gossip",
    means: "a new gossip key; the fault comes before the second of three steps, which switches",
    prepare: (subject) => subject.up(json("gossip", { generation: 1, alsoAccepted: [2] })),
    run: (subject) => subject.up(json("gossip", { generation: 2, alsoAccepted: [1] })),
    finish: (subject) => subject.up(json("gossip", { generation: 2 })),
    check: async ({ cluster }) => {
      const { Keys, PrimaryKeys, NumNodes } = await keyring(cluster);
      deepEqual([Object.values(Keys), NumNodes], [[5], 5]);
      deepEqual(PrimaryKeys, Keys);
    },
    unfit: noDownload,
  },
  tokens: {
    title: "tokens",
    means: "a new token for the agents; the old one is revoked",
    run: (subject) => {
      tokenBefore.set(subject, tokenBefore.get(subject) ?? subject.cluster.agentToken);
      return subject.up(json("tokens", { agentGeneration: 2 }));
    },
    check: async (subject) => {
      const { cluster } = subject;
      notEqual(cluster.agentToken, tokenBefore.get(subject));
      await rejects(cluster.api("server-1", tokenBefore.get(subject) ?? "").get("catalog/nodes"), /403/);
    },
    unfit: noDownload,
  },
  certificates: {
    title: "certificates",
    means: "every server's certificate is made anew",
    prepare: async (subject) => void serialsBefore.set(subject, await serials(subject)),
    run: (subject) => subject.up(json("certificates", { serverDays: 366 })),
    check: async (subject) => {
      const before = serialsBefore.get(subject) ?? [];
      for (const [i, now] of (await serials(subject)).entries()) notEqual(now, before[i]);
    },
    unfit: noDownload,
  },
  authority: {
    title: "authority",
    means: "a new certificate authority; the fault comes before the second of three steps, which switches",
    prepare: (subject) => subject.up(json("certificates", { caGeneration: 1, caAlsoTrusted: [2] })),
    run: (subject) => subject.up(json("certificates", { caGeneration: 2, caAlsoTrusted: [1] })),
    finish: (subject) => subject.up(json("certificates", { caGeneration: 2 })),
    check: async (subject) => {
      const issuers = serversOf(subject).map(async (name) => (await certificateOf(subject.cluster, name)).issuer.CN);
      deepEqual(new Set(await Promise.all(issuers)), new Set(["Consul CA 2 local"]));
    },
    unfit: noDownload,
  },
  more: {
    title: "3→5",
    means: "two more servers",
    run: (subject) => subject.up(subject.servers(5)),
    check: async (subject) => deepEqual(await subject.voters(), ["server-1", "server-2", "server-3", "server-4", "server-5"]), // prettier-ignore
    unfit: atBoot,
  },
  fewer: {
    title: "5→3",
    means:
      "an `up` finds all servers well, autopilot is told, two servers leave, then the settings follow, as docs/operations.md has it",
    beginning: { servers: 5 },
    run: async (subject) => {
      const gone = ["server-4", "server-5"];
      // Servers leave a cluster that is well: one that is away already would be missed twice.
      if (gone.every((name) => subject.cluster.pid(name) !== undefined)) await subject.up();
      await leave(subject, gone);
      await subject.up(subject.servers(3));
    },
    check: async (subject) => deepEqual(await subject.voters(), ["server-1", "server-2", "server-3"]),
    unfit: { mirror: "no server restarts" },
  },
  move: {
    title: "zone move",
    means: "a server's place is taken by one of another name: two are added, it and the other new one leave",
    run: async (subject) => {
      if (serversOf(subject).length === 3) await subject.up(subject.servers(5));
      await leave(subject, ["server-3", "server-5"]);
      await subject.up(without(subject.servers(5), ["server-3", "server-5"]));
    },
    check: async (subject) => deepEqual(await subject.voters(), ["server-1", "server-2", "server-4"]),
    unfit: atBoot,
  },
  disk: {
    title: "disk",
    means: "another server's machine and disk are lost as well, and made anew by `up --refresh`",
    run: async (subject) => {
      await lose(subject, "server-3");
      subject.rollout.refresh();
      await subject.up();
    },
    check: async (subject) => deepEqual(await subject.voters(), ["server-1", "server-2", "server-3"]),
    takesQuorum: true,
    unfit: atBoot,
  },
  restore: {
    title: "restore",
    means:
      "`consul snapshot restore` at the first server, after an `up` where certificates have expired; writers are held while it runs, for it takes keys back in time",
    prepare: async (subject) => {
      await subject.cluster.api("server-1").put("kv/matrix/restored", "before");
      await subject.command("server-1", "snapshot", "save", snapshotFile(subject));
      await subject.cluster.api("server-1").put("kv/matrix/restored", "after");
    },
    run: async (subject) => {
      if (await expired(subject)) await subject.up();
      await subject.clients.pause();
      try {
        await subject.command("server-1", "snapshot", "restore", snapshotFile(subject));
      } finally {
        subject.clients.resume();
      }
    },
    check: async ({ cluster }) => {
      for (const name of names(cluster, "server")) {
        await eventually(`${name} has not the restored key`, async () => {
          equal(await cluster.api(name).get<string>("kv/matrix/restored?raw&stale"), "before");
        });
      }
    },
    unfit: { ...noUp, ...noDownload },
  },
  applications: {
    title: "applications",
    means: "an application's token is made and another one's is revoked, by the script of the Job",
    prepare: (subject) => subject.applications(grantObjects(keeper, [grant("old")]), grantOwner(keeper)),
    run: (subject) => subject.applications(grantObjects(keeper, [grant("new")]), grantOwner(keeper)),
    check: async ({ cluster }) => {
      await eventually("the new token is not known", () =>
        cluster.api("agent-1", secretOf("new")).get("agent/services"),
      );
      await rejects(cluster.api("server-1", secretOf("old")).get("catalog/nodes"), /403/);
    },
    unfit: { ...noDownload, behind: noUp.behind, interrupted: "Kubernetes carries the Job on, whatever became of the `up` that made it", twice: "Kubernetes runs one Job for both" }, // prettier-ignore
  },
  snapshot: {
    title: "snapshot",
    means: "`consul-snapshot.service` runs on every server; the one that leads takes a snapshot",
    run: (subject) => subject.snapshot(),
    check: ({ snapshots }) => {
      const taken = snapshots.filter(existsSync).flatMap((directory) => readdirSync(directory));
      ok(
        taken.some((name) => name.endsWith(".snap")),
        "no snapshot was taken",
      );
    },
    unfit: { ...noUp, ...noDownload },
  },
};

const lost = new WeakSet<Subject>();
const tokenBefore = new WeakMap<Subject, string>();
const serialsBefore = new WeakMap<Subject, string[]>();
const keeper = { project: "matrix", stack: "local" };
const secretOf = (name: string) => `f1c70e5a-0000-4000-8000-0000000000${name === "old" ? "01" : "02"}`;
const grant = (name: string) => ({
  name,
  rules: appRules({ services: [name], kv: { read: [], write: [] } }),
  secrets: [secretOf(name)],
});
const snapshotFile = ({ cluster }: Subject) => join(cluster.dir, "matrix.snap");
const wantedVersion = () => stackConfig("local")["consul:version"] ?? "";

/** Settings of servers without some of them. */
function without(settings: Readonly<Record<string, string>>, gone: readonly string[]): Record<string, string> {
  const servers = JSON.parse(settings["consul:servers"] ?? "") as { nodes: { name: string }[] };
  return json("servers", { ...servers, nodes: servers.nodes.filter(({ name }) => !gone.includes(name)) });
}

/** Once in a cell: the run after the remedy finds what came of the first. */
async function lose(subject: Subject, server: string): Promise<void> {
  if (lost.has(subject)) return;
  lost.add(subject);
  await subject.cluster.kill(server);
  subject.cluster.wipe(server);
}

/** Whether the first server shows a certificate that has expired. */
function expired({ cluster }: Subject): Promise<boolean> {
  return certificateOf(cluster, "server-1").then(
    () => false,
    (error: unknown) => (error as NodeJS.ErrnoException).code === "CERT_HAS_EXPIRED",
  );
}

/** As docs/operations.md has it: autopilot first, then the servers that are to go. */
async function leave({ cluster }: Subject, gone: readonly string[]): Promise<void> {
  await eventually("autopilot is not told", async () => {
    const api = cluster.api(await cluster.leaderName());
    const settings = await api.get<object>("operator/autopilot/configuration");
    await api.put("operator/autopilot/configuration", { ...settings, MinQuorum: 3 });
  });
  for (const name of gone.filter((server) => cluster.pid(server) !== undefined)) {
    await cluster.api(name).put("agent/leave");
    await eventually(`${name} has not ended`, () =>
      cluster.pid(name) === undefined ? Promise.resolve() : Promise.reject(new Error("it runs")),
    );
  }
}
