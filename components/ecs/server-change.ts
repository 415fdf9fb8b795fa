import * as pulumi from "@pulumi/pulumi";
import { setTimeout as sleep } from "timers/promises";
import { Applied, apply, Command, install, readApplied } from "../../consul/machine/commands";
import { encoded, UserData } from "../../consul/machine/user-data";
import { serversReach } from "../../consul/quorum";
import { Settings } from "../../settings";
import { Cloud, Machine, MustBeStoppedError, Outcome } from "./cloud";
import { progress, ServerMachines } from "./machines";

export interface ServerChangeArgs {
  readonly cloud: Cloud;
  readonly machines: ServerMachines;
  readonly settings: Pick<Settings, "version" | "downloadMirror" | "downloadSha256" | "gate">;
  /** Milliseconds between two tries. */
  readonly pause: number;
}

/** Seconds that a command may take. A download from a mirror that is far away is slow. */
const installSeconds = 1800;
const applySeconds = 400;

/** Brings a server to what it is to run, while its machine runs on. */
export class ServerChange {
  constructor(private readonly args: ServerChangeArgs) {}

  /**
   * Installs, stores, then applies. In this order nothing ever points to a version that is not installed, and a boot in
   * between finds the new user data. Each step may be repeated, as after a command that was killed half-way.
   * @param how "restart" where the others can do without this server now; "reload" where they were not asked
   * @param gate asks them: called where the machine says that a reload is not enough
   * @throws RunError what went wrong; the server runs as before, or with what it is to run
   */
  async bring(server: string, wanted: UserData, how: "reload" | "restart", gate: () => Promise<void>): Promise<void> {
    const machine = await this.args.machines.find(server);
    if (machine.status !== "Running") return this.repairStopped(server, machine, wanted);
    const { version, downloadMirror, downloadSha256 } = this.args.settings;
    if (how === "restart") {
      progress(`${server}: installs Consul ${version}, where it is not there yet`);
      const installed = await this.insist(
        server,
        machine,
        install(version, downloadMirror, downloadSha256),
        installSeconds,
      );
      if (installed === undefined) return this.reboot(server, machine, wanted);
    }
    try {
      await this.args.cloud.storeUserData(machine.id, encoded(wanted));
    } catch (error) {
      if (!(error instanceof MustBeStoppedError)) throw error;
      if (how === "reload") await gate();
      return this.storeWhileStopped(server, machine, wanted, error);
    }
    const applied = await this.apply(server, machine, wanted, how);
    if (applied === undefined) return this.reboot(server, machine, wanted);
    if (applied === "restart needed") {
      await gate();
      return this.bring(server, wanted, "restart", gate);
    }
    progress(`${server}: ${said[applied]}`);
  }

  private async apply(
    server: string,
    machine: Machine,
    { config }: UserData,
    how: "reload" | "restart",
  ): Promise<Applied | undefined> {
    progress(`${server}: ${how === "restart" ? "Consul restarts" : "Consul reloads"}, the machine runs on`);
    const output = await this.insist(server, machine, apply(config, how), applySeconds);
    return output === undefined ? undefined : readApplied(output);
  }

  /**
   * What a command printed on a server's machine. A machine that cannot be asked just now, because it boots, is asked
   * again for gate.waitMinutes.
   * @returns undefined where the machine cannot be asked and gate.skip names the server: the change is to repair it
   * @throws RunError where the command fails, or nobody can be asked
   */
  private async insist(
    server: string,
    machine: Machine,
    command: Command,
    seconds: number,
  ): Promise<string | undefined> {
    const { gate } = this.args.settings;
    const deadline = Date.now() + gate.waitMinutes * 60_000;
    for (;;) {
      const outcome = await this.run(machine, command, seconds);
      if ("output" in outcome) return outcome.output;
      const { problem, ran = false } = outcome;
      if (!ran && gate.skip.includes(server)) return undefined;
      // A Consul that has just started has no tokens yet.
      const final = ran && !problem.includes("ACL not found");
      if (final || Date.now() >= deadline) {
        const reboot = `\`aliyun ecs RebootInstance --InstanceId ${machine.id}\``;
        // A Consul that others cannot reach answers nothing that takes a leader, and a restart does not help it.
        const put = problem.includes("Consul does not answer")
          ? `Restart it (${reboot}), once ${serversReach},`
          : "Put that right";
        const first = problem.includes("Timeout") ? `See that ${serversReach}. Start` : "Start";
        const remedy = ran
          ? `${put} and run \`pulumi up\` again: it goes on from there`
          : `${first} or reboot it (${reboot}) and run \`pulumi up\` again, ` +
            `or name ${server} in consul:gate.skip: then it is rebooted into its new user data`;
        throw new pulumi.RunError(`${server} (${machine.id}) is not updated: ${problem}. ${remedy}`);
      }
      progress(`${server}: waiting, ${problem}`);
      await sleep(this.args.pause);
    }
  }

  private async run({ id }: Machine, command: Command, seconds: number): Promise<Outcome> {
    const outcomes = await this.args.cloud.run([id], command, seconds);
    return outcomes.get(id) ?? { problem: "there was no answer" };
  }

  /** @throws RunError unless gate.skip names the server: then its machine is started with its new user data */
  private async repairStopped(server: string, machine: Machine, wanted: UserData): Promise<void> {
    const { id, status } = machine;
    if (!this.args.settings.gate.skip.includes(server)) {
      const start = `start it with \`aliyun ecs StartInstance --InstanceId ${id}\` and run \`pulumi up\` again`;
      throw new pulumi.RunError(
        `${server} (${id}) is not updated: its machine is ${status}; ${start}, or name ${server} in consul:gate.skip`,
      );
    }
    await pulumi.log.warn(
      `${server} (${id}) is ${status}, and consul:gate.skip names it: it starts with its new user data`,
    );
    await this.args.cloud.storeUserData(id, encoded(wanted));
    if (status === "Stopped") await this.args.cloud.power(id, "start");
  }

  /** Repairs a machine that takes no commands: a boot makes the machine read its new user data. */
  private async reboot(server: string, machine: Machine, wanted: UserData): Promise<void> {
    await pulumi.log.warn(
      `${server} (${machine.id}) takes no commands, and consul:gate.skip names it: it is rebooted into its new user data`,
    );
    await this.args.cloud.storeUserData(machine.id, encoded(wanted));
    await this.args.cloud.power(machine.id, "reboot");
  }

  /** For a cloud that takes user data only for stopped machines: one stop and one start, as the provider would do. */
  private async storeWhileStopped(server: string, machine: Machine, wanted: UserData, why: Error): Promise<void> {
    const { cloud } = this.args;
    await pulumi.log.warn(
      `${server} (${machine.id}) is stopped and started: the cloud does not store user data while it runs (${why.message})`,
    );
    await cloud.power(machine.id, "stop");
    await this.until(server, "Stopped");
    await cloud.storeUserData(machine.id, encoded(wanted));
    await cloud.power(machine.id, "start");
    await this.until(server, "Running");
  }

  private async until(server: string, status: string): Promise<void> {
    const deadline = Date.now() + this.args.settings.gate.waitMinutes * 60_000;
    for (;;) {
      const machine = await this.args.machines.find(server);
      if (machine.status === status) return;
      if (Date.now() >= deadline) {
        throw new pulumi.RunError(
          `${server} (${machine.id}) is ${machine.status}, not ${status}, after ${this.args.settings.gate.waitMinutes} minutes: ` +
            `start it with \`aliyun ecs StartInstance --InstanceId ${machine.id}\`, then run \`pulumi up\` again`,
        );
      }
      await sleep(this.args.pause);
    }
  }
}

const said: Readonly<Record<Exclude<Applied, "restart needed">, string>> = {
  reloaded: "Consul has reloaded its configuration",
  restarted: "Consul runs with its new configuration",
  unchanged: "Consul runs with this configuration already",
};
