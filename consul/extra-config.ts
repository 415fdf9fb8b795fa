/** What operators may add to Consul's configuration: servers.extraConfig and agents.extraConfig. */

type Tree = Readonly<Record<string, unknown>>;

/** One thing that may not be there: where, and why, with what to set instead. */
export interface Refusal {
  readonly path: readonly string[];
  readonly reason: string;
}

/** Keys that Consul has at the top of its configuration (agent/config/config.go of 1.21 and 1.22). */
export const consulKeys: readonly string[] = `
  acl addresses advertise_addr advertise_addr_ipv4 advertise_addr_ipv6 advertise_addr_wan advertise_addr_wan_ipv4
  advertise_addr_wan_ipv6 advertise_reconnect_timeout ae_interval alt_domain audit auto_config auto_encrypt
  auto_reload_config autopilot bind_addr bootstrap bootstrap_expect cache check check_deregister_interval_min
  check_output_max_size check_reap_interval check_update_interval checks client_addr cloud config_entries connect
  consul data_dir datacenter default_intention_policy default_query_time disable_anonymous_signature
  disable_coordinates disable_host_node_id disable_http_unprintable_char_filter disable_keyring_file
  disable_kv_key_validation disable_remote_exec disable_update_check discard_check_output discovery_max_stale
  dns_config domain enable_agent_tls_for_checks enable_central_service_config enable_debug
  enable_local_script_checks enable_script_checks enable_syslog encrypt encrypt_verify_incoming
  encrypt_verify_outgoing experiments federation_state_anti_entropy_sync_interval gossip_lan gossip_wan
  http_config leave_on_terminate license_path license_poll_base_time license_poll_max_time
  license_update_base_time license_update_max_time limits locality log_file log_json log_level log_rotate_bytes
  log_rotate_duration log_rotate_max_files max_query_time node_id node_meta node_name partition peering
  performance pid_file ports primary_datacenter primary_gateways primary_gateways_interval protocol raft_logstore
  raft_prevote_disabled raft_protocol raft_snapshot_interval raft_snapshot_threshold raft_trailing_logs
  read_replica reconnect_timeout reconnect_timeout_wan recursors rejoin_after_leave reporting retry_interval
  retry_interval_wan retry_join retry_join_wan retry_max retry_max_wan rpc segment segment_limit
  segment_name_limit segments serf_lan serf_lan_allowed_cidrs serf_wan serf_wan_allowed_cidrs server server_name
  server_rejoin_age_max service services session_ttl_min skip_leave_on_interrupt snapshot_agent
  sync_coordinate_interval_min sync_coordinate_rate_target syslog_facility tagged_addresses telemetry tls
  translate_wan_addrs ui ui_config ui_content_path ui_dir unix_sockets use_streaming_backend watches xds
`
  .trim()
  .split(/\s+/);

const never = "nothing: this program does without, since whoever reaches Consul could run commands on the machine";
const fixed = "nothing: security groups, probes, Services and certificates count on what this program sets";

/** Keys that this program keeps for itself, each with what to set instead. What is inside such a key is kept as well. */
const kept: readonly (readonly [keys: string, instead: string])[] = [
  ["datacenter primary_datacenter", "consul:datacenter"],
  ["log_level", "consul:logLevel"],
  ["telemetry.prometheus_retention_time", "consul:telemetryRetention"],
  ["telemetry.disable_hostname", "nothing: monitoring/ counts on the names of metrics without host names"],
  ["performance.raft_multiplier", "consul:raftMultiplier"],
  ["ui ui_dir ui_content_path ui_config.enabled ui_config.dir ui_config.content_path", "consul:servers.ui"],
  ["encrypt encrypt_verify_incoming encrypt_verify_outgoing disable_keyring_file", "consul:gossip"],
  ["tls auto_encrypt auto_config", "consul:certificates"],
  ["connect", "nothing: agents have their certificates from the authority that it sets up"],
  ["acl", "consul:apps for an application's token and rules; the program's own ACLs stay as they are"],
  ["node_meta.trust", "another name: by this one the program knows which keys a node was started with"],
  ["retry_join retry_max", "consul:servers.nodes, or consul:migration.servers for a cluster that is moved here"],
  [
    "server bootstrap bootstrap_expect read_replica",
    "nothing: who is a server follows from consul:servers and consul:agents",
  ],
  ["node_name node_id disable_host_node_id", "consul:servers.nodes[].name; agents are called as their nodes"],
  [
    "bind_addr advertise_addr advertise_addr_ipv4 advertise_addr_ipv6 advertise_addr_wan advertise_addr_wan_ipv4",
    fixed,
  ],
  ["advertise_addr_wan_ipv6 serf_lan serf_wan serf_lan_allowed_cidrs addresses client_addr ports unix_sockets", fixed],
  ["domain", "nothing: certificates, CoreDNS and applications count on .consul; alt_domain is a second name"],
  ["data_dir", "consul:agents.hostDataPath; servers have their data on their own disks"],
  ["autopilot", "`consul operator autopilot set-config`: Consul reads this key when a cluster begins, and never again"],
  [
    "rejoin_after_leave skip_leave_on_interrupt server_rejoin_age_max",
    "nothing: a restart must not look like a departure",
  ],
  ["leave_on_terminate", "consul:agents.leaveOnStop; servers never leave by themselves"],
  ["advertise_reconnect_timeout", "consul:agents.reconnectTimeout"],
  ["service services", "consul:agents.registerMember, or consul:apps: a token of its own for what registers"],
  ["disable_remote_exec enable_script_checks enable_local_script_checks", never],
  ["auto_reload_config", "nothing: `pulumi up` reloads Consul once all files are in place"],
];

/** What agents have a setting for, and servers not. */
const keptFromAgents: typeof kept = [["recursors", "consul:agents.recursors"]];

/** Parts of the configuration that are maps, with keys of this program in them: a list or null would wipe these out. */
export const sharedMaps = [
  "dns_config",
  "dns_config.service_ttl",
  "http_config",
  "limits",
  "node_meta",
  "performance",
  "telemetry",
  "ui_config",
];

const secretName = /(secret|token|password|passwd|credentials?)$/;

/**
 * What of extra configuration may not be there.
 * @param similar keys of Consul that a key which is none may have been meant for
 */
export function refusedConfig(extra: Tree, role: "server" | "agent", similar: (key: string) => string[]): Refusal[] {
  const instead = new Map(
    [...kept, ...(role === "agent" ? keptFromAgents : [])].flatMap(([keys, to]) =>
      keys.split(" ").map((key) => [key, to]),
    ),
  );
  const look = (tree: Tree, above: readonly string[]): Refusal[] =>
    Object.entries(tree).flatMap(([key, value]) => {
      const path = [...above, key];
      // Consul does not tell upper from lower case.
      const name = path.join(".").toLowerCase();
      const to = instead.get(name);
      if (to !== undefined) {
        return [{ path, reason: to.startsWith("nothing") ? to : `${to} instead: this key is the program's` }];
      }
      if (above.length === 0 && !consulKeys.includes(key)) {
        const meant = similar(key).map((one) => `\`${one}\``);
        const question =
          meant.length > 0 ? `: did you mean ${meant.join(" or ")}?` : " (consul/extra-config.ts has all)";
        return [{ path, reason: `no key of Consul's configuration that this program knows${question}` }];
      }
      if (secretName.test(name)) {
        return [{ path, reason: "nothing secret: this configuration is kept in plain text" }];
      }
      if (isTree(value)) return look(value, path);
      if (value === null) return [{ path, reason: "a value; leave the key out for what this program or Consul sets" }];
      if (sharedMaps.includes(name)) return [{ path, reason: "a map: its keys are merged with those of this program" }];
      return [];
    });
  return look(extra, []);
}

/** Maps are merged key by key, to any depth. Anything else, lists too, takes the place of what was there. */
export function merged(base: Tree, extra: Tree): Tree {
  const all: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(extra)) {
    const old = all[key];
    all[key] = isTree(old) && isTree(value) ? merged(old, value) : value;
  }
  return all;
}

/**
 * Keys that Consul takes over by a reload (agent.go, reloadConfigInternal, and ReloadConfig of server.go and http.go, of
 * 1.22). Any other key takes a restart.
 */
export const reloadedKeys: readonly string[] = `
  log_level dns_config node_meta check checks watches cache discard_check_output enable_debug xds reporting config_entries
  limits.http_max_conns_per_client limits.request_limits limits.rpc_client_timeout limits.rpc_max_burst limits.rpc_rate
  limits.rpc_max_conns_per_client raft_snapshot_interval raft_snapshot_threshold raft_trailing_logs
  telemetry.prefix_filter ui_config.metrics_proxy
`
  .trim()
  .split(/\s+/);
/** With what a server with raft data reads at no start, or only in order to find the others. */
const withoutRestart = new Set([...reloadedKeys, "bootstrap_expect", "autopilot", "retry_join"]);

/** What of a server's configuration takes a restart when it changes. */
export function startConfig(config: Tree, above = ""): Tree {
  return Object.fromEntries(
    Object.entries(config).flatMap(([key, value]): [string, unknown][] => {
      const path = `${above}${key}`;
      if (withoutRestart.has(path)) return [];
      const inside = [...withoutRestart].some((name) => name.startsWith(`${path}.`));
      if (!inside || !isTree(value)) return [[key, value]];
      const rest = startConfig(value, `${path}.`);
      return Object.keys(rest).length === 0 ? [] : [[key, rest]];
    }),
  );
}

function isTree(value: unknown): value is Tree {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}
