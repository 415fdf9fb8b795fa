import { ports } from "../../consul/config";
import { AppAccess, EnvVar, TokenReference } from "./app-access";

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
 * How the application of a token reaches Consul: the agent of its own node, and the token as `CONSUL_HTTP_TOKEN` for
 * Consul's own clients and as `SPRING_CLOUD_CONSUL_TOKEN` for Spring Cloud Consul.
 */
export function appAccess(token: TokenReference): AppAccess {
  const valueFrom = { secretKeyRef: { name: token.secretName, key: token.key } };
  const tokens = ["CONSUL_HTTP_TOKEN", "SPRING_CLOUD_CONSUL_TOKEN"].map((name) => ({ name, valueFrom }));
  return { ...token, environment: [...appEnvironment(), ...tokens] };
}

/** Name of the ConfigMap of `sharedEnvironment`, in each namespace that has an application. */
export const sharedEnvironmentName = "consul-access";

/**
 * The environment of containers that no Pulumi program describes, for a `configMapRef`. Kubernetes puts no node's address
 * into such values, so the address is the Service that leads to the agent of the caller's own node.
 * @param namespace the namespace of the agents
 */
export function sharedEnvironment(namespace: string): Record<string, string> {
  const host = `consul-agent.${namespace}.svc`;
  return {
    CONSUL_HTTP_ADDR: `http://${host}:${ports.http}`,
    CONFIG_SERVICE_ENABLED: "true",
    CONFIG_SERVICE_HOST: host,
    CONFIG_SERVICE_PORT: String(ports.http),
  };
}
