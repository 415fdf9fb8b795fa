import assert from "assert/strict";
import { ChildProcess, execFile, spawn } from "child_process";
import { once } from "events";
import type { Answer } from "dns-packet";
import { writeFileSync } from "fs";
import { join, relative } from "path";
import { createInterface } from "readline/promises";
import { parseArgs, promisify } from "util";
import { ports } from "../consul/config";
import { lookup } from "../local/check";
import { programDir } from "../local/program";
import { Cluster, onLoopback } from "../local/supervisor";

const help = `npm run tour [-- --yes]   a walk through a cluster of three servers and one client, on this machine

Starts its own cluster, shows each command and its answer, and stops at each step until you press Enter. Every command
can be typed into another terminal as it stands there.

  --yes            do not stop: for tests, and where there is no terminal
  --prefix A.B.C   loopback network of its nodes, 127.40.0 unless given
  --dir DIRECTORY  keep keys, data and logs there instead of .local/tour`;

/** One command as a person types it, and how the tour runs it: it throws where the answer is not what it should be. */
type Command = [shown: string | (() => string), run: () => Promise<string>];
type Stop = [title: string, text: string, ...commands: Command[]];

/** The stops of the tour, in order. `stopLater` is told what a stop has started, to end it whatever comes of the tour. */
async function stops(cluster: Cluster, prefix: string, stopLater: (child: ChildProcess) => void): Promise<Stop[]> {
  const client = `http://${prefix}.21:${ports.http}`;
  const path = (file: string) => relative(process.cwd(), join(cluster.dir, file)) || file;
  const env = { PATH: process.env.PATH, CONSUL_HTTP_ADDR: client, CONSUL_HTTP_TOKEN_FILE: cluster.tokenFile };
  const leader = await cluster.leaderName();

  /** A command whose answer may take a moment to be what it should be. */
  const command = (shown: string, wanted: RegExp, answer: () => Promise<string>): Command => [
    shown,
    () =>
      cluster.until(
        shown,
        async () => {
          const text = await answer();
          assert.match(text, wanted);
          return text;
        },
        60,
      ),
  ];
  const consul = (wanted: RegExp, ...args: string[]) =>
    command(["consul", ...args.map((arg) => (/\s/.test(arg) ? `'${arg}'` : arg))].join(" "), wanted, async () => {
      const { stdout } = await promisify(execFile)(cluster.consul, args, { env, cwd: programDir });
      return stdout.trimEnd();
    });
  const get = (wanted: RegExp, where: string, ...fields: string[]) =>
    command(
      `curl -s ${client}/v1/${where}${fields.length > 0 ? ` | jq '.[] | {${fields.join(", ")}}'` : ""}`,
      wanted,
      async () => {
        const answer = await cluster.api("agent-1", null).get<string | Record<string, unknown>[]>(where);
        if (typeof answer === "string") return JSON.stringify(answer);
        return answer.map((entry) => JSON.stringify(entry, fields, 2)).join("\n");
      },
    );
  const put = (where: string, body?: unknown): Command => [
    // The token comes from a file: an argument list is no place for it.
    `curl -s -X PUT -H @${path("header")}${body ? ` -d '${JSON.stringify(body)}'` : ""} ${client}/v1/${where}`,
    async () => (await cluster.api("agent-1").put<string>(where, body)) || "(200, and nothing more to say)",
  ];
  const dig = (wanted: RegExp, name: string, type: "A" | "SRV" = "A") =>
    command(`dig @${prefix}.21 -p ${ports.dns} ${name} ${type} +short`, wanted, async () => {
      const answers = await lookup(`${prefix}.21`, name, type);
      const line = (answer: Answer) => {
        if (answer.type === "SRV") return `1 1 ${answer.data.port} ${answer.data.target}.`;
        return answer.type === "A" ? answer.data : answer.type;
      };
      return answers.map(line).join("\n");
    });

  const check = { TCP: `${prefix}.11:${ports.https}`, Interval: "10s", DeregisterCriticalServiceAfter: "90m" };
  const service = {
    ID: "userServiceId",
    Name: "userService",
    Tags: ["primary", "v1"],
    Address: "127.0.0.1",
    Port: 8000,
  };
  const server = join(programDir, "examples/spring-app/app/server.js");
  const application = {
    CONSUL_HTTP_ADDR: client,
    SERVICE_NAME: "greeter",
    POD_IP: `${prefix}.101`,
    DRAIN_SECONDS: "1",
  };
  let running: ChildProcess | undefined;

  const killLeader = async () => {
    await cluster.kill(leader);
    const killed = Date.now();
    const next = await cluster.until("no new leader", async () => {
      const name = await cluster.leaderName();
      assert.notEqual(name, leader);
      await cluster.api("agent-1").put("kv/tour/failover", "yes");
      return name;
    });
    const seconds = ((Date.now() - killed) / 1000).toFixed(1);
    return `${leader} is gone; ${next} leads, and a write went through ${seconds} s later`;
  };
  const startAgain = async () => {
    cluster.start(leader);
    await cluster.ready();
    return `${leader} is alive`;
  };
  const writeWithoutToken = () =>
    cluster
      .api("agent-1", null)
      .put("kv/user/config/connections", "6")
      .then(
        () => assert.fail("a write without a token was accepted"),
        (error: unknown) => (error as Error).message.replace(/^[^:]*:[^ ]* /, ""),
      );
  const startApplication = async () => {
    const token = { CONSUL_HTTP_TOKEN: cluster.managementToken };
    running = spawn(process.execPath, [server], { stdio: "ignore", env: { ...application, ...token } });
    stopLater(running);
    return cluster.until("it is not found", async () => {
      const [entry] = await cluster
        .api("agent-1", null)
        .get<{ Service: { ID: string } }[]>("health/service/greeter?passing");
      assert(entry);
      return `${entry.Service.ID} is registered and passes its check`;
    });
  };
  const stopApplication = async () => {
    assert(running);
    const exited = once(running, "exit");
    running.kill("SIGTERM");
    await exited;
    return cluster.until("it is still found", async () => {
      assert.deepEqual(await cluster.api("agent-1", null).get("catalog/service/greeter"), []);
      return "deregistered, then stopped";
    });
  };

  return [
    [
      "The members",
      "Three servers and one client, each at an address of its own. Every node knows every other one by gossip.",
      consul(/server-1.*alive(.|\n)*server-2.*alive(.|\n)*server-3.*alive(.|\n)*agent-1.*alive/, "members"),
    ],
    [
      "The leader",
      "One server leads; the others follow its log. Ask any node, it knows.",
      get(/:8300/, "status/leader"),
      consul(/leader/, "operator", "raft", "list-peers"),
    ],
    [
      "The leader fails",
      "Its process is killed, as by a power cut. The other two elect a new leader, and writes go on.",
      [() => `kill -9 ${cluster.pid(leader) ?? ""}   # ${leader}`, killLeader],
      consul(/failed/, "members"),
    ],
    [
      "It comes back",
      "The same node, with its data: it is a voter again as soon as it has caught up.",
      [() => cluster.node(leader).command.join(" "), startAgain],
      consul(/(true(.|\n)*){3}/, "operator", "raft", "list-peers"),
    ],
    [
      "Register a service, over HTTP",
      "At the client of its own node, with a token that may. The client runs its health check from now on.",
      put("agent/service/register", { ...service, Check: check }),
      consul(/userService/, "catalog", "services"),
    ],
    [
      "Discover it, over HTTP and over DNS",
      "Nobody needs a token for that: reading services is what the anonymous token may do.",
      get(/"ServicePort": 8000/, "catalog/service/userService", "Node", "ServiceID", "ServiceAddress", "ServicePort"),
      // Its check passes before it is in DNS.
      dig(/^127\.0\.0\.1$/, "userService.service.consul"),
      dig(/8000/, "primary.userService.service.consul", "SRV"),
      put("agent/service/deregister/userServiceId"),
    ],
    [
      "Keys and values",
      "Written to the leader, read from any server; a write without a token is refused.",
      consul(/Success/, "kv", "put", "user/config/connections", "5"),
      consul(/Value +5/, "kv", "get", "-detailed", "user/config/connections"),
      [`curl -s -X PUT -d 6 ${client}/v1/kv/user/config/connections`, writeWithoutToken],
    ],
    [
      "Services that come and go by themselves",
      "What Registrator did from outside, watching Docker: an application registers when it starts, at the client of\n" +
        "its own node, and deregisters before it stops. This one is examples/spring-app.",
      consul(/Success/, "kv", "put", "config/greeter/data", "greeting: hello"),
      [`SERVICE_NAME=greeter POD_IP=${application.POD_IP} node examples/spring-app/app/server.js &`, startApplication],
      dig(new RegExp(`^${application.POD_IP}$`), "greeter.service.consul"),
      ["kill %1", stopApplication],
    ],
  ];
}

/** Ends every line that is too many with a word about it: an answer is to be read, not scrolled past. */
function shortened(text: string, most = 24): string {
  const lines = text.split("\n");
  const rest = lines.length - most;
  return [...lines.slice(0, most), ...(rest > 0 ? [`… ${rest} lines more`] : [])].map((line) => `  ${line}`).join("\n");
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      yes: { type: "boolean", default: false },
      prefix: { type: "string", default: "127.40.0" },
      dir: { type: "string", default: join(programDir, ".local/tour") },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    return 0;
  }
  const { prefix, dir } = values;
  const cluster = new Cluster({
    dir,
    reset: true,
    config: onLoopback(prefix, 3, 1),
    onCrash: (reason) => console.error(reason),
  });
  const children: ChildProcess[] = [];
  const interrupted = new Promise<NodeJS.Signals>((signalled) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, signalled);
  });
  const walk = async () => {
    for (const step of cluster.steps()) {
      const said = await step.run((line) => console.error(`  ${line}`));
      console.error(`+ ${step.title}${said ? `: ${said}` : ""}`);
    }
    writeFileSync(join(cluster.dir, "header"), `X-Consul-Token: ${cluster.managementToken}\n`, { mode: 0o600 });
    const file = relative(process.cwd(), cluster.tokenFile) || cluster.tokenFile;
    console.log(`\nFor another terminal, here:\n  alias consul=${cluster.consul}`);
    console.log(`  export CONSUL_HTTP_ADDR=http://${prefix}.21:${ports.http} CONSUL_HTTP_TOKEN_FILE=${file}`);
    const all = await stops(cluster, prefix, (child) => children.push(child));
    for (const [i, [title, text, ...commands]] of all.entries()) {
      await pause(values.yes);
      console.log(`\n${i + 1}. ${title}\n${text}`);
      for (const [shown, run] of commands) {
        console.log(`\n$ ${typeof shown === "string" ? shown : shown()}`);
        console.log(shortened(await run()));
      }
    }
    console.log("\nThat was the tour. `npm start` gives you a cluster that stays.");
    return 0;
  };
  try {
    const outcome = await Promise.race([interrupted, walk()]);
    return typeof outcome === "number" ? outcome : 130;
  } finally {
    for (const child of children) child.kill("SIGKILL");
    await cluster.stop();
  }
}

async function pause(yes: boolean): Promise<void> {
  if (yes || !process.stdin.isTTY) return;
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  // Ctrl-C reaches the terminal first here.
  terminal.once("SIGINT", () => process.emit("SIGINT"));
  await terminal.question("\nEnter to go on ").finally(() => terminal.close());
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    console.error(`tour: ${(error as Error).message}`);
    process.exit(1);
  },
);
