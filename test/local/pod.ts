import { ChildProcess, spawn } from "child_process";
import { once } from "events";
import { request } from "http";
import { EnvVar } from "../../components/kubernetes/app-access";
import { appAccess } from "../../components/kubernetes/app-environment";

// Applications as pods have them, as processes: on a node, with an address of their own, and started again when they end.

/** An application as consul:apps makes it. @returns its environment, as a pod spec has it */
export const environmentOf = (name: string) =>
  appAccess({ namespace: "shop", secretName: `${name}-consul-token`, key: "token", accessorId: "" }).environment;

/** What the kubelet makes of a container's environment, with this token in the Secret that it names. */
export function podEnvironment(
  { node, pod, token }: { node: string; pod: string; token: string },
  variables: readonly EnvVar[] = environmentOf("app"),
): Record<string, string> {
  const fields: Record<string, string> = { "status.hostIP": node, "status.podIP": pod };
  const expanded: Record<string, string> = {};
  for (const entry of variables) {
    const value =
      "value" in entry
        ? entry.value
        : "fieldRef" in entry.valueFrom
          ? (fields[entry.valueFrom.fieldRef.fieldPath] ?? "")
          : token;
    expanded[entry.name] = value.replace(/\$\((\w+)\)/g, (_, name: string) => expanded[name] ?? "");
  }
  return expanded;
}

/** One answer over a connection of its own, as a caller gets it who has just looked the address up. @throws where there is none */
export async function get(address: string, path: string, port = 8080): Promise<{ status: number; body: string }> {
  const call = request({ host: address, port, path, agent: false, timeout: 10_000 });
  call.on("timeout", () => call.destroy(new Error(`${address}${path}: no answer within 10 s`))).end();
  const [answer] = (await once(call, "response")) as [import("http").IncomingMessage];
  let body = "";
  for await (const chunk of answer) body += String(chunk);
  return { status: answer.statusCode ?? 0, body };
}

/** A container that is started again whenever it ends by itself: at once, then after 10 s, 20 s, as a kubelet does. */
export class Pod {
  logs = "";
  /** How often it was started. */
  starts = 0;
  private child: ChildProcess | undefined;
  private stopping = false;
  private again: NodeJS.Timeout | undefined;

  constructor(
    private readonly command: readonly string[],
    private readonly env: Record<string, string>,
  ) {
    this.start();
  }

  private start(): void {
    const [program = "", ...args] = this.command;
    const child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { PATH: process.env.PATH, CONSUL_TEST_RUN: process.env.CONSUL_TEST_RUN, ...this.env },
    });
    this.child = child;
    this.starts++;
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (this.logs += String(text)));
    child.once("error", (error) => (this.logs += error.message));
    child.once("exit", () => {
      if (this.stopping) return;
      this.again = setTimeout(() => this.start(), this.starts === 1 ? 0 : 10_000 * 2 ** (this.starts - 2));
    });
  }

  /** Ends it for good. @returns its exit status, or the signal that ended it */
  async end(signal: NodeJS.Signals): Promise<number | string | null> {
    this.stopping = true;
    clearTimeout(this.again);
    const { child } = this;
    if (!child) return null;
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, "exit");
      child.kill(signal);
      await exited;
    }
    return child.exitCode ?? child.signalCode;
  }

  get running(): boolean {
    return this.child?.exitCode === null && this.child.signalCode === null;
  }
}
