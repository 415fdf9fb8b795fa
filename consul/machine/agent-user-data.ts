import { isIPv4 } from "net";
import { dirname } from "path/posix";
import { AgentConfig, agentNode, AgentSecrets, CaBundle } from "../config";
import { ConsulFile } from "../node";
import { readScript, withoutComments } from "../scripts";
import { consulPath, dataMount, etcDir, machineLayout, scriptDir, unitDir } from "./layout";
import { consulProcess } from "./units";
import { hookBody, mirrorFile, withinLimit } from "./user-data";

/** An agent on a machine that is no node of the Kubernetes cluster. */
export interface AgentMachine {
  readonly config: AgentConfig;
  readonly ca: CaBundle;
  readonly secrets: AgentSecrets;
  /** Consul version to have installed, where from, and the zip's SHA-256 ("" for the mirror's SHA256SUMS). */
  readonly version: string;
  readonly downloadMirror: string;
  readonly downloadSha256: string;
  /** Whether the machine's own programs find names below .consul, by systemd-resolved 246 or later. */
  readonly dns: boolean;
}

/** systemd-resolved sends names below .consul to the agent, and all others where it sent them before. */
const resolvedPath = "/etc/systemd/resolved.conf.d/consul.conf";

/**
 * User data of any machine with an agent: nothing in it is one machine's own. A boothook, as the servers have: cloud-init
 * fetches it anew and runs it at each boot. It is a shell script, and may be run by root on a machine that exists.
 * The agent is the agent of the cluster's nodes; its name and address are found at its start (place.sh).
 * @returns secret
 * @throws Error where servers have names instead of addresses, or the text is over the cloud's limit, with its size
 */
export function renderAgentUserData(machine: AgentMachine): string {
  const names = machine.config.retryJoin.filter((server) => !isIPv4(server));
  if (names.length > 0) {
    throw new Error(
      `consul:machines: machines need servers with addresses, on ECS; these are names in the cluster: ${names.join(", ")}`,
    );
  }
  const text = [
    "#cloud-boothook",
    "#!/bin/sh",
    "# Consul agent. Runs at every boot, and by hand as root; changes made to its files by hand are lost.",
    ...hookBody({
      names: [`lib=${scriptDir} etc=${etcDir} dns=${resolvedPath} consul=${consulPath(machine.version)}`],
      prepare: [
        `install -d -m 0755 ${scriptDir} ${dataMount}`,
        `install -d -m 0700 -o consul -g consul ${machineLayout(machine.version).dataDir}`,
      ],
      staged: [etcDir, scriptDir, unitDir, dirname(resolvedPath)],
      files: filesOf(machine),
      script: "machine/agent.sh",
    }),
  ].join("\n");
  return withinLimit(text, "agents");
}

function filesOf(machine: AgentMachine): ConsulFile[] {
  const { config, ca, secrets, version, dns } = machine;
  const node = agentNode(
    { ...config, listen: ["127.0.0.1"] },
    ca,
    secrets,
    { name: "${NODE_NAME}", address: "${HOST_IP}" },
    machineLayout(version),
  );
  const file = (path: string, mode: string, content: string) => ({ path, mode, content, secret: false });
  const script = (name: "install.sh" | "place.sh") =>
    file(`${scriptDir}/${name}`, "0755", withoutComments(readScript(`machine/${name}`)));
  return [
    ...node.files,
    script("install.sh"),
    script("place.sh"),
    mirrorFile(machine),
    file(`${unitDir}/consul.service`, "0644", unit(machine, node.command)),
    ...(dns ? [file(resolvedPath, "0644", "[Resolve]\nDNS=127.0.0.1:8600\nDomains=~consul\nDNSSEC=no\n")] : []),
  ];
}

function unit({ config, version }: AgentMachine, command: readonly string[]): string {
  return `[Unit]
Description=Consul agent
Documentation=https://developer.hashicorp.com/consul/docs
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

${consulProcess({
  version,
  command: command.map((word) => (word.includes(" ") ? `"${word}"` : word)).join(" "),
  before: [`ExecStartPre=+${scriptDir}/place.sh ${config.retryJoin[0] ?? ""}`],
  after: ["EnvironmentFile=-/run/consul.place"],
})}`;
}
