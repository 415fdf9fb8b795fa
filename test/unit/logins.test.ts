import { deepEqual, equal, match, ok } from "assert/strict";
import { grantOwner } from "../../consul/access";
import { Login, loginMethod, loginObjects } from "../../consul/logins";
import { parseSettings, SettingsError } from "../../settings";
import { pinnedVersion } from "../../local/program";

const keeper = { project: "consul", stack: "prod" };
const mark = `[${grantOwner(keeper)}]`;
const method = "kubernetes-59bf7e7e3a24831b";
const reviewer = { apiServer: "https://10.16.0.10:6443", caCertificate: "PEM\n", token: "secret" };
const kv = { read: ["config/shop/"], write: [] };

const objectsOf = (...logins: Login[]) =>
  loginObjects(keeper, logins, reviewer).map(({ file, content }): Record<string, string> => ({
    file,
    ...(JSON.parse(content) as Record<string, string>),
  }));
const rulesOf = (...logins: Login[]) => objectsOf(...logins).filter(({ file }) => file?.startsWith("rule."));

describe("what lets a service account log in", () => {
  it("is an auth method that asks the cluster's API server, with the mark of the stack that keeps it", () => {
    const found = objectsOf({ namespace: "shop", serviceAccounts: [], kv }).find(({ Type }) => Type !== undefined);
    deepEqual(found, {
      file: `method.${method}.json`,
      Name: method,
      Type: "kubernetes",
      Description: `logins, stack prod, project consul ${mark}`,
      TokenLocality: "local",
      Config: { Host: "https://10.16.0.10:6443", CACert: "PEM\n", ServiceAccountJWT: "secret" },
    });
    equal(loginMethod(keeper), method);
    ok(loginMethod({ ...keeper, stack: "prod-cluster-b" }) !== method, "each cluster has an API server of its own");
  });

  it("is nothing where nobody may: then the script takes the method away, and every token that it gave", () => {
    deepEqual(loginObjects(keeper, [], reviewer), []);
  });

  it("of all in a namespace is a policy that they share, and by a second rule the service of each one's own name", () => {
    const objects = objectsOf({ namespace: "shop", serviceAccounts: [], kv });
    const name = "login_59bf7e7e3a24831b_shop";
    const [policy, shared, own] = objects;
    deepEqual(
      objects.map(({ file }) => file),
      [`policy.${name}.json`, "rule.shop.json", "rule.shop__own.json", `method.${method}.json`],
    );
    equal(
      policy?.Rules,
      'service_prefix "" { policy = "read" }\nnode_prefix "" { policy = "read" }\nkey_prefix "config/shop/" { policy = "read" }\n',
    );
    deepEqual(
      [shared?.Selector, shared?.BindType, shared?.BindName],
      ['serviceaccount.namespace=="shop"', "policy", name],
    );
    deepEqual(
      [own?.Selector, own?.BindType, own?.BindName],
      [
        'serviceaccount.namespace=="shop" and serviceaccount.name not matches "(?i)^(consul|consul-members)$"',
        "service",
        "${serviceaccount.name}",
      ],
    );
    equal(
      own?.Description,
      `shop__own, stack prod, project consul ${mark}`,
      "the script finds a rule by its name there",
    );
  });

  it("of all in a namespace, with services given, is these for each and none of its own name", () => {
    const rules = rulesOf({ namespace: "shop", serviceAccounts: [], services: ["shop-*"], kv });
    deepEqual(
      rules.map(({ BindType }) => BindType),
      ["policy"],
    );
  });

  it("of those that are listed is a policy each, so that one of them can be taken away with its tokens", () => {
    const objects = objectsOf({ namespace: "pay", serviceAccounts: ["billing", "ledger"], kv });
    const policies = objects.filter(({ file }) => file?.startsWith("policy."));
    deepEqual(
      policies.map(({ Name }) => Name),
      ["login_59bf7e7e3a24831b_pay_billing", "login_59bf7e7e3a24831b_pay_ledger"],
    );
    match(policies[0]?.Rules ?? "", /^service "billing" \{ policy = "write" \}/);
    equal(policies[0]?.Description, `logins of pay/billing, stack prod, project consul ${mark}`);
    deepEqual(
      rulesOf({ namespace: "pay", serviceAccounts: ["billing"], kv }).map(({ Selector }) => Selector),
      ['serviceaccount.namespace=="pay" and serviceaccount.name=="billing"'],
    );
  });
});

const prod = {
  environment: "prod",
  datacenter: "dc1",
  version: pinnedVersion,
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
const apiServer = "https://10.16.0.10:6443";
const shop = { namespace: "shop" };

/** What is wrong with these logins, a line each. */
function mistakes(logins: unknown, change: object = {}): string[] {
  try {
    parseSettings({ ...prod, logins, ...change });
  } catch (error) {
    if (error instanceof SettingsError) return error.message.split("\n").slice(1);
    throw error;
  }
  return [];
}
const withEntries = (...namespaces: object[]) => ({ apiServer, namespaces });

describe("settings for logins", () => {
  it("have defaults for everything but the API server's address and a namespace", () => {
    const { logins } = parseSettings({ ...prod, logins: withEntries(shop) });
    deepEqual(logins, withEntries({ ...shop, serviceAccounts: [], kv: { read: [], write: [] } }));
    equal(parseSettings(prod).logins, undefined, "no block is not an empty list: nothing of it is in the cluster");
    deepEqual(parseSettings({ ...prod, logins: withEntries() }).logins, withEntries());
  });

  it("need no address where the servers are in the cluster", () => {
    deepEqual(mistakes({ namespaces: [shop] }, { servers: { platform: "kubernetes" } }), []);
  });

  it("take one entry for all of a namespace beside some for service accounts of it", () => {
    const some = { namespace: "shop", serviceAccounts: ["orders"], kv: { write: ["state/orders/"] } };
    deepEqual(mistakes(withEntries(shop, some)), []);
  });

  const long = "a".repeat(63);
  for (const [what, logins, expected, change] of [
    [
      "no address of the API server",
      { namespaces: [shop] },
      /logins\.apiServer: not set - https:\/\/<address>:<port> of the cluster's API server, as the Consul servers reach it/,
    ],
    [
      "no address where another stack has the servers",
      { namespaces: [shop] },
      /logins\.apiServer: not set - https/,
      { servers: undefined, serversStack: "o/consul/prod" },
    ],
    ["an address without TLS", { ...withEntries(shop), apiServer: "http://10.16.0.10:6443" }, /apiServer: .*https:/],
    ["an address with a path", { ...withEntries(shop), apiServer: "https://10.16.0.10/k8s" }, /apiServer: .*https:/],
    ["no list of namespaces", { apiServer }, /logins\.namespaces: not set - missing: a list of namespaces/],
    ["no namespace", withEntries({}), /logins\.namespaces\[0\]\.namespace: not set - missing: lower-case letters/],
    ["a namespace that is none", withEntries({ namespace: "Shop" }), /namespaces\[0\]\.namespace: "Shop" - lower-case/],
    [
      "a quote in a service account",
      withEntries({ ...shop, serviceAccounts: ['a" or "1"=="1'] }),
      /serviceAccounts\[0\]: .* - lower-case letters/,
    ],
    [
      "a service account twice in an entry",
      withEntries({ ...shop, serviceAccounts: ["a", "a"] }),
      /namespaces\[0\]\.serviceAccounts\[1\]: "a" - another service account: serviceAccounts\[0\] has this one already/,
    ],
    [
      "a service account in two entries",
      withEntries({ ...shop, serviceAccounts: ["a"] }, { ...shop, serviceAccounts: ["b", "a"] }),
      /namespaces\[1\]\.namespace: "shop" - one entry for the service account a of a namespace/,
    ],
    [
      "two entries for all of a namespace",
      withEntries(shop, shop),
      /namespaces\[1\]\.namespace: "shop" - one entry for all service accounts of a namespace/,
    ],
    [
      "a service account that would register as the servers do",
      withEntries({ ...shop, serviceAccounts: ["consul"] }),
      /serviceAccounts\[0\]: "consul" - services beside it: without them it would register a service of Consul itself/,
    ],
    [
      "names that are too long for a policy's",
      withEntries({ namespace: long, serviceAccounts: [long] }),
      /serviceAccounts\[0\]: "a{63}" - a name with at most 104 characters together with its namespace's/,
    ],
    ["the servers' service", withEntries({ ...shop, services: ["consul"] }), /services\[0\]: "consul" - .*not consul/],
    ["a prefix that covers it", withEntries({ ...shop, services: ["con*"] }), /services\[0\]: "con\*" - /],
    ["all keys", withEntries({ ...shop, kv: { read: [""] } }), /kv\.read\[0\]: "" - a prefix of keys/],
    [
      "this program's keys",
      withEntries({ ...shop, kv: { write: ["consul-s"] } }),
      /kv\.write\[0\]: .*consul-snapshot\//,
    ],
    ["blank rules", withEntries({ ...shop, policy: " " }), /policy: " " - rules in Consul's policy language/],
    ["a typo", withEntries({ ...shop, serviceAccount: "a" }), /namespaces\[0\]\.serviceAccount: .* no such setting/],
    [
      "logins without a cluster",
      withEntries(shop),
      /logins: .*consul:cluster beside it: the service accounts that log in are in Kubernetes/,
      { cluster: undefined, agents: undefined },
    ],
  ] as const) {
    it(`refuse ${what}`, () => {
      const found = mistakes(logins, change);
      equal(found.length, 1, found.join("\n"));
      match(found[0] ?? "", expected);
    });
  }
});
