// Types alone: the reader's package takes this file along, and nothing else of components/.

/** One environment variable of a container, in the form a pod spec has it. */
export type EnvVar =
  | { readonly name: string; readonly value: string }
  | { readonly name: string; readonly valueFrom: { readonly fieldRef: { readonly fieldPath: string } } }
  | { readonly name: string; readonly valueFrom: { readonly secretKeyRef: SecretKey } };

/** One value of a Secret in the container's own namespace. */
interface SecretKey {
  readonly name: string;
  readonly key: string;
}

/** Where a token is, for a container's `secretKeyRef`. Nothing in it is secret. */
export interface TokenReference {
  readonly namespace: string;
  readonly secretName: string;
  /** Key in the Secret. */
  readonly key: string;
  /** The token's public id: changes with the token, so it belongs into an annotation of the pods that use it. */
  readonly accessorId: string;
}

/** What one application of consul:apps needs to reach Consul. Nothing in it is secret. */
export interface AppAccess extends TokenReference {
  /** The whole environment of its container, as a pod spec has it. */
  readonly environment: readonly EnvVar[];
}
