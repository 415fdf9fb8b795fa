import { aligned, Misuse } from "../local/command";

/**
 * The entries of a catalogue that a command is to do: those that are named, or all where none is.
 * @param what the kind of thing in the catalogue, for the message
 * @throws Misuse, where a name is not in the catalogue
 */
export function chosen<T>(what: string, catalogue: Readonly<Record<string, T>>, names: readonly string[]) {
  const unknown = names.filter((name) => !Object.hasOwn(catalogue, name));
  if (unknown.length > 0) {
    throw new Misuse(`no ${what} is called ${unknown.join(", ")}: ${Object.keys(catalogue).join(", ")}`);
  }
  return Object.entries(catalogue).filter(([name]) => names.length === 0 || names.includes(name));
}

/** The lines of a command's help that list what there is in a catalogue. */
export function listed(catalogue: Readonly<Record<string, { readonly title: string }>>): string {
  return aligned(Object.entries(catalogue).map(([name, { title }]) => [`  ${name}`, title])).join("\n");
}
