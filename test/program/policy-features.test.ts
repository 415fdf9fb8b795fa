import { deepEqual, equal, ok } from "assert/strict";
import { at, isRecord, Seen, unknown } from "../../policy/resources";
import { stackSettings, violations } from "../../policy/rules";
import { environments, FixtureRun, runFixture } from "../../local/fixtures";
import { asSeen } from "../../local/preview";
import { edit, plain } from "./edit";

type Config = Record<string, string>;
type Block = Record<string, unknown>;

const objections = ({ resources, config }: FixtureRun) =>
  violations(
    resources.map(asSeen),
    stackSettings((key) => config[`consul:${key}`]),
  );

const set = (key: string, value: unknown) => (config: Config) => void (config[`consul:${key}`] = JSON.stringify(value));
const change = (block: string, values: Block) => (config: Config) =>
  edit(config, block, (all) => void Object.assign(all, values));

const orders = {
  name: "orders",
  namespace: "shop",
  services: ["orders", "orders-*"],
  kv: { write: ["state/orders/"] },
};

/** What can be switched on beside any servers. */
const everywhere: Readonly<Record<string, (config: Config) => void>> = {
  "applications that were all taken off the list": set("apps", []),
  "another namespace, that is there": change("cluster", { namespace: "mesh", createNamespace: false }),
  "monitoring without scraping": set("monitoring", { scrape: false }),
  "DNS by hand": set("dns", { coredns: "snippet" }),
  "DNS by up": set("dns", { coredns: "patch", clusterIp: "172.21.10.53" }),
  "agents with another pace, image, directory and more": change("agents", {
    updatePace: { maxUnavailable: "10%", minReadySeconds: 30 },
    image: "registry.example.com/consul:1.22.6",
    hostDataPath: "/srv/consul",
    leaveOnStop: true,
    registerMember: false,
    recursors: ["100.100.2.136"],
    resources: { limits: { memory: "1Gi" } },
    priorityClassName: "high",
    extraConfig: { limits: { http_max_conns_per_client: 500 } },
  }),
  monitoring: set("monitoring", { namespace: "ops", labels: { release: "prometheus" } }),
  applications: set("apps", [orders]),
};

/** What can be switched on beside servers of this stack. */
const withServers: typeof everywhere = {
  "another log level, timing and retention": (config) => {
    Object.assign(config, {
      "consul:logLevel": "debug",
      "consul:raftMultiplier": "5",
      "consul:telemetryRetention": "600s",
    });
  },
  "a second generation of everything": (config) => {
    set("gossip", { generation: 2 })(config);
    set("certificates", { caGeneration: 2, caAlsoTrusted: [1] })(config);
    set("tokens", { agentGeneration: 2 })(config);
    set("apps", [{ ...orders, tokenGeneration: 2 }])(config);
  },
};

const onMachines: typeof everywhere = {
  "the page of the servers": change("servers", { ui: true }),
  "metadata without tokens": change("servers", { metadataTokens: "optional" }),
  "machines with a role, a key and tags": change("servers", { roleName: "ours", keyName: "ops", tags: { team: "x" } }),
  "larger disks with a key of one's own": change("servers", {
    systemDisk: { category: "cloud_auto", size: 60 },
    dataDisk: { category: "cloud_essd", size: 500, performanceLevel: "PL2", kmsKeyId: "0123abcd" },
  }),
  "the nodes' security group": change("agents", { nodeSecurityGroupId: "sg-bp1example000000000n" }),
  "a mirror with a checksum": (config) => {
    Object.assign(config, {
      "consul:downloadMirror": "http://10.0.0.1/consul",
      "consul:downloadSha256": "0".repeat(64),
    });
  },
  "servers that are updated unasked": set("gate", { skip: ["consul-1"], waitMinutes: 30 }),
  "a hand-made cluster that is moved here": set("migration", { servers: ["10.16.1.1", "10.16.1.2", "10.16.1.3"] }),
  "snapshots on the disks": set("backups", { everyHours: 1 }),
  "snapshots in a bucket": set("backups", { bucket: "example-consul", prefix: "a/b/" }),
};

const rrsa = {
  providerArn: "acs:ram::1234567890123456:oidc-provider/ack-rrsa-c1111111111111111111111111111111",
  issuerUrl: "https://oidc-ack-cn-hangzhou.oss-cn-hangzhou.aliyuncs.com/c1111111111111111111111111111111",
};

const inCluster: typeof everywhere = {
  "five servers": change("servers", { count: 5 }),
  "the page without an Ingress": change("servers", { ui: true }),
  "servers on an NFS server": change("servers", { storage: { nfs: { server: "10.0.0.9", path: "/consul" } } }),
  "servers on chosen nodes": change("servers", {
    nodeSelector: { pool: "consul" },
    tolerations: [{ key: "consul", operator: "Exists" }],
    image: "registry.example.com/consul:1.22.6",
  }),
  "snapshots on a volume": set("backups", { everyHours: 12, volumeSize: "30Gi" }),
  "snapshots with copies in a bucket": set("backups", { bucket: "example-consul", rrsa }),
};

/** The stacks that have something to switch on, each with what can be. */
const features = {
  prod: { ...everywhere, ...withServers, ...onMachines },
  "prod-agents": everywhere,
  dev: { ...everywhere, ...withServers, ...inCluster },
} as const;

describe("the policy pack and the program's features", () => {
  for (const [stack, table] of Object.entries(features)) {
    for (const [feature, switchOn] of Object.entries(table)) {
      it(`has nothing against ${feature}, alone on ${stack}`, async () => {
        const run = await runFixture(stack, (config) => {
          plain(config);
          const before = JSON.stringify(config);
          switchOn(config);
          ok(JSON.stringify(config) !== before, "the setting is another one");
        });
        deepEqual(objections(run), []);
      });
    }

    it(`has nothing against all of them together on ${stack}`, async () => {
      const run = await runFixture(stack, (config) => {
        for (const switchOn of Object.values(table)) switchOn(config);
      });
      deepEqual(objections(run), []);
    });
  }

  it("have the Job that makes tokens on the nodes' network beside machines alone", async () => {
    const network = async (stack: string) => {
      const { resources } = await runFixture(stack, set("apps", [orders]));
      const jobs = resources.filter(({ name }) => name === "consul-access-job");
      equal(jobs.length, 1);
      return at(jobs[0]?.inputs, "spec", "template", "spec", "hostNetwork");
    };
    deepEqual([await network("prod"), await network("prod-agents"), await network("dev")], [true, true, undefined]);
  });
});

/** Every path of a value, the outermost first. */
function paths(value: unknown, here: (string | number)[] = []): (string | number)[][] {
  const entries = Array.isArray(value) ? [...value.entries()] : isRecord(value) ? Object.entries(value) : [];
  return [...(here.length > 0 ? [here] : []), ...entries.flatMap(([key, entry]) => paths(entry, [...here, key]))];
}

/** A copy of a value with `unknown` at a path. */
function hidden(value: unknown, [key, ...rest]: (string | number)[]): unknown {
  if (key === undefined) return unknown;
  if (Array.isArray(value)) return value.map((entry: unknown, i) => (i === key ? hidden(entry, rest) : entry));
  return { ...(value as Block), [key]: hidden((value as Block)[key], rest) };
}

describe("the policy pack in a preview", () => {
  for (const stack of environments) {
    it(`has nothing against ${stack} whatever of a resource is not known yet`, async () => {
      const { resources, config } = await runFixture(stack);
      const settings = stackSettings((key) => config[`consul:${key}`]);
      const all = resources.map(asSeen);
      let tried = 0;
      for (const one of all) {
        for (const path of paths(one.props)) {
          tried += 1;
          const props = hidden(one.props, path) as Seen["props"];
          deepEqual(
            violations([{ ...one, props }], settings).filter(({ urn }) => urn),
            [],
            `${one.name} ${path.join(".")}`,
          );
        }
      }
      ok(tried > 100, String(tried));
      const nothing = all.map((one) => ({ ...one, props: hiddenAll(one.props) }));
      deepEqual(violations(nothing, settings), []);
    });
  }

  const hiddenAll = (props: Seen["props"]) => Object.fromEntries(Object.keys(props).map((key) => [key, unknown]));
});
