import { chmodSync, writeFileSync } from "fs";
import { createServer, IncomingMessage, Server } from "http";
import { join } from "path";
import { serverSet } from "../../consul/pod/pod";
import { Finished } from "./pods";
import { Servers } from "./kube-cluster";

/** Asks the process of the tests, which has the pods. Plain JavaScript: a program by itself. */
const client = `#!${process.execPath}
const args = process.argv.slice(2);
const asked = require("http").request({ socketPath: process.env.FAKE_KUBECTL, method: "POST" }, (answer) => {
  let text = "";
  answer.on("data", (chunk) => (text += chunk)).on("end", () => {
    const { code, output } = JSON.parse(text);
    (code === 0 ? process.stdout : process.stderr).write(output, () => process.exit(code));
  });
});
let input = "";
const send = () => asked.end(JSON.stringify({ args, input }));
if (!args.includes("-i")) send();
else process.stdin.on("data", (chunk) => (input += chunk)).on("end", send);
`;

/**
 * A `kubectl` for pods that run without an API server: it lists the servers' pods, runs commands in their containers and
 * gives their logs. What else there would be to list is empty.
 */
export class FakeKubectl {
  private constructor(private readonly server: Server) {}

  /** @param directory on PATH */
  static async start(directory: string, servers: Servers, context: string): Promise<FakeKubectl> {
    writeFileSync(join(directory, "kubectl"), client);
    chmodSync(join(directory, "kubectl"), 0o755);
    const socket = join(directory, "kubectl.socket");
    process.env.FAKE_KUBECTL = socket;
    const server = createServer((request, response) => {
      void textOf(request)
        .then((text) => {
          const { args, input } = JSON.parse(text) as { args: string[]; input: string };
          const [own, command] = [args.filter(isOption), args.filter((arg) => !isOption(arg))];
          if (!own.includes(`--context=${context}`) || !own.includes("--namespace=consul")) return wrong(args);
          return answer(servers, command, input);
        })
        .catch((error: unknown) => ({ code: 1, output: `error: ${(error as Error).message}\n` }))
        .then((finished) => response.end(JSON.stringify(finished)));
    });
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    return new FakeKubectl(server);
  }

  stop(): void {
    this.server.close();
    delete process.env.FAKE_KUBECTL;
  }
}

const isOption = (arg: string) => /^--(context|namespace)=/.test(arg);
const wrong = (args: readonly string[]): Finished => ({ code: 1, output: `error: ${args.join(" ")}\n` });

async function answer(servers: Servers, args: readonly string[], input: string): Promise<Finished> {
  const pods = new Map([...servers.pods].map(([ordinal, pod]) => [`${serverSet}-${ordinal}`, pod]));
  const [verb = "", what = ""] = args;
  if (verb === "exec") {
    const [, interactive, name = "", ...rest] = args;
    const pod = pods.get(name);
    if (!pod) return { code: 1, output: `Error from server (NotFound): pods "${name}" not found\n` };
    if (interactive !== "-i" || rest.slice(0, 3).join(" ") !== "-c consul --") return wrong(args);
    return pod.exec(rest.slice(3), { input });
  }
  if (verb === "logs") return { code: 0, output: pods.get(what.replace("pod/", ""))?.log() ?? "" };
  if (verb === "get" && what === "pods" && args.includes("json")) {
    const items = [...pods.keys()].map((name) => ({ metadata: { name }, status: { phase: "Running" } }));
    return { code: 0, output: JSON.stringify({ items }) };
  }
  if (verb === "get" && what === "pods" && args.includes("name")) {
    return { code: 0, output: [...pods.keys()].map((name) => `pod/${name}\n`).join("") };
  }
  return ["get", "describe"].includes(verb) ? { code: 0, output: "" } : wrong(args);
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request) text += String(chunk);
  return text;
}
