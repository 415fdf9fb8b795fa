import type { Command } from "../../consul/machine/commands";

/** A machine of the cloud, as far as the servers' gate wants to know. */
export interface Machine {
  readonly id: string;
  readonly name: string;
  /** Running, Stopped, Starting, Stopping or Pending. */
  readonly status: string;
}

/** The outcome of a command on one machine. `ran` says that the command itself failed, and would fail again. */
export type Outcome = { readonly output: string } | { readonly problem: string; readonly ran?: boolean };

/** The way to the servers' machines, for a place that has no way into their network: ecs-api.ts, or fake-cloud.ts for tests. */
export interface Cloud {
  /** The machines of a VPC that carry a tag. */
  machines(vpcId: string, tag: { readonly key: string; readonly value: string }): Promise<Machine[]>;
  /**
   * Runs a command as root on each machine. What fails on one of them is its outcome and no error.
   * @param seconds how long the command may take; 120 unless given
   */
  run(ids: readonly string[], command: Command, seconds?: number): Promise<ReadonlyMap<string, Outcome>>;
  /**
   * Stores user data, which the machine has from its next boot on, and its metadata service hands out from now on.
   * @param userData in base64; secret
   * @throws MustBeStoppedError where the cloud takes user data for a machine that is stopped, and for no other
   */
  storeUserData(id: string, userData: string): Promise<void>;
  /** Asks for a reboot, a stop (that keeps the capacity) or a start; returns before it is done. */
  power(id: string, action: "reboot" | "stop" | "start"): Promise<void>;
}

/** The cloud changes this for machines that are stopped, and for no others. */
export class MustBeStoppedError extends Error {}

/** An answer of the cloud that trying again does not change: no permission, wrong credentials. */
export class RefusedError extends Error {}
