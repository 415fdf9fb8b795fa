import { setTimeout as sleep } from "timers/promises";
import * as pulumi from "@pulumi/pulumi";
import { certificateDates, CertificateDates, readDates, renewCertificate } from "../../consul/machine/commands";
import { Trust } from "../trust";
import { valueOf } from "../value-of";
import { Cloud, Outcome } from "./cloud";
import { progress, ServerMachines } from "./machines";

export interface CertificatesArgs {
  readonly cloud: Cloud;
  readonly machines: ServerMachines;
  readonly trust: Pick<Trust, "servers" | "certificatesFrom" | "managementToken">;
  /** Servers whose clock does not count: consul:gate.skip names what is lost. */
  readonly skip: readonly string[];
  /** Milliseconds between two looks at servers that have no leader yet. */
  readonly pause: number;
}

/** A server's machine, and what it says of its certificate. */
interface Look extends CertificateDates {
  /** When it said so, by the clock here: milliseconds. */
  readonly at: number;
  readonly id: string;
  readonly name: string;
}

const secondsPerDay = 86_400;

/** How long servers have to find a leader after they got new certificates. The gate reports what is amiss after that. */
const leaderSeconds = 60;

/** By how much a server's clock may be behind the one that certificates are made by: that long is waited for. */
const skewSeconds = 300;

/**
 * Sees to the dates of servers' certificates. After an expiry raft goes on over old connections, but a server that is
 * restarted can talk to no other server: certificates that have expired, or are not valid yet, are refused. So every
 * server gets its new certificate, without a restart, before anything else is done to any server; and no server gets one
 * that is not valid yet by some server's clock.
 */
export class Certificates {
  private looks: Promise<readonly Look[]> | undefined;
  /** What machines have said, by id. */
  private readonly said = new Map<string, Look>();
  private renewed: Promise<void> | undefined;

  constructor(private readonly args: CertificatesArgs) {}

  /**
   * Returns once the certificates that servers are to have are valid by the clock of each server.
   * @throws RunError where a clock is too far behind for waiting
   */
  async valid(): Promise<void> {
    const { refusal, seconds } = await this.early();
    if (refusal !== undefined) throw new pulumi.RunError(`the servers are not updated: ${refusal}`);
    if (seconds === 0) return;
    progress(`servers: waiting ${seconds} s, a clock there is behind the one that certificates are made by`);
    await sleep(seconds * 1000);
  }

  /** For how many seconds the certificates are not valid yet by some server's clock; where that is long, what to do. */
  async early(): Promise<{ readonly seconds: number; readonly refusal?: string }> {
    const counted = (await this.look())
      .filter(({ name }) => !this.args.skip.includes(name))
      .map((look) => ({ ...look, now: look.now + Math.floor((Date.now() - look.at) / 1000) }));
    const [slow] = [...counted].sort((a, b) => a.now - b.now);
    if (!slow) return { seconds: 0 };
    const from = Math.floor(Date.parse(await valueOf(this.args.trust.certificatesFrom)) / 1000);
    const seconds = Math.max(0, from - slow.now);
    if (seconds <= skewSeconds) return { seconds };
    const refusal =
      `servers' certificates were made by a clock that is ahead: they are valid from ${time(from)} on, and by the clock ` +
      `of ${slow.name} (${slow.id}) it is ${time(slow.now)}. By the clock here, where \`pulumi up\` runs, it is ` +
      `${time(Date.now() / 1000)}. No server was given them. Mend the clock that is wrong; where it is the one here, ` +
      "make certificates anew with another number of consul:certificates.serverDays (docs/operations.md)";
    return { seconds, refusal };
  }

  /**
   * Gives their new certificates to all servers whose own is valid for less than a day, or not yet, before anything else
   * is done to any of them. It takes no restart. Looks once in an `up`. Machines that take no commands are left alone: the
   * gate has a word to say about those.
   * @throws RunError where a machine takes commands and its Consul does not take the certificate; the others have got theirs
   */
  renewExpired(): Promise<void> {
    this.renewed ??= this.renew();
    return this.renewed;
  }

  private async renew(): Promise<void> {
    const { cloud, trust, skip } = this.args;
    const problems: string[] = [];
    const late = (await this.look()).filter(({ from, until, now }) => until - now < secondsPerDay || from > now);
    for (const { id, name, from, until, now } of late) {
      const own = trust.servers.find((server) => server.name === name);
      if (!own) continue;
      const why = from > now ? "is not valid yet" : when(until - now);
      await pulumi.log.info(`${name}: its certificate ${why}; it gets the new one before anything else is done`);
      const pem = `${await valueOf(own.cert)}\n${await valueOf(own.key)}\n`;
      const command = renewCertificate(pem, await valueOf(trust.managementToken));
      const outcome = (await cloud.run([id], command)).get(id) ?? { problem: "there was no answer" };
      if ("output" in outcome) continue;
      const problem = `${name} (${id}) has not got its new certificate: ${outcome.problem}`;
      if (skip.includes(name)) await pulumi.log.warn(`${problem}; consul:gate.skip names ${name}`);
      else problems.push(problem);
    }
    if (problems.length > 0) {
      throw new pulumi.RunError(`${problems.join("; ")}. Put that right and run \`pulumi up\` again`);
    }
    if (late.length > 0) await this.leaderSeenBy(late.map(({ name }) => name));
  }

  /** Waits until servers see a leader. A server that was restarted without one knows no token and refuses commands. */
  private async leaderSeenBy(servers: readonly string[]): Promise<void> {
    const { machines, pause } = this.args;
    const deadline = Date.now() + leaderSeconds * 1000;
    const blind = async () => {
      const all = await machines.list();
      const down = all.filter(({ status }) => status !== "Running").map(({ name }) => name);
      return (await machines.look(all, undefined, down)).filter(({ name, view }) => {
        const last = view && "samples" in view ? view.samples.at(-1) : undefined;
        return servers.includes(name) && !last?.leader;
      });
    };
    while ((await blind()).length > 0 && Date.now() < deadline) {
      progress("servers: waiting for a leader, now that they have new certificates");
      await sleep(pause);
    }
  }

  /** What the servers say of their certificates. Machines that run are asked until they have answered, and no further. */
  private look(): Promise<readonly Look[]> {
    this.looks ??= this.ask();
    return this.looks;
  }

  private async ask(): Promise<readonly Look[]> {
    const { cloud, machines } = this.args;
    try {
      const running = (await machines.list()).filter(({ status }) => status === "Running");
      const silent = running.filter(({ id }) => !this.said.has(id));
      const ids = silent.map(({ id }) => id);
      const outcomes = ids.length === 0 ? new Map<string, Outcome>() : await cloud.run(ids, certificateDates);
      const at = Date.now();
      for (const { id, name } of silent) {
        const outcome = outcomes.get(id);
        const dates = outcome && "output" in outcome ? readDates(outcome.output) : undefined;
        if (dates) this.said.set(id, { id, name, at, ...dates });
      }
      const looks = running.flatMap(({ id }) => this.said.get(id) ?? []);
      if (looks.length < running.length) this.looks = undefined;
      return looks;
    } catch {
      // The cloud does not answer. The gate asks it again next, and reports the failure.
      [this.looks, this.renewed] = [undefined, undefined];
      return [];
    }
  }
}

function time(seconds: number): string {
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}Z`;
}

function when(seconds: number): string {
  const days = Math.floor(Math.abs(seconds) / secondsPerDay);
  if (seconds > 0) return "expires within a day";
  return days === 0 ? "has expired today" : `has expired ${days} day${days === 1 ? "" : "s"} ago`;
}
