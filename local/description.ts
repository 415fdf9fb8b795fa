import { LocalNode } from "../components/local/nodes";
import type { AclObject } from "../consul/acl";
import type { ConsulNode } from "../consul/node";
import { runProgram } from "./program";
import type { LocalProviders } from "./providers";

/** A cluster as the program describes it for this machine. */
export interface Description {
  readonly datacenter: string;
  /** Servers, then agents, each in the order of the settings' names. */
  readonly nodes: readonly ConsulNode[];
  /** The policies and tokens that belong into the cluster, each once. */
  readonly acl: readonly AclObject[];
  /** The token that may do everything. */
  readonly managementToken: string;
  /** The token that the agents share. */
  readonly agentToken: string;
  /** PEM of the certificate authority. */
  readonly caCertificate: string;
}

/**
 * Runs the program with real keys and certificates, and saves these for the next run.
 * @param config every setting of the stack: key to text or JSON
 * @throws what the program throws: wrong settings, or resources that no node of this machine needs
 */
export async function describeCluster(
  stack: string,
  config: Readonly<Record<string, string>>,
  providers: LocalProviders,
): Promise<Description> {
  const { resources, outputs } = await runProgram(stack, config, providers);
  providers.save();
  const described = resources
    .filter(({ type }) => type === LocalNode.type)
    .map(({ inputs }) => inputs as unknown as { readonly node: ConsulNode; readonly acl: readonly AclObject[] });
  const nodes = described.map(({ node }) => node);
  const acl = described.flatMap((one) => one.acl);
  const output = (name: string) => String(outputs[name]?.value);
  return {
    datacenter: output("datacenter"),
    nodes: [...nodes.filter(({ role }) => role === "server"), ...nodes.filter(({ role }) => role === "agent")],
    acl: [...new Map(acl.map((object) => [object.file, object])).values()],
    managementToken: output("managementToken"),
    agentToken: output("agentToken"),
    caCertificate: output("caCertificate"),
  };
}
