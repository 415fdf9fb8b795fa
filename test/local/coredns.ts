import { spawn } from "child_process";
import { once } from "events";
import { writeFileSync } from "fs";
import { join } from "path";
import { stubDomain } from "../../components/kubernetes/stub-domain";
import { ports } from "../../consul/config";
import { buildTool } from "../../tools/build";

/** Where the CoreDNS of a test listens; in its container it has port 53 for itself. */
export const coreDnsPort = 15_353;

/**
 * A CoreDNS as a cluster has it, with the program's stub domain.
 * @param listen address of the loopback that it keeps to, at `coreDnsPort`
 * @param agent address of the agent that it asks for names below .consul
 * @param upstream address and port that it asks for all other names
 * @returns what ends it
 */
export async function startCoreDns(
  directory: string,
  listen: string,
  agent: string,
  upstream: string,
): Promise<() => Promise<void>> {
  const binary = await buildTool("coredns", console.error);
  const stub = stubDomain({ address: `${agent}:${ports.dns}`, port: coreDnsPort });
  const main = `.:${coreDnsPort} {\n    errors\n    forward . ${upstream}\n    cache 30\n    reload\n}\n`;
  const file = join(directory, "Corefile");
  writeFileSync(file, (main + stub).replaceAll("    errors\n", `    errors\n    bind ${listen}\n`));
  const coredns = spawn(binary, ["-conf", file], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(coredns, "exit");
  return async () => {
    coredns.kill();
    await ended;
  };
}
