import { deepEqual, equal, match } from "assert/strict";
import { appRules, formerPrefix, grantObjects, grantOwner } from "../../consul/access";
import { accessorId } from "../../consul/acl";
import { parseSettings, SettingsError } from "../../settings";

const prodStack = { project: "consul", stack: "prod" };
const name = "app_59bf7e7e3a24831b_orders";

describe("what an application may do", () => {
  it("is its own services, its own keys, and finding every other service", () => {
    const rules = appRules({
      services: ["orders", "orders-*"],
      kv: { read: ["config/application/", "config/orders/"], write: ["state/orders/"] },
      policy: 'query_prefix "" { policy = "read" }\n',
    });
    deepEqual(rules, [
      'service "orders" { policy = "write" }',
      'service_prefix "orders-" { policy = "write" }',
      'service_prefix "" { policy = "read" }',
      'node_prefix "" { policy = "read" }',
      'key_prefix "config/application/" { policy = "read" }',
      'key_prefix "config/orders/" { policy = "read" }',
      'key_prefix "state/orders/" { policy = "write" }',
      'query_prefix "" { policy = "read" }',
    ]);
  });

  it("names no prefix twice: writing includes reading", () => {
    const rules = appRules({ services: [], kv: { read: ["a/"], write: ["a/"] } });
    deepEqual(
      rules.filter((rule) => rule.startsWith("key_prefix")),
      ['key_prefix "a/" { policy = "write" }'],
    );
  });

  it("may write below a prefix that it writes, whatever it reads there", () => {
    const kv = { read: ["config/", "state/orders/today/"], write: ["state/"] };
    deepEqual(
      appRules({ services: [], kv }).filter((rule) => rule.startsWith("key_prefix")),
      ['key_prefix "config/" { policy = "read" }', 'key_prefix "state/" { policy = "write" }'],
    );
  });

  it("is a policy and one token for each valid secret, each with the mark of the stack that keeps them", () => {
    const secrets = ["f1c70e5a-0000-4000-8000-000000000001", "f1c70e5a-0000-4000-8000-000000000002"];
    const objects = grantObjects(prodStack, [{ name: "orders", rules: ['node_prefix "" {}'], secrets }]);
    deepEqual(
      objects.map(({ file }) => file),
      [`policy.${name}.json`, ...secrets.map((secret) => `token.${accessorId(secret)}.json`)],
    );
    const [policy, ...tokens] = objects.map(({ content }) => JSON.parse(content) as Record<string, unknown>);
    const description = "orders, stack prod, project consul [consul-alicloud:apps:59bf7e7e3a24831b]";
    deepEqual([policy?.Name, policy?.Description], [name, description]);
    for (const { Description, Policies } of tokens) {
      deepEqual([Description, Policies], [description, [{ Name: name }]]);
    }
  });

  it("is kept apart from what other stacks and projects keep, whatever they are called", () => {
    const keepers = [
      ["consul", "prod"],
      ["platform", "prod"],
      ["consul", "prod.eu"],
      ["consul", "prod_eu"],
      ["consul", "prod-eu"],
      ["consul", "prod-cluster-b"],
      ["consul-prod", "eu"],
    ].map(([project = "", stack = ""]) => ({ project, stack }));
    const policies = keepers.map(
      (keeper) => grantObjects(keeper, [{ name: "orders", rules: [], secrets: [] }])[0]?.file,
    );
    equal(new Set(policies).size, keepers.length);
    equal(new Set(keepers.map(grantOwner)).size, keepers.length);
    for (const file of policies) match(file ?? "", /^policy\.[A-Za-z0-9\-_]{1,128}\.json$/, "a name that Consul takes");
  });

  it("is still known by the name that earlier releases gave it", () => {
    equal(formerPrefix({ project: "consul", stack: "My.stack_2" }), "app_My-stack-2_");
  });
});

const prod = {
  environment: "prod",
  datacenter: "dc1",
  version: "1.22.6",
  downloadMirror: "https://releases.hashicorp.com/consul",
  downloadSha256: "",
  imageRegistry: "hashicorp",
  imageDigest: "",
  logLevel: "info",
  raftMultiplier: 1,
  telemetryRetention: "360s",
  cluster: { context: "prod" },
  agents: {},
  servers: {
    platform: "ecs",
    vpcId: "vpc-1",
    imageId: "image-1",
    allowedCidrs: { nodes: ["10.16.0.0/16"] },
    nodes: [1, 2, 3].map((n) => ({
      name: `c-${n}`,
      zone: "cn-hangzhou-h",
      vswitchId: "vsw-1",
      address: `10.1.0.${n}`,
    })),
  },
};

function mistakes(change: Record<string, unknown>): string[] {
  try {
    parseSettings({ ...prod, ...change });
  } catch (error) {
    if (error instanceof SettingsError) return error.message.split("\n").slice(1);
    throw error;
  }
  return [];
}

describe("settings for applications, backups and monitoring", () => {
  const app = { name: "orders", namespace: "shop" };

  it("have defaults for everything but a name and a namespace", () => {
    const { apps, backups, monitoring } = parseSettings({ ...prod, apps: [app], backups: {}, monitoring: {} });
    deepEqual(apps?.[0], {
      ...app,
      services: [],
      kv: { read: [], write: [] },
      tokenGeneration: 1,
      revokeOldToken: false,
    });
    deepEqual(backups, { everyHours: 6, keep: 28, prefix: "consul/", bucketDays: 90, volumeSize: "20Gi" });
    deepEqual(monitoring, { scrape: true, rules: true, dashboard: true, labels: {} });
    equal(parseSettings(prod).apps, undefined, "no list is not an empty list: nothing of it is in the cluster");
  });

  for (const [what, change, expected] of [
    [
      "a service called consul",
      { apps: [{ ...app, services: ["consul"] }] },
      /apps\[0\]\.services\[0\]: "consul" - .*/,
    ],
    [
      "a prefix that holds consul",
      { apps: [{ ...app, services: ["con*"] }] },
      /services\[0\]: "con\*" - .*not consul itself/,
    ],
    ["all services", { apps: [{ ...app, services: ["*"] }] }, /services\[0\]: "\*" - /],
    ["rules in a service's name", { apps: [{ ...app, services: ['a" { policy'] }] }, /services\[0\]: .*a prefix with/],
    ["all keys", { apps: [{ ...app, kv: { read: [""] } }] }, /kv\.read\[0\]: "" - a prefix of keys/],
    ["a slash before a key", { apps: [{ ...app, kv: { write: ["/a/"] } }] }, /kv\.write\[0\]: "\/a\/" - /],
    ["a quote in a key", { apps: [{ ...app, kv: { write: ['a" {}'] } }] }, /kv\.write\[0\]: /],
    ["a typo", { apps: [{ ...app, service: ["orders"] }] }, /apps\[0\]\.service: .* no such setting/],
    ["two of a name", { apps: [app, app] }, /apps\[1\]\.name: "orders" - another name: apps\[0\]\.name/],
    [
      "a name of ours",
      { apps: [{ ...app, name: "consul-metrics" }] },
      /apps\[0\]\.name: .*does not begin with consul-/,
    ],
    [
      "applications without a cluster",
      { apps: [app], cluster: undefined, agents: undefined },
      /apps: .*consul:cluster/,
    ],
    [
      "monitoring without a cluster",
      { monitoring: {}, cluster: undefined, agents: undefined },
      /monitoring: .*cluster/,
    ],
    ["a wrong interval", { backups: { everyHours: 5 } }, /backups\.everyHours: 5 - one of 1, 2, 3/],
    ["a wrong bucket", { backups: { bucket: "My_Bucket" } }, /backups\.bucket: "My_Bucket" - /],
    ["a prefix without end", { backups: { prefix: "consul" } }, /backups\.prefix: "consul" - .*slash/],
    [
      "backups without servers",
      { backups: {}, servers: undefined, serversStack: "o/consul/prod" },
      /backups: .*servers/,
    ],
  ] as const) {
    it(`refuse ${what}`, () => {
      const found = mistakes(change);
      equal(found.length, 1, found.join("\n"));
      match(found[0] ?? "", expected);
    });
  }
});
