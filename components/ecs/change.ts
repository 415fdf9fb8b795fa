import * as pulumi from "@pulumi/pulumi";
import { changedFiles, UserData } from "../../consul/machine/user-data";
import { stableJson } from "../../consul/node";
import { valueOf } from "../value-of";

export type Tags = Readonly<Record<string, string>>;
export type Inputs = Readonly<Record<string, unknown>>;

/** What an update does to a server, from the least to the most: each effect includes those before it. */
export type Effect = "none" | "reload" | "restart" | "stop";

export interface Change {
  readonly effect: Effect;
  /** Inputs of the instance for which the provider stops the machine. */
  readonly stoppedBy: readonly string[];
}

/** Tags that say what a server's machine is to run. What the machine does run, only the machine can say. */
export function configTags({ config, start, files }: UserData): Tags {
  return { "consul-config": config, "consul-start": start, "consul-files": files };
}

/**
 * What an update does to a server.
 * @param before tags of the machine; those of releases before these tags existed lack them, and take a restart
 */
export function changeOf(before: Tags, wanted: Tags, stoppedBy: readonly string[]): Change {
  const differs = (tag: string) => before[tag] !== wanted[tag];
  if (stoppedBy.length > 0) return { effect: "stop", stoppedBy };
  if (!differs("consul-config")) return { effect: "none", stoppedBy };
  return { effect: differs("consul-start") ? "restart" : "reload", stoppedBy };
}

/** A line for the preview: what the update does to a server, and which files of the server change. */
export function describeChange(server: string, { effect, stoppedBy }: Change, before: Tags, wanted: UserData): string {
  const files = changedFiles(before["consul-files"] ?? "", wanted);
  const shown = files.length > 6 ? [...files.slice(0, 5), `${files.length - 5} more`] : files;
  const changes = files.length > 0 ? ` (${shown.join(", ")})` : "";
  switch (effect) {
    case "none":
      return `${server}: nothing of Consul changes`;
    case "reload":
      return `${server}: Consul reloads${changes}`;
    case "restart":
      return `${server}: Consul restarts, the machine runs on${changes}`;
    case "stop":
      return `${server}: the machine stops and starts (${[...stoppedBy, ...shown].join(", ")})`;
  }
}

/** Inputs of an instance whose change leaves the machine running (docs/facts/cloud.md). Any other one stops it, or may. */
const harmless = new Set([
  "tags",
  "volumeTags",
  "instanceName",
  "description",
  "securityGroups",
  "roleName",
  "deletionProtection",
  "httpTokens",
  "httpEndpoint",
  "internetMaxBandwidthOut",
  "instanceChargeType",
  "maintenanceAction",
  "systemDiskSize",
  "systemDiskPerformanceLevel",
  "systemDiskName",
  "systemDiskDescription",
  // Ignored (ignoreChanges): the gate stores and applies user data.
  "userData",
  "stoppedMode",
  "__defaults",
]);

/** Inputs that the program sets only in some deployments. Removing one of these is a change. */
const optional = new Set(["keyName", "deploymentSetId"]);

/** Inputs that differ and for which the provider stops the machine, or may. */
export async function stoppingInputs(oldInputs: Inputs, newInputs: Inputs): Promise<string[]> {
  const [old, wanted] = [await plain(oldInputs), await plain(newInputs)];
  return [...new Set([...Object.keys(old), ...Object.keys(wanted)])].filter((key) => {
    // A refresh adds the cloud's own defaults to the old inputs, such as autoRenewPeriod. Nobody asked to change those.
    if (harmless.has(key) || (wanted[key] === undefined && !optional.has(key))) return false;
    return stableJson([old[key]]) !== stableJson([wanted[key]]);
  });
}

/** Inputs as a hook gets them: secret ones are outputs. */
async function plain(inputs: Inputs): Promise<Inputs> {
  const entries = Object.entries(inputs)
    .filter(([key]) => !harmless.has(key))
    .map(async ([key, value]) => [key, pulumi.Output.isInstance(value) ? await valueOf(value) : value] as const);
  return Object.fromEntries(await Promise.all(entries));
}

/** Says in a preview what the update does to a server. The values that decide may not be known before the update. */
export function announce(
  server: string,
  before: Tags,
  wanted: Tags,
  stoppedBy: readonly string[],
  userData: pulumi.Output<UserData>,
): Promise<void> | void {
  const known = ["consul-config", "consul-start"].every((tag) => typeof wanted[tag] === "string");
  if (!known && stoppedBy.length === 0) {
    return pulumi.log.info(`${server}: Consul reloads or restarts: it depends on values that the update makes first`);
  }
  if (!known) return pulumi.log.info(`${server}: the machine stops and starts (${stoppedBy.join(", ")})`);
  const change = changeOf(before, wanted, stoppedBy);
  userData.apply((own) => pulumi.log.info(describeChange(server, change, before, own)));
}
