import { deepEqual, equal, ok } from "assert/strict";
import type { Seen } from "../../policy/resources";
import { rules, stackSettings, StackSettings, violations } from "../../policy/rules";
import { environments, FixtureRun, runFixture } from "../../local/fixtures";
import { asSeen } from "../../local/preview";

type Mutable = Omit<Seen, "props" | "protect" | "type"> & {
  type: string;
  protect: boolean;
  props: Record<string, unknown>;
};

const made = new Map<string, Promise<Seen[]>>();

/** A copy of the resources that the program makes for an environment; a test may break the copy. */
async function resourcesOf(environment: string): Promise<Mutable[]> {
  const run = made.get(environment) ?? runFixture(environment).then(({ resources }) => resources.map(asSeen));
  made.set(environment, run);
  return structuredClone(await run);
}

const prod: StackSettings = { environment: "prod" };
const dev: StackSettings = { environment: "dev" };

const brokenRules = (all: readonly Seen[], settings: StackSettings) => [
  ...new Set(violations(all, settings).map(({ rule }) => rule)),
];

/** What the pack says of a run, with the settings of that run. */
const objections = ({ resources, config }: FixtureRun) =>
  violations(
    resources.map(asSeen),
    stackSettings((key) => config[`consul:${key}`]),
  );

function first(all: Mutable[], type: string, name = ""): Mutable {
  const found = all.find((one) => one.type.endsWith(`:${type}`) && one.name.includes(name));
  ok(found, `no ${type} ${name}`);
  return found;
}

function drop(all: Mutable[], wanted: (one: Mutable) => boolean): void {
  all.splice(0, all.length, ...all.filter((one) => !wanted(one)));
}

/** Sets a value at a path such as spec.template.spec.hostPID or spec.rules.0.name. */
function set(target: Mutable, path: string, value: unknown): void {
  const keys = path.split(".");
  const last = keys.pop() ?? "";
  const holder = keys.reduce<Record<string, unknown>>(
    (at, key) => (at[key] ??= {}) as Record<string, unknown>,
    target.props,
  );
  if (value === undefined) Reflect.deleteProperty(holder, last);
  else holder[last] = value;
}

function extra(type: string, props: Record<string, unknown>, name = "extra"): Mutable {
  return {
    type,
    name,
    urn: `urn:pulumi:prod::consul::${type}::${name}`,
    props,
    protect: false,
    additionalSecretOutputs: [],
  };
}

const pod = "spec.template.spec";
const container = `${pod}.containers.0`;
const intranet = { "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type": "intranet" };
const gossipKey = "Zml4dHVyZSBnb3NzaXAga2V5IG9mIHRoZSBwcm9kIHM=";
const instance = "Instance";

/** Changes that a pull request might make to prod, each with the one rule that must refuse the change. */
const spoiled: [what: string, rule: string, change: (all: Mutable[]) => void][] = [
  [
    "drops a server",
    "odd-number-of-servers",
    (all) => drop(all, (one) => one.urn.includes(":Instance::") && one.name.endsWith("-1")),
  ],
  [
    "has four servers",
    "odd-number-of-servers",
    (all) =>
      void all.push({
        ...first(all, instance),
        props: { ...first(all, instance).props, availabilityZone: "cn-hangzhou-k" },
      }),
  ],
  [
    "puts two servers into one zone",
    "servers-spread-over-zones",
    (all) =>
      set(
        first(all, instance, "consul-1"),
        "availabilityZone",
        first(all, instance, "consul-2").props.availabilityZone,
      ),
  ],
  [
    "gives a server a public address",
    "no-public-address",
    (all) => set(first(all, instance), "internetMaxBandwidthOut", 5),
  ],
  [
    "asks for a public address the old way",
    "no-public-address",
    (all) => set(first(all, instance), "allocatePublicIp", true),
  ],
  [
    "adds an elastic IP",
    "no-public-address",
    (all) => void all.push(extra("alicloud:ecs/eipAssociation:EipAssociation", {})),
  ],
  ["publishes a Service", "no-public-address", (all) => set(first(all, "Service"), "spec.type", "LoadBalancer")],
  [
    "gives a Service external addresses",
    "no-public-address",
    (all) => set(first(all, "Service"), "spec.externalIPs", ["203.0.113.7"]),
  ],
  ["stops encrypting a data disk", "encrypted-disks", (all) => set(first(all, "EcsDisk"), "encrypted", false)],
  [
    "stops encrypting a system disk",
    "encrypted-disks",
    (all) => set(first(all, instance), "systemDiskEncrypted", undefined),
  ],
  [
    "adds a disk to a machine in the clear",
    "encrypted-disks",
    (all) => set(first(all, instance), "dataDisks", [{ size: 20 }]),
  ],
  [
    "makes metadata tokens optional without the setting",
    "metadata-tokens",
    (all) => set(first(all, instance), "httpTokens", "optional"),
  ],
  [
    "leaves metadata tokens to the cloud",
    "metadata-tokens",
    (all) => set(first(all, instance), "httpTokens", undefined),
  ],
  [
    "opens a rule to the world",
    "no-world-open-rule",
    (all) => set(first(all, "SecurityGroupRule"), "cidrIp", "0.0.0.0/0"),
  ],
  [
    "opens a rule to half the world",
    "no-world-open-rule",
    (all) => set(first(all, "SecurityGroupRule"), "cidrIp", "128.0.0.0/1"),
  ],
  [
    "opens a rule to the world over IPv6",
    "no-world-open-rule",
    (all) => set(first(all, "SecurityGroupRule"), "ipv6CidrIp", "::/0"),
  ],
  [
    "widens a rule to all ports",
    "no-world-open-rule",
    (all) => set(first(all, "SecurityGroupRule"), "portRange", "1/65535"),
  ],
  ["opens SSH", "no-world-open-rule", (all) => set(first(all, "SecurityGroupRule"), "portRange", "22/22")],
  [
    "opens a NetworkPolicy",
    "no-world-open-rule",
    (all) =>
      void all.push(
        extra("kubernetes:networking.k8s.io/v1:NetworkPolicy", {
          spec: { ingress: [{ from: [{ ipBlock: { cidr: "0.0.0.0/0" } }] }] },
        }),
      ),
  ],
  [
    "makes a container privileged",
    "nothing-privileged",
    (all) => set(first(all, "DaemonSet"), `${container}.securityContext.privileged`, true),
  ],
  [
    "lets a container gain privileges",
    "nothing-privileged",
    (all) => set(first(all, "DaemonSet"), `${container}.securityContext.allowPrivilegeEscalation`, undefined),
  ],
  [
    "keeps capabilities",
    "nothing-privileged",
    (all) => set(first(all, "DaemonSet"), `${container}.securityContext.capabilities.drop`, []),
  ],
  [
    "adds a capability",
    "nothing-privileged",
    (all) => set(first(all, "DaemonSet"), `${pod}.initContainers.0.securityContext.capabilities.add`, ["SYS_ADMIN"]),
  ],
  ["shares the host's processes", "nothing-privileged", (all) => set(first(all, "DaemonSet"), `${pod}.hostPID`, true)],
  [
    "mounts the host's root",
    "nothing-privileged",
    (all) => set(first(all, "DaemonSet"), `${pod}.volumes.2.hostPath.path`, "/"),
  ],
  [
    "mounts the container engine's socket",
    "nothing-privileged",
    (all) => set(first(all, "DaemonSet"), `${pod}.volumes.2.hostPath.path`, "/run/containerd/containerd.sock"),
  ],
  [
    "puts another workload on the host's network",
    "nothing-privileged",
    (all) =>
      void all.push(extra("kubernetes:apps/v1:Deployment", { spec: { template: { spec: { hostNetwork: true } } } })),
  ],
  [
    "puts another Job on the host's network",
    "nothing-privileged",
    (all) => set(first(all, "Job"), "metadata.labels", { "app.kubernetes.io/component": "server-roll" }),
  ],
  [
    "calls another workload by the label of the Job that makes tokens",
    "nothing-privileged",
    (all) => {
      const { metadata, spec } = first(all, "Job").props;
      all.push(extra("kubernetes:apps/v1:Deployment", { metadata, spec }));
    },
  ],
  [
    "lets the Job that makes tokens run as root",
    "nothing-privileged",
    (all) => set(first(all, "Job"), `${pod}.securityContext.runAsNonRoot`, false),
  ],
  [
    "lets its container run as root",
    "nothing-privileged",
    (all) => set(first(all, "Job"), `${container}.securityContext.runAsNonRoot`, false),
  ],
  [
    "lets it mount a path of the host",
    "nothing-privileged",
    (all) => set(first(all, "Job"), `${pod}.volumes.0.hostPath`, { path: "/var/lib" }),
  ],
  [
    "lets it open a port of the host",
    "nothing-privileged",
    (all) => set(first(all, "Job"), `${container}.ports`, [{ containerPort: 8080 }]),
  ],
  [
    "gives it the agents' capabilities",
    "nothing-privileged",
    (all) => set(first(all, "Job"), `${container}.securityContext.capabilities.add`, ["CHOWN"]),
  ],
  [
    "puts the gossip key into the ConfigMap",
    "no-plain-secrets",
    (all) => set(first(all, "ConfigMap"), "data.extra", JSON.stringify({ encrypt: gossipKey })),
  ],
  [
    "puts a token into the ConfigMap",
    "no-plain-secrets",
    (all) =>
      set(first(all, "ConfigMap"), "data.extra", `{"acl":{"tokens":{"agent":"f1c70e5a-0000-4000-8000-00000000a9e7"}}}`),
  ],
  [
    "puts a private key into the ConfigMap",
    "no-plain-secrets",
    (all) =>
      set(first(all, "ConfigMap"), "data.key", "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----\n"),
  ],
  [
    "puts a private key into the ConfigMap as binary",
    "no-plain-secrets",
    (all) =>
      set(first(all, "ConfigMap"), "binaryData", {
        key: Buffer.from("-----BEGIN PRIVATE KEY-----").toString("base64"),
      }),
  ],
  [
    "puts a secret of the stack that looks like nothing into a ConfigMap",
    "no-plain-secrets",
    (all) => {
      all.push(extra("random:index/randomPassword:RandomPassword", { result: "correct horse battery" }, "word"));
      set(first(all, "ConfigMap"), "data.extra", "word = correct horse battery");
    },
  ],
  [
    "passes a token as an argument",
    "no-plain-secrets",
    (all) => set(first(all, "DaemonSet"), `${container}.args`, ["-token=f1c70e5a-0000-4000-8000-00000000a9e7"]),
  ],
  [
    "passes a token in the environment",
    "no-plain-secrets",
    (all) => set(first(all, "DaemonSet"), `${container}.env`, [{ name: "CONSUL_HTTP_TOKEN", value: "secret" }]),
  ],
  [
    "leaves the user data plain in the state",
    "no-plain-secrets",
    (all) => void Object.assign(first(all, instance), { additionalSecretOutputs: [] }),
  ],
  [
    "passes the user data unwrapped",
    "no-plain-secrets",
    (all) => void Object.assign(first(all, instance), { secretInputs: [] }),
  ],
  [
    "passes a Secret's data unwrapped",
    "no-plain-secrets",
    (all) => void Object.assign(first(all, "Secret"), { secretInputs: [] }),
  ],
  ["unprotects a disk", "protected-in-prod", (all) => void (first(all, "EcsDisk").protect = false)],
  ["unprotects a server", "protected-in-prod", (all) => void (first(all, instance).protect = false)],
  [
    "unprotects the CA's key",
    "protected-in-prod",
    (all) => void (first(all, "PrivateKey", "-ca-key-").protect = false),
  ],
  [
    "takes the newest image of a family",
    "pinned-versions",
    (all) => set(first(all, instance), "imageId", "ubuntu_24_04_x64"),
  ],
  [
    "takes the latest Consul",
    "pinned-versions",
    (all) => set(first(all, "DaemonSet"), `${container}.image`, "hashicorp/consul:latest"),
  ],
  [
    "takes a floating version of Consul",
    "pinned-versions",
    (all) => set(first(all, "DaemonSet"), `${container}.image`, "hashicorp/consul:1.22"),
  ],
  [
    "names no version at all",
    "pinned-versions",
    (all) => set(first(all, "DaemonSet"), `${container}.image`, "registry:5000/consul"),
  ],
  [
    "publishes the UI",
    "no-ui-ingress-in-prod",
    (all) => void all.push(extra("kubernetes:networking.k8s.io/v1:Ingress", {})),
  ],
  [
    "publishes the UI by a Gateway",
    "no-ui-ingress-in-prod",
    (all) => void all.push(extra("kubernetes:gateway.networking.k8s.io/v1:HTTPRoute", {})),
  ],
  [
    "takes the agents off the host's network",
    "agents-on-every-node",
    (all) => set(first(all, "DaemonSet"), `${pod}.hostNetwork`, false),
  ],
  [
    "gives the agents the host's resolver",
    "agents-on-every-node",
    (all) => set(first(all, "DaemonSet"), `${pod}.dnsPolicy`, "ClusterFirst"),
  ],
  [
    "selects some nodes",
    "agents-on-every-node",
    (all) => set(first(all, "DaemonSet"), `${pod}.nodeSelector`, { pool: "apps" }),
  ],
  [
    "leaves out tainted nodes",
    "agents-on-every-node",
    (all) => set(first(all, "DaemonSet"), `${pod}.tolerations`, [{ key: "a", operator: "Exists" }]),
  ],
  [
    "leaves out nodes by affinity",
    "agents-on-every-node",
    (all) =>
      set(
        first(all, "DaemonSet"),
        `${pod}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms`,
        [{ matchExpressions: [{ key: "pool", operator: "In", values: ["apps"] }] }],
      ),
  ],
];

/** Changes that resemble a breach and are allowed. */
const fine: [what: string, change: (all: Mutable[]) => void][] = [
  [
    "five servers over three zones",
    (all) => {
      for (const [n, zone] of [
        ["4", "cn-hangzhou-h"],
        ["5", "cn-hangzhou-i"],
      ] as const) {
        const one = first(all, instance);
        all.push({ ...one, name: `consul-consul-${n}`, props: { ...one.props, availabilityZone: zone } });
      }
    },
  ],
  [
    "an internal load balancer",
    (all) => {
      set(first(all, "Service"), "spec.type", "LoadBalancer");
      set(first(all, "Service"), "metadata.annotations", intranet);
    },
  ],
  [
    "a rule that lets out to everywhere",
    (all) => {
      set(first(all, "SecurityGroupRule"), "type", "egress");
      set(first(all, "SecurityGroupRule"), "cidrIp", "0.0.0.0/0");
    },
  ],
  [
    "a rule that turns the world away",
    (all) => {
      set(first(all, "SecurityGroupRule"), "policy", "drop");
      set(first(all, "SecurityGroupRule"), "cidrIp", "0.0.0.0/0");
    },
  ],
  ["encrypted further disks", (all) => set(first(all, instance), "dataDisks", [{ size: 20, encrypted: true }])],
  [
    "a certificate whose last line looks like a gossip key",
    (all) =>
      set(
        first(all, "ConfigMap"),
        "data.ca",
        `-----BEGIN CERTIFICATE-----\nMIIB\n${gossipKey}\n-----END CERTIFICATE-----\n`,
      ),
  ],
  [
    "a public key",
    (all) => set(first(all, "ConfigMap"), "data.key", "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"),
  ],
  [
    "a token from a Secret",
    (all) =>
      set(first(all, "DaemonSet"), `${container}.env`, [
        { name: "CONSUL_HTTP_TOKEN", valueFrom: { secretKeyRef: { name: "a", key: "token" } } },
      ]),
  ],
  [
    "the path of a token's file",
    (all) =>
      set(first(all, "DaemonSet"), `${container}.env`, [
        { name: "CONSUL_HTTP_TOKEN_FILE", value: "/consul/secrets/token" },
      ]),
  ],
  ["an own image", (all) => set(first(all, instance), "imageId", "m-bp1example00000000000")],
  [
    "an image of another registry, with a digest",
    (all) => set(first(all, "DaemonSet"), `${container}.image`, `registry:5000/consul@sha256:${"0".repeat(64)}`),
  ],
  [
    "resources of no interest",
    (all) => void all.push(extra("kubernetes:batch/v1:CronJob", {}), extra("alicloud:vpc/network:Network", {})),
  ],
];

describe("the policy pack", () => {
  for (const environment of environments) {
    it(`has nothing against what the program makes for ${environment}`, async () => {
      deepEqual(objections(await runFixture(environment)), []);
    });
  }

  for (const [what, rule, change] of spoiled) {
    it(`refuses a change that ${what}, by ${rule} alone`, async () => {
      const all = await resourcesOf("prod");
      change(all);
      deepEqual(brokenRules(all, prod), [rule]);
    });
  }

  for (const [what, change] of fine) {
    it(`allows ${what}`, async () => {
      const all = await resourcesOf("prod");
      change(all);
      deepEqual(violations(all, prod), []);
    });
  }

  it("has a case for every rule", () => {
    const tried = new Set(spoiled.map(([, rule]) => rule));
    deepEqual(
      rules.map(({ name }) => name).filter((name) => !tried.has(name)),
      [],
    );
    equal(new Set(rules.map(({ name }) => name)).size, rules.length);
  });

  it("asks for zones, protection and no Ingress in prod alone", async () => {
    const all = await resourcesOf("prod");
    for (const one of all) {
      one.protect = false;
      if (one.type.endsWith(":Instance")) one.props.availabilityZone = "cn-hangzhou-h";
    }
    all.push(extra("kubernetes:networking.k8s.io/v1:Ingress", {}));
    deepEqual(violations(all, dev), []);
    deepEqual(brokenRules(all, prod).sort(), [
      "no-ui-ingress-in-prod",
      "protected-in-prod",
      "servers-spread-over-zones",
    ]);
  });

  it("allows metadata without tokens where the setting says so, and nothing looser than that", async () => {
    const all = await resourcesOf("prod");
    const optional = { ...prod, metadataTokens: "optional" };
    for (const httpTokens of ["optional", "required"]) {
      set(first(all, instance), "httpTokens", httpTokens);
      deepEqual(violations(all, optional), []);
    }
    set(first(all, instance), "httpTokens", undefined);
    deepEqual(brokenRules(all, optional), ["metadata-tokens"]);
    deepEqual(
      stackSettings(
        (key) =>
          ({ environment: "dev", servers: '{"metadataTokens":"optional"}', certificates: '{"caGeneration":2}' })[key],
      ),
      { environment: "dev", metadataTokens: "optional", caGeneration: 2 },
    );
    deepEqual(
      stackSettings(() => undefined),
      { environment: "", metadataTokens: "", caGeneration: 1 },
    );
  });

  it("wants the authority that signs protected, not one before or after it", async () => {
    const all = await resourcesOf("prod");
    const second = { ...prod, caGeneration: 2 };
    const of = (generation: number, protect: boolean) => ({
      ...first(all, "PrivateKey", "-ca-key-1"),
      name: `consul-trust-ca-key-${generation}`,
      protect,
    });
    deepEqual(violations([of(1, false), of(2, true)], second), []);
    deepEqual(brokenRules([of(1, true), of(2, false)], second), ["protected-in-prod"]);
    deepEqual(brokenRules([of(1, false), of(2, true)], prod), ["protected-in-prod"]);
  });

  it("counts in-cluster servers and wants them spread over zones in prod", () => {
    const set = (replicas: number, topologySpreadConstraints?: unknown[]) =>
      extra("kubernetes:apps/v1:StatefulSet", {
        metadata: { labels: { "app.kubernetes.io/component": "server" } },
        spec: { replicas, template: { spec: { topologySpreadConstraints } } },
      });
    const overZones = [{ topologyKey: "topology.kubernetes.io/zone" }];
    deepEqual(brokenRules([set(3, overZones)], prod), []);
    deepEqual(brokenRules([set(3)], dev), []);
    deepEqual(brokenRules([set(3)], prod), ["servers-spread-over-zones"]);
    deepEqual(brokenRules([set(2)], dev), ["odd-number-of-servers"]);
  });
});
