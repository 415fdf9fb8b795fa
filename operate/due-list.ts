import type { Settings } from "../settings";
import type { Expiry } from "../stacks/expiry";

/** Something that is to be done by now. */
export interface Due {
  readonly what: string;
  /** Who does it: `up` with nothing changed but the time and a patch version, or a person who changes settings. */
  readonly by: "up" | "person";
  /** What there is to do. */
  readonly remedy: string;
}

/** What the last `pulumi up` said of what runs out and what runs. */
export interface Deployed {
  readonly expiry: Expiry;
  readonly consulVersion: string;
}

type Relevant = Pick<Settings, "version" | "certificates" | "gossip" | "serversStack">;

const day = 86_400_000;

/** What is due at a time. Of a stack with agents alone only the version: its keys are those of the servers' stack. */
export function dueAt(settings: Relevant, deployed: Deployed, now: Date): Due[] {
  const { certificates, serversStack } = settings;
  const before = (date: string, days: number) => now.getTime() >= Date.parse(date) - days * day;
  const found: Due[] = [...versionDue(settings.version, deployed.consulVersion)];
  if (serversStack !== undefined) return found;
  const { serverCertificate, gossipKey, ca } = deployed.expiry;
  if (before(serverCertificate, certificates.renewDays)) {
    found.push({
      what: `a server certificate runs out on ${serverCertificate}`,
      by: "up",
      remedy: "`pulumi up` makes it anew",
    });
  }
  // A server's certificate that is made now would outlive the authority that signs it.
  if (before(ca, certificates.serverDays)) {
    found.push({ what: `the certificate authority runs out on ${ca}`, by: "person", remedy: nextAuthority(settings) });
  } else if (certificates.caAlsoTrusted.length > 0) {
    found.push({
      what: "a new certificate authority is half introduced",
      by: "person",
      remedy: nextAuthority(settings),
    });
  }
  if (settings.gossip.alsoAccepted.length > 0) {
    found.push({ what: "a new gossip key is half introduced", by: "person", remedy: nextKey(settings) });
  } else if (before(gossipKey, 0)) {
    found.push({ what: `the gossip key was due on ${gossipKey}`, by: "person", remedy: nextKey(settings) });
  }
  return found;
}

/** A patch is `up`'s own affair, since whoever merged it approved it; anything else wants somebody who looks on. */
function versionDue(wanted: string, runs: string): Due[] {
  if (wanted === runs) return [];
  const what = `Consul ${wanted} is merged, ${runs} is deployed`;
  if (isPatch(wanted, runs)) return [{ what, by: "up", remedy: "`pulumi up` installs it" }];
  return [{ what, by: "person", remedy: "deploy what is merged, and look on" }];
}

/** Whether a version is a later patch of the same minor version. */
export function isPatch(wanted: string, runs: string): boolean {
  const [a, b] = [wanted, runs].map((version) => version.split(".").map(Number));
  return a?.[0] === b?.[0] && a?.[1] === b?.[1] && (a?.[2] ?? 0) > (b?.[2] ?? 0);
}

/** The next of the three steps of docs/operations.md. */
function nextAuthority({ certificates: { caGeneration: now, caAlsoTrusted } }: Relevant): string {
  const [other] = caAlsoTrusted;
  if (other === undefined) return step(`certificates: { caGeneration: ${now}, caAlsoTrusted: [${now + 1}] }`);
  if (other > now) return step(`certificates: { caGeneration: ${other}, caAlsoTrusted: [${now}] }`);
  return step(`certificates: { caGeneration: ${now} }`);
}

function nextKey({ gossip: { generation: now, alsoAccepted } }: Relevant): string {
  const [other] = alsoAccepted;
  if (other === undefined) return step(`gossip: { generation: ${now}, alsoAccepted: [${now + 1}] }`);
  if (other > now) return step(`gossip: { generation: ${other}, alsoAccepted: [${now}] }`);
  return step(`gossip: { generation: ${now} }`);
}

const step = (settings: string) => `the next step is ${settings} (docs/operations.md)`;
