/** Which versions of Consul there are, and what is known of them. docs/facts/consul.md has the sources. */

/** Major, minor and patch of a version such as 2.0.1 or 2.0.1+ent. */
export function versionParts(version: string): [number, number, number] {
  return version.split(/[.+-]/).slice(0, 3).map(Number) as [number, number, number];
}

/** Whether a version is later than another one. */
export function isNewer(version: string, than: string): boolean {
  const [[a, b, c], [major, minor, patch]] = [versionParts(version), versionParts(than)];
  return a > major || (a === major && (b > minor || (b === minor && c > patch)));
}

/** The last community release of each line of 1.x that this program takes. HashiCorp's later ones are Enterprise's alone. */
const lastOfLine: Readonly<Record<string, string>> = { "1.20": "1.20.6", "1.21": "1.21.5", "1.22": "1.22.7" };

/** Releases that HashiCorp took back, and what there is in their place. */
const withdrawn: Readonly<Record<string, string>> = { "1.22.4": "1.22.5" };

/** The last minor version of 1.x: 2.0 follows it. */
const lastMinorOfOne = 22;

/** A minor version's place in the order in which they were released: 1.22, 2.0 and 2.1 are neighbours. */
export function lineOf(version: string): number {
  const [major, minor] = versionParts(version);
  return major === 1 ? minor : lastMinorOfOne + 1 + minor;
}

/** The name of the minor version at a place in that order. */
export function lineName(line: number): string {
  return line <= lastMinorOfOne ? `1.${line}` : `2.${line - lastMinorOfOne - 1}`;
}

/**
 * Why there is no such community release of Consul, or why nobody may have it; undefined where it may be had. Of 2.x any
 * number is taken: new ones come every month.
 * @param version three numbers, from 1.20.0, before 3
 */
export function refusedRelease(version: string): string | undefined {
  const [major, minor] = versionParts(version);
  if (version in withdrawn) return `HashiCorp took ${version} back: set ${withdrawn[version] ?? ""} or later`;
  if (major !== 1) return undefined;
  const last = lastOfLine[`1.${minor}`];
  if (last === undefined) return `there is no Consul 1.${minor}: 2.0 came after 1.${lastMinorOfOne}`;
  if (!isNewer(version, last)) return undefined;
  return `${last} is the last community release of Consul 1.${minor}: set that, or a later line`;
}

/** What is known to be wrong with a version that may be had all the same; undefined where nothing is. */
export function knownWeakness(version: string): string | undefined {
  if (!isNewer("1.22.5", version)) return undefined;
  return `consul:version ${version} has CVE-2026-2808 (files of a server can be read through the Kubernetes auth method): set 1.22.5 or later`;
}

/** Whether agents read feature gates, for which their token needs operator:read: from 2.1 on. */
export function agentsReadFeatureGates(version: string): boolean {
  return lineOf(version) >= lineOf("2.1.0");
}
