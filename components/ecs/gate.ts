import * as pulumi from "@pulumi/pulumi";
import { setTimeout as sleep } from "timers/promises";
import { trustPattern } from "../../consul/config";
import { retire, unwanted } from "../../consul/machine/commands";
import { UserData } from "../../consul/machine/user-data";
import { assess, Reason, Verdict } from "../../consul/quorum";
import { refusedStep, refusedVersion, SetTo, setTo } from "../../consul/upgrade";
import { Settings } from "../../settings";
import { Trust } from "../trust";
import { valueOf } from "../value-of";
import { Certificates } from "./certificates";
import { announce, Change, changeOf, stoppingInputs, Tags } from "./change";
import { Cloud, Machine, RefusedError } from "./cloud";
import { ServerChange } from "./server-change";
import { Patience } from "./patience";
import { TrustOrder } from "./trust-order";
import { progress, ServerMachines, ServerMachinesArgs } from "./machines";

export interface QuorumGateArgs extends ServerMachinesArgs {
  readonly cloud: Cloud;
  readonly settings: Pick<
    Settings,
    "version" | "downloadMirror" | "downloadSha256" | "gossip" | "certificates" | "tokens" | "gate" | "migration"
  >;
  readonly trust: Pick<
    Trust,
    "servers" | "certificatesFrom" | "caCertificate" | "gossipKeys" | "agentToken" | "managementToken"
  >;
  /** Milliseconds between two looks at servers that are not ready; 5,000 unless given. */
  readonly pause?: number;
}

/**
 * Lets one server at a time go down, and only while the others carry the cluster; makes sure at the end that all do.
 * The gate asks the machines through Cloud Assistant, so that `pulumi up` needs no way into their network.
 */
export class QuorumGate {
  private readonly machines: ServerMachines;
  private readonly change: ServerChange;
  private readonly certificates: Certificates;
  private readonly order: TrustOrder;
  private readonly pause: number;

  constructor(private readonly args: QuorumGateArgs) {
    this.machines = new ServerMachines(args);
    this.pause = args.pause ?? 5_000;
    this.change = new ServerChange({ ...args, pause: this.pause, machines: this.machines });
    this.order = new TrustOrder({ ...args, machines: this.machines, wanted: this.tags });
    const { skip } = args.settings.gate;
    this.certificates = new Certificates({ ...args, skip, pause: this.pause, machines: this.machines });
  }

  /**
   * What a server's machine is tagged with: what the server was last set to. The next update compares, so that the
   * preview already refuses a step that is too long, without asking anybody.
   */
  get tags(): Tags & SetTo {
    return { ...setTo(this.args.settings) };
  }

  /**
   * The hook for a server's instance. The engine knows the hook by its name, which therefore never changes.
   * What the server is to run is applied here, before the engine commits the tags that say so: a failure leaves the old
   * tags behind, and the next `up` asks again.
   */
  hook(server: string, userData: pulumi.Output<UserData>): pulumi.ResourceHook {
    const preview = pulumi.runtime.isDryRun();
    return new pulumi.ResourceHook(
      `consul-${server}-quorum-gate`,
      async ({ oldInputs = {}, newInputs = {} }) => {
        const before = (oldInputs.tags ?? {}) as Tags;
        const refusal = refusedStep(before, this.tags);
        if (refusal !== undefined && !this.skips(server)) {
          throw new pulumi.RunError(`${server} is not updated: ${refusal}`);
        }
        const stoppedBy = await stoppingInputs(oldInputs, newInputs);
        const wanted = (newInputs.tags ?? {}) as Tags;
        if (preview) return announce(server, before, wanted, stoppedBy, userData);
        await this.update(server, before, changeOf(before, wanted, stoppedBy), await valueOf(userData));
      },
      { onDryRun: true },
    );
  }

  /**
   * Resolves once every server is a healthy voter of the wanted version and runs the wanted configuration; asked at each
   * `up`, never in a preview. Nothing of it is a resource: a check that failed leaves no trace that the next `up` could
   * take for success. A server that runs something else, although its tags are those that are wanted, is brought to what
   * it is to run. With other tags its own update was not part of this run (`--target`, `--run-program`): it stays as it is.
   * @param tags of the servers' machines, as the engine has them now
   */
  ready(
    tags: readonly pulumi.Output<Tags | undefined>[],
    userData: readonly pulumi.Output<UserData>[],
  ): pulumi.Output<void> {
    if (pulumi.runtime.isDryRun()) return pulumi.output(undefined);
    const { servers } = this.args;
    const lost = this.lost();
    if (lost.length > 0) {
      void pulumi.log.warn(`nothing is expected of ${lost.join(", ")}: consul:gate.skip names what is lost`);
    }
    const ready = pulumi.output({ wanted: [...userData], tags: [...tags] }).apply(async ({ wanted, tags }) => {
      const updated = servers.filter((_, i) => tags[i] === undefined || tags[i]["consul-config"] === wanted[i]?.config);
      const all = await this.strays(wanted, []);
      const strays = all.filter((name) => updated.includes(name));
      const left = all.filter((name) => !updated.includes(name));
      if (left.length > 0) {
        await pulumi.log.warn(`${left.join(", ")}: not updated by this run; \`pulumi up\` without --target does it`);
      }
      if (strays.length > 0) await this.certificates.valid();
      for (const server of strays) {
        const own = wanted[servers.indexOf(server)];
        if (own) await this.change.bring(server, own, "reload", () => this.mayGoDown(server, {}, "configuration"));
      }
      if (strays.length > 0) await this.strays(wanted, updated);
    });
    // The wait depends on user data, which is secret. The result, that the servers are well, is not.
    return pulumi.unsecret(ready);
  }

  /**
   * Waits until every server is a healthy voter of the wanted version.
   * @param settled servers that have to run the wanted configuration by now, or this fails at the deadline
   * @returns servers that run another configuration
   */
  private async strays(wanted: readonly UserData[], settled: readonly string[]): Promise<readonly string[]> {
    const { servers, settings } = this.args;
    let strays: readonly string[] = [];
    await this.until("the servers are not all well", undefined, async ({ versions, runs, minQuorum }, machines) => {
      await this.countServers(minQuorum, machines);
      strays = servers.filter((name, i) => !this.skips(name) && runs.get(name) !== wanted[i]?.config);
      const others = [...versions].filter(
        ([name, own]) =>
          !this.skips(name) &&
          !sameVersion(own, settings.version) &&
          (settled.includes(name) || !strays.includes(name)),
      );
      return [
        ...others.map(([name, own]) => `${name} runs Consul ${own}, not ${settings.version}`),
        ...strays.filter((name) => settled.includes(name)).map((name) => `${name} does not run what it is to run`),
      ];
    });
    return strays;
  }

  /** Tells autopilot how many servers there are, once all are there. */
  private async countServers(minQuorum: number, machines: readonly Machine[]): Promise<void> {
    const count = this.args.servers.length;
    if (minQuorum === count || minQuorum === 0) return;
    await this.machines.onOne(this.counted(machines), [{ script: "machine/autopilot.sh", args: [String(count)] }]);
    progress(`autopilot counts ${count} servers now`);
  }

  /**
   * After all else: takes away gossip keys and agents' tokens that no node needs any more. A node that still needs one,
   * in another stack perhaps, is named in a warning, and the next `up` sees to it.
   */
  retire(after: pulumi.Input<unknown>): pulumi.Output<void> {
    const { settings, trust } = this.args;
    const rotated = settings.gossip.generation > 1 || settings.tokens.agentGeneration > 1;
    if (pulumi.runtime.isDryRun()) return pulumi.all([after]).apply(() => undefined);
    const { caCertificate, gossipKeys, agentToken } = trust;
    const all = pulumi.output({ ca: caCertificate, gossipKeys, agentToken, after });
    const retired = all.apply(async ({ ca, ...secrets }) => {
      // A server that gate.skip names may have an earlier token in its files, and would revoke the one in use.
      const machines = this.counted(await this.machines.list());
      // A first rotation that was killed or reverted may have left a key or a token behind. Only the cluster knows.
      const { gossipKeys, agentToken } = secrets;
      if (!rotated && (await this.machines.onOne(machines, unwanted(gossipKeys, agentToken))) === "") return;
      const pattern = trustPattern(ca, secrets);
      let late = await this.machines.behind(machines, pattern);
      // An agent that has just been restarted takes a few seconds to write its own entry in the catalog.
      for (let tries = 0; late.length > 0 && tries < 3; tries++) {
        await sleep(this.pause);
        late = await this.machines.behind(machines, pattern);
      }
      if (late.length === 0) await this.machines.onOne(machines, retire(gossipKeys));
      else {
        await pulumi.log.warn(
          `with an earlier gossip key, token or authority: ${late.join(", ")}. What they need is kept; ` +
            "update the stack that has them, then run `pulumi up` here again",
        );
      }
    });
    // The keys are secret. The result, that old keys are gone, is not.
    return pulumi.unsecret(retired);
  }

  private async update(server: string, before: Tags, { effect, stoppedBy }: Change, wanted: UserData): Promise<void> {
    if (effect === "none") return;
    await this.certificates.valid();
    // Another authority's certificates have an order among the nodes.
    if (!this.order.isNewSigner(before)) await this.certificates.renewExpired();
    const changed = stoppedBy.length > 0 ? stoppedBy.join(", ") : "configuration";
    const gate = () => this.mayGoDown(server, before, changed);
    // A reload needs no gate: nothing goes down. Keys and authorities have an order among the nodes all the same.
    if (effect !== "reload") await gate();
    else if (this.order.concerns(before)) await this.inOrder(server, before);
    const how = effect === "reload" ? "reload" : "restart";
    try {
      await this.change.bring(server, wanted, how, gate);
    } catch (error) {
      // The update does not wait for a server that gate.skip names. Each later `up` looks again at what that server runs.
      if (!this.skips(server)) throw error;
      await pulumi.log.warn(`${(error as Error).message}; consul:gate.skip names ${server}, so the update goes on`);
    }
    if (effect === "stop") progress(`${server}: the others carry the cluster, its machine stops now`);
  }

  /** Returns once the nodes are ready for a step of keys or authorities that takes no restart. @throws as mayGoDown */
  private async inOrder(server: string, before: Tags): Promise<void> {
    const step = this.order.step(before);
    await this.repeat(`${server} is not updated (configuration)`, server, async () => {
      const reasons = await step(this.peersOf(server, await this.machines.list()));
      return { final: false, reasons: reasons.map(ofAll) };
    });
  }

  /** Returns once a server may go down. @throws what is wrong and what to do; nothing was done to the server then */
  private async mayGoDown(server: string, before: Tags, changed: string): Promise<void> {
    if (this.skips(server)) {
      return pulumi.log.warn(`${server} is updated without asking the other servers: consul:gate.skip names it`);
    }
    const step = this.order.step(before);
    await this.until(`${server} is not updated (${changed})`, server, async (verdict, machines) => {
      for (const version of new Set(verdict.versions.values())) {
        const refusal = refusedVersion(version, this.args.settings.version);
        if (refusal !== undefined) throw new RefusedError(refusal);
      }
      const peers = this.peersOf(server, machines);
      const inTheWay = await step(peers);
      if (inTheWay.length > 0) return inTheWay;
      return verdict.leader === server ? [await this.handOver(server, peers, verdict.raftIds)] : [];
    });
  }

  /** The machines that can be asked about a server's change: those of the others. */
  private peersOf(server: string, machines: readonly Machine[]): Machine[] {
    return this.counted(machines).filter(({ name }) => name !== server);
  }

  /**
   * Hands the leadership of a server over to the one that was updated just before, so that it moves as rarely as can be.
   * @returns what there is to wait for
   */
  private async handOver(
    server: string,
    peers: readonly Machine[],
    raftIds: ReadonlyMap<string, string>,
  ): Promise<string> {
    const { servers } = this.args;
    const before = peers.filter(({ name }) => servers.indexOf(name) < servers.indexOf(server));
    const heir = (before.at(-1) ?? peers.at(-1))?.name ?? "";
    const id = raftIds.get(heir) ?? "";
    // The raft id comes from one machine and goes into a root command for another machine.
    if (!/^[\w-]{1,64}$/.test(id)) throw new RefusedError(`${heir} has an impossible raft id: ${JSON.stringify(id)}`);
    await this.machines.onOne(peers, [{ script: "machine/hand-over.sh", args: [id] }]);
    return `leadership goes to ${heir}`;
  }

  /**
   * Looks until all is well and `then` has no reason against it.
   * @param candidate the server that is to go down, if any
   * @throws RunError at the deadline, or at once where waiting does not help
   */
  private async until(
    problem: string,
    candidate: string | undefined,
    then: (verdict: Extract<Verdict, { ok: true }>, machines: readonly Machine[]) => Promise<readonly string[]>,
  ): Promise<void> {
    const { migration } = this.args.settings;
    await this.repeat(problem, candidate, async () => {
      const machines = await this.machines.list();
      const lost = this.lost(candidate);
      const looks = await this.machines.look(machines, candidate, lost);
      const verdict = assess(looks, { candidate, lost, guests: migration?.servers ?? [] });
      if (verdict.ok) return { final: false, reasons: (await then(verdict, machines)).map(ofAll) };
      // Machines that are new have been given their certificates without being asked what their clocks say.
      const { refusal } = await this.certificates.early();
      return refusal === undefined ? verdict : { final: true, reasons: [ofAll(refusal)] };
    });
  }

  /** Looks until there is nothing in the way, and says meanwhile what is. @throws as `until` */
  private async repeat(
    problem: string,
    candidate: string | undefined,
    look: () => Promise<{ readonly final: boolean; readonly reasons: readonly Reason[] }>,
  ): Promise<void> {
    const { waitMinutes } = this.args.settings.gate;
    const deadline = Date.now() + waitMinutes * 60_000;
    const patience = new Patience();
    for (;;) {
      let [reasons, final]: [readonly Reason[], boolean] = [[], false];
      try {
        ({ reasons, final } = await look());
      } catch (error) {
        [reasons, final] = [[ofAll((error as Error).message)], error instanceof RefusedError];
      }
      if (reasons.length === 0) return;
      patience.note(reasons);
      if (final || Date.now() >= deadline) {
        const waited = final ? "" : ` after ${waitMinutes} minutes`;
        const repair =
          candidate === undefined
            ? "A server that is lost for longer: name it in consul:gate.skip, and all that does not need it goes on."
            : `If it is to repair ${candidate} itself: consul:gate.skip.`;
        const lines = patience.lines(reasons, final).map((line) => `  ${line}`);
        const again = "Put that right and run `pulumi up` again: it asks again, and goes on from there.";
        throw new pulumi.RunError([`${problem}${waited}:`, ...lines, again, repair].join("\n"));
      }
      progress(`${candidate ?? "servers"}: ${patience.line(reasons)}`);
      await sleep(this.pause);
    }
  }

  /** Servers that the settings name as lost. The candidate is being repaired, which is something else. */
  private lost(candidate?: string): string[] {
    return this.args.settings.gate.skip.filter((name) => name !== candidate);
  }

  /** Machines that run, and of which something is expected. */
  private counted(machines: readonly Machine[]): Machine[] {
    return machines.filter(({ name, status }) => status === "Running" && !this.skips(name));
  }

  private skips(server: string): boolean {
    return this.args.settings.gate.skip.includes(server);
  }
}

function ofAll(what: string): Reason {
  return { server: "", what };
}

/** Whether a server runs this version, of whichever edition. */
function sameVersion(runs: string, version: string): boolean {
  return runs === version || runs.startsWith(`${version}+`);
}
