import { createHash } from "crypto";

/** A server, and what of it cannot change without a new machine, or a new disk. */
export interface Place {
  readonly name: string;
  readonly zone: string;
  readonly systemDiskCategory: string;
  /** Key that encrypts the data disk, where it is not the account's own. */
  readonly dataDiskKey: string | undefined;
}

const nameLength = 4;
const placeLength = 4;

/** Where all servers are, in at most 128 characters of a tag: digests of each one's name and place. */
export function placesTag(places: readonly Place[]): string {
  return places.map((place) => cut(place.name, nameLength) + cut(placeOf(place), placeLength)).join("");
}

/** The servers that are somewhere else than a tag of earlier says. */
export function movedServers(before: string, places: readonly Place[]): string[] {
  const entries = before.match(new RegExp(`.{${nameLength + placeLength}}`, "g")) ?? [];
  const known = new Map(entries.map((entry) => [entry.slice(0, nameLength), entry.slice(nameLength)]));
  return places
    .filter((place) => {
      const earlier = known.get(cut(place.name, nameLength));
      return earlier !== undefined && earlier !== cut(placeOf(place), placeLength);
    })
    .map(({ name }) => name);
}

function placeOf({ zone, systemDiskCategory, dataDiskKey = "" }: Place): string {
  return `${zone} ${systemDiskCategory} ${dataDiskKey}`;
}

function cut(text: string, length: number): string {
  return createHash("sha256").update(text).digest("base64url").slice(0, length);
}
