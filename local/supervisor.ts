import { writeFileSync } from "fs";
import { resolve } from "path";
import type { AclObject } from "../consul/acl";
import { ports } from "../consul/config";
import type { ConsulNode } from "../consul/node";
import { assertAclTools, runAclScript } from "./acl-script";
import { Api, leaderAmong } from "./api";
import { findConsul, wantedConsul } from "./consul-binary";
import { describeCluster, Description } from "./description";
import { RunDirectory } from "./directory";
import { assertFree, untilDone } from "./processes";
import { stackConfig } from "./program";
import { LocalProviders } from "./providers";
import type { Progress } from "../tools/progress";
import { RunningNodes } from "./running-nodes";

export interface ClusterOptions {
  /** Where keys, data, logs and the management token are kept; made where it is missing. */
  readonly dir: string;
  /** The stack whose settings are used; `local` unless given. */
  readonly stack?: string;
  /** Settings that differ from the stack's file, as `pulumi up --config` would have them: key to text or JSON. */
  readonly config?: Readonly<Record<string, string>>;
  /** The consul to run; looked for unless given. */
  readonly binary?: string;
  /** Forget keys and data of earlier starts in this directory. */
  readonly reset?: boolean;
  /** The clock that certificates go by when they are made; this machine's unless given. */
  readonly now?: () => Date;
  /** Told when a node ends that nobody here ended, with the reason in one line. */
  readonly onCrash?: (reason: string) => void;
}

/** One part of a start, for whoever shows progress. */
export interface Step {
  readonly title: string;
  /** @returns what there is to say of it afterwards */
  run(progress: Progress): Promise<string>;
}

/** Settings that put a stack's local nodes on other loopback addresses: servers at <prefix>.11…, agents at <prefix>.21…. */
export function onLoopback(prefix: string, servers = 3, agents = 3): Record<string, string> {
  const nodes = (role: string, count: number, first: number) =>
    Array.from({ length: count }, (_, i) => ({ name: `${role}-${i + 1}`, address: `${prefix}.${first + i}` }));
  return {
    "consul:servers": JSON.stringify({ platform: "local", nodes: nodes("server", servers, 11) }),
    "consul:agents": JSON.stringify({ platform: "local", nodes: nodes("agent", agents, 21) }),
  };
}

/**
 * Starts a cluster and waits until every node is in the catalog, with its token and certificate.
 * @throws one line that says what is wrong; nothing is left running then
 */
export async function startCluster(options: ClusterOptions, progress: Progress = () => undefined): Promise<Cluster> {
  const cluster = new Cluster(options);
  try {
    for (const step of cluster.steps()) await step.run(progress);
    return cluster;
  } catch (error) {
    await cluster.stop();
    throw error;
  }
}

/** The nodes that the program describes for a stack, as processes of this machine. */
export class Cluster {
  /** Absolute path of the directory. */
  readonly dir: string;
  readonly stack: string;
  /** Path of the consul that the nodes run; empty until it is found. */
  consul: string;
  /** Seconds from the first process to the last node in the catalog. */
  startSeconds = 0;

  private readonly directory: RunDirectory;
  private config: Readonly<Record<string, string>>;
  private providers: LocalProviders | undefined;
  private described: Description | undefined;
  private readonly running: RunningNodes;

  constructor(private readonly options: ClusterOptions) {
    this.dir = resolve(options.dir);
    this.directory = new RunDirectory(this.dir);
    this.running = new RunningNodes(this.directory, options.onCrash ?? (() => undefined));
    this.stack = options.stack ?? "local";
    this.config = options.config ?? {};
    this.consul = options.binary ?? "";
  }

  /** Everything that a start does, in order. */
  steps(): Step[] {
    let began = 0;
    const startAll = (role: ConsulNode["role"]) =>
      this.nodes.filter((node) => node.role === role).forEach(({ name }) => this.start(name));
    const step = (title: string, run: Step["run"]): Step => ({ title, run });
    return [
      step(`Run the program for stack ${this.stack}`, async (progress) => {
        assertAclTools();
        const orphans = await this.running.claim();
        if (orphans > 0) progress(`ended ${orphans} nodes that an earlier start had left behind`);
        if (this.options.reset) this.directory.forget();
        await this.update({});
        return `${this.nodes.length} nodes, keys in ${this.directory.stateFile}`;
      }),
      step("Find Consul", async (progress) => {
        const wanted = wantedConsul(this.settings());
        this.consul ||= await findConsul(wanted, { progress });
        return `${wanted.version}, ${this.consul}`;
      }),
      step("Start the servers", async () => {
        await assertFree(this.nodes);
        began = Date.now();
        startAll("server");
        return `leader ${await this.leaderName()}`;
      }),
      step("Put policies and tokens in place", async () => {
        await this.applyAcl();
        return "";
      }),
      step("Start the agents", async () => {
        startAll("agent");
        await this.ready();
        this.startSeconds = (Date.now() - began) / 1000;
        return `all ${this.nodes.length} nodes in the catalog, ${this.startSeconds.toFixed(1)} s after the first process`;
      }),
      step("Wait for what the agents register", async () => {
        await this.registered();
        return "";
      }),
    ];
  }

  /** What the program describes now. @throws before the first run of the program */
  private get description(): Description {
    if (!this.described) throw new Error("the program has not been run yet");
    return this.described;
  }

  /** The nodes as the program describes them now: servers, then agents, in the order of the settings' names. */
  get nodes(): readonly ConsulNode[] {
    return this.described?.nodes ?? [];
  }

  get datacenter(): string {
    return this.description.datacenter;
  }

  /** The token that may do everything. */
  get managementToken(): string {
    return this.description.managementToken;
  }

  /** The token that the agents share. */
  get agentToken(): string {
    return this.description.agentToken;
  }

  /** PEM of the certificate authority. */
  get caCertificate(): string {
    return this.description.caCertificate;
  }

  /** The policies and tokens as the program describes them now. */
  get acl(): readonly AclObject[] {
    return this.description.acl;
  }

  /** The nodes whose process runs. */
  get runningNodes(): readonly ConsulNode[] {
    return this.nodes.filter(({ name }) => this.running.has(name));
  }

  /** The file that has the management token; mode 0600. */
  get tokenFile(): string {
    return this.directory.tokenFile;
  }

  /** The file that has the certificate authority's certificate. */
  get caFile(): string {
    return this.directory.caFile;
  }

  node(name: string): ConsulNode {
    const found = this.nodes.find((node) => node.name === name);
    if (!found) throw new Error(`there is no node ${name}: ${this.nodes.map((node) => node.name).join(", ")}`);
    return found;
  }

  /** The process of a node, where it runs. */
  pid(name: string): number | undefined {
    return this.running.pid(name);
  }

  /** A node's HTTP API; with the management token, unless another one or none (null) is given. */
  api(name: string, token: string | null = this.managementToken): Api {
    return new Api(`http://${this.node(name).address}:${ports.http}`, token ?? undefined);
  }

  logFile(name: string): string {
    return this.directory.logFile(name);
  }

  /** All that a node has logged in this directory. */
  logs(name: string): string {
    return this.running.logs(name);
  }

  /**
   * Runs the program again with changed settings, as `pulumi up` would: new keys, new configuration, added nodes. A
   * change takes effect where a node is (re)started; a node that the program no longer describes is stopped.
   * @param config the settings that change; undefined takes a setting away
   */
  async update(config: Readonly<Record<string, string | undefined>>): Promise<void> {
    const defined = Object.entries({ ...this.config, ...config }).flatMap(([key, value]) =>
      value === undefined ? [] : [[key, value] as const],
    );
    this.config = Object.fromEntries(defined);
    this.providers ??= new LocalProviders(this.directory.stateFile, this.options.now);
    this.described = await describeCluster(this.stack, this.settings(), this.providers);
    writeFileSync(this.tokenFile, this.managementToken, { mode: 0o600 });
    writeFileSync(this.caFile, this.caCertificate);
    const described = new Set(this.nodes.map(({ name }) => name));
    for (const name of this.running.names) if (!described.has(name)) await this.end(name);
  }

  /** Writes a node's files as the program describes them now. */
  write(name: string): void {
    this.directory.write(this.node(name), this.providers?.id ?? "");
  }

  /** Writes a node's files and starts its process. @param node another description, as of a stack that was left behind */
  start(name: string, node: ConsulNode = this.node(name)): void {
    this.running.start(node, this.consul, this.providers?.id ?? "");
  }

  /** Stops one node as a service manager does, and waits until it is gone. */
  end(name: string, signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    return this.running.end(name, signal);
  }

  /** Ends a node without a warning, as a power cut does. */
  kill(name: string): Promise<void> {
    return this.end(name, "SIGKILL");
  }

  /** Stops a node and starts it again, with the files that the program describes now. */
  async restart(name: string): Promise<void> {
    await this.end(name);
    this.start(name);
  }

  /** Freezes a node: it answers nothing and does not know it. */
  pause(name: string): void {
    this.running.signal(name, "SIGSTOP");
  }

  resume(name: string): void {
    this.running.signal(name, "SIGCONT");
  }

  /** Forgets the data of a node that does not run, as a new disk does. */
  wipe(name: string): void {
    if (this.running.has(name)) throw new Error(`${name} runs: end it before its data is deleted`);
    this.directory.wipe(name);
  }

  /** Brings policies and tokens to what the program describes now, or to other ones. */
  async applyAcl(objects: readonly AclObject[] = this.acl): Promise<void> {
    const directory = this.directory.writeAcl(objects);
    await this.until("policies and tokens are not in place", async () => {
      // Through the leader: a follower may not have heard of the first tokens yet.
      await runAclScript(this.api(await this.leaderName()).address, this.tokenFile, directory);
    });
  }

  /** Waits for a server that calls itself the leader. @returns its name */
  leaderName(): Promise<string> {
    return this.until("the servers have no leader", () =>
      leaderAmong(this.runningNodes.filter(({ role }) => role === "server")),
    );
  }

  /**
   * Waits until every node that runs is in the catalog and healthy, and answers: an agent opens its ports once the
   * servers have accepted its token and given it a certificate.
   */
  async ready(): Promise<void> {
    await this.until("not every node is in the catalog", async () => {
      const passing = await this.api(await this.leaderName()).get<{ Node: string; CheckID: string }[]>(
        "health/state/passing",
      );
      const alive = new Set(passing.filter(({ CheckID }) => CheckID === "serfHealth").map(({ Node }) => Node));
      assertNone(this.runningNodes.filter(({ name }) => !alive.has(name)));
      const asked = this.runningNodes.map(async (node) => ({
        node,
        leader: await this.api(node.name, null).get<string>("status/leader"),
      }));
      assertNone((await Promise.all(asked)).filter(({ leader }) => leader === "").map(({ node }) => node));
    });
  }

  /**
   * Waits until every agent that runs has added what is its own to the catalog: its services and tagged addresses.
   * That takes up to 3 s after it has joined, by Consul's own design. Servers are not waited for: a server that asked
   * before its token was there asks again after 15 to 30 s, and nobody needs what it adds.
   */
  async registered(): Promise<void> {
    await this.until("not every agent has registered itself", async () => {
      type Entry = { Node: string; TaggedAddresses: object | null };
      const entries = await this.api(await this.leaderName()).get<Entry[]>("catalog/nodes");
      const own = new Set(entries.filter((entry) => entry.TaggedAddresses !== null).map(({ Node }) => Node));
      assertNone(this.runningNodes.filter(({ name, role }) => role === "agent" && !own.has(name)));
    });
  }

  /** Stops every node for good and waits until they are gone. May be called at any time, and again. */
  stop(): Promise<void> {
    return this.running.stop();
  }

  /**
   * Tries until it works.
   * @throws where a node ended meanwhile, or the time is over: what was waited for, and the last problem
   */
  until<T>(problem: string, attempt: () => Promise<T>, seconds = 120): Promise<T> {
    const deadline = Date.now() + seconds * 1000;
    const before = this.running.names;
    return untilDone(attempt, (last) => {
      const ended = before.find((name) => !this.running.has(name));
      if (ended !== undefined) return new Error(this.running.lastWords(ended), { cause: last });
      if (Date.now() < deadline) return undefined;
      return new Error(`${problem} after ${seconds} s (${last.message}); logs: ${this.logFile("*")}`, { cause: last });
    });
  }

  private settings(): Record<string, string> {
    return { ...stackConfig(this.stack), ...this.config };
  }
}

function assertNone(missing: readonly ConsulNode[]): void {
  if (missing.length > 0) throw new Error(`missing: ${missing.map(({ name }) => name).join(", ")}`);
}
