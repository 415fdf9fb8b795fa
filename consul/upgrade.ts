import { GossipGenerations, gossipTag, refusedKeys } from "./gossip";
import { isNewer, lineName, lineOf } from "./releases";

/** Decides which steps of an upgrade are allowed: from one version of Consul, authority or gossip key to another. */

/** What servers were last set to, as their platform remembers it: in tags of a machine, in a StatefulSet's annotations. */
export interface SetTo {
  readonly "consul-version": string;
  /** Generations of certificate authorities, the one that signs first: `1`, `1+2`, `2+1`. */
  readonly "consul-ca": string;
  /** Generations of gossip keys, the one that encrypts first: `1`, `1+2`, `2+1`. */
  readonly "consul-gossip": string;
  /** Generation of the agents' token. */
  readonly "consul-agent-token": string;
}

/** What the servers are to be set to by these settings. */
export function setTo(settings: {
  readonly version: string;
  readonly certificates: { readonly caGeneration: number; readonly caAlsoTrusted: readonly number[] };
  readonly gossip: GossipGenerations;
  readonly tokens: { readonly agentGeneration: number };
}): SetTo {
  const { caGeneration, caAlsoTrusted } = settings.certificates;
  return {
    "consul-version": settings.version,
    "consul-ca": [caGeneration, ...caAlsoTrusted].join("+"),
    "consul-gossip": gossipTag(settings.gossip),
    "consul-agent-token": String(settings.tokens.agentGeneration),
  };
}

/** Why servers may not go from one to the other in one step; undefined where they may. What is not known is no reason. */
export function refusedStep(from: Partial<SetTo>, to: SetTo): string | undefined {
  const before = { ...to, ...from };
  return (
    refusedVersion(before["consul-version"], to["consul-version"]) ??
    refusedAuthorities(before["consul-ca"], to["consul-ca"]) ??
    refusedKeys(before["consul-gossip"], to["consul-gossip"]) ??
    refusedToken(Number(before["consul-agent-token"]), Number(to["consul-agent-token"]))
  );
}

/** The generation of the authority that signs. */
export function signer(to: Partial<SetTo>): string | undefined {
  return to["consul-ca"]?.split("+")[0];
}

/** Why Consul may not go from one version to another in one step; undefined where it may. */
export function refusedVersion(from: string, to: string): string | undefined {
  if (isNewer(from, to)) {
    return `Consul cannot go back from ${from} to ${to}: its data may be of a newer form. Set consul:version to ${from} or later; the way back is a fresh cluster with a snapshot taken by ${to}`;
  }
  // Consul keeps compatibility over two minor versions (its "upgrading" pages).
  const furthest = lineOf(from) + 2;
  if (lineOf(to) > furthest) {
    return `from ${from} to ${to} is too far for one step: set consul:version to ${lineName(furthest)}.x first, \`pulumi up\`, then go on`;
  }
  return undefined;
}

/** Why certificate authorities may not change like this in one step; undefined where they may. */
export function refusedAuthorities(from: string, to: string): string | undefined {
  const [trusted, wanted] = [from.split("+"), to.split("+")];
  const [oldSigner = "", newSigner = ""] = [trusted[0], wanted[0]];
  if (!trusted.includes(newSigner)) {
    return `nobody trusts certificate authority ${newSigner} yet: set consul:certificates to caGeneration ${oldSigner} with caAlsoTrusted [${newSigner}] first, \`pulumi up\`, then go on`;
  }
  if (!wanted.includes(oldSigner)) {
    return `the other servers still present certificates of authority ${oldSigner}: keep it in certificates.caAlsoTrusted for this step, \`pulumi up\`, then drop it`;
  }
  return undefined;
}

/** Why the agents' token may not be of this generation; undefined where it may. */
export function refusedToken(from: number, to: number): string | undefined {
  if (to >= from) return undefined;
  return `the agents' token cannot go back from generation ${from} to ${to}: whoever has token ${from} could go on using it. Set consul:tokens.agentGeneration to ${from + 1}, which makes a new token and revokes all before it`;
}

/** Minutes for which the servers' consent to a change holds: what they saw may be over afterwards. */
const consentMinutes = 10;

/** Why a change that servers agreed to at this time may not begin now; undefined where it may, or the time is not known. */
export function refusedConsent(agreed: string | undefined, now: Date): string | undefined {
  if (agreed === undefined || now.getTime() - Date.parse(agreed) <= consentMinutes * 60_000) return undefined;
  return `they agreed to this change at ${agreed}, in an \`up\` that ended before it, and may not be well any more`;
}
