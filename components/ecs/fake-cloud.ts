import { askQuorum, Command } from "../../consul/machine/commands";
import { passes, Sample } from "../../consul/quorum";
import { Cloud, Machine, Outcome } from "./cloud";

type Mutable<T> = T extends (infer U)[] | readonly (infer U)[]
  ? Mutable<U>[]
  : T extends object
    ? { -readonly [K in keyof T]: Mutable<T[K]> }
    : T;

/** One look of a server, for tests to break. */
export type MutableSample = Mutable<Sample>;

/** The servers of a FakeCloud. */
export interface FakeServers {
  readonly names: readonly string[];
  readonly version: string;
  /** Who leads; the first one unless given. */
  leader?: string;
  /** Digest of the configuration that each server runs with, by name. */
  runs?: Record<string, string>;
}

/** A machine's command as a test reads it: its scripts with their arguments. */
export const words = (command: Command) => command.map(({ script, args }) => [script, ...args].join(" ")).join("; ");

/**
 * Machines that are not there: every one runs, and its server is a healthy voter. For runs of the program without a
 * cloud (npm start, npm run preview), and for tests, which change what the servers say.
 */
export class FakeCloud implements Cloud {
  /** What was asked of the machines, in order. */
  readonly commands: Command[] = [];
  /** User data that was stored, by id. Secret. */
  readonly stored = new Map<string, string>();
  /** What was asked of the machines' power, such as "stop i-consul-1". */
  readonly powered: string[] = [];

  constructor(protected readonly servers: FakeServers) {}

  /** Notes that a machine has booted with this configuration. */
  booted(server: string, config: string): void {
    this.servers.runs = { ...this.servers.runs, [server]: config };
  }

  machines(): Promise<Machine[]> {
    return Promise.resolve(this.servers.names.map((name) => ({ id: `i-${name}`, name, status: "Running" })));
  }

  run(ids: readonly string[], command: Command): Promise<ReadonlyMap<string, Outcome>> {
    this.commands.push(command);
    return Promise.resolve(new Map(ids.map((id) => [id, this.answer(id.replace(/^i-/, ""), command)])));
  }

  storeUserData(id: string, userData: string): Promise<void> {
    this.stored.set(id, userData);
    return Promise.resolve();
  }

  power(id: string, action: "reboot" | "stop" | "start"): Promise<void> {
    this.powered.push(`${action} ${id}`);
    return Promise.resolve();
  }

  /** What one server's machine answers. */
  protected answer(server: string, command: Command): Outcome {
    const [call] = command;
    if (call?.script === "machine/apply.sh") {
      const [config = "", how] = call.args;
      this.booted(server, config);
      return { output: how === "restart" ? "restarted\n" : "reloaded\n" };
    }
    if (command !== askQuorum) return { output: "" };
    return {
      output: wellLooks(this.servers, server)
        .map((look) => `${JSON.stringify(look)}\n`)
        .join(""),
    };
  }
}

/** What a server of a cluster that is well says of it in one pass, as quorum.sh prints it. */
export function wellLooks(servers: FakeServers, server: string): MutableSample[] {
  return Array.from({ length: passes.samples }, () => wellLook(servers, server));
}

function wellLook({ names, version, leader = names[0], runs = {} }: FakeServers, server: string): MutableSample {
  const address = (name: string) => `10.0.0.${names.indexOf(name) + 1}:8300`;
  const judged = { SerfStatus: "alive", Version: version, Healthy: true, Voter: true };
  return {
    leader: address(leader ?? ""),
    health: { Servers: names.map((Name) => ({ Name, ...judged })) },
    raft: {
      Servers: names.map((Node) => ({
        ID: `id-of-${Node}`,
        Node,
        Address: address(Node),
        Leader: Node === leader,
        Voter: true,
        LastIndex: 100,
      })),
    },
    members: names.map((Name) => ({ Name, Status: 1 })),
    self: { state: server === leader ? "Leader" : "Follower", applied_index: "100" },
    runs: runs[server] ?? "",
    minQuorum: names.length,
  };
}
