import { randomBytes, randomUUID } from "crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "fs";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { ports } from "../../consul/config";
import type { ConsulNode } from "../../consul/node";
import { Api } from "../../local/api";
import type { Member } from "../../local/check";
import { NodeProcess } from "../../local/processes";
import { LocalProviders } from "../../local/providers";
import type { Cluster } from "../../local/supervisor";
import { Drill, Shown } from "./report";

/** A Consul agent's configuration, as far as it is spoilt here. */
interface Config extends Record<string, unknown> {
  encrypt?: string | undefined;
  auto_encrypt?: unknown;
  tls?: { readonly defaults: object } | undefined;
  readonly acl: { readonly tokens: Readonly<Record<string, string>> };
}

interface BadClient {
  readonly name: string;
  readonly what: string;
  /** The role of the node whose configuration is spoilt. */
  readonly like: "server" | "agent";
  readonly spoil: (config: Config) => Config;
  /** The refusal in the client's own log or, in a line with the client's address, in a server's log. */
  readonly refusal: RegExp;
  /** The client has the key of the gossip pool, and becomes a member: gossip asks for nothing else. */
  readonly gossips?: true;
}

export interface Refusal {
  readonly what: string;
  readonly gossips: boolean;
  /** The refusal in Consul's words; "" for none. */
  readonly said: string;
  /** The client was given the catalog, or a vote. */
  readonly served: boolean;
  /** A node of the cluster took the client for a member at some time. */
  readonly seen: boolean;
}

const noTls = (config: Config): Config => ({ ...config, tls: undefined, auto_encrypt: undefined });
const tokens = (config: Config, wanted: Record<string, string>) => ({
  ...config,
  acl: { ...config.acl, tokens: wanted },
});
const clients: readonly BadClient[] = [
  {
    name: "wrong-ca",
    what: "trusts another CA",
    like: "agent",
    spoil: (config) => ({
      ...config,
      tls: { ...config.tls, defaults: { ...config.tls?.defaults, ca_file: "other.pem" } },
    }),
    refusal: /certificate signed by unknown authority/,
  },
  {
    name: "no-tls",
    what: "no TLS, no gossip key, as in the Docker walk-through",
    like: "agent",
    spoil: (config) => ({ ...noTls(config), encrypt: undefined }),
    refusal: /Remote state is encrypted and encryption is not configured/,
  },
  {
    name: "wrong-key",
    what: "another gossip key",
    like: "agent",
    spoil: (config) => ({ ...config, encrypt: randomBytes(32).toString("base64") }),
    refusal: /No installed keys could decrypt the message/,
  },
  {
    name: "no-token",
    what: "no token",
    like: "agent",
    spoil: (config) => tokens(config, {}),
    refusal: /Permission denied: anonymous token lacks permission 'node:write'/,
  },
  {
    name: "wrong-token",
    what: "a token that nobody issued",
    like: "agent",
    spoil: (config) => tokens(config, { agent: randomUUID() }),
    refusal: /ACL not found/,
  },
  {
    name: "no-tls-key",
    what: "no TLS, but the gossip key",
    like: "agent",
    spoil: noTls,
    refusal: /Non-TLS connection attempted with VerifyIncoming set/,
    gossips: true,
  },
  {
    name: "as-server",
    what: "a server with an agent's certificate",
    like: "server",
    spoil: (config) => config,
    refusal: /certificate is valid for agent\..*, not server\./,
    gossips: true,
  },
];

/**
 * Starts clients that must not get in, all at once beside the cluster. Each is like a node of the cluster but for one
 * thing. Watches for some seconds what the clients are told and which nodes see them; then removes every trace of them.
 * @param seconds how long the refusals may take; 2 s more are for watching whether they last
 */
export async function badClients(cluster: Cluster, seconds = 30): Promise<Refusal[]> {
  const directory = join(cluster.dir, "bad-clients");
  const network = cluster.node("agent-1").address.replace(/\.\d+$/, "");
  const certificates = await makeCertificates(cluster);
  const known = new Set(cluster.nodes.map(({ name }) => name));
  const seen = new Set<string>();
  const voters = new Set<string>();
  const processes: NodeProcess[] = [];
  const killAll = () => processes.forEach((one) => one.signal("SIGKILL"));
  process.once("exit", killAll);
  try {
    const started = clients.map((client, i) => {
      const home = join(directory, client.name);
      const address = `${network}.${31 + i}`;
      processes.push(start(cluster, client, home, address, certificates));
      const said = () => {
        const servers = cluster.nodes.filter(({ role }) => role === "server").map(({ name }) => cluster.logs(name));
        const lines = servers.flatMap((log) => log.split("\n").filter((line) => line.includes(`${address}:`)));
        lines.push(...readFileSync(join(home, "log"), "utf8").split("\n"));
        return lines.map((line) => client.refusal.exec(line)?.[0]).find((found) => found !== undefined) ?? "";
      };
      return { client, said, api: new Api(`http://${address}:${ports.http}`, cluster.managementToken, 2000) };
    });
    const look = async () => {
      const views = await Promise.all(
        cluster.nodes.map(({ name }) => cluster.api(name).get<Member[]>("agent/members")),
      );
      views.flat().forEach(({ Name }) => seen.add(Name));
      type Raft = { Servers: { Node: string; Voter: boolean }[] };
      const raft = await cluster.api(await cluster.leaderName()).get<Raft>("operator/raft/configuration");
      raft.Servers.filter(({ Voter }) => Voter).forEach(({ Node }) => voters.add(Node));
      await sleep(200);
    };
    const deadline = Date.now() + seconds * 1000;
    while (Date.now() < deadline && started.some(({ said }) => said() === "")) await look();
    for (const until = Date.now() + 2000; Date.now() < until;) await look();
    return await Promise.all(
      started.map(async ({ client, api, said }) => {
        // A client that answers with nodes of the cluster has been given the catalog.
        const nodes = await api.get<{ Node: string }[]>("catalog/nodes?stale").catch(() => []);
        return {
          what: client.what,
          gossips: client.gossips ?? false,
          said: said(),
          served: voters.has(client.name) || nodes.some(({ Node }) => known.has(Node)),
          seen: seen.has(client.name),
        };
      }),
    );
  } finally {
    await Promise.all(processes.map((one) => one.end("SIGKILL")));
    process.off("exit", killAll);
    rmSync(directory, { recursive: true, force: true });
    for (const name of seen) if (!known.has(name)) await forget(cluster, name);
  }
}

/** Removes a stranger from raft, gossip and the catalog. */
async function forget(cluster: Cluster, name: string): Promise<void> {
  const gone = () => undefined; // the stranger need not have been in all three
  const api = cluster.api(await cluster.leaderName());
  type Raft = { Servers: { ID: string; Node: string }[] };
  const { Servers } = await api.get<Raft>("operator/raft/configuration");
  const peer = Servers.find(({ Node }) => Node === name);
  if (peer) await api.delete(`operator/raft/peer?id=${peer.ID}`).catch(gone);
  await api.put(`agent/force-leave/${name}?prune`).catch(gone);
  await api.put("catalog/deregister", { Node: name }).catch(gone);
}

/** The configuration of a node, of its files taken together. */
function configOf(node: ConsulNode): Config {
  const [settings = {}, secrets = {}] = ["consul.json", "secrets.json"].map((file) => {
    const content = node.files.find(({ path }) => path.endsWith(`/${file}`))?.content ?? "{}";
    return JSON.parse(content) as Record<string, object>;
  });
  return { ...settings, ...secrets, acl: { tokens: {}, ...settings.acl, ...secrets.acl } };
}

interface Certificates {
  readonly otherCa: string;
  readonly cert: string;
  readonly key: string;
}

function start(cluster: Cluster, client: BadClient, home: string, address: string, made: Certificates): NodeProcess {
  const node = cluster.nodes.find(({ role }) => role === client.like);
  if (!node) throw new Error(`there is no ${client.like} to be like`);
  const { tls, ...config } = configOf(node);
  const files = { ca_file: "ca.pem", ...(client.like === "server" && { cert_file: "cert.pem", key_file: "key.pem" }) };
  const own = { data_dir: "data", addresses: undefined, services: undefined };
  const defaults = { ...tls?.defaults, ...files };
  mkdirSync(home, { recursive: true, mode: 0o700 });
  const write = (file: string, content: string) => writeFileSync(join(home, file), content, { mode: 0o600 });
  write("config.json", JSON.stringify(client.spoil({ ...config, ...own, tls: { ...tls, defaults } })));
  write("ca.pem", cluster.caCertificate);
  write("other.pem", made.otherCa);
  write("cert.pem", made.cert);
  write("key.pem", made.key);
  const args = ["agent", "-config-file=config.json", `-node=${client.name}`, `-bind=${address}`, `-client=${address}`];
  return new NodeProcess(cluster.consul, args, home, join(home, "log"));
}

/** Another CA, and a certificate of the cluster's own CA that names an agent. */
async function makeCertificates(cluster: Cluster): Promise<Certificates> {
  const providers = new LocalProviders(join(cluster.dir, "bad-clients.json")); // never written
  const make = async (type: string, inputs: object) => {
    const made = await providers.resource({ type: `tls:index/${type}`, name: type, inputs, custom: true });
    return made.state as Record<string, string>;
  };
  type Keys = { resources: Record<string, { outputs: { privateKeyPem?: string } }> };
  const { resources } = JSON.parse(readFileSync(join(cluster.dir, "state.json"), "utf8")) as Keys;
  const caKey = Object.entries(resources).find(([name]) => /::.*-ca-key-\d+$/.test(name))?.[1].outputs.privateKeyPem;
  const { privateKeyPem } = await make("privateKey:PrivateKey", { algorithm: "ECDSA", ecdsaCurve: "P256" });
  const name = `agent.${cluster.datacenter}.consul`;
  const validityPeriodHours = 1;
  const ca = await make("selfSignedCert:SelfSignedCert", {
    privateKeyPem,
    subject: { commonName: "another CA" },
    validityPeriodHours,
    isCaCertificate: true,
    allowedUses: ["cert_signing"],
    setSubjectKeyId: true,
  });
  const request = await make("certRequest:CertRequest", {
    privateKeyPem,
    subject: { commonName: name },
    dnsNames: [name, "localhost"],
  });
  const cert = await make("locallySignedCert:LocallySignedCert", {
    certRequestPem: request.certRequestPem,
    caPrivateKeyPem: caKey,
    caCertPem: cluster.caCertificate,
    validityPeriodHours,
    allowedUses: ["digital_signature", "server_auth", "client_auth"],
  });
  return { otherCa: ca.certPem ?? "", cert: cert.certPem ?? "", key: privateKeyPem ?? "" };
}

export const clientsDrill: Drill = { title: "Clients that must not get in", run: showClients };

async function showClients(cluster: Cluster): Promise<Shown> {
  const figures = await badClients(cluster);
  const known = (seen: boolean, gossips: boolean) =>
    seen ? `yes${gossips ? ": gossip asks for its key alone" : ""}` : "no";
  return {
    figures,
    table: [
      ["", "refused with", "among the members"],
      ...figures.map(({ what, said, seen, gossips }) => [what, said, known(seen, gossips)]),
    ],
    broken: [
      ...figures.filter(({ said }) => said === "").map(({ what }) => `${what}: is not refused`),
      ...figures.filter(({ served }) => served).map(({ what }) => `${what}: is given the catalog, or a vote`),
      ...figures.filter(({ seen, gossips }) => seen && !gossips).map(({ what }) => `${what}: is a member`),
    ],
  };
}
