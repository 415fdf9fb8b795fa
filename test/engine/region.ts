import { existsSync, readFileSync, renameSync, writeFileSync } from "fs";
import { Cloud, Machine, Outcome } from "../../components/ecs/cloud";
import { wellLooks, words } from "../../components/ecs/fake-cloud";
import type { Command } from "../../consul/machine/commands";

// A region in a file, for the level engine: `region-provider.ts` makes machines there, the gate asks them. A machine is
// a few words, and its Consul is well while the machine runs.

export interface RegionMachine {
  readonly name: string;
  readonly address: string;
  status: "Running" | "Stopped";
  tags: Record<string, string>;
  /** Digest of the configuration that its Consul runs. */
  runs: string;
  version: string;
  /** A version that was installed beside the one that runs. */
  installed?: string;
  readonly disks: string[];
}

export interface Region {
  readonly machines: Record<string, RegionMachine>;
  leader?: string;
  minQuorum?: number;
  /** What was done to machines, and what they were asked to do, but for looks. */
  readonly log: string[];
}

export function readRegion(file: string): Region {
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Region) : { machines: {}, log: [] };
}

/** Changes the region, all of it or nothing. */
export function changeRegion<T>(file: string, change: (region: Region) => T): T {
  const region = readRegion(file);
  const result = change(region);
  writeFileSync(`${file}.${process.pid}`, JSON.stringify(region, null, 1));
  renameSync(`${file}.${process.pid}`, file);
  return result;
}

/** The way to the machines of a region. */
export class RegionCloud implements Cloud {
  constructor(private readonly file: string) {}

  machines(_: string, tag: { readonly key: string; readonly value: string }): Promise<Machine[]> {
    const all = Object.entries(readRegion(this.file).machines);
    const found = all.filter(([, { tags }]) => tags[tag.key] === tag.value);
    return Promise.resolve(found.map(([id, { name, status }]) => ({ id, name, status })));
  }

  run(ids: readonly string[], command: Command): Promise<ReadonlyMap<string, Outcome>> {
    const outcomes = changeRegion(this.file, (region) => ids.map((id) => [id, answer(region, id, command)] as const));
    return Promise.resolve(new Map(outcomes));
  }

  storeUserData(id: string): Promise<void> {
    changeRegion(this.file, ({ machines, log }) => log.push(`${machines[id]?.name}: user data is stored`));
    return Promise.resolve();
  }

  power(id: string, action: "reboot" | "stop" | "start"): Promise<void> {
    changeRegion(this.file, ({ machines, log }) => {
      const machine = machines[id];
      log.push(`${machine?.name}: ${action}`);
      if (machine) machine.status = action === "stop" ? "Stopped" : "Running";
    });
    return Promise.resolve();
  }
}

function answer(region: Region, id: string, command: Command): Outcome {
  const machine = region.machines[id];
  if (machine?.status !== "Running") return { problem: "the machine does not run" };
  const { script, args } = command[0] ?? { script: "", args: [] };
  const [first = "", second] = args;
  if (script === "machine/quorum.sh") return { output: looks(region, machine) };
  region.log.push(`${machine.name}: ${words(command)}`);
  switch (script) {
    case "machine/install.sh":
      machine.installed = first;
      break;
    case "machine/apply.sh":
      machine.runs = first;
      if (second !== "restart") return { output: "reloaded\n" };
      machine.version = machine.installed ?? machine.version;
      return { output: "restarted\n" };
    case "machine/hand-over.sh":
      region.leader = first.replace("id-of-", "");
      break;
    case "machine/autopilot.sh":
      region.minQuorum = Number(first);
  }
  return { output: "" };
}

/** What a machine's Consul says of the cluster: every machine that runs is a healthy voter. */
function looks(region: Region, { name, version }: RegionMachine): string {
  const running = Object.values(region.machines).filter(({ status }) => status === "Running");
  const names = running.map((machine) => machine.name).sort();
  if (!names.includes(region.leader ?? "")) region.leader = names[0];
  const runs = Object.fromEntries(running.map((machine) => [machine.name, machine.runs]));
  return wellLooks({ names, version, leader: region.leader, runs }, name)
    .map((look) => {
      for (const judged of look.health?.Servers ?? []) {
        judged.Version = running.find((machine) => machine.name === judged.Name)?.version ?? "";
      }
      look.minQuorum = region.minQuorum ?? names.length;
      return `${JSON.stringify(look)}\n`;
    })
    .join("");
}
