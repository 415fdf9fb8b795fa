import type { Words } from "./table";

// The words of docs/zh/faults.md. What Consul, the gate and the scripts said stays as it was said.

const operations: Readonly<Record<string, { readonly title: string; readonly means: string }>> = {
  setting: { title: "设置", means: "`telemetryRetention`，为此每个节点上的 Consul 都要重启" },
  version: { title: "版本", means: "从前一个次版本升到设置里的版本" },
  image: {
    title: "镜像",
    means: "`servers.imageId`：每台机器停下再启动。provider 的部分由进程的停止和启动来扮演",
  },
  gossip: { title: "gossip", means: "新的 gossip 密钥；故障发生在三步中的第二步（切换）之前" },
  tokens: { title: "token", means: "agent 换新的 token；旧的被吊销" },
  certificates: { title: "证书", means: "重新签发每台 server 的证书" },
  authority: { title: "CA", means: "新的 CA；故障发生在三步中的第二步（切换）之前" },
  more: { title: "3→5", means: "增加两台 server" },
  fewer: {
    title: "5→3",
    means:
      "先用一次 `up` 确认所有 server 健康，再告诉 autopilot，让两台 server 离开，最后改设置，如 docs/operations.md 所写",
  },
  move: { title: "换可用区", means: "一台 server 的位置由另一个名字的接替：先加两台，然后它和另一台新的离开" },
  disk: { title: "磁盘", means: "另一台 server 的机器和磁盘也丢了，由 `up --refresh` 重新创建" },
  restore: {
    title: "恢复",
    means:
      "在第一台 server 上执行 `consul snapshot restore`，证书已过期时先执行一次 `up`；期间写入暂停，因为恢复会让键回到过去",
  },
  applications: { title: "应用", means: "由 Job 的脚本为一个应用创建 token，并吊销另一个应用的 token" },
  snapshot: { title: "快照", means: "每台 server 上运行 `consul-snapshot.service`；由 leader 取快照" },
};

const faults: Readonly<Record<string, string>> = {
  killed: "server 被杀掉",
  paused: "server 被冻结",
  partitioned: "server 被隔离",
  wiped: "server 数据被清空",
  missing: "server 丢失",
  full: "磁盘满",
  clock: "时钟差一天",
  expired: "证书过期",
  interrupted: "`up` 中途被杀",
  twice: "两个 `up` 同时运行",
  mirror: "镜像站不在",
  behind: "agent 的栈没跟上",
};

const unfit: Readonly<Record<string, string>> = {
  "one request, which Consul carries out whole or not at all: no `up` is there to be killed":
    "只是一个请求，Consul 要么整个执行，要么不执行：没有可以杀的 `up`",
  "no `up`: Consul does one such request after another": "没有 `up`：Consul 一个接一个地执行这样的请求",
  "no agent takes part": "没有 agent 参与",
  "nothing is fetched": "什么也不下载",
  "a new machine, or system disk, fetches at its first boot, which a process does not have":
    "新的机器或系统盘在第一次启动时下载，而进程没有这一步",
  "no server restarts": "没有 server 重启",
  "Kubernetes carries the Job on, whatever became of the `up` that made it":
    "无论创建 Job 的 `up` 怎么样了，Kubernetes 都会继续运行它",
  "Kubernetes runs one Job for both": "Kubernetes 为两者只运行一个 Job",
  "needs root on Linux": "需要 Linux 上的 root",
};

/** @throws Error where this file has no word */
function known<T>(words: Readonly<Record<string, T>>, name: string): T {
  const found = words[name];
  if (found === undefined) throw new Error(`lab/matrix/chinese.ts has no words for "${name}"`);
  return found;
}

export const chinese: Words = {
  outcomes: { done: "完成", stopped: "停下，后来完成", unfit: "–", failed: "失败", "not run": "还没有运行" },
  columns: ["故障", "结果", "用时", "最长多久不能写", "历史", "失败的查询", "说了什么"],
  operation: (name) => known(operations, name),
  fault: (name) => known(faults, name),
  said: ({ outcome, said }) => (outcome === "unfit" || outcome === "not run" ? said && known(unfit, said) : said),
  lookups: (failed, total) => `${total} 次中 ${failed} 次`,
  end: "。",
};
