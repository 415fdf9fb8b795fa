import { randomBytes } from "crypto";
import { deepEqual, equal, match, notEqual, ok, throws } from "assert/strict";
import { accessorId, serverAclObjects } from "../../consul/acl";
import { agentNode, serverNode } from "../../consul/config";
import { cidrContains, firstAndLast, isCidr, isIpv4 } from "../../settings/ip";
import { ConsulNode, stableJson } from "../../consul/node";
import { podCommand, podLayout } from "../../consul/pod/pod";
import { gossipKey, tokenUuid, uuid7Time } from "../../consul/secrets";
import { machineLayout } from "../../consul/machine/layout";
import { readableUserData, renderUserData, userDataLimit } from "../../consul/machine/user-data";

const datacenter = {
  datacenter: "dc1",
  logLevel: "info",
  retryJoin: ["10.0.0.1", "10.0.0.2"],
  telemetryRetention: "360s",
  extra: {},
};
const serverConfig = {
  ...datacenter,
  raftMultiplier: 1,
  serverCount: 3,
  ui: false,
  grpc: false,
  localAddress: "127.0.0.1",
};
const agentConfig = {
  ...datacenter,
  leaveOnStop: false,
  reconnectTimeout: "15m",
  registerMember: true,
  recursors: [],
  listen: [],
};
const secrets = {
  gossipKeys: ["GOSSIP", "NEXT"],
  cert: "CERT",
  key: "KEY",
  managementToken: "MANAGEMENT",
  agentToken: "AGENT",
};
const placement = { name: "consul-1", address: "10.0.0.1" };
const server = () => serverNode(serverConfig, "CA", secrets, placement, machineLayout("1.22.6"));
const agent = (extra: Record<string, unknown> = {}) =>
  agentNode({ ...agentConfig, extra }, "CA", secrets, { name: "$(NODE_NAME)", address: "$(HOST_IP)" }, podLayout);
const content = (node: ReturnType<typeof server>, name: string) =>
  JSON.parse(node.files.find(({ path }) => path.endsWith(name))?.content ?? "null") as Record<string, unknown>;

describe("addresses", () => {
  it("are told from what is none", () => {
    for (const good of ["0.0.0.0", "10.16.190.28", "255.255.255.255"]) ok(isIpv4(good), good);
    for (const bad of ["", "1.2.3", "1.2.3.256", "01.2.3.4", "1.2.3.4.5", "a.b.c.d", "1.2.3.-4"]) ok(!isIpv4(bad), bad);
    for (const good of ["10.0.0.0/8", "10.16.190.28/32", "0.0.0.0/0"]) ok(isCidr(good), good);
    for (const bad of ["10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "/8", "10.0.0.0/8/8"]) {
      ok(!isCidr(bad), bad);
    }
  });

  it("are in a network or not", () => {
    deepEqual(firstAndLast("10.0.1.0/24"), [167772416, 167772671]);
    ok(cidrContains("128.0.0.0/1", "255.255.255.255"));
    ok(!cidrContains("10.0.1.0/24", "10.0.2.0"));
  });
});

describe("secrets", () => {
  it("become a 32-byte key and a version 4 UUID", () => {
    equal(Buffer.from(gossipKey("ab".repeat(32)), "base64").length, 32);
    for (const digit of "0123456789abcdef") {
      match(tokenUuid(digit.repeat(32)), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    }
  });

  it("have a public id that does not give them away and follows them", () => {
    const secret = tokenUuid("0123456789abcdef".repeat(2));
    match(accessorId(secret), /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/);
    equal(accessorId(secret), accessorId(secret));
    notEqual(accessorId(secret), accessorId(tokenUuid("1".repeat(32))));
    ok(!accessorId(secret).includes(secret.slice(0, 8)));
  });

  it("know when a version 7 UUID was made", () => {
    equal(uuid7Time("019aa4b5-3c00-7000-8000-000000000000").toISOString(), "2025-11-21T04:38:52.160Z");
  });
});

describe("a node's configuration", () => {
  it("is the same bytes for the same values, whatever the order of keys", () => {
    equal(stableJson({ b: 1, a: { d: 1, c: [2, 1] } }), stableJson({ a: { c: [2, 1], d: 1 }, b: 1 }));
    ok(stableJson({}).endsWith("\n"));
  });

  it("of a server is TLS both ways, ACLs that deny, and a quorum of all servers", () => {
    const config = content(server(), "consul.json") as {
      tls: { defaults: Record<string, unknown>; internal_rpc: unknown };
      acl: Record<string, unknown>;
      autopilot: Record<string, unknown>;
      ports: Record<string, number>;
    } & Record<string, unknown>;
    equal(config.tls.defaults.verify_incoming, true);
    equal(config.tls.defaults.verify_outgoing, true);
    deepEqual(config.tls.internal_rpc, { verify_server_hostname: true });
    equal(config.acl.default_policy, "deny");
    equal(config.acl.enable_token_persistence, false);
    equal(config.disable_remote_exec, true);
    ok(!("disable_keyring_file" in config));
    equal(config.leave_on_terminate, false);
    equal(config.bootstrap_expect, 3);
    equal(config.autopilot.min_quorum, 3);
    deepEqual([config.ports.grpc, config.ports.grpc_tls, config.ports.serf_wan], [-1, -1, -1]);
    ok(!("grpc" in config.tls));
  });

  it("of an agent asks the servers for its certificate and keeps its services over a restart", () => {
    const config = content(agent(), "consul.json");
    deepEqual(config.auto_encrypt, { tls: true });
    equal(config.leave_on_terminate, false);
    equal(config.rejoin_after_leave, true);
    equal(config.advertise_reconnect_timeout, "15m");
    equal((config.services as { name: string }[])[0]?.name, "consul-members");
    equal((config as { performance?: unknown }).performance, undefined, "raft timing is the servers' business");
  });

  it("has a keyring in Consul's own form for each start, the key that encrypts first", () => {
    const keyring = (node: ConsulNode, path: string) => node.files.find((file) => file.path === path);
    for (const file of [
      keyring(server(), "/etc/consul.d/gossip.keyring"),
      keyring(agent(), "/consul/secrets/gossip.keyring"),
    ]) {
      deepEqual([file?.secret, file?.mode, file?.content], [true, "0640", '["GOSSIP","NEXT"]\n']);
    }
    equal(content(server(), "secrets.json").encrypt, "GOSSIP");
    deepEqual(podCommand({ command: ["consul", "agent"] }), [
      "/bin/sh",
      "-c",
      'install -D -m 0600 /consul/secrets/gossip.keyring /consul/data/serf/local.keyring && exec "$0" "$@"',
      "consul",
      "agent",
    ]);
  });

  it("takes extra settings last, merged into what is there", () => {
    const extra = { limits: { rpc_rate: 50 }, dns_config: { service_ttl: { orders: "30s" } }, retry_interval: "5s" };
    const described = serverNode({ ...serverConfig, extra }, "CA", secrets, placement, machineLayout("1.22.6"));
    for (const [node, without] of [
      [agent(extra), agent()],
      [described, server()],
    ] as const) {
      const [config, base] = [content(node, "consul.json"), content(without, "consul.json")];
      deepEqual(config.limits, { http_max_conns_per_client: 400, rpc_rate: 50 });
      const dns = base.dns_config as object;
      deepEqual(config.dns_config, { ...dns, service_ttl: { "*": "5s", orders: "30s" } });
      equal(config.retry_interval, "5s");
      const rest = Object.keys(base).filter((key) => !(key in extra));
      for (const key of rest) deepEqual(config[key], base[key], key);
    }
  });

  it("lets an agent answer at further addresses of its node", () => {
    const placed = { name: "$(NODE_NAME)", address: "$(HOST_IP)" };
    const { command } = agentNode({ ...agentConfig, listen: ["127.0.0.1"] }, "CA", secrets, placed, podLayout);
    ok(command.includes("-client=$(HOST_IP) 127.0.0.1"));
    ok(command.includes("-bind=$(HOST_IP)"));
    ok(agent().command.includes("-client=$(HOST_IP)"));
  });

  it("has secrets in secret files only, and none in the command", () => {
    const all = Object.values(secrets).flat();
    for (const node of [server(), agent()]) {
      for (const file of node.files) {
        const found = all.filter((secret) => file.content.includes(secret));
        if (!file.secret) deepEqual(found, [], file.path);
        ok(["0640", "0644"].includes(file.mode));
        if (file.secret) equal(file.mode, "0640");
      }
      for (const word of node.command) ok(!all.includes(word));
    }
  });
});

describe("access rules", () => {
  const objects = serverAclObjects({
    datacenter: "dc1",
    version: "1.22.6",
    servers: [{ node: "consul-1", secret: tokenUuid("1".repeat(32)) }],
    agents: [tokenUuid("2".repeat(32))],
  });
  const bodies = objects.map(({ content }) => JSON.parse(content) as Record<string, unknown>);

  it("let agents write nodes, but never a server's", () => {
    const rules = String(bodies.find(({ Name }) => Name === "agents")?.Rules);
    match(rules, /node_prefix "" \{ policy = "write" \}/);
    match(rules, /node "consul-1" \{ policy = "read" \}/);
    ok(!/(acl|operator|keyring|key_prefix)/.test(rules));
  });

  it("let agents read feature gates where there are any: from 2.1 on", () => {
    const rulesAt = (version: string) =>
      serverAclObjects({ datacenter: "dc1", version, servers: [], agents: [] }).find(({ file }) =>
        file.startsWith("policy.agents"),
      )?.content ?? "";
    const operator = /operator = \\"(\w+)\\"/;
    for (const version of ["1.22.6", "2.0.0", "2.0.12"]) equal(operator.exec(rulesAt(version)), null, version);
    for (const version of ["2.1.0", "2.10.0"]) equal(operator.exec(rulesAt(version))?.[1], "read", version);
  });

  it("give a server its own node and nothing else", () => {
    const token = bodies.find(({ Description }) => Description === "Server consul-1 [consul-alicloud:servers]");
    ok(token);
    deepEqual(token.NodeIdentities, [{ NodeName: "consul-1", Datacenter: "dc1" }]);
    equal(token.Policies, undefined);
  });

  it("let requests without a token discover, and no more", () => {
    const rules = String(bodies.find(({ Name }) => Name === "discovery")?.Rules);
    ok(!rules.includes("write"));
  });
});

describe("user data", () => {
  const machine = (extra = "") => ({
    node: serverNode({ ...serverConfig, logLevel: `info${extra}` }, "CA", secrets, placement, machineLayout("1.22.6")),
    version: "1.22.6",
    downloadMirror: "https://mirror.example",
    downloadSha256: "",
    diskId: "d-bp1abc",
    managementToken: secrets.managementToken,
    acl: serverAclObjects({ datacenter: "dc1", version: "1.22.6", servers: [], agents: [] }),
  });

  it("is a boothook, which cloud-init runs at every boot, and well below the cloud's limit", () => {
    const { text } = renderUserData(machine());
    ok(text.startsWith("#cloud-boothook\n#!/bin/sh\n"));
    ok(Buffer.byteLength(text) < userDataLimit / 2, String(Buffer.byteLength(text)));
    const readable = readableUserData(text);
    match(readable, /disk\.sh bp1abc \/opt\/consul\n/);
    match(readable, /systemctl start --no-block \$units\n/);
  });

  it("is refused over the limit, with its size", () => {
    throws(
      () => renderUserData(machine(randomBytes(userDataLimit).toString("base64"))),
      /the user data of consul-1 has \d{5} bytes, the cloud takes 32768/,
    );
  });

  it("cannot be broken out of by a file's content", () => {
    const node = serverNode(serverConfig, "CA\nEND_OF_FILE\nreboot\n", secrets, placement, machineLayout("1.22.6"));
    throws(() => renderUserData({ ...machine(), node }), /ca\.pem has a line END_OF_FILE/);
  });
});
