import { deepEqual, equal, match, ok } from "assert/strict";
import { agentNode, serverNode } from "../../consul/config";
import { consulKeys, refusedConfig, reloadedKeys, sharedMaps, startConfig } from "../../consul/extra-config";
import { machineLayout } from "../../consul/machine/layout";
import { ConsulNode } from "../../consul/node";
import { podLayout } from "../../consul/pod/pod";
import { agents } from "../../settings/agents";
import { servers } from "../../settings/servers";

type Tree = Record<string, unknown>;

const datacenter = {
  datacenter: "dc1",
  logLevel: "info",
  retryJoin: ["10.0.0.1"],
  telemetryRetention: "360s",
  extra: {},
};
const secrets = { gossipKeys: ["G"], cert: "C", key: "K", managementToken: "M", agentToken: "A" };
const server = serverNode(
  { ...datacenter, raftMultiplier: 1, serverCount: 3, ui: true, grpc: false, localAddress: "127.0.0.1" },
  "CA",
  secrets,
  { name: "consul-1", address: "10.0.0.1" },
  machineLayout("1.22.6"),
);
const agent = agentNode(
  {
    ...datacenter,
    leaveOnStop: false,
    reconnectTimeout: "15m",
    registerMember: true,
    recursors: ["10.0.0.2"],
    listen: [],
  },
  "CA",
  secrets,
  { name: "a", address: "10.0.0.9" },
  podLayout,
);

const isTree = (value: unknown): value is Tree => value !== null && typeof value === "object" && !Array.isArray(value);

/** Every configuration file of a node, in one. */
function written(node: ConsulNode): Tree[] {
  return node.files.filter(({ path }) => path.endsWith(".json")).map(({ content }) => JSON.parse(content) as Tree);
}

/** The paths of all values, and of all maps. */
function paths(tree: Tree, above = ""): { leaves: string[]; maps: string[] } {
  const found = { leaves: [] as string[], maps: [] as string[] };
  for (const [key, value] of Object.entries(tree)) {
    if (!isTree(value)) {
      found.leaves.push(`${above}${key}`);
      continue;
    }
    const inner = paths(value, `${above}${key}.`);
    found.leaves.push(...inner.leaves);
    found.maps.push(`${above}${key}`, ...inner.maps);
  }
  return found;
}

/** A tree with one value in it. */
const at = (path: string, value: unknown): Tree =>
  path.split(".").reduceRight<unknown>((inner, key) => ({ [key]: inner }), value) as Tree;

const refused = (extra: Tree, role: "server" | "agent" = "server") =>
  refusedConfig(extra, role, () => []).map(({ path, reason }) => `${path.join(".")}: ${reason}`);

/** What this program writes and whoever runs it may change: nothing else here counts on it. */
const open = [
  "disable_update_check",
  "discovery_max_stale",
  "dns_config.allow_stale",
  "dns_config.enable_additional_node_meta_txt",
  "dns_config.enable_truncate",
  "dns_config.max_stale",
  "dns_config.node_ttl",
  "dns_config.only_passing",
  "dns_config.service_ttl.*",
  "dns_config.use_cache",
  "http_config.use_cache",
  "limits.http_max_conns_per_client",
  "retry_interval",
  "use_streaming_backend",
];

describe("extra configuration", () => {
  for (const [role, node] of [
    ["server", server],
    ["agent", agent],
  ] as const) {
    it(`of a ${role} may not have what this program writes, but for a few keys that nothing here counts on`, () => {
      const leaves = written(node).flatMap((tree) => paths(tree).leaves);
      ok(leaves.length > 30);
      const allowed = leaves.filter((path) => refused(at(path, "x"), role).length === 0);
      deepEqual(
        allowed.filter((path) => !open.includes(path)),
        [],
      );
      ok(allowed.length > 5);
    });

    it(`of a ${role} never takes the place of a map that has keys of this program`, () => {
      for (const path of written(node).flatMap((tree) => paths(tree).maps)) {
        for (const value of [null, [], [{}], 5]) {
          ok(refused(at(path, value), role).length > 0, `${path}: ${JSON.stringify(value)}`);
        }
      }
    });
  }

  it("is refused with what to set instead, in whatever case, at whatever depth", () => {
    deepEqual(refused({ datacenter: "x", Ports: {}, tls: { defaults: { verify_incoming: false } } }), [
      "datacenter: consul:datacenter instead: this key is the program's",
      "Ports: nothing: security groups, probes, Services and certificates count on what this program sets",
      "tls: consul:certificates instead: this key is the program's",
    ]);
    match(
      refused({ telemetry: { Prometheus_Retention_Time: "1h" } }).join(),
      /telemetry\.Prom.*: consul:telemetryRetention/,
    );
    match(refused({ node_meta: { rack: "a", trust: "x" } }).join(), /^node_meta\.trust: another name/);
    match(refused({ recursors: ["10.0.0.2"] }, "agent").join(), /consul:agents\.recursors/);
    deepEqual(refused({ recursors: ["10.0.0.2"] }, "server"), []);
    match(refused({ enable_local_script_checks: true }).join(), /could run commands/);
    match(refused({ autopilot: { min_quorum: 1 } }).join(), /consul operator autopilot set-config/);
  });

  it("may have no secret, and no key that Consul does not have", () => {
    match(refused({ telemetry: { circonus_api_token: "x" } }).join(), /^telemetry\.circonus_api_token: nothing secret/);
    match(refused({ cloud: { client_secret: "x" } }).join(), /nothing secret/);
    match(
      refused({ gossip_lan: { gossip_nodes: null } }).join(),
      /^gossip_lan\.gossip_nodes: a value; leave the key out/,
    );
    match(refused({ dns_confg: {} }).join(), /^dns_confg: no key of Consul's/);
    match(refused({ DNS_config: { only_passing: false } }).join(), /^DNS_config: no key of Consul's/);
    deepEqual(
      refused({ gossip_lan: { gossip_interval: "300ms" }, telemetry: { statsd_address: "10.0.0.1:8125" } }),
      [],
    );
  });

  it("is refused by the settings of each platform that has it, with the key that was meant", () => {
    const said = [...servers.options, ...agents.options].map((block) => {
      const { success, error } = block.shape.extraConfig.safeParse({ dns_confg: {}, acl: {} });
      equal(success, false);
      return error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`).join("\n");
    });
    equal(said.length, 5);
    for (const message of said) {
      match(
        message,
        /^dns_confg: no key of Consul's configuration that this program knows: did you mean `dns_config`\?$/m,
      );
      match(message, /^acl: consul:apps/m);
    }
  });

  it("names keys that Consul has, everywhere", () => {
    for (const name of [...reloadedKeys, ...sharedMaps]) ok(consulKeys.includes(name.split(".")[0] ?? ""), name);
    equal(new Set(consulKeys).size, consulKeys.length);
  });

  it("takes a restart but for what Consul reloads", () => {
    const [config = {}] = written(server);
    const start = (extra: Tree) => JSON.stringify(startConfig({ ...config, ...extra }));
    const now = start({});
    for (const path of reloadedKeys.filter((path) => !((path.split(".")[0] ?? "") in config))) {
      equal(start(at(path, 5)), now, path);
    }
    equal(start({ limits: { http_max_conns_per_client: 500, rpc_rate: 1 } }), now);
    ok(start({ limits: { http_max_conns_per_client: 400, kv_max_value_size: 1 } }) !== now);
    ok(start({ gossip_lan: { gossip_interval: "300ms" } }) !== now);
    ok(start({ raft_prevote_disabled: true }) !== now);
  });
});
