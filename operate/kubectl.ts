import { mkdtempSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import type { ClusterSettings } from "../settings";
import { execute } from "./execute";

export type KubectlOptions = Pick<ClusterSettings, "namespace" | "ackClusterId" | "kubeconfig" | "context">;

/**
 * Runs kubectl in a cluster's namespace.
 * @param seconds how long it may take; 30 unless given
 * @throws its last words; where the context is not known, how to name it
 */
export async function kubectl(
  cluster: KubectlOptions,
  args: readonly string[],
  { input = "", seconds = 30 }: { input?: string; seconds?: number } = {},
): Promise<string> {
  const { namespace, kubeconfig } = cluster;
  const environment = { ...process.env };
  let directory: string | undefined;
  /** The last resort, where this process ends while kubectl runs. */
  const remove = () => directory !== undefined && rmSync(directory, { recursive: true, force: true });
  process.once("exit", remove);
  try {
    if (kubeconfig !== undefined) {
      directory = mkdtempSync(join(tmpdir(), "consul-kubeconfig-"));
      writeFileSync(join(directory, "config"), kubeconfig, { mode: 0o600 });
      environment.KUBECONFIG = join(directory, "config");
    }
    const context = await contextOf(cluster, environment);
    const own = [...(context === undefined ? [] : [`--context=${context}`]), `--namespace=${namespace}`];
    return await execute("kubectl", [...own, ...args], { input, seconds, env: environment });
  } catch (error) {
    throw new Error(`kubectl ${args[0] ?? ""}: ${(error as Error).message}`, { cause: error });
  } finally {
    remove();
    process.off("exit", remove);
  }
}

/** ACK calls a context by the user and the cluster's id. */
async function contextOf({ context, ackClusterId }: KubectlOptions, env: NodeJS.ProcessEnv) {
  if (context !== undefined || ackClusterId === undefined) return context;
  const listed = await execute("kubectl", ["config", "get-contexts", "-o", "name"], { input: "", seconds: 10, env });
  const own = listed.split("\n").filter((name) => name.endsWith(ackClusterId));
  if (own.length === 1) return own[0];
  throw new Error(
    `${own.length === 0 ? "no context" : "more than one context"} of the kubeconfig ends with ${ackClusterId}: name it with --context`,
  );
}
