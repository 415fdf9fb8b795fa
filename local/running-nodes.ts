import { existsSync, readFileSync } from "fs";
import type { ConsulNode } from "../consul/node";
import type { RunDirectory } from "./directory";
import { NodeProcess } from "./processes";

/** The processes of a cluster's nodes, by the nodes' names. */
export class RunningNodes {
  private readonly processes = new Map<string, NodeProcess>();
  private stopped = false;
  /** The last resort, where this process ends without `stop`. */
  private readonly killAll = () => this.processes.forEach((node) => node.signal("SIGKILL"));

  /** @param onCrash is told when a node ends that nobody here ended, with the reason in one line */
  constructor(
    private readonly directory: RunDirectory,
    private readonly onCrash: (reason: string) => void,
  ) {}

  /** Makes the directory this process's own. @returns how many nodes of an earlier start were left there and killed */
  async claim(): Promise<number> {
    const orphans = await this.directory.claim();
    process.once("exit", this.killAll);
    return orphans;
  }

  get names(): string[] {
    return [...this.processes.keys()];
  }

  has(name: string): boolean {
    return this.processes.has(name);
  }

  pid(name: string): number | undefined {
    return this.processes.get(name)?.id.pid;
  }

  /** Starts a node's process. @param keys names the keys in the node's files */
  start(node: ConsulNode, consul: string, keys: string): void {
    const { name } = node;
    if (this.has(name)) throw new Error(`${name} runs already`);
    if (this.stopped) throw new Error(`${name} is not started: this cluster has been stopped`);
    this.directory.write(node, keys);
    this.directory.installKeyring(node);
    const started = new NodeProcess(consul, node.command.slice(1), this.directory.path, this.directory.logFile(name));
    this.processes.set(name, started);
    this.note();
    void started.ended.then((how) => {
      if (this.processes.get(name) !== started) return; // `end` ended the process
      this.processes.delete(name);
      this.onCrash(this.lastWords(name, ` with ${how}`));
    });
  }

  /** Sends a signal where the node runs. */
  signal(name: string, signal: NodeJS.Signals): void {
    this.processes.get(name)?.signal(signal);
  }

  /** Ends a node where it runs, and waits until the process is gone: 10 s, then it is killed. */
  async end(name: string, signal: NodeJS.Signals): Promise<void> {
    const node = this.processes.get(name);
    if (!node) return;
    this.processes.delete(name);
    await node.end(signal);
    this.note();
  }

  /** Ends every node for good. May be called at any time, and again. */
  async stop(): Promise<void> {
    this.stopped = true;
    await Promise.all(this.names.map((name) => this.end(name, "SIGTERM")));
    process.off("exit", this.killAll);
    this.directory.release();
  }

  /** All that a node has logged in this directory. */
  logs(name: string): string {
    const file = this.directory.logFile(name);
    return existsSync(file) ? readFileSync(file, "utf8") : "";
  }

  /** That a node has ended, and the last error in its log. */
  lastWords(name: string, how = ""): string {
    const lines = this.logs(name).split("\n");
    // Whoever is killed by SIGKILL has no time for a word.
    const said = how.endsWith("SIGKILL")
      ? undefined
      : lines.findLast((line) => /^==> (?!Starting|Log data)|\[ERROR\]/.test(line));
    return `${name} ended${how}${said === undefined ? "" : `: ${said}`} (log: ${this.directory.logFile(name)})`;
  }

  private note(): void {
    const ids = [...this.processes].map(([name, { id }]) => [name, id] as const);
    this.directory.note(Object.fromEntries(ids));
  }
}
