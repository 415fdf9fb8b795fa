import type { Command } from "../../consul/machine/commands";

/** A machine of the cloud, as far as the servers' gate wants to know. */
export interface Machine {
  readonly id: string;
  readonly name: string;
  /** Running, Stopped, Starting, Stopping or Pending. */
  readonly status: string;
}

/** What came of a command on one machine. */
export type Outcome = { readonly output: string } | { readonly problem: string };

/** The way to the servers' machines, for a place that has no way into their network: ecs-api.ts, or fake-cloud.ts for tests. */
export interface Cloud {
  /** The machines of a VPC that carry a tag. */
  machines(vpcId: string, tag: { readonly key: string; readonly value: string }): Promise<Machine[]>;
  /** Runs a command as root on each machine. What fails on one of them is its outcome and no error. */
  run(ids: readonly string[], command: Command): Promise<ReadonlyMap<string, Outcome>>;
}

/** An answer of the cloud that trying again does not change: no permission, wrong credentials. */
export class RefusedError extends Error {}
