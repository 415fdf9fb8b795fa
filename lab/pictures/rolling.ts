import { passes } from "../../consul/quorum";
import { runFixture } from "../../local/fixtures";
import type { Language } from "./architecture";
import { Colour, Drawing } from "./svg";

// What happens in a rolling change, as docs/operations.md tells it.

const lanes = { up: 96, assistant: 290, first: 484, second: 678, third: 872 } as const;
type Lane = keyof typeof lanes;

/** One line of the sequence: a message from lane to lane, or a note over some of them. */
type Step =
  | {
      readonly from: Lane;
      readonly to: Lane;
      readonly says: string;
      readonly colour?: Colour;
      readonly answer?: boolean;
    }
  | { readonly note: string; readonly from: Lane; readonly to: Lane }
  | { readonly heading: string };

/** The pause between two agents, in seconds, as `prod` has it. */
async function agentsPause(): Promise<number> {
  const { resources } = await runFixture("prod");
  const daemonSet = resources.find(({ type }) => type === "kubernetes:apps/v1:DaemonSet")?.inputs;
  return (daemonSet?.spec as { minReadySeconds: number }).minReadySeconds;
}

function english(pause: number): Step[] {
  const gap = passes.seconds;
  return [
    { heading: "For each server in turn; here consul-1, which leads" },
    { from: "up", to: "assistant", says: "may consul-1 go?" },
    { from: "assistant", to: "second", says: "health, raft, members" },
    { from: "assistant", to: "third", says: "health, raft, members" },
    {
      from: "third",
      to: "up",
      says: `${passes.samples} looks, ${gap} s apart: both are healthy voters, caught up`,
      answer: true,
    },
    { from: "up", to: "first", says: "hand the leadership over", colour: "green" },
    { note: "consul-2 leads; a write waits about 0.1 s", from: "first", to: "third" },
    { from: "up", to: "first", says: "install the new version beside the old one", colour: "green" },
    { from: "up", to: "assistant", says: "store user data" },
    { from: "up", to: "first", says: "apply: Consul checks the files, then they are written", colour: "green" },
    { note: "Consul reloads, or restarts; the machine runs on", from: "first", to: "first" },
    { from: "first", to: "up", says: "runs the wanted version and configuration", answer: true },
    {
      note: "The next server is asked for only now. An answer that is not good stops the change here.",
      from: "up",
      to: "third",
    },
    { heading: "At the end" },
    { from: "up", to: "third", says: "wait until every server is a healthy voter that runs what it is to run" },
    { note: `Then the agents: one node after another, ${pause} s apart`, from: "up", to: "third" },
  ];
}

function chinese(pause: number): Step[] {
  const gap = passes.seconds;
  return [
    { heading: "逐台进行；这里是 consul-1，它正是 leader" },
    { from: "up", to: "assistant", says: "consul-1 可以停吗？" },
    { from: "assistant", to: "second", says: "健康、raft、成员" },
    { from: "assistant", to: "third", says: "健康、raft、成员" },
    {
      from: "third",
      to: "up",
      says: `看 ${passes.samples} 次，间隔 ${gap} s：两台都是健康的投票者，日志已追上`,
      answer: true,
    },
    { from: "up", to: "first", says: "交出 leader", colour: "green" },
    { note: "consul-2 成为 leader；写入约等 0.1 s", from: "first", to: "third" },
    { from: "up", to: "first", says: "把新版本装在旧版本旁边", colour: "green" },
    { from: "up", to: "assistant", says: "保存 user data" },
    { from: "up", to: "first", says: "应用：Consul 先检查文件，然后才写入", colour: "green" },
    { note: "Consul 重新加载或重启；机器不停", from: "first", to: "first" },
    { from: "first", to: "up", says: "运行的正是所要的版本和配置", answer: true },
    { note: "这时才轮到下一台。回答不好，变更就停在这里。", from: "up", to: "third" },
    { heading: "最后" },
    { from: "up", to: "third", says: "等到每台 server 都是健康的投票者，运行着该运行的内容" },
    { note: `然后是 agent：逐个节点，间隔 ${pause} s`, from: "up", to: "third" },
  ];
}

const names: Readonly<Record<Lane, string>> = {
  up: "pulumi up",
  assistant: "Cloud Assistant",
  first: "consul-1",
  second: "consul-2",
  third: "consul-3",
};
const rowHeight = 34;

/** The sequence of a rolling change of the servers, and of the agents after it. */
export async function rollingChange(language: Language): Promise<string> {
  const pause = await agentsPause();
  const steps = language === "en" ? english(pause) : chinese(pause);
  const height = 84 + steps.length * rowHeight + 16;
  const title = language === "en" ? "A rolling change, step by step" : "滚动变更的每一步";
  const draw = new Drawing(968, height, title);
  for (const [lane, x] of Object.entries(lanes) as [Lane, number][]) {
    draw.path(`M${x},58V${height - 16}`, { heads: "none", dashed: true, colour: "frame" });
    const server = !["up", "assistant"].includes(lane);
    draw.box(x - 72, 22, 144, 36, server ? { fill: "blue-area", line: "blue" } : {});
    draw.text(x, 45, names[lane], {
      anchor: "middle",
      bold: true,
      code: lane === "up",
      colour: server ? "blue" : "ink",
    });
  }
  steps.forEach((step, i) => drawStep(draw, step, 92 + i * rowHeight));
  return draw.toString();
}

function drawStep(draw: Drawing, step: Step, y: number): void {
  if ("heading" in step) {
    draw.text(24, y + 2, step.heading, { bold: true, halo: true });
    return;
  }
  const [from, to] = [lanes[step.from], lanes[step.to]];
  if ("note" in step) {
    const [left, right] = from === to ? [from - 170, to + 170] : [from - 60, to + 60];
    draw.box(left, y - 16, right - left, 26, { fill: "green-area", line: "green" });
    draw.text((left + right) / 2, y + 1, step.note, { anchor: "middle", size: 12 });
    return;
  }
  draw.text((from + to) / 2, y + 1, step.says, { anchor: "middle", size: 12, halo: true });
  draw.path(`M${from},${y + 8}H${to}`, { colour: step.colour ?? "soft", dashed: step.answer ?? false });
}
