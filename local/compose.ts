import { chmodSync, mkdirSync, rmSync, writeFileSync } from "fs";
import { basename, join, relative } from "path";
import { parseArgs } from "util";
import { stringify } from "yaml";
import { LocalNode, localLayout } from "../components/local/nodes";
import { AclObject } from "../consul/acl";
import { withApi } from "../consul/scripts";
import { ports } from "../consul/config";
import { ConsulFile, ConsulNode } from "../consul/node";
import { leaderProbe, podLayout } from "../consul/pod/pod";
import { programDir, runProgram, stackConfig } from "./program";
import { LocalProviders } from "./providers";
import { onLoopback } from "./supervisor";

const help = `npm run compose [-- OPTION…]   writes a Compose project: three servers and a client in containers

Then, in its directory: docker compose up --wait. The UI is on http://127.0.0.1:8500/ui, on this machine alone.

  --dir DIRECTORY   where to write it and keep its keys; .local/compose unless given
  --subnet A.B.C    network of the containers, a /24; 172.28.5 unless given
  --reset           forget the keys of earlier times (and \`docker compose down --volumes\` the data that goes with them)`;

/** A node as the program describes it for this machine, and what it applies to the ACL system. */
interface Described {
  readonly node: ConsulNode;
  readonly acl: readonly AclObject[];
}

/**
 * The same node in a container: a node is text, so where it says a directory or an address of this machine, say the
 * container's. Its certificate goes on naming the old address; nodes check each other by server.<datacenter>.consul.
 */
export function inContainer(node: ConsulNode, prefix: string, subnet: string): ConsulNode {
  const local = localLayout(node.name);
  const moved = (text: string) =>
    (["configDir", "secretDir", "dataDir"] as const)
      .reduce((result, key) => result.replaceAll(local[key], podLayout[key]), text)
      .replaceAll(`${prefix}.`, `${subnet}.`);
  const files = node.files.map((file) => ({ ...file, path: moved(file.path), content: moved(file.content) }));
  return { ...node, address: moved(node.address), files, command: node.command.map(moved) };
}

export interface Project {
  /** What goes into compose.yaml. */
  readonly compose: Record<string, unknown>;
  /** What it refers to; paths are relative to it. */
  readonly files: readonly ConsulFile[];
}

/** A Compose project of nodes that are in containers already, and of a job that puts policies and tokens in place. */
export function composeProject(
  nodes: readonly ConsulNode[],
  acl: readonly AclObject[],
  { version, subnet, managementToken }: { version: string; subnet: string; managementToken: string },
): Project {
  const image = `hashicorp/consul:${version}`;
  const servers = nodes.filter(({ role }) => role === "server");
  const [first] = servers;
  const files: ConsulFile[] = [];
  const configs: Record<string, object> = {};
  const secrets: Record<string, object> = {};
  const http = ({ address }: ConsulNode) => `http://${address}:${ports.http}`;

  /** Puts files beside compose.yaml and gives back what a service says to have them, each at its own path. */
  const mounted = (owner: string, list: readonly ConsulFile[]) => {
    const refer = (secret: boolean) =>
      list
        .filter((file) => file.secret === secret)
        .map(({ path, content, mode }) => {
          const source = `${owner}-${basename(path)}`.replace(/[^a-zA-Z0-9._-]/g, "-");
          const file = `${secret ? "secrets" : "configs"}/${source}`;
          files.push({ path: file, content, mode, secret });
          (secret ? secrets : configs)[source] = { file: `./${file}` };
          return { source, target: path };
        });
    return { configs: refer(false), secrets: refer(true) };
  };
  const common = {
    image,
    init: true,
    user: `${podLayout.user}:${podLayout.group}`,
    read_only: true,
    tmpfs: ["/tmp"],
    cap_drop: ["ALL"],
    security_opt: ["no-new-privileges:true"],
  };
  const service = (node: ConsulNode) => ({
    ...common,
    hostname: node.name,
    entrypoint: [...node.command],
    command: [],
    restart: "unless-stopped",
    stop_grace_period: "30s",
    networks: { consul: { ipv4_address: node.address } },
    volumes: [`${node.name}-data:${podLayout.dataDir}`],
    ...mounted(node.name, node.files),
    healthcheck: {
      test: ["CMD", ...leaderProbe(http(node))],
      interval: "5s",
      timeout: "5s",
      retries: 3,
      start_period: "60s",
    },
    ...(node === first ? { ports: [`127.0.0.1:${ports.http}:${ports.http}`] } : {}),
    // An agent gets its certificate with its token: it has one once the job has been.
    ...(node.role === "agent" ? { depends_on: { acl: { condition: "service_completed_successfully" } } } : {}),
  });
  const job = {
    ...common,
    entrypoint: ["/bin/sh", "/acl/acl.sh", "/acl/objects"],
    command: [],
    restart: "on-failure",
    networks: ["consul"],
    environment: {
      CONSUL_HTTP_ADDR: servers.map(http).join(" "),
      CONSUL_HTTP_TOKEN_FILE: "/run/secrets/management-token",
    },
    depends_on: Object.fromEntries(servers.map(({ name }) => [name, { condition: "service_healthy" }])),
    ...mounted("acl", [
      { path: "/acl/acl.sh", mode: "0644", content: withApi("scripts/acl.sh"), secret: false },
      { path: "/run/secrets/management-token", mode: "0600", content: `${managementToken}\n`, secret: true },
      ...acl.map(({ file, content }) => ({ path: `/acl/objects/${file}`, mode: "0600", content, secret: true })),
    ]),
  };
  const services = { ...Object.fromEntries(nodes.map((node) => [node.name, service(node)])), acl: job };
  return {
    compose: {
      name: "consul",
      services,
      networks: { consul: { ipam: { config: [{ subnet: `${subnet}.0/24` }] } } },
      volumes: Object.fromEntries(nodes.map(({ name }) => [`${name}-data`, {}])),
      configs,
      secrets,
    },
    files,
  };
}

/** Writes the project. Its directory is this user's alone: a secret's file is mounted as it is, for the container's user. */
export function writeProject(dir: string, { compose, files }: Project): void {
  for (const part of ["configs", "secrets"]) {
    rmSync(join(dir, part), { recursive: true, force: true });
    mkdirSync(join(dir, part), { recursive: true });
  }
  chmodSync(dir, 0o700);
  for (const { path, content } of files) writeFileSync(join(dir, path), content, { mode: 0o644 });
  const text = stringify(compose, { lineWidth: 0, aliasDuplicateObjects: false });
  writeFileSync(
    join(dir, "compose.yaml"),
    `# Written by \`npm run compose\`; changes made here are lost.\n${text.replaceAll("$", "$$$$")}`,
  );
}

/** Runs the program for three servers and a client and writes what it describes. @returns the nodes, in containers */
export async function main(args: string[], write: (text: string) => void): Promise<readonly ConsulNode[]> {
  const { values } = parseArgs({
    args,
    options: {
      dir: { type: "string", default: join(programDir, ".local/compose") },
      subnet: { type: "string", default: "172.28.5" },
      reset: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    write(`${help}\n`);
    return [];
  }
  const { dir, subnet } = values;
  if (!/^(10|172|192)(\.\d{1,3}){2}$/.test(subnet)) {
    throw new Error(`--subnet ${subnet}: three numbers of a private network are wanted, such as 172.28.5`);
  }
  if (values.reset) rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const prefix = "127.22.0";
  const config = { ...stackConfig("local"), ...onLoopback(prefix, 3, 1) };
  const providers = new LocalProviders(join(dir, "state.json"));
  const run = await runProgram("local", config, providers);
  providers.save();
  const described = run.resources
    .filter(({ type }) => type === LocalNode.type)
    .map(({ inputs }) => inputs as unknown as Described);
  const order = ({ node }: Described) => (node.role === "server" ? 0 : 1);
  const nodes = described.sort((a, b) => order(a) - order(b)).map(({ node }) => inContainer(node, prefix, subnet));
  // Every server has the same policies and tokens: any one will do.
  const acl = described.find(({ node }) => node.role === "server")?.acl ?? [];
  const managementToken = String(run.outputs.managementToken?.value);
  writeProject(dir, composeProject(nodes, acl, { version: config["consul:version"] ?? "", subnet, managementToken }));
  const shown = relative(process.cwd(), dir) || ".";
  write(`${shown}/compose.yaml: ${nodes.map(({ name, address }) => `${name} ${address}`).join(", ")}
  cd ${shown} && docker compose up --wait
  the UI: http://127.0.0.1:${ports.http}/ui, with the token in ${shown}/secrets/acl-management-token
`);
  return nodes;
}

if (require.main === module) {
  main(process.argv.slice(2), (text) => process.stdout.write(text)).catch((error: unknown) => {
    process.stderr.write(`compose: ${(error as Error).message}\n`);
    process.exitCode = 1;
  });
}
