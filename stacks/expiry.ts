import * as pulumi from "@pulumi/pulumi";

/** When what is meant to be renewed runs out, RFC 3339. */
export interface Expiry {
  ca: string;
  serverCertificate: string;
  gossipKey: string;
}

/** Whole days from one time until another; negative once that is past. */
export function daysUntil(date: Date, now: Date): number {
  return Math.floor((date.getTime() - now.getTime()) / 86_400_000);
}

/** Whole days from now until each date. */
export function daysLeft(expiry: Expiry): Record<keyof Expiry, number> {
  const days = (date: string) => daysUntil(new Date(date), new Date());
  return { ca: days(expiry.ca), serverCertificate: days(expiry.serverCertificate), gossipKey: days(expiry.gossipKey) };
}

const remedies: Readonly<Record<keyof Expiry, string>> = {
  ca: "the certificate authority runs out: introduce the next one (docs/operations.md)",
  serverCertificate: "a server certificate runs out: `pulumi up` renews it",
  gossipKey: "the gossip key is due: introduce the next one (docs/operations.md)",
};

/** Warns, in previews too, of what has fewer days left than the limit. */
export function warnBefore(expiry: pulumi.Output<Expiry>, limit: number): void {
  expiry.apply(async (dates) => {
    for (const [what, days] of Object.entries(daysLeft(dates)) as [keyof Expiry, number][]) {
      if (days < limit) await pulumi.log.warn(`${days} days left, ${remedies[what]} (${dates[what]})`);
    }
  });
}
