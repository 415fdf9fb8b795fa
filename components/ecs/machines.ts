import * as pulumi from "@pulumi/pulumi";
import { askQuorum, Command, readView } from "../../consul/machine/commands";
import { Server } from "../../consul/quorum";
import { Cloud, Machine } from "./cloud";

export interface ServerMachinesArgs {
  readonly cloud: Pick<Cloud, "machines" | "run">;
  /** Names of all servers, in the order in which they are updated. */
  readonly servers: readonly string[];
  readonly vpcId: string;
  /** The tag by which the servers' machines are found: their ids are not known before the engine has been at them. */
  readonly tag: { readonly key: string; readonly value: string };
}

/** The machines of the servers, and what they can be asked. */
export class ServerMachines {
  constructor(private readonly args: ServerMachinesArgs) {}

  /** One for each server, in the servers' order; where there is none, its status is "missing" and its id says why. */
  async list(): Promise<Machine[]> {
    const { cloud, servers, vpcId, tag } = this.args;
    const found = await cloud.machines(vpcId, tag);
    return servers.map((name) => {
      const [machine, ...others] = found.filter((candidate) => candidate.name === name);
      if (machine && others.length === 0) return machine;
      const none = `none of its name is tagged ${tag.key} ${tag.value} in ${vpcId}; with nothing else changed, \`pulumi up --refresh\` makes one (docs/restore.md)`;
      const id = machine ? "several have its name" : none;
      return { id, name, status: "missing" };
    });
  }

  /** One server's machine. @throws where there is none, or not one alone */
  async find(server: string): Promise<Machine> {
    const machine = (await this.list()).find(({ name }) => name === server);
    if (!machine || machine.status === "missing") throw new Error(`${server} has no machine: ${machine?.id ?? ""}`);
    return machine;
  }

  /** What each server knows of the cluster, except the candidate for going down and those that are known to be lost. */
  async look(machines: readonly Machine[], candidate: string | undefined, lost: readonly string[]): Promise<Server[]> {
    const expected = machines.filter(({ name }) => !lost.includes(name));
    const asked = expected.filter(({ name, status }) => name !== candidate && status === "Running");
    // A machine that does not run already refuses the change, so the others are not asked. A machine that is missing is
    // another matter: only the other servers know whether it ever existed.
    const outcomes = expected.every(({ status }) => ["Running", "missing"].includes(status))
      ? await this.args.cloud.run(
          asked.map(({ id }) => id),
          askQuorum,
        )
      : undefined;
    return machines.map((machine) => {
      const outcome = outcomes?.get(machine.id);
      return { name: machine.name, machine, view: outcome && "output" in outcome ? readView(outcome.output) : outcome };
    });
  }

  /** Agents whose mark (node metadata "trust") does not match a pattern. */
  async behind(machines: readonly Machine[], pattern: string): Promise<string[]> {
    const output = await this.onOne(machines, [{ script: "scripts/behind.sh", args: [pattern] }]);
    return output.split("\n").filter((name) => name !== "" && !this.args.servers.includes(name));
  }

  /** Runs a command on one machine, on the next one where that fails. @throws the last problem */
  async onOne(machines: readonly Machine[], command: Command): Promise<string> {
    let problem = "there is no machine to ask";
    for (const { id, name } of machines) {
      const outcome = (await this.args.cloud.run([id], command)).get(id);
      if (outcome && "output" in outcome) return outcome.output;
      problem = `${name}: ${outcome?.problem ?? "no answer"}`;
    }
    throw new Error(problem);
  }
}

/** A line of the progress display that the next one replaces. */
export function progress(line: string): void {
  void pulumi.log.info(line, undefined, undefined, true);
}
