/** Decides, from what the servers say of themselves and of each other, whether one of them may go down. */

/** How far apart and how often each server is asked in one pass: longer than the 2 s between autopilot's own looks. */
export const passes = { samples: 3, seconds: 2 } as const;

/** One look by one server, as scripts/quorum.sh prints it; what it could not find out is null. */
export interface Sample {
  /** Address of the leader that this server knows, "" for none. */
  readonly leader: string | null;
  /** GET /v1/operator/autopilot/health: the leader's view of all servers. */
  readonly health: {
    readonly Servers: readonly {
      readonly Name: string;
      readonly SerfStatus: string;
      readonly Version: string;
      readonly Healthy: boolean;
      readonly Voter: boolean;
    }[];
  } | null;
  /** GET /v1/operator/raft/configuration. */
  readonly raft: {
    readonly Servers: readonly {
      readonly ID: string;
      readonly Node: string;
      readonly Address: string;
      readonly Leader: boolean;
      readonly Voter: boolean;
      readonly LastIndex: number;
    }[];
  } | null;
  /** The servers among GET /v1/agent/members; 1 is alive. */
  readonly members: readonly { readonly Name: string; readonly Status: number }[] | null;
  /** Of GET /v1/agent/self: its own account of its raft state. */
  readonly self: { readonly state: string; readonly applied_index: string } | null;
  /** Digest of the configuration that it runs with; "" where that is not known. */
  readonly runs: string;
  /** Autopilot's min_quorum; 0 where it is not known. */
  readonly minQuorum: number;
  /** What systemd says of consul.service, such as start-pre; given where Consul does not answer. */
  readonly unit?: string;
}

/** A look as a server answered. A server that has just started may say `"Servers": null`: it knows of none yet. */
export function sampleOf(look: Sample): Sample {
  return { ...look, health: listed(look.health), raft: listed(look.raft) };
}

function listed<T extends { readonly Servers: readonly unknown[] | null }>(answer: T | null): T | null {
  return answer && { ...answer, Servers: answer.Servers ?? [] };
}

/** What one server answered: its looks, oldest first, or why there are none. */
export type View = { readonly samples: readonly Sample[] } | { readonly problem: string };

export interface Server {
  readonly name: string;
  /** The machine it runs on, where that can be known; status "missing" where there is none, `id` says why. */
  readonly machine?: { readonly id: string; readonly status: string } | undefined;
  /** Absent where it was not asked. */
  readonly view?: View | undefined;
}

/** What is in the way. */
export interface Reason {
  /** The server that it is about; "" where it is about all. */
  readonly server: string;
  /** A few words that follow the server's name. */
  readonly what: string;
  /** What to do about it where it does not pass by itself. */
  readonly remedy?: string | undefined;
}

/** A reason in words, without its remedy. */
export function told({ server, what }: Reason): string {
  return server === "" ? what : `${server} ${what}`;
}

export type Verdict =
  | {
      readonly ok: true;
      readonly leader: string;
      /** Raft id of each server, by name. */
      readonly raftIds: ReadonlyMap<string, string>;
      /** Version that each server runs, by name. */
      readonly versions: ReadonlyMap<string, string>;
      /** Digest of the configuration that each server runs with, by name, of those that were asked. */
      readonly runs: ReadonlyMap<string, string>;
      readonly minQuorum: number;
    }
  /** `final`: waiting does not help. */
  | { readonly ok: false; readonly final: boolean; readonly reasons: readonly Reason[] };

/** What `assess` is asked. */
export interface Question {
  /** The server that is to go down; without one, whether all is well. */
  readonly candidate?: string | undefined;
  /** Servers that are known to be lost: nothing is expected of them. */
  readonly lost?: readonly string[];
  /** Addresses of servers that are not ours and may be in raft: those of a cluster that is being moved. */
  readonly guests?: readonly string[];
}

/**
 * Whether the candidate may go down or, without a candidate, whether all is well. Every other server has to be a healthy
 * voter, alive for each of the others and caught up by its own account, in each of several looks. "Three alive" is not
 * enough: a server that has just come back is alive for a while before it has a vote or the data
 * (docs/facts/consul.md). The candidate may not be down either: its change would hide the problem that it has already.
 * Servers that are yet to be made, when three become five, count only where the question is whether all is well.
 */
export function assess(all: readonly Server[], { candidate, lost = [], guests = [] }: Question = {}): Verdict {
  const expected = all.filter(({ name }) => !lost.includes(name));
  const servers = candidate === undefined ? expected : existing(expected);
  const down = servers.filter(({ machine }) => machine && machine.status !== "Running");
  if (down.length > 0) {
    return { ok: false, final: down.some(({ machine }) => isFinal(machine)), reasons: down.map(whyDown) };
  }
  const asked = servers.filter(({ name }) => name !== candidate);
  const silent = asked.flatMap(silence);
  // A server that does not answer explains what the others have to say of it.
  const doubts = silent.length > 0 ? silent : asked.flatMap((server) => doubtsOf(server, servers, [...lost], guests));
  if (doubts.length > 0) return { ok: false, final: false, reasons: explain(doubts, servers) };

  const voters =
    samplesOf(asked[0]?.view)
      .at(-1)
      ?.raft?.Servers.filter(({ Voter }) => Voter).length ?? 0;
  if (lost.length > 0 && asked.length * 2 <= voters) {
    const left = `${asked.length} of ${voters} servers would be left`;
    const what = `cannot be spared while ${lost.join(", ")} is lost: ${left}`;
    return { ok: false, final: true, reasons: [{ server: candidate ?? "a server", what }] };
  }
  const last = asked.map(({ view }) => samplesOf(view).at(-1));
  const leaders = [...new Set(last.map((sample) => sample?.leader))];
  const raft = last[0]?.raft?.Servers ?? [];
  const leader = raft.find(({ Address }) => Address === leaders[0])?.Node;
  if (leader === undefined || leaders.length > 1) {
    const what = `the servers do not agree on a leader: ${leaders.join(", ")}`;
    return { ok: false, final: false, reasons: [{ server: "", what }] };
  }
  return {
    ok: true,
    leader,
    raftIds: new Map(raft.map(({ Node, ID }) => [Node, ID])),
    versions: new Map(last[0]?.health?.Servers.map(({ Name, Version }) => [Name, Version])),
    minQuorum: last[0]?.minQuorum ?? 0,
    runs: new Map(asked.map(({ name, view }) => [name, samplesOf(view).at(-1)?.runs ?? ""])),
  };
}

/**
 * Leaves out servers that are yet to be made: a server without a machine that raft does not know. Raft still knows a
 * server that was lost. Where fewer than three would be left, every server counts, since two cannot spare one.
 */
function existing(servers: readonly Server[]): readonly Server[] {
  const looks = servers.flatMap(({ view }) => samplesOf(view));
  const unknown = (name: string) =>
    looks.length > 0 && looks.every(({ raft }) => raft?.Servers.every(({ Node }) => Node !== name));
  const there = servers.filter(({ name, machine }) => machine?.status !== "missing" || !unknown(name));
  return there.length < 3 ? servers : there;
}

/** Whether a machine stays as it is unless somebody does something. */
function isFinal(machine: Server["machine"]): boolean {
  return machine?.status === "Stopped" || machine?.status === "missing";
}

function whyDown({ name, machine }: Server): Reason {
  const { id, status } = machine ?? { id: "", status: "" };
  if (status === "missing") return { server: name, what: `has no machine: ${id}` };
  const remedy = status === "Stopped" ? `start it: \`aliyun ecs StartInstance --InstanceId ${id}\`` : undefined;
  return { server: name, what: `(${id}) is ${status}`, remedy };
}

function samplesOf(view: View | undefined): readonly Sample[] {
  return view && "samples" in view ? view.samples : [];
}

/** The server that is doubted, why, and the remedy where it is not a restart of the server's machine. */
type Doubt = readonly [server: string, what: string, remedy?: string];

/** One reason for each doubted server, with what can be done about it. */
function explain(doubts: readonly Doubt[], servers: readonly Server[]): Reason[] {
  return [...new Set(doubts.map(([name]) => name))].map((name) => {
    const own = doubts.filter(([doubted]) => doubted === name);
    const id = servers.find((server) => server.name === name)?.machine?.id;
    const restart = id === undefined ? undefined : `restart it: \`aliyun ecs RebootInstance --InstanceId ${id}\``;
    const [other] = own.flatMap(([, , remedy]) => remedy ?? []);
    return { server: name, what: [...new Set(own.map(([, what]) => what))].join(", "), remedy: other ?? restart };
  });
}

const journal = "its journal says why: `journalctl -u consul -u consul-disk`";

/** What a machine does whose Consul does not answer, and the remedy, by the state of consul.service. */
const units: Readonly<Record<string, readonly [what: string, remedy: string]>> = {
  "start-pre": ["is installing Consul", journal],
  "auto-restart": ["starts its Consul again and again", journal],
  dead: ["has not started its Consul yet", journal],
};

/** What has to hold of the network among servers. Follows "see that". */
export const serversReach = "the servers reach each other on ports 8300 and 8301 (security group, routes)";

const reach = `see that its disk is not full and that ${serversReach}`;

/** Why there is nothing to learn from a server's answer. */
function silence({ name, view }: Server): Doubt[] {
  if (view === undefined || "problem" in view) return [[name, `does not answer (${view?.problem ?? "not asked"})`]];
  const whole = view.samples.filter(({ leader, health, raft, members, self }) =>
    [leader, health, raft, members, self].every((part) => part !== null),
  );
  if (view.samples.some(({ leader }) => leader === "")) return [[name, "sees no leader", reach]];
  if (whole.length >= passes.samples) return [];
  const [what, remedy] = units[view.samples.at(-1)?.unit ?? ""] ?? ["runs, but its Consul does not answer"];
  return [[name, what, remedy]];
}

/** What speaks against relying on the servers, as one server reports of itself and of all the others. */
function doubtsOf(
  { name, view }: Server,
  servers: readonly Server[],
  lost: readonly string[],
  guests: readonly string[],
): Doubt[] {
  return samplesOf(view).flatMap(({ health, raft, members, self }) => {
    const found: Doubt[] = [];
    const voters = raft?.Servers ?? [];
    if (!["Leader", "Follower"].includes(self?.state ?? "")) {
      found.push([name, `is in raft state ${self?.state ?? ""}`]);
    }
    // quorum.sh reads the leader's index first, so a server that lacks some of it is truly behind.
    const behind = (voters.find(({ Leader }) => Leader)?.LastIndex ?? Infinity) - Number(self?.applied_index);
    if (behind > 0) found.push([name, "has yet to catch up with the leader"]);
    for (const { name: other } of servers) {
      if (!voters.some(({ Node, Voter }) => Node === other && Voter)) found.push([other, "is not a voter"]);
      const judged = health?.Servers.find(({ Name }) => Name === other);
      if (judged?.SerfStatus !== "alive" || !judged.Healthy) found.push([other, "is not healthy"]);
      if (members?.find(({ Name }) => Name === other)?.Status !== 1) found.push([other, `is not alive for ${name}`]);
    }
    // A leader that was started after a server had been lost has never heard of it, and does not know its name.
    let nameless = lost.filter((name) => !voters.some(({ Node }) => Node === name)).length;
    const strangers = voters.filter(
      ({ Node, Address }) =>
        !servers.some(({ name }) => name === Node) &&
        !lost.includes(Node) &&
        !guests.includes(Address.split(":")[0] ?? "") &&
        !(Node === "(unknown)" && nameless-- > 0),
    );
    for (const { Node, ID } of strangers) {
      found.push([Node, "is in raft and none of ours", `\`consul operator raft remove-peer -id=${ID}\``]);
    }
    return found;
  });
}
