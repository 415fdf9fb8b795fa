import { chmodSync, mkdirSync, rmSync, writeFileSync } from "fs";
import { basename, join, relative } from "path";
import { stringify } from "yaml";
import { localLayout } from "../components/local/nodes";
import { AclObject } from "../consul/acl";
import { ports } from "../consul/config";
import { ConsulFile, ConsulNode } from "../consul/node";
import { leaderProbe, podCommand, podLayout } from "../consul/pod/pod";
import { withApi } from "../consul/scripts";
import { defineTask, Misuse } from "./command";
import { wantedConsul } from "./consul-binary";
import { describeCluster, Description } from "./description";
import { programDir, stackConfig } from "./program";
import { LocalProviders } from "./providers";
import { onLoopback } from "./supervisor";

/**
 * The same node in a container. A node is text: the directories and the address of this machine in it are replaced by
 * the container's. Its certificate still names the old address; nodes check each other by server.<datacenter>.consul.
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
  /** The files that compose.yaml refers to; their paths are relative to it. */
  readonly files: readonly ConsulFile[];
}

/** What compose.yaml says of every container. */
const common = {
  init: true,
  user: `${podLayout.user}:${podLayout.group}`,
  read_only: true,
  tmpfs: ["/tmp"],
  cap_drop: ["ALL"],
  security_opt: ["no-new-privileges:true"],
};

const url = ({ address }: ConsulNode) => `http://${address}:${ports.http}`;

/** The files of all containers: beside compose.yaml, and as its top-level configs and secrets. */
class Mounts {
  readonly files: ConsulFile[] = [];
  readonly configs: Record<string, object> = {};
  readonly secrets: Record<string, object> = {};

  /** Adds the files of one container. @returns what its service says to have each of them at its own path */
  add(owner: string, files: readonly ConsulFile[]): object {
    const refer = (secret: boolean) =>
      files.filter((file) => file.secret === secret).map((file) => this.mounted(owner, file));
    return { configs: refer(false), secrets: refer(true) };
  }

  private mounted(owner: string, { path: target, content, mode, secret }: ConsulFile) {
    const source = `${owner}-${basename(target)}`.replace(/[^a-zA-Z0-9._-]/g, "-");
    const path = `${secret ? "secrets" : "configs"}/${source}`;
    this.files.push({ path, content, mode, secret });
    (secret ? this.secrets : this.configs)[source] = { file: `./${path}` };
    return { source, target };
  }
}

function nodeService(node: ConsulNode, published: boolean, mounts: Mounts): object {
  return {
    ...common,
    hostname: node.name,
    entrypoint: podCommand(node),
    command: [],
    restart: "unless-stopped",
    stop_grace_period: "30s",
    networks: { consul: { ipv4_address: node.address } },
    volumes: [`${node.name}-data:${podLayout.dataDir}`],
    ...mounts.add(node.name, node.files),
    healthcheck: {
      test: ["CMD", ...leaderProbe(url(node))],
      interval: "5s",
      timeout: "5s",
      retries: 3,
      start_period: "60s",
    },
    ...(published ? { ports: [`127.0.0.1:${ports.http}:${ports.http}`] } : {}),
    // An agent gets its certificate with its token, and has a token once the job below is done.
    ...(node.role === "agent" ? { depends_on: { acl: { condition: "service_completed_successfully" } } } : {}),
  };
}

/** The job that puts policies and tokens in place. */
function aclJob(
  servers: readonly ConsulNode[],
  acl: readonly AclObject[],
  managementToken: string,
  mounts: Mounts,
): object {
  const script = { path: "/acl/acl.sh", mode: "0644", content: withApi("scripts/acl.sh"), secret: false };
  const token = { path: "/run/secrets/management-token", mode: "0600", content: `${managementToken}\n`, secret: true };
  const objects = acl.map(({ file, content }) => ({
    path: `/acl/objects/${file}`,
    mode: "0600",
    content,
    secret: true,
  }));
  return {
    ...common,
    entrypoint: ["/bin/sh", script.path, "/acl/objects"],
    command: [],
    restart: "on-failure",
    networks: ["consul"],
    environment: { CONSUL_HTTP_ADDR: servers.map(url).join(" "), CONSUL_HTTP_TOKEN_FILE: token.path },
    depends_on: Object.fromEntries(servers.map(({ name }) => [name, { condition: "service_healthy" }])),
    ...mounts.add("acl", [script, token, ...objects]),
  };
}

/** A Compose project of nodes that are in containers already, and of a job that puts policies and tokens in place. */
export function composeProject(
  { nodes, acl, managementToken }: Pick<Description, "nodes" | "acl" | "managementToken">,
  version: string,
  subnet: string,
): Project {
  const image = `hashicorp/consul:${version}`;
  const mounts = new Mounts();
  const servers = nodes.filter(({ role }) => role === "server");
  const services = nodes.map((node) => [node.name, { image, ...nodeService(node, node === servers[0], mounts) }]);
  const job = { image, ...aclJob(servers, acl, managementToken, mounts) };
  return {
    compose: {
      name: "consul",
      services: { ...Object.fromEntries(services), acl: job } as Record<string, object>,
      networks: { consul: { ipam: { config: [{ subnet: `${subnet}.0/24` }] } } },
      volumes: Object.fromEntries(nodes.map(({ name }) => [`${name}-data`, {}])),
      configs: mounts.configs,
      secrets: mounts.secrets,
    },
    files: mounts.files,
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

/**
 * Runs the program for three servers and a client and writes what it describes.
 * @param dir where to write it, and where its keys are kept
 * @param subnet three numbers of the containers' network, a /24
 * @returns the nodes, in containers
 */
export async function compose(dir: string, subnet: string): Promise<readonly ConsulNode[]> {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const prefix = "127.22.0";
  const config = { ...stackConfig("local"), ...onLoopback(prefix, 3, 1) };
  const described = await describeCluster("local", config, new LocalProviders(join(dir, "state.json")));
  const nodes = described.nodes.map((node) => inContainer(node, prefix, subnet));
  writeProject(dir, composeProject({ ...described, nodes }, wantedConsul(config).version, subnet));
  return nodes;
}

const usual = { dir: join(programDir, ".local/compose"), subnet: "172.28.5" };

export const task = defineTask({
  name: "compose",
  about: "writes a Compose project: three servers and a client in containers",
  before:
    "Then, in its directory: docker compose up --wait. The UI is on http://127.0.0.1:8500/ui, on this machine alone.",
  flags: {
    dir: {
      type: "string",
      value: "DIRECTORY",
      default: usual.dir,
      about: "where to write it and keep its keys; .local/compose unless given",
    },
    subnet: {
      type: "string",
      value: "A.B.C",
      default: usual.subnet,
      about: `network of the containers, a /24; ${usual.subnet} unless given`,
    },
    reset: {
      type: "boolean",
      default: false,
      about: "forget the keys of earlier times (and `docker compose down --volumes` the data that goes with them)",
    },
  },
  run: async ({ flags: { dir, subnet, reset }, write }) => {
    if (!/^(10|172|192)(\.\d{1,3}){2}$/.test(subnet)) {
      throw new Misuse(`--subnet ${subnet}: three numbers of a private network are wanted, such as ${usual.subnet}`);
    }
    if (reset) rmSync(dir, { recursive: true, force: true });
    const nodes = await compose(dir, subnet);
    const shown = relative(process.cwd(), dir) || ".";
    write(`${shown}/compose.yaml: ${nodes.map(({ name, address }) => `${name} ${address}`).join(", ")}
  cd ${shown} && docker compose up --wait
  the UI: http://127.0.0.1:${ports.http}/ui, with the token in ${shown}/secrets/acl-management-token
`);
    return 0;
  },
});
