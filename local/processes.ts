import { ChildProcess, spawn, spawnSync } from "child_process";
import { createSocket } from "dgram";
import { once } from "events";
import { closeSync, openSync, readFileSync } from "fs";
import { createServer } from "net";
import { setTimeout as sleep } from "timers/promises";
import { ports } from "../consul/config";
import type { ConsulNode } from "../consul/node";

/** A process, and what distinguishes it from a later process with the same number. */
export interface ProcessId {
  readonly pid: number;
  readonly identity: string;
}

/**
 * When a process was started; undefined where there is no such process any more. Its command line says nothing: a process
 * that is being started has none yet.
 */
export function identity(pid: number): string | undefined {
  if (process.platform !== "linux") {
    const { stdout } = spawnSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" });
    return stdout.trim() || undefined;
  }
  try {
    // The name in parentheses may hold anything. The state follows it and, as the 22nd field, the start time.
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    if (fields[0] === "Z") return undefined;
    // Ticks since the boot, and which boot that was.
    return `${fields[19] ?? ""} ${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()}`;
  } catch {
    return undefined;
  }
}

/** The process of a node. */
export class NodeProcess {
  readonly id: ProcessId;
  /** How the process ended, such as "status 1" or "SIGKILL"; never rejected. */
  readonly ended: Promise<string>;

  /** @throws where the process cannot be started */
  constructor(binary: string, args: readonly string[], directory: string, logFile: string) {
    const log = openSync(logFile, "a", 0o600);
    // A group of its own: the terminal's Ctrl-C reaches the supervisor alone, which then stops the nodes.
    this.child = spawn(binary, args, { cwd: directory, stdio: ["ignore", log, log], detached: true });
    closeSync(log);
    this.ended = new Promise((ended) => {
      this.child.once("exit", (status, signal) => ended(signal ?? `status ${status ?? "unknown"}`));
      this.child.once("error", (error) => ended(error.message));
    });
    const { pid = 0 } = this.child;
    this.id = { pid, identity: identity(pid) ?? "" };
  }

  private readonly child: ChildProcess;

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  end(signal: NodeJS.Signals): Promise<void> {
    return end(this.child, this.ended, signal);
  }
}

/** Sends a signal, wakes the process in case it is frozen, and waits until the process is gone; after 10 s it is killed. */
export async function end(child: ChildProcess, ended: Promise<unknown>, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal);
  child.kill("SIGCONT");
  const late = setTimeout(() => child.kill("SIGKILL"), 10_000);
  await ended;
  clearTimeout(late);
}

/** @throws one line, where a node's address is none of this machine, or one of the node's ports is taken */
export async function assertFree(nodes: readonly ConsulNode[]): Promise<void> {
  const addresses = nodes.map(({ address }) => address).join(" ");
  await Promise.all(nodes.flatMap(attempts));

  function attempts(node: ConsulNode): Promise<void>[] {
    const tcp = node.role === "server" ? Object.values(ports) : [ports.gossip, ports.http, ports.dns];
    return [
      ...tcp.map((port) => bound(createServer().listen(port, node.address), node, port)),
      ...[ports.gossip, ports.dns].map((port) => bound(createSocket("udp4").bind(port, node.address), node, port)),
    ];
  }

  type Endpoint = NodeJS.EventEmitter & { close(): unknown };
  async function bound(endpoint: Endpoint, { name, address }: ConsulNode, port: number): Promise<void> {
    try {
      await once(endpoint, "listening");
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      const known: Record<string, string> = {
        EADDRINUSE: `${address}:${port} of ${name} is taken: is another cluster running? End it, or change the address`,
        // Linux has all of 127.0.0.0/8, macOS 127.0.0.1 alone.
        EADDRNOTAVAIL: `${address} of ${name} is no address of this machine: for a in ${addresses}; do sudo ifconfig lo0 alias $a; done`,
      };
      throw new Error(known[code ?? ""] ?? `${address}:${port} of ${name} cannot be used: ${message}`, { cause });
    }
    const closed = once(endpoint, "close");
    endpoint.close();
    await closed;
  }
}

/**
 * Tries until an attempt works, every 50 ms.
 * @param failed is asked after each failure: gives an error where there is no point in trying again
 * @throws that error
 */
export async function untilDone<T>(
  attempt: () => Promise<T>,
  failed: (problem: Error) => Error | undefined,
): Promise<T> {
  for (;;) {
    try {
      return await attempt();
    } catch (problem) {
      const first = problem instanceof AggregateError ? (problem.errors[0] as Error) : (problem as Error);
      const failure = failed(first);
      if (failure) throw failure;
    }
    await sleep(50);
  }
}
