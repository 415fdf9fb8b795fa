import { specialSigKey } from "@pulumi/pulumi/runtime/rpc";

// In a request, a secret is wrapped in an object with a key of Pulumi's.

function isWrapped(value: unknown): value is { value: unknown } {
  return value !== null && typeof value === "object" && specialSigKey in value && "value" in value;
}

/** Whether anything in a value is marked as secret. */
export function holdsSecret(value: unknown): boolean {
  if (value === null || typeof value !== "object") return false;
  return isWrapped(value) || Object.values(value).some(holdsSecret);
}

/** A value without the marks of secrets. */
export function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  if (isWrapped(value)) return plain(value.value);
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, plain(entry)]));
}
