import assert from "assert/strict";
import { tmpdir } from "os";
import { join } from "path";
import { createInterface } from "readline";
import { setTimeout as sleep } from "timers/promises";
import { apiService, serverSet } from "../../consul/pod/pod";
import { findConsul } from "../../local/consul-binary";
import { ProgramRun, Providers, runProgram, stackConfig } from "../../local/program";
import { LocalProviders } from "../../local/providers";
import { Finished, Pod, PodSpec, podsUnavailable, StoredObjects, World } from "./pods";

/**
 * Real random and tls, and a cluster that takes everything. Used for every run, so that secrets stay.
 * @param now the clock that certificates are made by; this machine's unless given
 */
export function clusterProviders(
  stacks: Readonly<Record<string, ProgramRun["outputs"]>> = {},
  now?: () => Date,
): Providers {
  // Nothing is ever saved there.
  const local = new LocalProviders(join(tmpdir(), "consul-pods-no-such-file"), now);
  return {
    resource: (args) => {
      if (/^(random|tls):/.test(args.type)) return local.resource(args);
      const outputs = stacks[args.name];
      if (args.type !== "pulumi:pulumi:StackReference" || !outputs) {
        return {
          id: args.name.endsWith("-data") ? `d-${args.name}` : `${args.name}-id`,
          state: args.inputs as Record<string, unknown>,
        };
      }
      const entries = Object.entries(outputs);
      const state = {
        name: args.name,
        outputs: Object.fromEntries(entries.map(([name, { value }]) => [name, value])),
        secretOutputNames: entries.filter(([, { secret }]) => secret).map(([name]) => name),
      };
      return { id: args.name, state };
    },
    call: () => ({}),
  };
}

type JobName = "roll" | "acl" | "retire" | "access";

interface Templated {
  readonly spec: { readonly template: { readonly spec: PodSpec } };
}

/** What the program wants to be in the cluster. */
export class Wanted {
  constructor(readonly program: ProgramRun) {}

  private inputs(kind: string, name?: string): unknown {
    const found = this.program.resources.filter(
      ({ type, name: logical }) => type.endsWith(`:${kind}`) && (name === undefined || logical === name),
    );
    assert.equal(found.length, 1, `${kind} ${name ?? ""}`);
    return found[0]?.inputs;
  }

  get servers() {
    const { spec } = this.inputs("StatefulSet") as { spec: { replicas: number; template: { spec: PodSpec } } };
    return { count: spec.replicas, pod: spec.template.spec };
  }

  get agent() {
    return (this.inputs("DaemonSet") as Templated).spec.template.spec;
  }

  /** The Job that stands before a change of the servers, after one, or after the agents; or that makes tokens. */
  job(what: JobName): PodSpec {
    const name = what === "access" ? "consul-access-job" : `consul-server-${what}-job`;
    return (this.inputs("Job", name) as Templated).spec.template.spec;
  }

  get objects(): StoredObjects {
    const stored = (kind: string) =>
      new Map(
        this.program.resources
          .filter(({ type }) => type.endsWith(`:${kind}`))
          .map(({ inputs }) => inputs as { metadata: { name: string }; data: Record<string, string> })
          .map(({ metadata, data }) => [metadata.name, data] as const),
      );
    return { configMaps: stored("ConfigMap"), secrets: stored("Secret") };
  }

  output(name: string): string {
    return String(this.program.outputs[name]?.value);
  }

  outputList(name: string): string[] {
    return this.program.outputs[name]?.value as string[];
  }
}

export const namespace = "consul";
/** Name of the Service for the servers' API. */
export const apiName = `${apiService}.${namespace}.svc`;

/** What the controllers and kubelets of a cluster do for the servers. */
export class Servers {
  readonly pods = new Map<number, Pod>();
  private readonly serving = new Set<Pod>();
  /** Whether a StatefulSet has been made: its marker is made just before. */
  private made = false;

  constructor(
    private readonly world: World,
    public wanted: Wanted,
  ) {}

  get(ordinal: number): Pod {
    const pod = this.pods.get(ordinal);
    if (!pod) throw new Error(`there is no server ${ordinal}`);
    return pod;
  }

  get ordinals(): number[] {
    return Array.from({ length: this.wanted.servers.count }, (_, i) => i);
  }

  async start(ordinal: number, address?: string): Promise<Pod> {
    this.made = true;
    const name = `${serverSet}-${ordinal}`;
    const pod = await this.world.startPod({
      name,
      namespace,
      spec: this.wanted.servers.pod,
      objects: this.wanted.objects,
      node: `node-${ordinal}`,
      claims: { data: join(this.world.directory, "claims", `data-${name}`) },
      ...(address === undefined ? {} : { address }),
    });
    this.pods.set(ordinal, pod);
    // The headless Service has a pod's address before it is ready.
    this.world.resolve(`${name}.${serverSet}.${namespace}.svc`, [pod.address]);
    return pod;
  }

  /** Runs a Job's pod, with some of its command's words replaced. */
  async job(what: JobName, replace: Readonly<Record<string, string>> = {}): Promise<Finished> {
    const spec = this.wanted.job(what);
    const containers = spec.containers.map((container) => ({
      ...container,
      command: container.command.map((word) => replace[word] ?? word),
    }));
    const { configMaps, secrets } = this.wanted.objects;
    const there = [...configMaps].filter(([name]) => this.made || name !== "consul-server-exists");
    const objects = { configMaps: new Map(there), secrets };
    const pod = await this.world.startPod({
      name: what,
      namespace,
      spec: { ...spec, containers },
      objects,
      node: "node-3",
    });
    return pod.finished();
  }

  /** Replaces the servers one after another by those that are wanted now. */
  async roll(
    keepsAddress: (ordinal: number) => boolean,
    told: (line: string) => void = () => undefined,
    ordinals = [...this.ordinals].reverse(),
  ): Promise<void> {
    for (const ordinal of ordinals) {
      const old = this.get(ordinal);
      const led = (await this.leader()) === ordinal;
      const hooked = await this.stop(ordinal, "delete");
      assert.equal(hooked?.code, 0, hooked?.output);
      if (led) assert.notEqual(await this.leader(), ordinal);
      const keeps = keepsAddress(ordinal);
      const pod = await this.start(ordinal, keeps ? old.address : undefined);
      assert.equal(pod.address === old.address, keeps);
      const seconds = await this.ready([ordinal]);
      // While it is unknown to raft nobody else may go; the others have a majority.
      for (const other of this.ordinals) assert.ok(await this.get(other).isReady(), `server ${other}`);
      told(
        `${pod.name} ${led ? "(led) " : ""}back at ${keeps ? "its" : "another"} address, ready after ${seconds.toFixed(1)} s`,
      );
    }
  }

  /** The Service for the API has the pods that were ready when they were last asked. */
  private resolveApi() {
    this.world.resolve(
      apiName,
      [...this.serving].map(({ address }) => address),
    );
  }

  /** Waits until the probes of these servers pass. @returns how long that took, in seconds */
  async ready(ordinals: readonly number[], seconds = 240): Promise<number> {
    const since = Date.now();
    for (;;) {
      const ready = await Promise.all(ordinals.map((ordinal) => this.get(ordinal).isReady()));
      if (ready.every(Boolean)) break;
      if (Date.now() - since > seconds * 1000) {
        const late = ordinals.filter((_, i) => !ready[i]).map((ordinal) => this.get(ordinal).log().slice(-2000));
        throw new Error(`not ready within ${seconds} s:\n${late.join("\n---\n")}`);
      }
      await sleep(200);
    }
    for (const ordinal of ordinals) this.serving.add(this.get(ordinal));
    this.resolveApi();
    return (Date.now() - since) / 1000;
  }

  /** consul in a server's container, as by `kubectl exec`. */
  async consul(ordinal: number, ...args: string[]): Promise<string> {
    const { code, output } = await this.get(ordinal).exec(["consul", ...args]);
    assert.equal(code, 0, `consul ${args.join(" ")}: ${output}`);
    return output;
  }

  async leader(): Promise<number> {
    for (const asked of this.pods.values()) {
      const { output } = await asked.exec(["curl", "-s", "http://127.0.0.1:8500/v1/status/leader"]);
      const leader = [...this.pods].find(([, pod]) => output === `"${pod.address}:8300"`);
      if (leader) return leader[0];
    }
    throw new Error("no server leads");
  }

  /** Takes a pod away as a deletion does, or as a node that loses power. @returns what its preStop came to */
  async stop(ordinal: number, how: "delete" | "kill"): Promise<Finished | undefined> {
    const pod = this.get(ordinal);
    this.pods.delete(ordinal);
    this.serving.delete(pod);
    this.resolveApi();
    return (await pod[how]()) ?? undefined;
  }
}

/** Writes one key after another through an agent, and remembers what was acknowledged and when. */
export class Writer {
  readonly acknowledged: { readonly key: string; readonly at: number }[] = [];
  errors = 0;
  private readonly child;

  constructor(world: World, address: string, token: string) {
    const program = `
      process.stdout.on("error", () => process.exit());
      const [address, token] = process.argv.slice(1);
      let n = 0;
      const next = async () => {
        const key = "written/" + String(n++).padStart(6, "0");
        try {
          const response = await fetch("http://" + address + ":8500/v1/kv/" + key, {
            method: "PUT", body: key, headers: { "X-Consul-Token": token }, signal: AbortSignal.timeout(10000) });
          console.log(response.ok && (await response.text()) === "true" ? key : "!" + response.status);
        } catch (error) { console.log("!" + error.message); }
        setTimeout(next, 20);
      };
      next();`;
    this.child = world.spawn(process.execPath, ["-e", program, address, token]);
    if (!this.child.stdout) throw new Error("no output");
    createInterface(this.child.stdout).on("line", (line) => {
      if (line.startsWith("!")) this.errors++;
      else this.acknowledged.push({ key: line, at: Date.now() });
    });
  }

  /** The longest time without an acknowledged write since then, in seconds. */
  longestGap(since: number): number {
    const times = [since, ...this.acknowledged.map(({ at }) => at).filter((at) => at >= since), Date.now()];
    return Math.max(...times.slice(1).map((at, i) => at - (times[i] ?? at))) / 1000;
  }

  stop() {
    // The namespaces' own nsenter does not pass signals on: its child ends with its output.
    this.child.stdout?.destroy();
    this.child.kill();
  }
}

/** Skips a suite where pods cannot be run, and says why. */
export async function skipWithoutPods(suite: Mocha.Context): Promise<void> {
  const reason = await podsUnavailable();
  if (reason === undefined) return;
  console.error(`skipped: ${reason}`);
  suite.skip();
}

/** What a command in a container wrote. @throws where it failed */
export function succeeded({ code, output }: Finished): string {
  assert.equal(code, 0, output);
  return output;
}

/** Five nodes, and on them the servers and agents of Pulumi.dev.yaml with the program's keys, certificates and tokens. */
export class DevCluster {
  agents: Pod[] = [];

  private constructor(
    readonly world: World,
    readonly servers: Servers,
    private readonly backing: Providers,
  ) {}

  /**
   * The nodes, with nothing on them yet.
   * @param settings that differ from those in the stack's file
   * @param now the clock that certificates are made by; this machine's unless given
   */
  static async create(settings: Readonly<Record<string, string>> = {}, now?: () => Date): Promise<DevCluster> {
    const consul = await consulOf("dev");
    const backing = clusterProviders({}, now);
    const wanted = new Wanted(await runProgram("dev", { ...stackConfig("dev"), ...settings }, backing));
    const world = await World.start(consul, [apiName]);
    for (const n of [0, 1, 2, 3, 4]) await world.addNode(`node-${n}`);
    return new DevCluster(world, new Servers(world, wanted), backing);
  }

  /** What the program wants to be in the cluster now. */
  get wanted(): Wanted {
    return this.servers.wanted;
  }

  /** Runs the program with settings that differ from those in the stack's file. */
  async want(settings: Readonly<Record<string, string>>): Promise<void> {
    this.servers.wanted = new Wanted(await runProgram("dev", { ...stackConfig("dev"), ...settings }, this.backing));
  }

  /** Starts the servers, makes policies and tokens, and starts two agents; waits until all are ready. */
  async start(): Promise<void> {
    const { servers } = this;
    await Promise.all(servers.ordinals.map((ordinal) => servers.start(ordinal)));
    await servers.ready(servers.ordinals);
    succeeded(await servers.job("acl"));
    await this.startAgents();
  }

  /** Starts agents on two of the nodes and waits until they are ready and known to the servers. */
  async startAgents(): Promise<void> {
    this.agents = await Promise.all(["agent-0", "agent-3"].map((name) => this.startAgent(name)));
    await eventually("the agents are ready", async () => {
      for (const agent of this.agents) assert.ok(await agent.isReady(), agent.log().slice(-1000));
    });
    await eventually("all are alive", async () => {
      const members = await this.servers.consul(0, "members");
      assert.equal(members.match(/ alive /g)?.length, 5, members);
    });
  }

  startAgent(name: string): Promise<Pod> {
    const { agent, objects } = this.wanted;
    return this.world.startPod({ name, namespace, spec: agent, objects, node: name.replace("agent", "node") });
  }

  /** Begins to write through an agent, and waits until writes succeed. */
  async writer(): Promise<Writer> {
    const writer = new Writer(this.world, this.agents[1]?.address ?? "", this.wanted.output("managementToken"));
    await eventually("writes succeed", () => assert.ok(writer.acknowledged.length > 10));
    return writer;
  }

  /** @throws where a write that was acknowledged is not there */
  async assertWritten({ acknowledged }: Writer): Promise<void> {
    const known = acknowledged.slice();
    const listed = await this.servers.consul(0, "kv", "get", "-keys", "-separator=", "written/");
    const keys = new Set(listed.trim().split("\n"));
    assert.deepEqual(
      known.filter(({ key }) => !keys.has(key)),
      [],
    );
  }
}

/** The consul that the settings of a stack ask for. */
export function consulOf(stack: string): Promise<string> {
  const config = stackConfig(stack);
  return findConsul(
    {
      version: config["consul:version"] ?? "",
      downloadMirror: config["consul:downloadMirror"] ?? "",
      downloadSha256: config["consul:downloadSha256"] ?? "",
    },
    { progress: console.error },
  );
}

/** Repeats a check until it no longer throws; then gives what it returned. */
export async function eventually<T>(what: string, check: () => T | Promise<T>, seconds = 180): Promise<T> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > deadline) {
        throw new Error(`${what}: not within ${seconds} s: ${(error as Error).message}`, { cause: error });
      }
    }
    await sleep(300);
  }
}
