import { ports } from "../../consul/config";

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

/** A variable that has a field of the pod: its address, its node's name. */
export function fieldVariable(name: string, fieldPath: string): EnvVar {
  return { name, valueFrom: { fieldRef: { fieldPath } } };
}

/**
 * The environment with which an application's container reaches the agent of its own node: `HOST_IP`, `POD_IP`,
 * `CONSUL_HTTP_ADDR`, and `CONFIG_SERVICE_*` as the Spring Cloud Consul applications of the hand-made cluster read it. An
 * instance must be deregistered at the agent where it was registered, so the address is the node's, never a load
 * balancer's.
 * The order matters: Kubernetes expands `$(HOST_IP)` only from variables above it.
 */
export function appEnvironment(): EnvVar[] {
  return [
    fieldVariable("HOST_IP", "status.hostIP"),
    fieldVariable("POD_IP", "status.podIP"),
    { name: "CONSUL_HTTP_ADDR", value: `http://$(HOST_IP):${ports.http}` },
    { name: "CONFIG_SERVICE_ENABLED", value: "true" },
    { name: "CONFIG_SERVICE_HOST", value: "$(HOST_IP)" },
    { name: "CONFIG_SERVICE_PORT", value: String(ports.http) },
  ];
}

/**
 * The environment with which an application's container presents its token, one of the stack output `apps`:
 * `CONSUL_HTTP_TOKEN` for Consul's own clients, `SPRING_CLOUD_CONSUL_TOKEN` for Spring Cloud Consul.
 */
export function tokenEnvironment({ secretName, key }: { secretName: string; key: string }): EnvVar[] {
  const valueFrom = { secretKeyRef: { name: secretName, key } };
  return [
    { name: "CONSUL_HTTP_TOKEN", valueFrom },
    { name: "SPRING_CLOUD_CONSUL_TOKEN", valueFrom },
  ];
}
