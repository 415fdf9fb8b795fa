import { Machine, Outcome } from "../components/ecs/cloud";
import { trustPattern } from "../consul/config";
import { askQuorum, Command, readView } from "../consul/machine/commands";
import { Server } from "../consul/quorum";
import type { Servers } from "./servers";
import type { Stack } from "./stack";

/** What one server says of itself; what it could not find out is undefined. */
export interface Facts {
  readonly version?: string | undefined;
  /** When the certificate runs out that it presents to others. */
  readonly certificateExpires?: Date | undefined;
  /** The file system of its data, in KiB. */
  readonly disk?: { readonly size: number; readonly free: number } | undefined;
  /** systemd units of Consul that have failed. */
  readonly failedUnits: readonly string[];
  /** When the newest snapshot on its disk was begun. */
  readonly snapshotTaken?: Date | undefined;
  /** What the cluster says of the last snapshot that arrived everywhere it should. */
  readonly snapshot?: { readonly at: Date; readonly everyHours: number; readonly bytes: number } | undefined;
}

/** What a server says of the agents. Each list has 25 names at most. */
export interface Agents {
  readonly members: number;
  readonly failed: readonly string[];
  /** Those that run another version, with it. */
  readonly otherVersion: readonly { readonly name: string; readonly version: string }[];
  /** Those that were started with an earlier gossip key, token or authority. */
  readonly earlierTrust: readonly string[];
}

export interface AskedServer extends Server {
  readonly machine: Machine;
  readonly facts: Facts | undefined;
}

/** What the servers answered. */
export interface Answers {
  readonly servers: readonly AskedServer[];
  readonly agents: Agents | { readonly problem: string };
}

/**
 * Asks the servers of a stack, and changes nothing.
 * @throws where nobody can be asked: no credentials, no way, no cluster
 */
export async function ask({ settings, outputs }: Stack, servers: Servers): Promise<Answers> {
  const machines = await servers.list();
  const running = machines.filter(({ status }) => status === "Running");
  const { data, snapshots, units } = servers.places;
  const command: Command = [...askQuorum, { script: "scripts/status.sh", args: [data, snapshots, units] }];
  const outcomes = await servers.run(running, command);
  const asked = machines.map((machine) => read(machine, outcomes.get(machine.id)));
  const pattern = trustPattern(outputs.caCertificate, outputs);
  // Whoever leads knows best; anybody else who sees the leader asks it.
  const talking = asked.filter(({ facts }) => facts?.version !== undefined).sort((a, b) => rank(a) - rank(b));
  const agents: Command = [
    { script: "scripts/agents.sh", args: [settings.version] },
    { script: "scripts/behind.sh", args: [pattern] },
  ];
  let problem = "no server can be asked";
  for (const { machine } of talking) {
    const outcome = (await servers.run([machine], agents)).get(machine.id);
    if (outcome && "output" in outcome) return { servers: asked, agents: readAgents(outcome.output, servers.names) };
    problem = `${machine.name}: ${outcome?.problem ?? "no answer"}`;
  }
  return { servers: asked, agents: { problem } };
}

function rank({ view }: Server): number {
  const samples = view && "samples" in view ? view.samples : [];
  return samples.at(-1)?.self?.state === "Leader" ? 0 : 1;
}

function read(machine: Machine, outcome: Outcome | undefined): AskedServer {
  const { name } = machine;
  if (!outcome || !("output" in outcome)) return { name, machine, view: outcome, facts: undefined };
  const lines = outcome.output.trim().split("\n");
  const looks = lines.filter((line) => line.startsWith("{")).join("\n");
  return { name, machine, view: readView(looks), facts: readFacts(lines) };
}

/** What status.sh printed. */
export function readFacts(lines: readonly string[]): Facts {
  const all = (word: string) =>
    lines.flatMap((line) => (line.startsWith(`${word} `) ? [line.slice(word.length + 1)] : []));
  const [size, free] = (all("disk")[0] ?? "").split(" ").map(Number);
  const metrics = all("metrics")[0] ?? "";
  const metric = (name: string) => Number(new RegExp(`consul_snapshot_${name} (\\d+)`).exec(metrics)?.[1] ?? NaN);
  return {
    version: all("version")[0],
    certificateExpires: dateOf(all("certificate")[0]),
    disk: size === undefined || free === undefined ? undefined : { size, free },
    failedUnits: all("failed"),
    snapshotTaken: dateOf(
      /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z/
        .exec(all("snapshot")[0] ?? "")
        ?.slice(1)
        .join(" ")
        .replace(/^(\S+) (\S+) (\S+) (\S+) (\S+) (\S+)$/, "$1-$2-$3T$4:$5:$6Z"),
    ),
    snapshot: Number.isNaN(metric("last_success_timestamp_seconds"))
      ? undefined
      : {
          at: new Date(metric("last_success_timestamp_seconds") * 1000),
          everyHours: metric("interval_seconds") / 3600,
          bytes: metric("size_bytes"),
        },
  };
}

function dateOf(text: string | undefined): Date | undefined {
  const date = new Date(text ?? "");
  return Number.isNaN(date.getTime()) ? undefined : date;
}

/** What agents.sh and then behind.sh printed: the first prints a word and a value in each line, the second names alone. */
export function readAgents(output: string, servers: readonly string[]): Agents {
  const rows = output
    .trim()
    .split("\n")
    .map((line) => line.split(" "));
  const of = (word: string) => rows.filter(([first, ...rest]) => first === word && rest.length > 0);
  return {
    members: Number(of("members")[0]?.[1] ?? 0),
    failed: of("failed").map(([, name = ""]) => name),
    otherVersion: of("version").map(([, name = "", version = ""]) => ({ name, version })),
    earlierTrust: rows.flatMap(([name = "", ...rest]) =>
      name === "" || rest.length > 0 || servers.includes(name) ? [] : [name],
    ),
  };
}
