import * as pulumi from "@pulumi/pulumi";
import { setTimeout as sleep } from "timers/promises";
import { trustMark } from "../../consul/config";
import {
  machineCommand,
  machineKeyring,
  machineRetire,
  quorumArguments,
  readView,
} from "../../consul/machine/commands";
import { stableJson } from "../../consul/node";
import { assess, refusedAuthorities, refusedVersion, Server, Verdict } from "../../consul/quorum";
import { digest } from "../../consul/secrets";
import { loadCloudConfig, Settings } from "../../settings";
import { Cloud, cloud, Machine, RefusedError } from "./cloud";
import { Trust } from "../trust";

export interface QuorumGateArgs {
  /** Names of all servers, in the order in which they are updated. */
  readonly servers: readonly string[];
  readonly vpcId: string;
  /** The tag by which the servers' machines are found: their ids are not known before the engine has been at them. */
  readonly tag: { readonly key: string; readonly value: string };
  readonly settings: Pick<Settings, "version" | "gossip" | "certificates" | "tokens" | "gate" | "migration">;
  readonly trust: Pick<Trust, "caCertificate" | "gossipKey" | "agentToken" | "managementToken">;
}

type Tags = Readonly<Record<string, string>>;
type Inputs = Readonly<Record<string, unknown>>;

/** Inputs of an instance whose change leaves it running (reference/alicloud.md §1). Any other one stops it, or may. */
const harmless = new Set([
  ...["tags", "volumeTags", "instanceName", "description", "securityGroups", "roleName", "deletionProtection"],
  ...["httpTokens", "httpEndpoint", "internetMaxBandwidthOut", "instanceChargeType", "maintenanceAction"],
  ...["systemDiskSize", "systemDiskPerformanceLevel", "systemDiskName", "systemDiskDescription", "__defaults"],
]);

/**
 * Lets one server at a time go down, and only while the others carry the cluster; makes sure at the end that all do.
 * It asks the machines through Cloud Assistant, so that `pulumi up` needs no way into their network.
 */
export class QuorumGate {
  /** Milliseconds between two looks at servers that are not ready. */
  pause = 5_000;
  private connected: Cloud | undefined;

  constructor(private readonly args: QuorumGateArgs) {}

  /**
   * What a server's machine is tagged with: what it was last set to. The next update compares, so that a step that is
   * too long is refused by the preview already, without asking anybody.
   */
  get tags(): Tags {
    const { version, gossip, certificates } = this.args.settings;
    return {
      "consul-version": version,
      "consul-gossip": gossip.existingKey === undefined ? String(gossip.generation) : "existing",
      "consul-ca": [certificates.caGeneration, ...certificates.caAlsoTrusted].join("+"),
    };
  }

  /** The hook for a server's instance. The engine knows it by its name: that stays as it is. */
  hook(server: string): pulumi.ResourceHook {
    const preview = pulumi.runtime.isDryRun();
    return new pulumi.ResourceHook(
      `consul-${server}-quorum-gate`,
      async ({ oldInputs = {}, newInputs = {} }) => {
        const before = (oldInputs.tags ?? {}) as Tags;
        this.refuseStep(server, before);
        // A preview stops here: it asks nobody, and may not know all of the new inputs yet.
        if (preview || cloud.connect === undefined) return;
        const [old, wanted] = [await plain(oldInputs), await plain(newInputs)];
        const changed = [...new Set([...Object.keys(old), ...Object.keys(wanted)])].filter(
          (key) => !harmless.has(key) && stableJson([old[key]]) !== stableJson([wanted[key]]),
        );
        if (changed.length > 0) await this.mayGoDown(server, before, changed.join(", "));
      },
      { onDryRun: true },
    );
  }

  /**
   * Resolves once every server is a healthy voter of the wanted version; asked at each `up`, never in a preview.
   * Nothing of it is a resource: a check that failed leaves no trace that the next `up` could take for success.
   */
  ready(machines: readonly pulumi.Output<string>[]): pulumi.Output<void> {
    if (pulumi.runtime.isDryRun()) return pulumi.output(undefined);
    return pulumi.all([...machines]).apply(() =>
      this.until("the servers are not all well", undefined, ({ versions }) => {
        const { version } = this.args.settings;
        const others = [...versions].filter(([, runs]) => runs !== version && !runs.startsWith(`${version}+`));
        return Promise.resolve(others.map(([name, runs]) => `${name} runs Consul ${runs}, not ${version}`));
      }),
    );
  }

  /**
   * After all else: takes away gossip keys and agents' tokens that no node needs any more. A node that still does, in
   * another stack perhaps, is named in a warning, and the next `up` sees to it.
   */
  retire(after: pulumi.Input<unknown>): pulumi.Output<void> {
    const { settings, trust } = this.args;
    const rotated = settings.gossip.generation > 1 || settings.tokens.agentGeneration > 1;
    if (pulumi.runtime.isDryRun() || !rotated) return pulumi.all([after]).apply(() => undefined);
    const { caCertificate, gossipKey, agentToken } = trust;
    return pulumi.all([caCertificate, gossipKey, agentToken, after]).apply(async ([ca, gossipKey, agentToken]) => {
      if (cloud.connect === undefined) return;
      const machines = await this.machines();
      const mark = trustMark(ca, { gossipKey, agentToken });
      let late = await this.behind(machines, mark);
      // An agent that has just been restarted takes a few seconds to write its own entry in the catalog.
      for (let tries = 0; late.length > 0 && tries < 3; tries++) {
        await sleep(this.pause);
        late = await this.behind(machines, mark);
      }
      if (late.length === 0) await this.onOne(machines, machineRetire(digest(gossipKey)));
      else {
        await pulumi.log.warn(
          `with an earlier gossip key, token or authority: ${late.join(", ")}. What they need is kept; ` +
            "update the stack that has them, then run `pulumi up` here again",
        );
      }
    });
  }

  /** @throws where a step is too long for one update, unless this server is named in gate.skip */
  private refuseStep(server: string, before: Tags): void {
    const step = (tag: string): [string, string] => [before[tag] ?? this.tags[tag] ?? "", this.tags[tag] ?? ""];
    const refusal = refusedVersion(...step("consul-version")) ?? refusedAuthorities(...step("consul-ca"));
    if (refusal !== undefined && !this.skips(server)) throw new pulumi.RunError(`${server} is not updated: ${refusal}`);
  }

  /** Returns once a server may go down. @throws what is wrong and what to do; nothing was done to the server then */
  private async mayGoDown(server: string, before: Tags, changed: string): Promise<void> {
    if (this.skips(server)) {
      return pulumi.log.warn(`${server} is updated without asking the other servers: consul:gate.skip names it`);
    }
    const signer = (tags: Tags) => tags["consul-ca"]?.split("+")[0];
    const newSigner = signer(before) !== undefined && signer(before) !== signer(this.tags);
    let keyInUse = before["consul-gossip"] === this.tags["consul-gossip"];
    await this.until(`${server} is not updated (${changed})`, server, async (verdict, machines) => {
      for (const version of new Set(verdict.versions.values())) {
        const refusal = refusedVersion(version, this.args.settings.version);
        if (refusal !== undefined) throw new RefusedError(refusal);
      }
      const peers = machines.filter(({ name, status }) => name !== server && status === "Running");
      const late = newSigner ? await this.behind(peers) : [];
      if (late.length > 0) return [`these nodes do not trust the new authority yet: ${late.join(", ")}`];
      if (!keyInUse) await this.useGossipKey(peers);
      keyInUse = true;
      if (verdict.leader !== server) return [];
      // To the one updated just before, so that leadership moves as rarely as can be.
      const others = peers.map(({ name }) => name);
      const heir = others.at(this.args.servers.indexOf(server) - 1) ?? "";
      await this.onOne(peers, machineCommand(["machine/hand-over.sh", verdict.raftIds.get(heir) ?? ""]));
      return [`leadership goes to ${heir}`];
    });
    progress(`${server}: the others carry the cluster, it goes down now`);
  }

  /**
   * Looks until all is well and `then` has no reason against it.
   * @throws RunError at the deadline, or at once where waiting does not help
   */
  private async until(
    problem: string,
    goes: string | undefined,
    then: (verdict: Extract<Verdict, { ok: true }>, machines: readonly Machine[]) => Promise<readonly string[]>,
  ): Promise<void> {
    if (cloud.connect === undefined) return;
    const { gate, migration } = this.args.settings;
    const { waitMinutes } = gate;
    const deadline = Date.now() + waitMinutes * 60_000;
    for (;;) {
      let [reasons, final]: [readonly string[], boolean] = [[], false];
      try {
        const machines = await this.machines();
        const verdict = assess(await this.look(machines, goes), goes, migration?.servers);
        reasons = verdict.ok ? await then(verdict, machines) : verdict.reasons;
        final = !verdict.ok && verdict.final;
      } catch (error) {
        [reasons, final] = [[(error as Error).message], error instanceof RefusedError];
      }
      if (reasons.length === 0) return;
      if (final || Date.now() >= deadline) {
        const waited = final ? "" : ` after ${waitMinutes} minutes`;
        const repair = goes === undefined ? "" : ` (if it is to repair ${goes} itself: consul:gate.skip)`;
        throw new pulumi.RunError(
          `${problem}${waited}: ${reasons.join("; ")}. Put that right and run \`pulumi up\` again: it asks again, and goes on from there${repair}`,
        );
      }
      progress(`${goes ?? "servers"}: waiting, ${reasons.join("; ")}`);
      await sleep(this.pause);
    }
  }

  private skips(server: string): boolean {
    return this.args.settings.gate.skip.includes(server);
  }

  private connect(): Cloud {
    this.connected ??= cloud.connect?.(loadCloudConfig());
    if (this.connected === undefined) throw new Error("there is no cloud to ask");
    return this.connected;
  }

  /** The servers' machines, in the servers' order; one that is not there has the status "missing". */
  private async machines(): Promise<Machine[]> {
    const { servers, vpcId, tag } = this.args;
    const found = await this.connect().machines(vpcId, tag);
    return servers.map((name) => {
      const [machine, ...others] = found.filter((candidate) => candidate.name === name);
      if (machine && others.length === 0) return machine;
      const id = machine ? "several have its name" : `none of its name is tagged ${tag.key} ${tag.value} in ${vpcId}`;
      return { id, name, status: "missing" };
    });
  }

  private async look(machines: readonly Machine[], goes: string | undefined): Promise<Server[]> {
    const asked = machines.filter(({ name, status }) => name !== goes && status === "Running").map(({ id }) => id);
    // A machine that does not run is reason enough; the others need not be asked. Whether one that is missing was ever
    // there, they know.
    const outcomes = machines.every(({ status }) => ["Running", "missing"].includes(status))
      ? await this.connect().run(asked, machineCommand(["machine/quorum.sh", ...quorumArguments]))
      : undefined;
    return machines.map((machine) => {
      const outcome = outcomes?.get(machine.id);
      return { name: machine.name, machine, view: outcome && "output" in outcome ? readView(outcome.output) : outcome };
    });
  }

  /** Agents that do not carry this mark; without one, that do not trust the authorities of this program. */
  private async behind(machines: readonly Machine[], mark?: string): Promise<string[]> {
    const ca = this.args.trust.caCertificate;
    const authorities = await new Promise<string>((resolve) => ca.apply((pem) => resolve(digest(pem).slice(0, 8))));
    const pattern = mark?.replaceAll(".", "[.]") ?? `[^.]*[.][^.]*[.]${authorities}`;
    const output = await this.onOne(machines, machineCommand(["scripts/behind.sh", pattern]));
    return output.split("\n").filter((name) => name !== "" && !this.args.servers.includes(name));
  }

  private async useGossipKey(machines: readonly Machine[]): Promise<void> {
    const secrets = pulumi.all([this.args.trust.gossipKey, this.args.trust.managementToken]);
    const [key, token] = await new Promise<[string, string]>((resolve) => secrets.apply(resolve));
    await this.onOne(machines, machineKeyring(key, token));
    progress("gossip: every member has the new key and uses it");
  }

  /** Runs a command on one machine, the next one where that fails. @throws the last problem */
  private async onOne(machines: readonly Machine[], command: string): Promise<string> {
    let problem = "there is no machine to ask";
    for (const { id, name } of machines) {
      const outcome = (await this.connect().run([id], command)).get(id);
      if (outcome && "output" in outcome) return outcome.output;
      problem = `${name}: ${outcome?.problem ?? "no answer"}`;
    }
    throw new Error(problem);
  }
}

/** A line of the progress display that the next one replaces. */
function progress(line: string): void {
  void pulumi.log.info(line, undefined, undefined, true);
}

/** Inputs as a hook gets them: secret ones are outputs. */
async function plain(inputs: Inputs): Promise<Inputs> {
  const entries = Object.entries(inputs).map(async ([key, value]) => {
    if (!pulumi.Output.isInstance(value)) return [key, value] as const;
    return [key, await new Promise((resolve) => value.apply(resolve))] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}
