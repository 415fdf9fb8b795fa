import { merged } from "./extra-config";
import { GossipKeys, gossipMark, keyringPaths, keyringText } from "./gossip";
import { ConsulFile, ConsulNode, NodeLayout, stableJson } from "./node";
import { digest, uuid } from "./secrets";

/** Consul's ports as this program uses them; -1 in the configuration closes what is not listed here. */
export const ports = { rpc: 8300, gossip: 8301, http: 8500, https: 8501, grpc: 8503, dns: 8600 } as const;

/** What every node of a datacenter has in common. */
export interface DatacenterConfig {
  readonly datacenter: string;
  /** trace | debug | info | warn | error */
  readonly logLevel: string;
  /** Addresses or names at which servers are found, always all of them. */
  readonly retryJoin: readonly string[];
  /** How long metrics are kept for Prometheus, a Go duration; at least twice the scrape interval. */
  readonly telemetryRetention: string;
  /** Anything else for the node's configuration, merged last (extra-config.ts). */
  readonly extra: Readonly<Record<string, unknown>>;
}

export interface ServerConfig extends DatacenterConfig {
  /** Raft timing, 1 (fast machines) to 10 (slow ones). */
  readonly raftMultiplier: number;
  /** Number of servers; bootstrap_expect and autopilot's min_quorum are both this. */
  readonly serverCount: number;
  /** Serve the web interface (over HTTPS). */
  readonly ui: boolean;
  /** Whether gRPC is open, with TLS: for what finds servers by it, such as HashiCorp's catalog sync. */
  readonly grpc: boolean;
  /** Servers of a hand-made cluster to join first; see docs/migration.md. */
  readonly joinFirst?: readonly string[];
  /** Whether RPC has to be TLS: demanded, unless it is said to be used but not demanded, or offered and not used. */
  readonly tls?: "use" | "offer" | undefined;
  /** Where plain HTTP and DNS listen; a server's own loopback unless the platform has a better place. */
  readonly localAddress: string;
}

export interface AgentConfig extends DatacenterConfig {
  /** Leave the cluster when the agent stops: its services then go missing for 6-8 s at each restart. */
  readonly leaveOnStop: boolean;
  /** How long a node that is gone stays in the catalog, a Go duration. */
  readonly reconnectTimeout: string;
  /** Register a `consul-members` service on each node, for monitoring. */
  readonly registerMember: boolean;
  /** Resolvers for names outside Consul's domain; none means such names are refused. */
  readonly recursors: readonly string[];
  /** Further loopback addresses at which HTTP and DNS answer, beside the node's own address. */
  readonly listen: readonly string[];
}

/** Certificate authorities that nodes trust: one, or two while a new one is introduced. PEM. */
export type CaBundle = string;

export interface ServerSecrets {
  readonly gossipKeys: GossipKeys;
  readonly cert: string;
  readonly key: string;
  readonly managementToken: string;
  readonly agentToken: string;
}

export interface AgentSecrets {
  readonly gossipKeys: GossipKeys;
  readonly agentToken: string;
}

/** Where a node is: its name and address, as values or as what its platform expands (`$(HOST_IP)`). */
export interface Placement {
  readonly name: string;
  readonly address: string;
  /** Consul's node id; made up by Consul, and kept with its data, unless given. */
  readonly id?: string;
}

/**
 * The node id of an agent, derived from the agent's name, so that an agent that has lost its data is still the same
 * node. Servers get no such id: a server that has lost its raft data must not pass for the one that had it.
 */
export function agentNodeId(name: string): string {
  return uuid(digest(name).slice(0, 32));
}

/**
 * Names must outlive the quorum: with 10 s, DNS gave no answer at all once the servers had lost their leader for that
 * long (test/local/dns.test.ts). A server in touch with its leader lags by milliseconds either way.
 */
const maxStale = "24h";

function common(config: DatacenterConfig, layout: NodeLayout) {
  return {
    datacenter: config.datacenter,
    primary_datacenter: config.datacenter,
    data_dir: layout.dataDir,
    log_level: config.logLevel,
    retry_join: config.retryJoin,
    // Consul's default of 30 s is what makes a cold start of three machines take half a minute.
    retry_interval: "1s",
    rejoin_after_leave: true,
    disable_remote_exec: true,
    disable_update_check: true,
    enable_script_checks: false,
    enable_local_script_checks: false,
    encrypt_verify_incoming: true,
    encrypt_verify_outgoing: true,
    limits: { http_max_conns_per_client: 400 },
    telemetry: { prometheus_retention_time: config.telemetryRetention, disable_hostname: true },
    dns_config: {
      allow_stale: true,
      max_stale: maxStale,
      node_ttl: "10s",
      service_ttl: { "*": "5s" },
      only_passing: true,
      // Without this a cut answer does not say that it is cut: nobody asks again over TCP, and CoreDNS gives the few
      // instances in it for all there are, over TCP too (test/local/dns-many.test.ts).
      enable_truncate: true,
      // Whoever asks for SRV records did not ask for a node's metadata. A question for TXT records still gets it.
      enable_additional_node_meta_txt: false,
    },
  };
}

// Token persistence stays off: a token set by hand would outlive the configuration and survive a rotation.
const acl = { enabled: true, default_policy: "deny", down_policy: "extend-cache", enable_token_persistence: false };

function command(placement: Placement, layout: NodeLayout, listen: readonly string[] = []): string[] {
  const dirs = [...new Set([layout.configDir, layout.secretDir])];
  return [
    layout.consul,
    "agent",
    ...dirs.map((dir) => `-config-dir=${dir}`),
    `-node=${placement.name}`,
    `-bind=${placement.address}`,
    `-advertise=${placement.address}`,
    `-client=${[placement.address, ...listen].join(" ")}`,
    ...(placement.id === undefined ? [] : [`-node-id=${placement.id}`]),
  ];
}

/** A server: raft member, TLS on every port but its own machine's HTTP and DNS, ACLs denying by default. */
export function serverNode(
  config: ServerConfig,
  ca: CaBundle,
  secrets: ServerSecrets,
  placement: Placement,
  layout: NodeLayout,
): ConsulNode {
  return {
    name: placement.name,
    role: "server",
    address: placement.address,
    files: [...serverPublicFiles(config, ca, layout), ...serverSecretFiles(secrets, layout)],
    command: command(placement, layout),
  };
}

/** The files of a server that hold no secret: the same bytes on each server. */
export function serverPublicFiles(config: ServerConfig, ca: CaBundle, layout: NodeLayout): ConsulFile[] {
  const content = {
    ...common({ ...config, retryJoin: [...(config.joinFirst ?? []), ...config.retryJoin] }, layout),
    server: true,
    bootstrap_expect: config.serverCount,
    addresses: { http: config.localAddress, dns: config.localAddress },
    ports: {
      http: ports.http,
      https: ports.https,
      dns: ports.dns,
      grpc: -1,
      grpc_tls: config.grpc ? ports.grpc : -1,
      serf_wan: -1,
    },
    // A server that stops keeps its place in raft; a restart must not look like a departure.
    leave_on_terminate: false,
    skip_leave_on_interrupt: true,
    // The default of seven days keeps a dev cluster from starting after a holiday (consul#20110).
    server_rejoin_age_max: "8760h",
    acl,
    auto_encrypt: { allow_tls: true },
    connect: { enabled: true },
    performance: { raft_multiplier: config.raftMultiplier },
    // min_quorum = servers: with less, a server that crashed and came back is a non-voter for 15 s (design.md).
    autopilot: {
      cleanup_dead_servers: true,
      last_contact_threshold: "200ms",
      max_trailing_logs: 250,
      min_quorum: config.serverCount,
      server_stabilization_time: "10s",
    },
    tls: {
      defaults: {
        ca_file: `${layout.configDir}/ca.pem`,
        cert_file: `${layout.secretDir}/server.pem`,
        key_file: `${layout.secretDir}/server-key.pem`,
        verify_incoming: config.tls === undefined,
        verify_outgoing: config.tls !== "offer",
        tls_min_version: "TLSv1_2",
      },
      internal_rpc: { verify_server_hostname: config.tls !== "offer" },
      // People and probes come with a token, not with a client certificate.
      https: { verify_incoming: false },
      ...(config.grpc ? { grpc: { verify_incoming: false } } : {}),
    },
    ui_config: { enabled: config.ui },
  };
  return [
    {
      path: `${layout.configDir}/consul.json`,
      mode: "0640",
      content: stableJson(merged(content, config.extra)),
      secret: false,
    },
    { path: `${layout.configDir}/ca.pem`, mode: "0640", content: ca, secret: false },
  ];
}

/** The files of a server that are secret. */
export function serverSecretFiles(secrets: ServerSecrets, layout: NodeLayout): ConsulFile[] {
  const content = {
    encrypt: secrets.gossipKeys[0],
    acl: { tokens: { initial_management: secrets.managementToken, agent: secrets.agentToken } },
  };
  return [
    ...keyFiles(content, secrets.gossipKeys, layout),
    { path: `${layout.secretDir}/server.pem`, mode: "0640", content: secrets.cert, secret: true },
    { path: `${layout.secretDir}/server-key.pem`, mode: "0640", content: secrets.key, secret: true },
  ];
}

/** An agent: no raft, a certificate of its own from the servers (auto_encrypt), HTTP and DNS on its node's address. */
export function agentNode(
  config: AgentConfig,
  ca: CaBundle,
  secrets: AgentSecrets,
  placement: Placement,
  layout: NodeLayout,
): ConsulNode {
  return {
    name: placement.name,
    role: "agent",
    address: placement.address,
    files: [...agentPublicFiles(config, ca, layout), ...agentSecretFiles(ca, secrets, layout)],
    command: command(placement, layout, config.listen),
  };
}

/** The files of an agent that hold no secret: the same bytes on each agent. */
export function agentPublicFiles(config: AgentConfig, ca: CaBundle, layout: NodeLayout): ConsulFile[] {
  const shared = common(config, layout);
  const content = {
    ...shared,
    server: false,
    // An agent follows the services it was asked for, and answers from what it knows while servers come and go; what it
    // does not know yet any server may say, not only the leader. Asked anew each time, one lookup in twenty failed when
    // the leader was killed. Followed by streams instead of blocking queries, names had no answer for up to 7 s after
    // one server in ten was stopped: a stream that is cut off in its first moments starts from nothing.
    dns_config: { ...shared.dns_config, use_cache: true },
    discovery_max_stale: maxStale,
    use_streaming_backend: false,
    // A lookup with `?cached` would be the one whose end ends the agent's following (consul#23368, since 1.22.5): that
    // answer is never renewed, and DNS gives it as well. `?cached` is answered as any other lookup instead.
    http_config: { use_cache: false },
    ports: { http: ports.http, https: -1, dns: ports.dns, grpc: -1, grpc_tls: -1 },
    leave_on_terminate: config.leaveOnStop,
    advertise_reconnect_timeout: config.reconnectTimeout,
    // A server that hangs with its connections open must not hold up what an agent decides by itself. The agent goes by what
    // it knows of a token while it asks the servers anew (docs/security.md has the price).
    acl: { ...acl, down_policy: "async-cache" },
    auto_encrypt: { tls: true },
    tls: {
      defaults: { ca_file: `${layout.configDir}/ca.pem`, verify_outgoing: true, tls_min_version: "TLSv1_2" },
      internal_rpc: { verify_server_hostname: true },
    },
    ...(config.recursors.length > 0 ? { recursors: config.recursors } : {}),
    ...(config.registerMember
      ? { services: [{ id: "consul-members", name: "consul-members", port: ports.http, tags: ["agent"] }] }
      : {}),
  };
  return [
    {
      path: `${layout.configDir}/consul.json`,
      mode: "0644",
      content: stableJson(merged(content, config.extra)),
      secret: false,
    },
    { path: `${layout.configDir}/ca.pem`, mode: "0644", content: ca, secret: false },
  ];
}

/**
 * What an agent was started with, in its node's metadata as "trust": eight digits each for gossip keys, token and
 * authorities, which give nothing away. By this mark consul/scripts/behind.sh finds nodes that still need an old one.
 */
export function trustMark(ca: CaBundle, secrets: AgentSecrets): string {
  return [gossipMark(secrets.gossipKeys), mark(secrets.agentToken), mark(ca)].join(".");
}

/** Matches the trust mark of nodes that have just these, as scripts/behind.sh takes it: a pattern for grep -E. */
export function trustPattern(ca: CaBundle, secrets?: AgentSecrets): string {
  if (secrets === undefined) return `[^.]*[.][^.]*[.]${mark(ca)}`;
  return trustMark(ca, secrets).replace(/[.+]/g, "[$&]");
}

function mark(text: string): string {
  return digest(text).slice(0, 8);
}

/** The files of an agent that are secret. */
export function agentSecretFiles(ca: CaBundle, secrets: AgentSecrets, layout: NodeLayout): ConsulFile[] {
  const content = {
    encrypt: secrets.gossipKeys[0],
    node_meta: { trust: trustMark(ca, secrets) },
    acl: { tokens: { agent: secrets.agentToken, config_file_service_registration: secrets.agentToken } },
  };
  return keyFiles(content, secrets.gossipKeys, layout);
}

/** "encrypt" alone would do for a node without a keyring; the keyring says what else the node understands. */
function keyFiles(content: object, gossipKeys: GossipKeys, layout: NodeLayout): ConsulFile[] {
  return [
    { path: `${layout.secretDir}/secrets.json`, mode: "0640", content: stableJson(content), secret: true },
    { path: keyringPaths(layout).given, mode: "0640", content: keyringText(gossipKeys), secret: true },
  ];
}
