/** Edits one structured setting in place. */
export function edit(
  config: Record<string, string>,
  key: string,
  change: (value: Record<string, unknown>) => void,
): void {
  const value = JSON.parse(config[`consul:${key}`] ?? "{}") as Record<string, unknown>;
  change(value);
  config[`consul:${key}`] = JSON.stringify(value);
}
