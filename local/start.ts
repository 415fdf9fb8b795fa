import { rmSync } from "fs";
import { join } from "path";
import { ports } from "../consul/config";
import { checks, Member } from "./check";
import { aligned, configOf, defineTask, Given, showProgress, untilInterrupted } from "./command";
import { programDir } from "./program";
import { Cluster, Step } from "./supervisor";
import type { Progress } from "../tools/progress";

interface Result {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

/** What a person, or a program, is told once the cluster is up. */
interface Overview {
  readonly members: readonly { name: string; role: string; address: string; status: string; pid: number | undefined }[];
  readonly ui: string;
  readonly tokenFile: string;
  readonly caFile: string;
  readonly startSeconds: number;
}

const flags = {
  check: {
    type: "boolean",
    default: false,
    about: "bring a cluster up in a directory of its own, check it, tear it down; exit status 0 or 1",
  },
  reset: { type: "boolean", default: false, about: "forget keys and data of earlier starts first" },
  json: {
    type: "boolean",
    default: false,
    about:
      "one JSON object on standard output when it is up (or checked), progress on standard error;\n" +
      "npm start --silent keeps npm's own lines away",
  },
  config: {
    type: "string",
    short: "c",
    multiple: true,
    default: [] as string[],
    value: "KEY=VALUE",
    about: "another value for a setting, such as consul:logLevel=debug; as often as needed",
  },
  stack: {
    type: "string",
    default: "local",
    value: "NAME",
    about: "settings of Pulumi.NAME.yaml instead of Pulumi.local.yaml",
  },
  dir: {
    type: "string",
    value: "DIRECTORY",
    about: "keep keys, data and logs there instead of .local/cluster-NAME (--check: .local/check)",
  },
} as const;

async function start({ flags: values }: Given<typeof flags>): Promise<number> {
  const { check, json } = values;
  const cluster = new Cluster({
    dir: values.dir ?? join(programDir, ".local", check ? "check" : `cluster-${values.stack}`),
    stack: values.stack,
    config: configOf(values.config),
    reset: values.reset || check,
    onCrash: (reason) => console.error(reason),
  });

  const results: Result[] = [];
  let up = false as boolean;
  const work = async () => {
    await perform(cluster.steps(), { json, stop: true });
    if (check) results.push(...(await perform(checks(cluster), { json, stop: false })));
    const overview = await overviewOf(cluster);
    if (!check) {
      console.log(json ? JSON.stringify(overview, null, 2) : await welcome(cluster, overview));
      up = true;
      return new Promise<never>(() => undefined); // the cluster stays until it is interrupted
    }
    const ok = results.every((result) => result.ok);
    await cluster.stop();
    if (ok) rmSync(cluster.dir, { recursive: true });
    const seconds = Math.round(process.uptime() * 10) / 10;
    if (json) console.log(JSON.stringify({ ok, seconds, checks: results, ...overview }, null, 2));
    else console.log(ok ? `All is well, ${seconds} s` : `NOT well, ${seconds} s; logs: ${cluster.dir}/*/consul.log`);
    return ok ? 0 : 1;
  };
  const outcome = await untilInterrupted(cluster, work, (signal) =>
    console.error(`${signal}: every node is being stopped; keys and data stay in ${cluster.dir}`),
  );
  if (typeof outcome === "number") return outcome;
  // Ctrl-C is how a cluster that is up comes to its end; a start or a check was cut short.
  return up ? 0 : 130;
}

/**
 * Runs steps one after another and shows how far they are: in a list that redraws itself on a terminal, else in lines.
 * @throws at the first failure, where `stop` says so
 */
async function perform(
  steps: readonly Step[],
  { json, stop }: { readonly json: boolean; readonly stop: boolean },
): Promise<Result[]> {
  const results: Result[] = [];
  const attempt = async (step: Step, progress: Progress) => {
    const { title } = step;
    try {
      results.push({ name: title, ok: true, detail: await step.run(progress) });
    } catch (error) {
      results.push({ name: title, ok: false, detail: (error as Error).message });
      throw error;
    }
    return `${title}${results.at(-1)?.detail ? `: ${results.at(-1)?.detail ?? ""}` : ""}`;
  };
  if (process.stdout.isTTY && process.stdout.columns > 0 && !json) {
    const tasks = steps.map((step) => ({
      title: step.title,
      task: async (_: unknown, task: { title?: string; output: unknown }) => {
        const stay: string[] = [];
        task.title = await attempt(step, (line, passing = false) => {
          task.output = [...stay, line].join("\n");
          if (!passing) stay.push(line);
        });
      },
    }));
    const { Listr } = await import("listr2"); // loaded only where there is a terminal
    await new Listr(tasks, { exitOnError: stop, registerSignalListeners: false }).run();
    return results;
  }
  for (const step of steps) {
    try {
      console.error(`+ ${await attempt(step, (line, passing) => showProgress(`  ${line}`, passing))}`);
    } catch (error) {
      if (stop) throw error;
      console.error(`- ${step.title}: ${(error as Error).message}`);
    }
  }
  return results;
}

async function overviewOf(cluster: Cluster): Promise<Overview> {
  const leader = await cluster.leaderName();
  const members = await cluster.api(leader).get<Member[]>("agent/members");
  return {
    members: cluster.nodes.map(({ name, role, address }) => ({
      name,
      role: name === leader ? "leader" : role,
      address,
      status: members.some(({ Name, Status }) => Name === name && Status === 1) ? "alive" : "not alive",
      pid: cluster.pid(name),
    })),
    ui: `http://${cluster.nodes[0]?.address ?? ""}:${ports.http}/ui`,
    tokenFile: cluster.tokenFile,
    caFile: cluster.caFile,
    startSeconds: cluster.startSeconds,
  };
}

async function welcome(cluster: Cluster, { members, ui, tokenFile, caFile }: Overview): Promise<string> {
  const rows = [["NODE", "ROLE", "ADDRESS", "STATUS", "PROCESS"]];
  rows.push(...members.map((m) => [m.name, m.role, m.address, m.status, String(m.pid ?? "")]));
  const agent = members.find(({ role }) => role === "agent") ?? members[0];
  const quote = (text: string) => (/^[\w./:-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
  const command = (words: string) =>
    `  CONSUL_HTTP_ADDR=http://${agent?.address ?? ""}:${ports.http} CONSUL_HTTP_TOKEN_FILE=${quote(tokenFile)} ` +
    `${quote(cluster.consul)} ${words}`;
  const page = await fetch(`${ui}/`).then((answer) => (answer.ok ? answer.text() : ""));
  return [
    "",
    ...aligned(rows, 2),
    "",
    page.includes("Consul") ? `UI     ${ui}` : "UI     none: this consul was built without it",
    `Token  in the file ${tokenFile}`,
    `Logs   ${cluster.logFile("NODE")}`,
    `HTTPS  port ${ports.https} of the servers, certificate authority in ${caFile}`,
    "",
    "Try",
    command("members"),
    command("operator raft list-peers"),
    "",
    "Ctrl-C stops every node. Keys and data stay for the next start; npm start -- --reset forgets them.",
  ].join("\n");
}

export const task = defineTask({
  name: "start",
  about: "runs the Consul cluster of Pulumi.local.yaml on this machine until Ctrl-C",
  after: "CONSUL_BIN names the consul to run. Otherwise it is looked for on PATH, downloaded, or built with Go.",
  flags,
  run: start,
});
