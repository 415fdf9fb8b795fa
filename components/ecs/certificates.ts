import * as pulumi from "@pulumi/pulumi";
import { setTimeout as sleep } from "timers/promises";
import { certificateLeft, renewCertificate } from "../../consul/machine/commands";
import { Trust } from "../trust";
import { Cloud } from "./cloud";
import { progress, ServerMachines, valueOf } from "./machines";

export interface CertificatesArgs {
  readonly cloud: Cloud;
  readonly machines: ServerMachines;
  readonly trust: Pick<Trust, "servers" | "managementToken">;
  /** Milliseconds between two looks at servers that have no leader yet. */
  readonly pause: number;
}

const secondsPerDay = 86_400;

/** How long servers have to find a leader after they got new certificates. The gate reports what is amiss after that. */
const leaderSeconds = 60;

/**
 * Renews servers' certificates that have expired. After the expiry raft goes on over old connections, but a server that
 * is restarted can talk to no other server, since their certificates have expired as well. So every server gets its new
 * certificate, without a restart, before anything else is done to any server.
 */
export class Certificates {
  private renewed: Promise<void> | undefined;

  constructor(private readonly args: CertificatesArgs) {}

  /**
   * Gives their new certificates to all servers whose own is valid for less than a day; looks once in an `up`. Machines
   * that take no commands are left alone: the gate has a word to say about those.
   * @throws RunError where a machine takes commands and its Consul does not take the certificate
   */
  renewExpired(): Promise<void> {
    this.renewed ??= this.renew();
    return this.renewed;
  }

  private async renew(): Promise<void> {
    const { cloud, trust } = this.args;
    const late = await this.late();
    for (const { id, name, seconds } of late) {
      const own = trust.servers.find((server) => server.name === name);
      if (!own) continue;
      await pulumi.log.info(
        `${name}: its certificate ${when(seconds)}; it gets the new one before anything else is done`,
      );
      const pem = `${await valueOf(own.cert)}\n${await valueOf(own.key)}\n`;
      const command = renewCertificate(pem, await valueOf(trust.managementToken));
      const outcome = (await cloud.run([id], command)).get(id) ?? { problem: "there was no answer" };
      if ("output" in outcome) continue;
      throw new pulumi.RunError(
        `${name} (${id}) has not got its new certificate: ${outcome.problem}. Put that right and run \`pulumi up\` again`,
      );
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

  /** Servers whose certificate has run out, or is about to, and the seconds left. */
  private async late() {
    const { cloud, machines } = this.args;
    try {
      const running = (await machines.list()).filter(({ status }) => status === "Running");
      const left = await cloud.run(
        running.map(({ id }) => id),
        certificateLeft,
      );
      return running.flatMap(({ id, name }) => {
        const outcome = left.get(id);
        const seconds = outcome && "output" in outcome && outcome.output !== "" ? Number(outcome.output) : Infinity;
        return seconds < secondsPerDay ? [{ id, name, seconds }] : [];
      });
    } catch {
      // The cloud does not answer. The gate asks it again next, and reports the failure.
      this.renewed = undefined;
      return [];
    }
  }
}

function when(seconds: number): string {
  const days = Math.floor(Math.abs(seconds) / secondsPerDay);
  if (seconds > 0) return "expires within a day";
  return days === 0 ? "has expired today" : `has expired ${days} day${days === 1 ? "" : "s"} ago`;
}
