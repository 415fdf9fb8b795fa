import { readFileSync } from "fs";
import { gunzipSync } from "zlib";
import { Machine, Outcome } from "../components/ecs/cloud";
import { RunDirectory } from "../local/directory";
import { ask } from "./answers";
import { judge } from "./judge";
import { kubectl, KubectlOptions } from "./kubectl";
import { print } from "./print";
import type { Servers } from "./servers";
import type { Stack } from "./stack";

/** Texts by their name in the archive, and what could not be had. */
export interface Collected {
  readonly texts: ReadonlyMap<string, string>;
  readonly missing: readonly string[];
}

/** What each server is asked for (consul/scripts/debug.sh). */
const parts = ["consul", "self", "metrics", "disk", "journal", "boot", "units"] as const;

/** Only where there is systemd. */
const ofMachines: readonly string[] = ["journal", "boot", "units"];

/** Characters of one answer: Cloud Assistant keeps 24 KB of what a command prints. */
const answerLimit = 20_000;

/** Pods whose logs are fetched at most: with hundreds of nodes, the first say what the others would. */
const podLimit = 40;

/**
 * Collects logs and state of a deployment. Whoever does not answer is named, and the others are collected all the same.
 * @param progress is told what is asked for next
 */
export async function collect(stack: Stack, servers: Servers, progress: (line: string) => void): Promise<Collected> {
  const texts = new Map<string, string>();
  const missing: string[] = [];
  const attempt = async (what: string, work: () => Promise<void>) => {
    progress(what);
    await work().catch((error: unknown) => void missing.push(`${what}: ${(error as Error).message}`));
  };
  const machines = await servers.list();
  texts.set("machines.json", json(machines));
  await attempt("status", async () => {
    const status = judge(stack, await ask(stack, servers), new Date());
    texts.set("status.txt", print(status)).set("status.json", json(status));
  });
  const running = machines.filter(({ status }) => status === "Running");
  for (const { name, status } of machines) if (status !== "Running") missing.push(`${name}: it is ${status}`);
  for (const part of parts) {
    if (servers.places.units === "" && ofMachines.includes(part)) continue;
    await attempt(`servers: ${part}`, async () => {
      for (const [name, outcome] of await askPart(servers, running, part)) {
        if ("output" in outcome) texts.set(`servers/${name}/${part}.txt`, unpacked(outcome.output));
        else missing.push(`${name}: ${part}: ${outcome.problem}`);
      }
    });
  }
  if (stack.directory !== undefined) {
    const directory = new RunDirectory(stack.directory);
    for (const { name } of machines) {
      await attempt(`log of ${name}`, () => {
        texts.set(`servers/${name}/consul.log`, lastOf(readFileSync(directory.logFile(name), "utf8")));
        return Promise.resolve();
      });
    }
  }
  const { cluster } = stack.settings;
  if (cluster) await attempt("the Kubernetes cluster", () => collectPods(cluster, texts, attempt));
  return { texts, missing };
}

async function askPart(servers: Servers, machines: readonly Machine[], part: string): Promise<[string, Outcome][]> {
  const args = [part, String(answerLimit), ...servers.places.secrets];
  const outcomes = await servers.run(machines, [{ script: "scripts/debug.sh", args }], 120);
  return machines.map(({ id, name }) => [name, outcomes.get(id) ?? { problem: "no answer" }]);
}

function unpacked(output: string): string {
  return gunzipSync(Buffer.from(output.trim(), "base64")).toString();
}

/** Objects, events and logs of this program's namespace. No Secret is read. */
async function collectPods(
  cluster: KubectlOptions,
  texts: Map<string, string>,
  attempt: (what: string, work: () => Promise<void>) => Promise<void>,
): Promise<void> {
  const kinds = "nodes,pods,statefulsets,daemonsets,jobs,cronjobs,services,persistentvolumeclaims,configmaps,events";
  for (const kind of kinds.split(",")) {
    const name = `kubernetes/${kind}.txt`;
    texts.set(name, await kubectl(cluster, ["get", kind, "-o", "wide"]));
  }
  texts.set("kubernetes/pods-described.txt", await kubectl(cluster, ["describe", "pods"], { seconds: 120 }));
  const pods = (await kubectl(cluster, ["get", "pods", "-o", "name"])).trim().split("\n").filter(Boolean);
  for (const pod of pods.slice(0, podLimit)) {
    await attempt(`log of ${pod}`, async () => {
      const logs = ["logs", pod, "--all-containers", "--tail=5000", "--timestamps"];
      texts.set(`kubernetes/${pod}.log`, await kubectl(cluster, logs));
    });
  }
}

const json = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`;

/** The end of a long text, from the beginning of a line. */
function lastOf(text: string): string {
  const most = 2 << 20;
  return text.length <= most ? text : text.slice(-most).replace(/^.*\n/, "");
}
