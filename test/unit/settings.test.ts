import { deepEqual, equal, match, ok, throws } from "assert/strict";
import * as pulumi from "@pulumi/pulumi";
import { loadSettings, parseSettings, Settings, SettingsError } from "../../settings";

const scalars = {
  datacenter: "dc1",
  version: "1.22.6",
  downloadMirror: "https://releases.hashicorp.com/consul",
  downloadSha256: "",
  imageRegistry: "hashicorp",
  imageDigest: "",
  logLevel: "info",
  raftMultiplier: 1,
  telemetryRetention: "360s",
};
const server = (n: number) => ({
  name: `consul-${n}`,
  zone: "cn-hangzhou-h",
  vswitchId: "vsw-1",
  vswitchCidr: "10.16.190.0/24",
  address: `10.16.190.${n + 10}`,
});

type Tree = Record<string, unknown>;

function good() {
  return {
    ...scalars,
    environment: "prod",
    cluster: { ackClusterId: "c1" } as Tree,
    servers: {
      platform: "ecs",
      vpcId: "vpc-1",
      imageId: "image-1",
      nodes: [server(1), server(2), server(3)] as Tree[],
      allowedCidrs: { nodes: ["10.16.0.0/16"] },
    } as Tree & { nodes: Tree[]; allowedCidrs: Tree },
    agents: {} as Tree,
  };
}
type Given = ReturnType<typeof good>;

function node(given: Given, index: number): Tree {
  const found = given.servers.nodes[index];
  ok(found);
  return found;
}

const inCluster = (more: Tree = {}): Tree => ({ platform: "kubernetes", ...more });
const rrsa = (id: string) => ({
  providerArn: `acs:ram::1234567890123456:oidc-provider/ack-rrsa-${id}`,
  issuerUrl: `https://oidc-ack-cn-hangzhou.oss-cn-hangzhou.aliyuncs.com/${id}`,
});
const nfs = { server: "nas.example", path: "/consul" };
const page = { host: "consul.example.com", tlsSecret: "tls", sourceRanges: ["10.20.0.0/16"] };

const systemDirectories =
  `/ // /etc /etc/ //etc /etc/consul.d /usr /usr/local/consul /var /var/ /var/lib /home /root /boot
  /proc /proc/1 /sys /dev /dev/shm/consul /bin /sbin /lib /lib64 /run/consul /tmp /opt /opt/cni/bin /var/run /var/tmp/consul
  /var/lib/kubelet /var/lib/kubelet/pods /var/lib/containerd /run/containerd /var/lib/container /var/lib/container/kubelet
  /var/lib/docker /var/lib/consul-agent/.. /var/lib/../../etc /var/lib/./consul /var/lib//consul data/consul`.split(
    /\s+/,
  );

function mistakes(change: (given: Given & Tree) => void): string[] {
  const given = good() as Given & Tree;
  change(given);
  try {
    parseSettings(given);
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    return error.message.split("\n").slice(1);
  }
  return [];
}

describe("settings", () => {
  it("accept the least that is needed and fill in the rest", () => {
    const settings: Settings = parseSettings(good());
    ok(settings.servers?.platform === "ecs" && settings.agents?.platform === "kubernetes");
    equal(settings.servers.metadataTokens, "required");
    equal(settings.servers.dataDisk.size, 100);
    equal(settings.agents.leaveOnStop, false);
    equal(settings.agents.updatePace.maxUnavailable, 1);
    equal(settings.protect, true, "prod is protected");
    equal(parseSettings({ ...good(), environment: "dev" }).protect, false);
  });

  it("cannot be changed afterwards", () => {
    const settings = parseSettings(good()) as unknown as { servers: { nodes: { name: string }[] } };
    throws(() => (settings.servers.nodes[0] = { name: "x" }), TypeError);
  });

  // One line for each mistake: how it breaks good settings, then the message, key first.
  const broken: [string, (given: Given & Tree) => void, RegExp][] = [
    [
      "an even number of servers",
      (g) => g.servers.nodes.pop(),
      /^ {2}consul:servers\.nodes: "2 servers" - 3 or 5 servers/,
    ],
    ["no servers", (g) => (g.servers.nodes = []), /consul:servers\.nodes: "0 servers" - 3 or 5/],
    [
      "two servers of one name",
      (g) => (node(g, 1).name = "consul-1"),
      /consul:servers\.nodes\[1\]\.name: "consul-1" - another name: servers\.nodes\[0\]\.name/,
    ],
    [
      "two servers of one address",
      (g) => (node(g, 2).address = "10.16.190.11"),
      /consul:servers\.nodes\[2\]\.address: "10.16.190.11" - another address/,
    ],
    [
      "an address that is none",
      (g) => (node(g, 0).address = "10.16.190.300"),
      /consul:servers\.nodes\[0\]\.address: "10.16.190.300" - an IPv4 address/,
    ],
    [
      "an address outside its vSwitch",
      (g) => (node(g, 0).address = "10.17.0.5"),
      /consul:servers\.nodes\[0\]\.address: "10.17.0.5" - an address inside its vSwitch, 10\.16\.190\.0\/24/,
    ],
    [
      "one of the first three addresses",
      (g) => (node(g, 0).address = "10.16.190.2"),
      /not one of the first three or last three/,
    ],
    [
      "one of the last three addresses",
      (g) => (node(g, 0).address = "10.16.190.253"),
      /not one of the first three or last three/,
    ],
    [
      "a version that is none",
      (g) => (g.version = "latest"),
      /consul:version: "latest" - a version of Consul's community edition/,
    ],
    ["a version too old", (g) => (g.version = "1.19.2"), /consul:version: "1.19.2" - a version of Consul's community/],
    ["a version of a line to come", (g) => (g.version = "3.0.0"), /consul:version: "3.0.0" - a version of Consul's/],
    [
      "a version that was taken back",
      (g) => (g.version = "1.22.4"),
      /consul:version: "1.22.4" - HashiCorp took 1.22.4 back: set 1.22.5 or later$/m,
    ],
    [
      "a version for Enterprise alone",
      (g) => (g.version = "1.22.8"),
      /consul:version: "1.22.8" - 1.22.7 is the last community release of Consul 1.22: set that, or a later line$/m,
    ],
    [
      "a version that never was",
      (g) => (g.version = "1.24.0"),
      /consul:version: "1.24.0" - there is no Consul 1.24: 2.0 came after 1.22$/m,
    ],
    [
      "an unknown key",
      (g) => (g.serverStack = "a/b/c"),
      /consul:serverStack: "a\/b\/c" - no such setting: did you mean `serversStack`\?/,
    ],
    [
      "an unknown key inside a block",
      (g) => (g.servers.instancetype = "x"),
      /consul:servers\.instancetype: "x" - no such setting/,
    ],
    [
      "both kinds of servers",
      (g) => (g.serversStack = "org/consul/prod"),
      /consul:serversStack: "org\/consul\/prod" - either consul:servers/,
    ],
    [
      "neither kind of servers",
      (g) => (Reflect.deleteProperty(g, "servers"), Reflect.deleteProperty(g, "agents")),
      /consul:servers: not set - a consul:servers block, or consul:serversStack/,
    ],
    [
      "agents without servers",
      (g) => Reflect.deleteProperty(g, "servers"),
      /consul:agents: \{\} - agents need servers/,
    ],
    [
      "a servers' stack without agents",
      (g) => (Reflect.deleteProperty(g, "servers"), Reflect.deleteProperty(g, "agents"), (g.serversStack = "o/p/s")),
      /consul:serversStack: "o\/p\/s" - a consul:agents block beside it/,
    ],
    [
      "a missing key",
      (g) => Reflect.deleteProperty(g.servers, "vpcId"),
      /consul:servers\.vpcId: not set - missing: the VPC/,
    ],
    [
      "the whole world",
      (g) => (g.servers.allowedCidrs.nodes = ["0.0.0.0/0"]),
      /consul:servers\.allowedCidrs\.nodes\[0\]: "0\.0\.0\.0\/0" - a network of yours/,
    ],
    [
      "a CIDR with host bits",
      (g) => (g.servers.allowedCidrs.nodes = ["10.16.0.1/16"]),
      /a CIDR with its host bits zero/,
    ],
    [
      "an image that moves",
      (g) => (g.agents.image = "hashicorp/consul:latest"),
      /consul:agents\.image: "hashicorp\/consul:latest" - an image with a tag or digest that stays/,
    ],
    ["no way into the cluster", (g) => (g.cluster = {}), /consul:cluster: \{\} - how to reach the cluster/],
    ["two ways into the cluster", (g) => (g.cluster.context = "x"), /consul:cluster: .* - how to reach the cluster/],
    [
      "a wrong environment",
      (g) => (g.environment = "production"),
      /consul:environment: "production" - one of prod, staging, dev, local/,
    ],
    [
      "raft timing out of range",
      (g) => (g.raftMultiplier = 11),
      /consul:raftMultiplier: 11 - a whole number from 1 to 10/,
    ],
    [
      "a disk too small for its level",
      (g) => (g.servers.dataDisk = { size: 100, performanceLevel: "PL2" }),
      /consul:servers\.dataDisk\.size: 100 - at least 461 GiB for PL2/,
    ],
    [
      "a name DNS cannot say",
      (g) => (node(g, 0).name = "consul_1"),
      /consul:servers\.nodes\[0\]\.name: "consul_1" - lower-case letters/,
    ],
    [
      "renewal longer than life",
      (g) => (g.certificates = { serverDays: 30, renewDays: 30 }),
      /consul:certificates\.renewDays: 30 - fewer days/,
    ],
    [
      "a registry with a scheme",
      (g) => (g.imageRegistry = "https://registry.example.com/ops"),
      /consul:imageRegistry: .* - a registry and a namespace in it, such as .*: no scheme, no tag, no slash at its end$/m,
    ],
    ["a registry with a tag", (g) => (g.imageRegistry = "registry.example.com/ops:1"), /consul:imageRegistry: /],
    [
      "a registry with a slash at its end",
      (g) => (g.imageRegistry = "registry.example.com/ops/"),
      /consul:imageRegistry: /,
    ],
    [
      "a digest that is none",
      (g) => (g.imageDigest = "sha256:abc"),
      /consul:imageDigest: "sha256:abc" - the digest of/,
    ],
    [
      "a Secret's name that is none",
      (g) => (g.imagePullSecrets = ["A b"]),
      /consul:imagePullSecrets\[0\]: "A b" - the name/,
    ],
    [
      "an image that moves, with a digest",
      (g) => (g.agents.image = `r.example/consul:latest@sha256:${"0".repeat(64)}`),
      /consul:agents.image/,
    ],
    ["a checksum that is none", (g) => (g.downloadSha256 = "abc"), /consul:downloadSha256: "abc" - the SHA-256/],
    ["a platform that is none", (g) => (g.servers.platform = "vm"), /consul:servers\.platform: "vm" - a platform/],
    [
      "local agents beside ECS servers",
      (g) => (g.agents = { platform: "local", nodes: [{ name: "a", address: "127.1.0.1" }] }),
      /consul:agents\.platform: "local" - local agents with local servers/,
    ],
    [
      "local agents without servers",
      (g) => (
        Reflect.deleteProperty(g, "servers"),
        (g.serversStack = "o/p/s"),
        (g.agents = { platform: "local", nodes: [{ name: "a", address: "127.1.0.1" }] })
      ),
      /consul:agents\.platform: "local" - kubernetes: local agents are for local servers/,
    ],
    [
      "a certificate that outlives its authority",
      (g) => (g.certificates = { caDays: 364 }),
      /consul:certificates\.serverDays: 365 - at most certificates\.caDays, 364: no certificate is valid for longer/,
    ],
    [
      "a mirror over http without a checksum",
      (g) => (g.downloadMirror = "http://mirror.example/consul"),
      /consul:downloadMirror: "http:\/\/mirror\.example\/consul" - https:\/\/\.\.\., or consul:downloadSha256 beside it/,
    ],
    ...[
      "Consul",
      "CONSUL",
      "consul-members",
      "Consul-Members",
      "C*",
      "Consul*",
      "consul-*",
      "consul-M*",
      "consul-members*",
    ].map((service): [string, (given: Given & Tree) => void, RegExp] => [
      `an application's service ${service}`,
      (g) => (g.apps = [{ name: "a", namespace: "b", services: ["orders", service] }]),
      /consul:apps\[0\]\.services\[1\]: ".*" - a service of the application's own, .* not consul itself, nor consul-members$/,
    ]),
    ...["consul-snapshot/", "consul-snapshot/metrics", "consul-snapshot/x", "consul-snapshot", "consul-", "c"].map(
      (prefix): [string, (given: Given & Tree) => void, RegExp] => [
        `an application that writes ${prefix}`,
        (g) => (g.apps = [{ name: "a", namespace: "b", kv: { write: ["orders/", prefix] } }]),
        /consul:apps\[0\]\.kv\.write\[1\]: ".*" - a prefix of keys .* none that covers consul-snapshot\/, which is this program's$/,
      ],
    ),
    [
      "one vSwitch in two zones",
      (g) => (node(g, 2).zone = "cn-hangzhou-i"),
      /consul:servers\.nodes\[2\]\.vswitchId: "vsw-1" - a vSwitch in cn-hangzhou-i: .* servers\.nodes\[0\] has this one in cn-hangzhou-h$/,
    ],
    [
      "the web interface for nobody",
      (g) => (g.servers.ui = true),
      /consul:servers\.ui: true - false, or CIDRs in servers\.allowedCidrs\.api beside it/,
    ],
    ...["ecs.t5-lc1m1.small", "ecs.t6-c1m1.large", "ecs.t1.small"].map(
      (instanceType): [string, (given: Given & Tree) => void, RegExp] => [
        `burstable machines, ${instanceType}`,
        (g) => (g.servers.instanceType = instanceType),
        /consul:servers\.instanceType: ".*" - an ECS instance type such as ecs\.g7\.large, and no burstable one/,
      ],
    ),
    ...["acs:ecs:x", "aliyun.com/a", "Aliyun", "ACS:x", "consul-datacenter", "consul-mine", "a-http://b"].map(
      (key): [string, (given: Given & Tree) => void, RegExp] => [
        `a tag ${key}`,
        (g) => (g.servers.tags = { team: "platform", [key]: "x" }),
        /consul:servers\.tags\..*: "x" - a key that does not begin with acs:, aliyun/,
      ],
    ),
    // A private /8 is an organization's own network; any other /8 is sixteen million strangers.
    ...[
      "0.0.0.0/0",
      "0.0.0.0/1",
      "128.0.0.0/1",
      "10.0.0.0/7",
      "64.0.0.0/2",
      "11.0.0.0/8",
      "172.0.0.0/8",
      "47.96.0.0/15",
    ].flatMap((cidr): [string, (given: Given & Tree) => void, RegExp][] => [
      [
        `a network as wide as ${cidr} for the API`,
        (g) => (g.servers.allowedCidrs.api = ["10.16.0.0/16", cidr]),
        /consul:servers\.allowedCidrs\.api\[1\]: ".*" - a network of yours: \/16 or narrower, or a private one/,
      ],
      [
        `a network as wide as ${cidr} for an Ingress`,
        (g) => (g.servers = inCluster({ ui: { ingress: { ...page, sourceRanges: [cidr] } } }) as Given["servers"]),
        /consul:servers\.ui\.ingress\.sourceRanges\[0\]: ".*" - a network of yours/,
      ],
    ]),
    [
      "a vSwitch of two CIDRs",
      (g) => (node(g, 2).vswitchCidr = "10.16.190.0/25"),
      /consul:servers\.nodes\[2\]\.vswitchCidr: "10\.16\.190\.0\/25" - the vSwitch's one CIDR: servers\.nodes\[0\] has 10\.16\.190\.0\/24/,
    ],
    [
      "a performance level of a disk that has none",
      (g) => (g.servers.dataDisk = { category: "cloud_auto", performanceLevel: "PL1" }),
      /consul:servers\.dataDisk\.performanceLevel: "PL1" - nothing with cloud_auto/,
    ],
    [
      "a limit of memory below what is asked for",
      (g) => (g.agents.resources = { requests: { memory: "1Gi" } }),
      /consul:agents\.resources\.limits\.memory: "512Mi" - at least requests\.memory, 1Gi/,
    ],
    [
      "a limit of cpu below what is asked for",
      (g) => (g.servers = inCluster({ resources: { limits: { cpu: "0.2" } } }) as Given["servers"]),
      /consul:servers\.resources\.limits\.cpu: "0\.2" - at least requests\.cpu, 250m/,
    ],
    ...["1s", "59s", "500ms"].map((time): [string, (given: Given & Tree) => void, RegExp] => [
      `a node that is gone after ${time}`,
      (g) => (g.agents.reconnectTimeout = time),
      /consul:agents\.reconnectTimeout: ".*" - a duration of at least 1m/,
    ]),
    [
      "a generation that signs and is trusted besides",
      (g) => (g.certificates = { caAlsoTrusted: [1] }),
      /consul:certificates\.caAlsoTrusted: \[1\] - other generations than caGeneration/,
    ],
    [
      "an existing key that no generation has",
      (g) => (g.gossip = { generation: 2, existingKey: `${"A".repeat(43)}=` }),
      /consul:gossip\.existingKey: "\[secret\]" - nothing, once neither gossip\.generation nor gossip\.alsoAccepted names 1/,
    ],
    [
      "a gossip key that is in use and accepted besides",
      (g) => (g.gossip = { generation: 2, alsoAccepted: [1, 2] }),
      /consul:gossip\.alsoAccepted: \[1,2\] - other generations than gossip\.generation, each one once/,
    ],
    [
      "TLS of all servers beside old ones",
      (g) => (g.migration = { servers: ["10.16.190.20"], tls: "use" }),
      /consul:migration\.tls: "use" - offer, as long as there are migration\.servers/,
    ],
    [
      "an old server at a new one's address",
      (g) => (g.migration = { servers: ["10.16.190.11"] }),
      /consul:migration\.servers\[0\]: "10\.16\.190\.11" - another address: servers\.nodes\[0\]\.address/,
    ],
    [
      "a migration without servers",
      (g) => (Reflect.deleteProperty(g, "servers"), (g.serversStack = "o/p/s"), (g.migration = {})),
      /consul:migration: \{\} - only in the stack that has the servers/,
    ],
    [
      "to skip a server that is none",
      (g) => (g.gate = { skip: ["consul-1", "consul-4"] }),
      /consul:gate\.skip: "consul-4" - names of consul:servers\.nodes/,
    ],
    [
      "to skip a majority of the machines",
      (g) => (g.gate = { skip: ["consul-1", "consul-3"] }),
      /consul:gate\.skip: \[.*\] - at most 1 of 3 servers: without the others there is no majority, and so no leader; docs\/restore\.md brings back/,
    ],
    [
      "to skip a pod that is none",
      (g) => ((g.servers = inCluster() as Given["servers"]), (g.gate = { skip: ["consul-server-3"] })),
      /consul:gate\.skip: "consul-server-3" - consul-server-0, consul-server-1, consul-server-2$/,
    ],
    [
      "rules for gossip from servers of another stack",
      (g) => (
        Reflect.deleteProperty(g, "servers"),
        (g.serversStack = "o/p/s"),
        (g.agents.nodeSecurityGroupId = "sg-1")
      ),
      /consul:agents\.nodeSecurityGroupId: "sg-1" - only in the stack that has the servers/,
    ],
    [
      "rules for gossip from servers in the cluster",
      (g) => ((g.servers = inCluster() as Given["servers"]), (g.agents.nodeSecurityGroupId = "sg-1")),
      /consul:agents\.nodeSecurityGroupId: "sg-1" - only with servers on ECS/,
    ],
    ...["cluster", "agents"].flatMap((block): [string, (given: Given & Tree) => void, RegExp][] => [
      [
        `a pod's label in ${block} by which Kubernetes finds pods`,
        (g) => Object.assign(g[block] as Tree, { podLabels: { "app.kubernetes.io/component": "x" } }),
        new RegExp(`consul:${block}\\.podLabels\\..*: "x" - a label of yours`),
      ],
      [
        `a pod's label in ${block} that is none`,
        (g) => Object.assign(g[block] as Tree, { podLabels: { "my label": "x" } }),
        new RegExp(`consul:${block}\\.podLabels\\.my label: "my label" - a label such as`),
      ],
      [
        `a pod's label in ${block} with a value that is none`,
        (g) => Object.assign(g[block] as Tree, { podLabels: { team: "the platform" } }),
        new RegExp(`consul:${block}\\.podLabels\\.team: "the platform" - at most 63 letters`),
      ],
      [
        `a pod's annotation in ${block} that is none`,
        (g) => Object.assign(g[block] as Tree, { podAnnotations: { "a/b/c": "x" } }),
        new RegExp(`consul:${block}\\.podAnnotations\\..*: "a/b/c" - an annotation such as`),
      ],
    ]),
    [
      "an agent that listens for the whole network",
      (g) => (g.agents.listen = ["0.0.0.0"]),
      /consul:agents\.listen\[0\]: "0\.0\.0\.0" - a loopback address/,
    ],
    [
      "extra configuration of what has a setting",
      (g) => (g.servers.extraConfig = { log_level: "debug" }),
      /consul:servers\.extraConfig\.log_level: "debug" - consul:logLevel instead/,
    ],
    [
      "a class beside NFS",
      (g) => (g.servers = inCluster({ storage: { class: "alicloud-nas", nfs } }) as Given["servers"]),
      /consul:servers\.storage\.class: "alicloud-nas" - either this or servers\.storage\.nfs/,
    ],
    [
      "an access mode beside NFS",
      (g) => (g.servers = inCluster({ storage: { accessMode: "ReadWriteMany", nfs } }) as Given["servers"]),
      /consul:servers\.storage\.accessMode: "ReadWriteMany" - either this or servers\.storage\.nfs/,
    ],
    [
      "to drop what is on NFS",
      (g) => (g.servers = inCluster({ storage: { keep: false, nfs } }) as Given["servers"]),
      /consul:servers\.storage\.keep: false - true: what is on an NFS server is never deleted/,
    ],
    [
      "an Ingress of a class without annotations",
      (g) => (g.servers = inCluster({ ui: { ingress: { ...page, class: "alb" } } }) as Given["servers"]),
      /consul:servers\.ui\.ingress\.class: "alb" - nginx, or servers\.ui\.ingress\.annotations beside it/,
    ],
    [
      "an Ingress in prod",
      (g) => (g.servers = inCluster({ ui: { ingress: page } }) as Given["servers"]),
      /consul:servers\.ui\.ingress: "consul\.example\.com" - ui: true\. In prod no Ingress.*kubectl -n consul port-forward/,
    ],
    [
      "a bucket for servers in the cluster, without a way to a role",
      (g) => ((g.servers = inCluster() as Given["servers"]), (g.backups = { bucket: "copies" })),
      /consul:backups\.bucket: "copies" - backups\.rrsa beside it, providerArn and issuerUrl .*docs\/restore\.md/,
    ],
    [
      "a bucket for servers in the cluster, without a region",
      (g) => ((g.servers = inCluster() as Given["servers"]), (g.backups = { bucket: "copies", rrsa: rrsa("c1") })),
      /consul:backups\.bucket: "copies" - alicloud:region beside it/,
    ],
    [
      "roles of pods without a bucket",
      (g) => ((g.servers = inCluster() as Given["servers"]), (g.backups = { rrsa: rrsa("c1") })),
      /consul:backups\.rrsa: .* - only beside backups\.bucket with servers in Kubernetes/,
    ],
    [
      "roles of pods with machines",
      (g) => (g.backups = { bucket: "copies", rrsa: rrsa("c1") }),
      /consul:backups\.rrsa: .* - only beside backups\.bucket with servers in Kubernetes: machines have a role/,
    ],
    [
      "the OIDC provider of another cluster",
      (g) => ((g.servers = inCluster() as Given["servers"]), (g.backups = { bucket: "copies", rrsa: rrsa("c2") })),
      /consul:backups\.rrsa\.providerArn: ".*ack-rrsa-c2" - the provider of consul:cluster\.ackClusterId, ack-rrsa-c1$/,
    ],
    [
      "an issuer of another cluster than the provider's",
      (g) => {
        g.servers = inCluster() as Given["servers"];
        g.backups = { bucket: "copies", rrsa: { ...rrsa("c1"), issuerUrl: rrsa("c2").issuerUrl } };
      },
      /consul:backups\.rrsa\.issuerUrl: ".*\/c2" - the issuer of the same cluster, which ends with \/c1$/,
    ],
    [
      "an OIDC provider by its name",
      (g) => (g.backups = { bucket: "copies", rrsa: { ...rrsa("c1"), providerArn: "ack-rrsa-c1" } }),
      /consul:backups\.rrsa\.providerArn: "ack-rrsa-c1" - the ARN of the cluster's OIDC provider in RAM, acs:ram::/,
    ],
    ...systemDirectories.map((path): [string, (given: Given & Tree) => void, RegExp] => [
      `an agent's data in ${path}`,
      (g) => (g.agents.hostDataPath = path),
      /consul:agents\.hostDataPath: ".*" - a directory of the agent's own on the nodes, such as \/var\/lib\/consul-agent/,
    ]),
    ...[0, 1.5, "0%", "5", true].map((value): [string, (given: Given & Tree) => void, RegExp] => [
      `maxUnavailable: ${String(value)}`,
      (g) => (g.agents.updatePace = { maxUnavailable: value }),
      /consul:agents\.updatePace\.maxUnavailable: .* - a number from 1, or a share such as 10%$/,
    ]),
  ];
  for (const [what, change, message] of broken) {
    it(`refuse ${what}`, () => {
      const lines = mistakes(change);
      ok(
        lines.some((line) => message.test(line)),
        `said: ${lines.join("\n") || "nothing"}`,
      );
    });
  }

  it("report every mistake at once", () => {
    const lines = mistakes((g) => {
      g.version = "x";
      g.servers.nodes.pop();
      node(g, 1).address = "1.2.3";
      g.typo = true;
    });
    equal(lines.length, 4);
  });

  it("report a wrong key of a block beside a rule between blocks that involves the block", () => {
    const lines = mistakes((g) => {
      g.agents = { platform: "local", nodes: [{ name: "consul-1", address: "127.1.0.1" }], typo: true };
      g.servers.vpcId = 7;
      g.servers.dataDisk = { size: 99.5 };
      node(g, 2).zone = 5;
      g.raftMultiplier = 1.5;
      g.gate = { skip: ["consul-9"], waitMinutes: 0.5 };
    });
    deepEqual(lines.map((line) => /consul:(\S+): /.exec(line)?.[1]).sort(), [
      "agents.nodes[0].name",
      "agents.platform",
      "agents.typo",
      "gate.skip",
      "gate.waitMinutes",
      "raftMultiplier",
      "servers.dataDisk.size",
      "servers.nodes[2].zone",
      "servers.vpcId",
    ]);
  });

  it("leave out the rules that a wrong value cannot be judged by, and no other", () => {
    const lines = mistakes((g) => {
      g.servers.platform = "vm";
      g.certificates = { serverDays: "a year", caAlsoTrusted: [1] };
      g.backups = { bucket: "copies" };
    });
    deepEqual(lines.map((line) => /consul:(\S+): /.exec(line)?.[1]).sort(), [
      "certificates.caAlsoTrusted",
      "certificates.serverDays",
      "servers.platform",
    ]);
  });

  it("are refused with mistakes, not with a crash, whatever stands in the place of a block", () => {
    const junk = [
      null,
      5,
      "x",
      [],
      [null],
      { platform: "local", nodes: 5 },
      { platform: "ecs", nodes: [null, 5, "x"] },
    ];
    for (const key of ["servers", "agents", "cluster", "migration", "gate", "apps", "dns", "certificates", "backups"]) {
      for (const value of junk.filter((value) => key !== "apps" || !Array.isArray(value) || value.length > 0)) {
        ok(mistakes((g: Tree) => void (g[key] = value)).length > 0, `${key}: ${JSON.stringify(value)}`);
      }
    }
  });

  it("have rules that know the defaults, whatever these are", () => {
    const { certificates, gate } = parseSettings(good());
    const said = (change: (given: Given & Tree) => void) => mistakes(change).join("\n");
    const { renewDays, serverDays, caGeneration } = certificates;
    match(
      said((g) => (g.certificates = { serverDays: renewDays })),
      new RegExp(`renewDays: ${renewDays} - fewer`),
    );
    equal(
      said((g) => (g.certificates = { serverDays: renewDays + 1 })),
      "",
    );
    equal(
      said((g) => (g.certificates = { serverDays: 3, renewDays: 2 })),
      "",
    );
    match(
      said((g) => (g.certificates = { caAlsoTrusted: [caGeneration] })),
      /caAlsoTrusted/,
    );
    ok(serverDays > renewDays && gate.skip.length === 0);

    const pods = parseSettings({ ...good(), environment: "dev", servers: inCluster({ ui: { ingress: page } }) });
    ok(pods.servers?.platform === "kubernetes" && pods.cluster);
    const { count, storage } = pods.servers;
    match(
      said((g) => ((g.servers = inCluster() as Given["servers"]), (g.gate = { skip: [`consul-server-${count}`] }))),
      /gate\.skip/,
    );
    equal(
      said((g) => ((g.servers = inCluster() as Given["servers"]), (g.gate = { skip: [`consul-server-${count - 1}`] }))),
      "",
    );
    equal(
      said((g) => (g.servers = inCluster({ storage: { nfs } }) as Given["servers"])),
      "",
    );
    const another = storage.accessMode === "ReadWriteMany" ? "ReadWriteOnce" : "ReadWriteMany";
    match(
      said((g) => (g.servers = inCluster({ storage: { nfs, accessMode: another } }) as Given["servers"])),
      /accessMode/,
    );
    match(
      said((g) => (g.servers = inCluster({ ui: { ingress: page } }) as Given["servers"])),
      new RegExp(`kubectl -n ${pods.cluster.namespace} port-forward`),
    );
    for (const level of ["PL0", "PL1", "PL2", "PL3"]) {
      const smallest = { PL2: 461, PL3: 1261 }[level] ?? 0;
      const { dataDisk } = parseSettings(good()).servers as unknown as { dataDisk: { size: number } };
      equal(said((g) => (g.servers.dataDisk = { performanceLevel: level })) === "", dataDisk.size >= smallest, level);
    }
  });

  it("take an agent's directory wherever it is the agent's own", () => {
    const own = [
      "/var/lib/consul-agent",
      "/data/consul/data",
      "/data",
      "/home/consul",
      "/var/lib/consul",
      "/libraries/c",
    ];
    for (const path of [
      ...own,
      "/opt/consul/",
      "/var/lib/container/consul",
      "/var/lib/kubelet2",
      "/mnt/disk..1/consul",
    ]) {
      deepEqual(
        mistakes((g) => (g.agents.hostDataPath = path)),
        [],
        path,
      );
    }
  });

  it("take a mirror over http with a checksum", () => {
    const mirror = { downloadMirror: "http://mirror.example/consul", downloadSha256: "a".repeat(64) };
    deepEqual(
      mistakes((g) => Object.assign(g, mirror)),
      [],
    );
  });

  it("take services and keys whose names only look like Consul's own", () => {
    const services = ["consul-template", "consul-snapshots", "consul-t*", "consul2", "my-consul"];
    const kv = { read: ["consul-snapshot/"], write: ["consul-snapshots/", "config/consul-snapshot/"] };
    deepEqual(
      mistakes((g) => (g.apps = [{ name: "a", namespace: "b", services, kv }])),
      [],
    );
  });

  it("take what is only like settings that are refused: of machines, their zones and tags", () => {
    const tags = { team: "platform", "my-acs:x": "a", consul: "b", "app.example/aliyun": "c" };
    for (const instanceType of ["ecs.c8i.large", "ecs.g7t.large", "ecs.re4e.40xlarge"]) {
      deepEqual(
        mistakes((g) => {
          Object.assign(g.servers, { tags, instanceType, ui: true });
          g.servers.allowedCidrs.api = ["10.16.250.0/24"];
          Object.assign(node(g, 1), { zone: "cn-hangzhou-i", vswitchId: "vsw-2" });
        }),
        [],
      );
    }
  });

  it("refuse a zone of another region, where the region is given", () => {
    const inZone = (zone: string, region?: string): string => {
      const given = good();
      for (const one of given.servers.nodes) one.zone = zone;
      try {
        parseSettings(given, undefined, region);
      } catch (error) {
        return (error as Error).message;
      }
      return "";
    };
    for (const [zone, region] of [
      ["cn-hangzhou-h", "cn-hangzhou"],
      ["cn-hongkong-b", "cn-hongkong"],
      ["ap-southeast-1a", "ap-southeast-1"],
      ["cn-shanghai-finance-1b", "cn-shanghai-finance-1"],
      ["cn-wuhan-lr-a", "cn-wuhan-lr"],
      ["us-west-1a", undefined],
    ] as const) {
      equal(inZone(zone, region), "", zone);
    }
    for (const [zone, region, like] of [
      ["cn-hangzhou-h", "cn-shanghai", "cn-shanghai-a"],
      ["cn-shanghai-finance-1b", "cn-shanghai", "cn-shanghai-a"],
      ["ap-southeast-1a", "ap-southeast-5", "ap-southeast-5a"],
      ["ap-southeast-10a", "ap-southeast-1", "ap-southeast-1a"],
      ["cn-hangzhou", "cn-hangzhou", "cn-hangzhou-a"],
    ] as const) {
      const said = inZone(zone, region).split("\n");
      equal(said.length, 4, zone);
      equal(
        said[1],
        `  consul:servers.nodes[0].zone: "${zone}" - a zone of alicloud:region, ${region}, such as ${like}`,
      );
    }
    pulumi.runtime.setAllConfig({
      ...Object.fromEntries(
        Object.entries(good()).map(([key, value]) => [
          `consul:${key}`,
          typeof value === "string" ? value : JSON.stringify(value),
        ]),
      ),
      "alicloud:region": "cn-beijing",
    });
    try {
      throws(
        () => loadSettings(),
        /servers\.nodes\[2\]\.zone: "cn-hangzhou-h" - a zone of alicloud:region, cn-beijing/,
      );
    } finally {
      pulumi.runtime.setAllConfig({});
    }
  });

  it("take networks that are wide, where they are private or an organization may have them", () => {
    for (const cidr of ["10.0.0.0/8", "172.16.0.0/12", "100.64.0.0/10", "47.96.0.0/16", "203.0.113.7/32"]) {
      deepEqual(
        mistakes((g) => (g.servers.allowedCidrs = { nodes: ["10.16.0.0/16"], api: [cidr] })),
        [],
        cidr,
      );
    }
  });

  it("take amounts and times in whatever unit", () => {
    deepEqual(
      mistakes((g) => {
        g.agents.resources = { requests: { cpu: "1500m", memory: "1024Mi" }, limits: { cpu: "1.5", memory: "1Gi" } };
        g.agents.reconnectTimeout = "1m";
        g.servers.dataDisk = { category: "cloud_auto", size: 40 };
      }),
      [],
    );
  });

  it("never show a gossip key, wherever the mistake is", () => {
    const key = "0123456789";
    const gossip = { existingKey: key, generation: 2 };
    for (const given of [{ gossip }, { gossip: [gossip] }, { typo: gossip }]) {
      const found = mistakes((g) => void Object.assign(g, given));
      ok(found.length > 0 && !found.join().includes(key), found.join("\n"));
    }
  });

  it("never show a secret", () => {
    const given = { ...good(), cluster: { kubeconfig: 42 }, agents: { image: "s3cret" } };
    try {
      parseSettings(given, (key) => key === "agents");
      ok(false, "accepted");
    } catch (error) {
      const { message } = error as Error;
      ok(!message.includes("s3cret") && !message.includes("42"), message);
      deepEqual(message.match(/\[secret\]/g)?.length, 2);
    }
  });
});
