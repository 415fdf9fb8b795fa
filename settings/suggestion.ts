import { distance } from "fastest-levenshtein";
import { Json, listSettings } from "./json-schema";

/**
 * What to say of a key that no setting has: the setting that was meant, as far as that can be guessed.
 * @param block path of the block that the key stands in, as zod gives it
 * @param settings every setting, as JSON Schema
 */
export function suggestion(block: readonly (string | number)[], key: string, settings: Json): string {
  const at = [...block, key]
    .map((part) => (typeof part === "number" ? "[]" : `.${part}`))
    .join("")
    .slice(1);
  const all = listSettings(settings);
  const same = all.filter((setting) => `${setting.key}.`.startsWith(`${at}.`) || setting.key.startsWith(`${at}[]`));
  const platforms = [...new Set(same.map(({ platform }) => platform))];
  if (same.length > 0) return `only with ${String(block[0])}.platform: ${platforms.join(" or ")}`;

  const near = nearest(
    key,
    namesIn(settings, block).map((name) => [name, name]),
  );
  const elsewhere = all.flatMap(({ key: name }): [string, string][] => [
    [/\w+$/.exec(name)?.[0] ?? name, name],
    [name.replace(/[^\w]/g, ""), name],
  ]);
  const meant = near.length > 0 ? near : nearest(key, elsewhere);
  if (meant.length === 0) return "no such setting; docs/settings.md has all of them";
  return `no such setting: did you mean ${meant.map((name) => `\`${name}\``).join(" or ")}?`;
}

/** Of pairs of a word and what it stands for, those whose word is nearest, if any is near. */
export function nearest(key: string, pairs: readonly [string, string][]): string[] {
  const far = Math.max(1, Math.floor(key.length / 3)) + 1;
  const measured = pairs.map(([word, name]) => ({ name, apart: distance(key.toLowerCase(), word.toLowerCase()) }));
  const least = Math.min(far, ...measured.map(({ apart }) => apart));
  return least === far ? [] : [...new Set(measured.filter(({ apart }) => apart === least).map(({ name }) => name))];
}

/** Names of what may stand in a block, on whatever platform. */
function namesIn(part: Json, [next, ...rest]: readonly (string | number)[]): string[] {
  return (part.oneOf ?? [part]).flatMap((one) => {
    if (next === undefined) return Object.keys(one.properties ?? {});
    const inner = typeof next === "number" ? one.items : one.properties?.[next];
    return inner === undefined ? [] : namesIn(inner as Json, rest);
  });
}
