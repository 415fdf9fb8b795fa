import { NodeLayout } from "./node";
import { digest } from "./secrets";

/** Keys of gossip, base64: the one that encrypts first, then those with which others may encrypt. */
export type GossipKeys = readonly string[];

/** Which generations of keys a cluster has, as the settings say it. */
export interface GossipGenerations {
  readonly generation: number;
  readonly alsoAccepted: readonly number[];
  /** Secret: the key of generation 1, where this program has not made it. */
  readonly existingKey?: string | undefined;
}

/**
 * The keyring that a node is given, and Consul's own, whose place it takes before each start: what a node remembers would
 * win over its configuration. Of a directory with configuration Consul reads .json and .hcl alone.
 */
export function keyringPaths({ secretDir, dataDir }: NodeLayout): { readonly given: string; readonly own: string } {
  return { given: `${secretDir}/gossip.keyring`, own: `${dataDir}/serf/local.keyring` };
}

/** A keyring as Consul's own file has it, and as scripts/keyring.sh takes it. */
export function keyringText(keys: GossipKeys): string {
  return `${JSON.stringify(keys)}\n`;
}

/** Names keys without giving them away, as scripts/keyring.sh takes it. */
export function digests(keys: GossipKeys): string {
  return keys.map(digest).join(",");
}

/** The command that does this, for Consul's own user: Consul writes to that directory. */
export function installKeyring(layout: NodeLayout): string {
  const { given, own } = keyringPaths(layout);
  return `install -D -m 0600 ${given} ${own}`;
}

/** Eight digits for each key, the one that encrypts first; they give nothing away. */
export function gossipMark(keys: GossipKeys): string {
  return keys.map((key) => digest(key).slice(0, 8)).join("+");
}

/**
 * Matches the trust mark (consul/config.ts) of nodes that members with these keys understand, and that understand them:
 * such a node starts with one of these keys first, and knows the first of these. For scripts/behind.sh.
 */
export function gossipPattern(keys: GossipKeys): string {
  const [first = "", ...others] = keys.map((key) => gossipMark([key]));
  const begins = [`${first}[^.]*`, ...others.map((other) => `${other}[^.]*${first}[^.]*`)];
  return `(${begins.join("|")})[.][^"]*`;
}

/** Generations as a tag has them, the one that encrypts first: `1`, `1+2`, `2+1`; an existing key by its digest. */
export function gossipTag({ generation, alsoAccepted, existingKey }: GossipGenerations): string {
  const label = (number: number) =>
    number === 1 && existingKey !== undefined ? `existing-${digest(existingKey).slice(0, 8)}` : String(number);
  return [generation, ...alsoAccepted].map(label).join("+");
}

const isFirst = (label: string) => label === "1" || label.startsWith("existing");
const numberOf = (label: string) => (isFirst(label) ? "1" : label);

/** Labels of two tags. Releases before this one had `existing` for whichever key was given. */
function labels(from: string, to: string): [string[], string[]] {
  const wanted = to.split("+");
  const given = wanted.find((label) => label.startsWith("existing-")) ?? "existing";
  return [from.split("+").map((label) => (label === "existing" ? given : label)), wanted];
}

/** Whether a step only makes keys known: nobody encrypts with another one, and none goes. */
export function onlyAddsKeys(from: string, to: string): boolean {
  const [known, wanted] = labels(from, to);
  return known[0] === wanted[0] && known.every((label) => wanted.includes(label));
}

/** Why gossip keys may not change like this in one step; undefined where they may. */
export function refusedKeys(from: string, to: string): string | undefined {
  const [known, wanted] = labels(from, to);
  const [oldFirst, newFirst] = [known.find(isFirst), wanted.find(isFirst)];
  const [oldKey = "", newKey = ""] = [known[0], wanted[0]];
  if (oldFirst !== undefined && newFirst !== undefined && oldFirst !== newFirst) {
    const remedy =
      oldFirst === "1" ? "take consul:gossip.existingKey away" : "set consul:gossip.existingKey to the key that it was";
    return `another key would be gossip key 1, and no node knows it: ${remedy}, and have a new key by a new generation, docs/operations.md`;
  }
  if (!known.includes(newKey)) {
    return `no node knows gossip key ${numberOf(newKey)} yet: set consul:gossip to generation ${numberOf(oldKey)} with alsoAccepted [${numberOf(newKey)}] first, \`pulumi up\`, then go on`;
  }
  if (!wanted.includes(oldKey)) {
    return `the nodes still start with gossip key ${numberOf(oldKey)}: keep it in consul:gossip.alsoAccepted for this step, \`pulumi up\`, then drop it`;
  }
  return undefined;
}
