import { X509Certificate } from "crypto";
import { assess, passes, Reason, Sample, Server, told } from "../consul/quorum";
import type { BackupsSettings } from "../settings";
import { daysUntil } from "../stacks/expiry";
import { Agents, Answers, AskedServer } from "./answers";
import type { Stack } from "./stack";

/** Something that runs out. */
export interface Runout {
  readonly what: string;
  /** RFC 3339. */
  readonly expires: string;
  readonly daysLeft: number;
}

export interface ServerStatus {
  readonly name: string;
  /** Id of the machine, pod or process. */
  readonly id: string;
  readonly state: string;
  /** leader, voter, non-voter or, where nobody says, unknown. */
  readonly role: "leader" | "voter" | "non-voter" | "unknown";
  readonly version: string | undefined;
  readonly certificate: Runout | undefined;
  /** Share of the data's file system that is free, from 0 to 1. */
  readonly diskFree: number | undefined;
  /** The gate's word: whether this server may go down now, and why not. */
  readonly mayGoDown: { readonly ok: boolean; readonly reasons: readonly string[] };
}

export interface SnapshotStatus {
  /** When the last one was taken, checked and had arrived everywhere it should; RFC 3339. */
  readonly last: string | undefined;
  readonly ageHours: number | undefined;
  readonly bytes: number | undefined;
  /** Where its copy is, `bucket/prefix`; undefined where none is asked for. */
  readonly copy: string | undefined;
  /** The newest file on a server's own disk, with servers on ECS. */
  readonly newestFile: string | undefined;
}

/** How a deployment is. */
export interface Status {
  readonly stack: string;
  readonly datacenter: string;
  readonly ok: boolean;
  /** What is wrong, each with what can be done about it. */
  readonly problems: readonly string[];
  /** The version that is wanted. */
  readonly version: string;
  readonly leader: string | undefined;
  readonly voters: number;
  readonly servers: readonly ServerStatus[];
  /** Authorities and gossip key. */
  readonly keys: readonly Runout[];
  /** Undefined where no snapshots are asked for. */
  readonly snapshots: SnapshotStatus | undefined;
  readonly agents: Agents | { readonly problem: string };
}

const hour = 3_600_000;

/** As the alert ConsulSnapshotOld has it: a snapshot may fail once. */
const snapshotIntervals = 2.5;

/** Less than this of the data's file system is too little for raft and a snapshot (scripts/snapshot.sh leaves a tenth). */
const leastFree = 0.1;

/** Judges answers: what is wrong, and the figures. Pure; `now` is the time of the answers. */
export function judge(stack: Stack, answers: Answers, now: Date): Status {
  const { settings, outputs } = stack;
  const { gate, migration, certificates, datacenter, version, backups } = settings;
  const guests = migration?.servers ?? [];
  const seen = samples(answers.servers);
  const onMachines = settings.servers?.platform === "ecs";
  const judged = answers.servers.map((server) => forGate(server, onMachines));
  const overall = assess(judged, { lost: gate.skip, guests });
  const servers = answers.servers.map((server) => statusOf(server, seen, now, mayGoDown(server.name)));
  const cas = authorities(outputs.caCertificate);
  const keys = [
    ...cas.map(({ name, until }) => runout(name, until, now)),
    runout("gossip key", new Date(outputs.expiry.gossipKey), now),
  ];
  const snapshots = backups && snapshotsOf(backups, answers, now);
  const problems = [
    ...(overall.ok ? [] : overall.reasons.map(withRemedy)),
    ...servers.flatMap((server) => serverProblems(server, version, certificates.warnDays)),
    ...answers.servers.flatMap(({ name, facts }) =>
      (facts?.failedUnits ?? []).map((unit) => `${unit} of ${name} has failed: \`journalctl -u ${unit}\` there`),
    ),
    ...answers.servers
      .filter(({ facts }) => facts?.version !== undefined && !facts.certificateExpires)
      .map(({ name }) => `${name} presents no certificate on its HTTPS port`),
    ...countProblems(seen, answers.servers.length),
    ...keyProblems(keys, certificates.warnDays),
    ...(backups && snapshots ? snapshotProblems(snapshots, backups, since(cas), now) : []),
    ...agentProblems(answers.agents, version),
    ...skipProblems(gate.skip, answers),
  ];
  return {
    stack: stack.name,
    datacenter,
    ok: problems.length === 0,
    problems,
    version,
    leader: servers.find(({ role }) => role === "leader")?.name,
    voters: seen.at(-1)?.raft?.Servers.filter(({ Voter }) => Voter).length ?? 0,
    servers,
    keys,
    snapshots,
    agents: answers.agents,
  };

  function mayGoDown(candidate: string): ServerStatus["mayGoDown"] {
    const verdict = assess(judged, { candidate, lost: gate.skip.filter((name) => name !== candidate), guests });
    return verdict.ok ? { ok: true, reasons: [] } : { ok: false, reasons: verdict.reasons.map(withRemedy) };
  }
}

function withRemedy(reason: Reason): string {
  return reason.remedy === undefined ? told(reason) : `${told(reason)}: ${reason.remedy}`;
}

/** A server as the gate knows it. Only machines of the cloud are started and rebooted by their id. */
function forGate({ name, machine, view }: AskedServer, onMachines: boolean): Server {
  return { name, view, ...(onMachines || machine.status !== "Running" ? { machine } : {}) };
}

/** The last look of every server that sees a leader; one that leads itself comes last. */
function samples(servers: readonly AskedServer[]): Sample[] {
  const last = servers.flatMap(({ view }) => (view && "samples" in view ? view.samples.slice(-1) : []));
  const whole = last.filter(({ raft, health }) => raft !== null && health !== null);
  return whole.sort((a, b) => Number(a.self?.state === "Leader") - Number(b.self?.state === "Leader"));
}

function statusOf(
  { name, machine, facts }: AskedServer,
  seen: readonly Sample[],
  now: Date,
  mayGoDown: ServerStatus["mayGoDown"],
): ServerStatus {
  const peer = seen.at(-1)?.raft?.Servers.find(({ Node }) => Node === name);
  const version = facts?.version ?? seen.at(-1)?.health?.Servers.find(({ Name }) => Name === name)?.Version;
  const { certificateExpires, disk } = facts ?? {};
  return {
    name,
    id: machine.id,
    state: machine.status,
    role: peer === undefined ? "unknown" : peer.Leader ? "leader" : peer.Voter ? "voter" : "non-voter",
    version,
    certificate: certificateExpires && runout(`certificate of ${name}`, certificateExpires, now),
    diskFree: disk && disk.free / disk.size,
    mayGoDown,
  };
}

function runout(what: string, expires: Date, now: Date): Runout {
  return { what, expires: expires.toISOString(), daysLeft: daysUntil(expires, now) };
}

interface Authority {
  readonly name: string;
  readonly since: Date;
  readonly until: Date;
}

/** One for each certificate in a bundle. */
function authorities(bundle: string): Authority[] {
  const pems = bundle.match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g) ?? [];
  return pems.map((pem) => {
    const { subject, validFrom, validTo } = new X509Certificate(pem);
    const generation = /CN=Consul CA (\d+)/.exec(subject)?.[1];
    const name = `certificate authority${generation === undefined ? "" : ` ${generation}`}`;
    return { name, since: new Date(validFrom), until: new Date(validTo) };
  });
}

/** When the deployment began, as far as that is known: no later than its oldest authority. */
function since(all: readonly Authority[]): Date {
  return new Date(Math.min(...all.map((authority) => authority.since.getTime())));
}

function serverProblems(server: ServerStatus, wanted: string, warnDays: number): string[] {
  const { name, version, certificate, diskFree } = server;
  const found: string[] = [];
  if (version !== undefined && version !== wanted && !version.startsWith(`${wanted}+`)) {
    found.push(`${name} runs Consul ${version}, not ${wanted}: run \`pulumi up\``);
  }
  if (certificate && certificate.daysLeft < warnDays) {
    found.push(`the ${certificate.what} ${left(certificate)}: \`pulumi up\` makes a new one`);
  }
  if (diskFree !== undefined && diskFree < leastFree) {
    found.push(
      `the data disk of ${name} has ${Math.round(diskFree * 100)} % free: enlarge it, or keep fewer snapshots`,
    );
  }
  return found;
}

function left({ daysLeft, expires }: Runout): string {
  return daysLeft < 0 ? `ran out on ${expires}` : `has ${daysLeft} days left`;
}

function countProblems(seen: readonly Sample[], count: number): string[] {
  const known = seen.map(({ minQuorum }) => minQuorum).find((number) => number > 0);
  if (known === undefined || known === count) return [];
  return [`autopilot counts ${known} servers, not ${count}: run \`pulumi up\``];
}

function keyProblems(keys: readonly Runout[], warnDays: number): string[] {
  const due = keys.filter(({ daysLeft }) => daysLeft < warnDays);
  return due.map((key) => {
    const gossip = key.what === "gossip key";
    const what = gossip && key.daysLeft < 0 ? `was due on ${key.expires}` : left(key);
    return `the ${key.what} ${what}: introduce the next one (docs/operations.md)`;
  });
}

function snapshotsOf({ bucket, prefix }: BackupsSettings, { servers }: Answers, now: Date): SnapshotStatus {
  const last = servers.flatMap(({ facts }) => facts?.snapshot ?? []).sort((a, b) => a.at.getTime() - b.at.getTime());
  const files = servers.flatMap(({ facts }) => facts?.snapshotTaken ?? []).sort((a, b) => a.getTime() - b.getTime());
  const newest = last.at(-1);
  return {
    last: newest?.at.toISOString(),
    ageHours: newest && Math.round(((now.getTime() - newest.at.getTime()) / hour) * 10) / 10,
    bytes: newest?.bytes,
    copy: bucket === undefined ? undefined : `${bucket}/${prefix}`,
    newestFile: files.at(-1)?.toISOString(),
  };
}

function snapshotProblems(status: SnapshotStatus, backups: BackupsSettings, began: Date, now: Date): string[] {
  const { last, ageHours, copy, newestFile } = status;
  const { everyHours } = backups;
  const look = "`journalctl -u consul-snapshot` on the servers, or the log of the CronJob consul-snapshot";
  // A file is there before its copy is: the unit has half an hour for both.
  const taken = Date.parse(newestFile ?? "");
  const missing = taken - Date.parse(last ?? "1970-01-01") > hour && now.getTime() - taken > hour / 2;
  if (copy !== undefined && missing) {
    return [
      `the snapshot of ${newestFile ?? ""} is on a server's disk, and its copy in ${copy} did not arrive: ${look}`,
    ];
  }
  const hours = ageHours ?? (now.getTime() - began.getTime()) / hour;
  if (hours <= snapshotIntervals * everyHours) return [];
  const what = last === undefined ? "no snapshot was ever taken" : `the last snapshot is ${hours} hours old`;
  return [`${what}, one is to be taken every ${everyHours} hours: ${look}`];
}

function agentProblems(agents: Answers["agents"], version: string): string[] {
  if ("problem" in agents) return [`nobody says how the agents are: ${agents.problem}`];
  const named = (names: readonly string[]) => names.join(", ") + (names.length >= 25 ? " and maybe more" : "");
  const { failed, otherVersion, earlierTrust } = agents;
  const versions = otherVersion.map((agent) => `${agent.name} (${agent.version})`);
  return [
    ...(failed.length > 0 ? [`agents that do not answer: ${named(failed)}`] : []),
    ...(versions.length > 0
      ? [
          `agents that run another version than ${version}: ${named(versions)}; run \`pulumi up\` for the stack that has them`,
        ]
      : []),
    ...(earlierTrust.length > 0
      ? [
          `agents with an earlier gossip key, token or authority: ${named(earlierTrust)}; run \`pulumi up\` for the stack that has them`,
        ]
      : []),
  ];
}

/** A server that is named as lost and is well hides the next loss. */
function skipProblems(skip: readonly string[], { servers }: Answers): string[] {
  const back = servers.filter(({ name, machine, view }) => {
    const looks = view && "samples" in view ? view.samples : [];
    const sees = looks.length >= passes.samples && looks.every(({ leader }) => leader !== null && leader !== "");
    return skip.includes(name) && machine.status === "Running" && sees;
  });
  return back.map(({ name }) => `${name} is back: take it out of consul:gate.skip and run \`pulumi up\``);
}
