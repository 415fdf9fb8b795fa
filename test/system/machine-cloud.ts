import { Cloud, Machine as CloudMachine, MustBeStoppedError, Outcome } from "../../components/ecs/cloud";
import { Command, commandText } from "../../consul/machine/commands";
import { Machine } from "./machine";

/** What may go wrong with the cloud, for one call: thrown before or after what it does. */
export type Interruption = (call: string, when: "before" | "after") => Promise<void> | void;

/**
 * Machines of the system level behind the cloud's interface: commands run as root in the machine, word for word as
 * Cloud Assistant would run them, and stored user data is what the metadata service hands out from then on.
 */
export class MachineCloud implements Cloud {
  /** Every call in order, such as "store i-consul-1". */
  readonly log: string[] = [];
  interruption: Interruption = () => undefined;
  /** Machines that are on. */
  readonly on: Set<string>;
  /** For so long the metadata service goes on handing out one machine's user data from before. */
  metadataLate: { readonly id: string; readonly milliseconds: number } | undefined;

  constructor(private readonly all: readonly Machine[]) {
    this.on = new Set(all.map(({ name }) => name));
  }

  machines(): Promise<CloudMachine[]> {
    return Promise.resolve(
      this.all.map(({ name }) => ({ id: `i-${name}`, name, status: this.on.has(name) ? "Running" : "Stopped" })),
    );
  }

  async run(ids: readonly string[], command: Command, seconds = 120): Promise<ReadonlyMap<string, Outcome>> {
    const what = command.map(({ script }) => script.replace(/.*\//, "")).join(" ");
    return this.interrupted(`${what} ${ids.join(" ")}`, async () => {
      const outcomes = ids.map(async (id) => [id, await this.outcome(this.machine(id), command, seconds)] as const);
      return new Map(await Promise.all(outcomes));
    });
  }

  async storeUserData(id: string, userData: string): Promise<void> {
    if (!this.on.has(this.machine(id).name)) throw new MustBeStoppedError("a test stores for machines that run");
    await this.interrupted(`store ${id}`, () => {
      const text = Buffer.from(userData, "base64").toString();
      const store = () => this.machine(id).setUserData(text);
      if (this.metadataLate?.id === id) setTimeout(store, this.metadataLate.milliseconds);
      else store();
      return Promise.resolve();
    });
  }

  async power(id: string, action: "reboot" | "stop" | "start"): Promise<void> {
    await this.interrupted(`${action} ${id}`, async () => {
      const machine = this.machine(id);
      if (action !== "start") {
        await machine.shutdown();
        this.on.delete(machine.name);
      }
      if (action !== "stop") {
        await machine.boot();
        this.on.add(machine.name);
      }
    });
  }

  private machine(id: string): Machine {
    const machine = this.all.find(({ name }) => `i-${name}` === id);
    if (!machine) throw new Error(`there is no machine ${id}`);
    return machine;
  }

  private async outcome(machine: Machine, command: Command, seconds: number): Promise<Outcome> {
    if (!this.on.has(machine.name)) return { problem: "its Cloud Assistant is not there" };
    const { code, stdout, stderr } = await machine.exec("sh", { input: commandText(command), timeout: seconds });
    if (code === 0) return { output: stdout };
    return { problem: `the command ended as Failed (${code}): ${stderr.trim().split("\n").at(-1) ?? ""}`, ran: true };
  }

  private async interrupted<T>(call: string, act: () => Promise<T>): Promise<T> {
    await this.interruption(call, "before");
    this.log.push(call);
    const result = await act();
    await this.interruption(call, "after");
    return result;
  }
}
