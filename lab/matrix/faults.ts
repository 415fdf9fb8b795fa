import { execFileSync } from "child_process";
import { createWriteStream, rmSync } from "fs";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { once } from "events";
import type { Cloud } from "../../components/ecs/cloud";
import { ports } from "../../consul/config";
import { loadSettings } from "../../settings";
import { eventually, names } from "../healthy";
import { Beginning, leftBehind, Subject, victim, victimUser } from "./subject";

/** Something that is wrong when an operation begins, or goes wrong in its middle. */
export interface Fault {
  readonly title: string;
  /** What exactly is done, for the document. */
  readonly means: string;
  readonly beginning?: Beginning;
  /** Whether it takes root on Linux. */
  readonly root?: boolean;
  /** Minutes that the gate waits while the fault is there (consul:gate.waitMinutes); 2 unless given. */
  readonly waitMinutes?: number;
  inflict(subject: Subject): Promise<void> | void;
  /** What the message must name. */
  readonly names: RegExp;
  /** What a person then does; also done where the operation was not stopped by the fault. */
  remedy(subject: Subject): Promise<void> | void;
}

const nothing = () => undefined;
const day = 86_400_000;

async function startAgain({ cluster }: Subject): Promise<void> {
  await cluster.kill(victim); // it may be frozen
  cluster.start(victim);
}

/** Every fault, in the order of the table. */
export const faults: Readonly<Record<string, Fault>> = {
  killed: {
    title: "a server killed",
    means: "the leader's process is killed (`SIGKILL`) and stays away; its machine is `Stopped`",
    inflict: async (subject) => {
      await subject.lead(victim);
      await subject.cluster.kill(victim);
    },
    names: /StartInstance/,
    remedy: startAgain,
  },
  paused: {
    title: "a server paused",
    means: "the leader's process is frozen (`SIGSTOP`): connections stay open, nothing answers",
    waitMinutes: 0.5,
    inflict: async (subject) => {
      await subject.lead(victim);
      subject.cluster.pause(victim);
    },
    names: /RebootInstance/,
    remedy: startAgain,
  },
  partitioned: {
    title: "a server partitioned",
    means: "the leader's packets to other nodes and theirs to it are dropped; its own API answers on its machine",
    beginning: { ownUser: true },
    root: true,
    waitMinutes: 0.5,
    inflict: async (subject) => {
      await subject.lead(victim);
      partition(subject);
    },
    names: /port 8300|network|security group/i,
    remedy: reunite,
  },
  wiped: {
    title: "a server wiped",
    means: "the leader is killed and its data deleted; it starts at once with an empty disk",
    inflict: async (subject) => {
      await subject.lead(victim);
      await subject.cluster.kill(victim);
      subject.cluster.wipe(victim);
      subject.cluster.start(victim);
    },
    names: /where that stays so for a minute/,
    remedy: nothing,
  },
  missing: {
    title: "a server missing",
    means: "the leader's machine and disk are deleted",
    inflict: async (subject) => {
      await subject.lead(victim);
      await subject.cluster.kill(victim);
      subject.cluster.wipe(victim);
    },
    names: /pulumi up --refresh/,
    remedy: (subject) => subject.refresh(),
  },
  full: {
    title: "disk full",
    means: "the disk with the leader's data has no byte left",
    beginning: { smallDisk: true },
    root: true,
    waitMinutes: 0.5,
    inflict: async (subject) => {
      await subject.lead(victim);
      await fill(subject);
    },
    names: /disk|no space left/,
    remedy: (subject) => rmSync(filler(subject), { force: true }),
  },
  clock: {
    title: "clock off by a day",
    means: "the clock where `up` runs is a day ahead: certificates that it makes are not valid yet",
    inflict: ({ clock }) => void (clock.ahead = day),
    names: /clock/,
    remedy: async ({ clock, rollout }) => {
      clock.ahead = 0;
      const { certificates } = loadSettings();
      const anew = { ...certificates, serverDays: certificates.serverDays + 1 };
      await rollout.up({ "consul:certificates": JSON.stringify(anew) });
    },
  },
  expired: {
    title: "certificate expired",
    means: "the certificates of all servers expired a day ago, and Consul has loaded them since",
    inflict: async (subject) => {
      const { certificates } = loadSettings();
      const short = { ...certificates, serverDays: 2, renewDays: 1 };
      subject.clock.ahead = -3 * day;
      await subject.rollout.up({ "consul:certificates": JSON.stringify(short) });
      subject.clock.ahead = 0;
    },
    names: /certificate/,
    remedy: nothing,
  },
  interrupted: {
    title: "`up` killed in the middle",
    means: "`up` is killed twice, when a command has just been sent to a machine; what was sent is carried out",
    inflict: (subject) => void (subject.how = (up) => killed(subject, up)),
    names: /killed/,
    remedy: (subject) => void (subject.how = (up) => up()),
  },
  twice: {
    title: "two `up` at once",
    means: "two `up` of the same settings from the same state, without the lock of Pulumi's backend",
    inflict: (subject) => void (subject.how = (up) => both(subject, up)),
    names: /run `pulumi up` again/,
    remedy: (subject) => void (subject.how = (up) => up()),
  },
  mirror: {
    title: "the mirror gone",
    means: "nobody listens where `consul:downloadMirror` points to",
    inflict: ({ cluster, rollout }) => {
      // What runs was installed when it came.
      for (const name of names(cluster, "server")) rollout.cloud.brings(name, loadSettings().version);
      rollout.cloud.fetches = true;
    },
    names: /check consul:downloadMirror/,
    remedy: ({ rollout }) => void (rollout.cloud.fetches = false),
  },
  behind: {
    title: "an agents' stack left behind",
    means: "one agent belongs to a stack that nobody updates",
    waitMinutes: 0.5,
    inflict: ({ rollout }) => void (rollout.elsewhere = [leftBehind]),
    names: /stack|trust the new authority yet/,
    remedy: ({ rollout }) => void (rollout.elsewhere = []),
  },
};

/** Rules of this network namespace, which is the cell's own. Consul's API alone, and the server itself, still reach it. */
function partition({ cluster, prefix }: Subject): void {
  const { address } = cluster.node(victim);
  const ip = (...args: (string | number)[]) => execFileSync("ip", args.map(String));
  ip("rule", "add", "pref", 100, "lookup", "local");
  ip("rule", "del", "pref", 0);
  ip("rule", "add", "pref", 10, "ipproto", "tcp", "sport", ports.http, "uidrange", user, "lookup", "local");
  ip("rule", "add", "pref", 15, "uidrange", user, "to", address, "lookup", "local");
  ip("rule", "add", "pref", 20, "uidrange", user, "to", `${prefix}.0/24`, "prohibit");
  ip("rule", "add", "pref", 21, "to", address, "ipproto", "udp", "prohibit");
  ip("rule", "add", "pref", 22, "to", address, "ipproto", "tcp", "dport", `${ports.rpc}-${ports.rpc + 2}`, "prohibit");
}

const user = `${victimUser}-${victimUser}`;

function reunite(): void {
  for (const pref of [20, 21, 22]) {
    try {
      execFileSync("ip", ["rule", "del", "pref", String(pref)], { stdio: "ignore" });
    } catch {
      // It is gone already.
    }
  }
}

function filler(subject: Subject): string {
  return join(subject.dataOf(victim), "filler");
}

/** Writes until nothing more fits, and so do all others on the disk. */
async function fill(subject: Subject): Promise<void> {
  const file = createWriteStream(filler(subject));
  const full = once(file, "error");
  const block = Buffer.alloc(64 * 1024);
  const write = () => {
    while (!file.destroyed && file.write(block));
    if (!file.destroyed) file.once("drain", write);
  };
  write();
  await full;
}

/** The `up` is gone when it has sent its n-th command, and nobody reads the answer. */
async function killed(subject: Subject, up: () => Promise<void>): Promise<void> {
  const { rollout } = subject;
  for (const after of [3, 8]) {
    let count = 0;
    let kill: () => void = nothing;
    const dead = new Promise<"killed">((resolve) => (kill = () => resolve("killed")));
    const never = () => new Promise<never>(() => undefined);
    rollout.way = (cloud) => doomed(cloud, () => ++count < after, kill, never);
    const ended = await Promise.race([up().then(() => "done"), dead]);
    rollout.way = (cloud) => cloud;
    if (ended === "done") return;
    rollout.resting = "";
    await sleep(500 + Math.random() * 1500); // a person, or a pipeline, starts it again
  }
  return up();
}

function doomed(cloud: Cloud, lives: () => boolean, kill: () => void, never: () => Promise<never>): Cloud {
  const through =
    <A extends unknown[], T>(call: (...args: A) => Promise<T>) =>
    (...args: A): Promise<T> => {
      if (lives()) return call(...args);
      void call(...args).catch(nothing);
      kill();
      return never();
    };
  return {
    machines: (...args) => cloud.machines(...args),
    run: through((...args: Parameters<Cloud["run"]>) => cloud.run(...args)),
    storeUserData: through((...args: Parameters<Cloud["storeUserData"]>) => cloud.storeUserData(...args)),
    power: through((...args: Parameters<Cloud["power"]>) => cloud.power(...args)),
  };
}

/** A second `up` begins once the first one has read its settings. */
async function both({ rollout, cluster }: Subject, up: () => Promise<void>): Promise<void> {
  const twin = rollout.twin();
  const before = cluster.acl;
  const first = up();
  const second = (async () => {
    await eventually("the first `up` has not read its settings", () =>
      cluster.acl === before ? Promise.reject(new Error("not yet")) : Promise.resolve(),
    );
    await twin.serversAgain();
  })();
  const outcomes = await Promise.allSettled([first, second]);
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
}
