import { ports } from "../../consul/config";
import { runFixture } from "../../local/fixtures";
import { Drawing } from "./svg";

/** The languages of the READMEs. */
export type Language = "en" | "zh-CN";

/** What the picture says, by language. */
const words = {
  en: {
    title: "Agents on every node of an ACK cluster, and three Consul servers on ECS machines, one in each zone",
    cluster: "ACK cluster",
    node: "node",
    every: "one agent per node, on the host's network",
    pod: "pod",
    network: "VPC, one zone for each server",
    rpc: "RPC, TLS",
    gossip: "gossip, encrypted",
    raft: "raft",
    machine: (type: string) => `${type}, encrypted ESSD`,
    dns: (address: string) => `CoreDNS forwards .consul to ${address}`,
    snapshots: (bucket: string) => `OSS bucket ${bucket}`,
    every6: "snapshots, every six hours",
    gate: "one server at a time, and only while its peers can spare it",
    metrics: "Prometheus: rules and a dashboard",
  },
  "zh-CN": {
    title: "ACK 集群的每个节点上有一个 agent，三台 Consul server 在 ECS 上，每个可用区一台",
    cluster: "ACK 集群",
    node: "节点",
    every: "每个节点一个 agent，使用主机网络",
    pod: "pod",
    network: "VPC，每个可用区一台 server",
    rpc: "RPC（TLS）",
    gossip: "gossip（加密）",
    raft: "raft",
    machine: (type: string) => `${type}，加密 ESSD`,
    dns: (address: string) => `CoreDNS 把 .consul 转发到 ${address}`,
    snapshots: (bucket: string) => `OSS 存储桶 ${bucket}`,
    every6: "快照，每六小时一次",
    gate: "一次只动一台，而且其他 server 确认可以缺它",
    metrics: "Prometheus：告警规则和仪表盘",
  },
} as const;

/** What the picture shows of a stack, from the program's description of it. */
async function shown() {
  const { resources } = await runFixture("prod");
  const inputs = (type: string) => resources.filter((one) => one.type === type).map((one) => one.inputs);
  const text = (value: unknown) => String(value);
  const servers = inputs("alicloud:ecs/instance:Instance").map((one) => ({
    name: text(one.instanceName),
    zone: text(one.availabilityZone),
    address: text(one.privateIp),
    type: text(one.instanceType),
  }));
  const bucket = text(inputs("alicloud:oss/bucket:Bucket")[0]?.bucket);
  const services = inputs("kubernetes:core/v1:Service") as { spec?: { clusterIP?: string } }[];
  const dns = services.map(({ spec }) => spec?.clusterIP ?? "").find((address) => /^\d/.test(address)) ?? "";
  return { servers: servers.sort((a, b) => (a.name < b.name ? -1 : 1)), bucket, dns };
}

type Words = (typeof words)[Language];
type Shown = Awaited<ReturnType<typeof shown>>;

/** The architecture of `prod`, as the program describes it. */
export async function architecture(language: Language): Promise<string> {
  const stack = await shown();
  const say = words[language];
  const draw = new Drawing(960, 478, say.title);
  draw.text(32, 36, "pulumi up", { code: true, bold: true, size: 14 });
  draw.path("M116,31H640V62", { colour: "green" });
  draw.text(378, 23, say.gate, { anchor: "middle", size: 12, colour: "green" });
  kubernetes(draw, say, stack);
  network(draw, say, stack);
  for (const [y, target] of [
    [206, 0],
    [352, 2],
  ] as const) {
    draw.path(`M376,${y}H480V${middle(target)}H578`, { colour: "pink" });
  }
  draw.path(`M480,${middle(0)}V${middle(2)}`, { colour: "pink", heads: "none" });
  draw.path(`M480,${middle(1)}H578`, { colour: "pink" });
  draw.text(480, 100, `${ports.rpc} ${say.rpc}`, { anchor: "middle", size: 12, colour: "pink" });
  draw.text(480, 118, `${ports.gossip} ${say.gossip}`, { anchor: "middle", size: 12, colour: "pink" });
  return draw.toString();
}

/** Top and middle of a server's box, by its place. */
const top = (i: number) => 104 + i * 92;
const middle = (i: number) => top(i) + 38;

function network(draw: Drawing, say: Words, { servers, bucket }: Shown): void {
  draw.box(564, 66, 372, 388);
  draw.text(580, 90, say.network, { bold: true });
  servers.forEach(({ name, zone, address, type }, i) => {
    draw.box(584, top(i), 270, 76, { fill: "blue-area", line: "blue" });
    draw.text(600, top(i) + 25, name, { bold: true, colour: "blue" });
    draw.text(838, top(i) + 25, address, { anchor: "end", code: true, size: 12 });
    draw.text(600, top(i) + 45, zone, { size: 12, colour: "soft" });
    draw.text(600, top(i) + 63, say.machine(type), { size: 12, colour: "soft" });
    if (i > 0) draw.path(`M882,${middle(i - 1)}V${middle(i)}`, { colour: "blue", heads: "both" });
    draw.path(`M854,${middle(i)}H882`, { colour: "blue", heads: "none" });
  });
  draw.text(890, middle(1) + 4, say.raft, { size: 12, colour: "blue" });
  draw.path(`M719,${top(2) + 76}V404`, {});
  draw.text(719, 420, say.snapshots(bucket), { anchor: "middle", size: 12 });
  draw.text(719, 438, say.every6, { anchor: "middle", size: 12, colour: "soft" });
}

function kubernetes(draw: Drawing, say: Words, { dns }: Shown): void {
  draw.box(24, 66, 372, 388);
  draw.text(40, 90, say.cluster, { bold: true });
  [110, 256].forEach((y, i) => {
    draw.box(44, y, 332, 130, { fill: "ground" });
    draw.text(60, y + 24, `${say.node} ${i + 1}`, { size: 12, colour: "soft" });
    for (const x of [196, 276]) {
      draw.box(x, y + 14, 64, 32);
      draw.text(x + 32, y + 35, say.pod, { anchor: "middle", size: 12 });
      draw.path(`M${x + 32},${y + 46}V${y + 76}`, {});
    }
    draw.text(60, y + 66, `HOST_IP:${ports.http}, DNS`, { code: true, size: 11, colour: "soft" });
    draw.box(60, y + 80, 300, 34, { fill: "pink-area", line: "pink" });
    draw.text(210, y + 102, "Consul agent", { anchor: "middle", bold: true, colour: "pink" });
  });
  draw.text(210, 406, say.every, { anchor: "middle", size: 12, colour: "soft" });
  draw.text(210, 425, say.dns(dns), { anchor: "middle", size: 12, colour: "soft" });
  draw.text(210, 444, say.metrics, { anchor: "middle", size: 12, colour: "soft" });
}
