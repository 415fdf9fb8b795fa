import { deepEqual, equal, notEqual, ok } from "assert/strict";
import { mkdtempSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import * as pulumi from "@pulumi/pulumi";
import { Stream } from "../../lab/load";
import { Rollout } from "../../lab/rollout";
import { Resolver } from "../../local/dns";
import { Cluster, ClusterOptions, onLoopback, startCluster } from "../../local/supervisor";

/** Clients that write and look up through the agents all the time, each at an agent that is not being restarted. */
class Load {
  private readonly resolver = new Resolver();
  private readonly acknowledged = new Map<string, string>();
  private readonly times: number[] = [];
  /** Lookups over HTTP that were under way at a server when it stopped, and were asked once more. */
  private again = 0;
  private readonly began = Date.now();
  private readonly streams: Record<"writes" | "lookups" | "dns", Stream>;

  constructor(
    private readonly cluster: Cluster,
    private readonly rollout: Rollout,
  ) {
    this.streams = {
      writes: new Stream(25, async (turn) => {
        const key = `operations/${this.began}/${turn}`;
        equal(await cluster.api(this.agent(turn)).put(`kv/${key}`, String(turn)), true);
        this.acknowledged.set(key, String(turn));
        this.times.push(Date.now());
      }),
      lookups: new Stream(50, async (turn) => {
        const find = () => cluster.api(this.agent(turn), null).get<object[]>("health/service/web?passing");
        const found = await find().catch((error: unknown) => {
          if (!String(error).includes("rpc error making call")) throw error;
          this.again += 1;
          return find();
        });
        notEqual(found.length, 0, "the service is not there");
      }),
      dns: new Stream(50, async (turn) => {
        const address = cluster.node(this.agent(turn)).address;
        notEqual((await this.resolver.addresses(address, "web.service.consul")).length, 0, "the name is not there");
      }),
    };
  }

  private agent(turn: number): string {
    const running = this.cluster.runningNodes.filter(
      ({ role, name }) => role === "agent" && name !== this.rollout.resting,
    );
    const agents = running.map(({ name }) => name);
    return agents[turn % agents.length] ?? "";
  }

  /**
   * Ends it.
   * @returns one line of what clients saw
   * @throws where a lookup failed, or a write that was acknowledged is not there
   */
  async end(): Promise<string> {
    const { writes, lookups, dns } = this.streams;
    const [written, found, resolved] = [await writes.stop(), await lookups.stop(), await dns.stop()];
    this.resolver.close();
    deepEqual([found.failed, found.error, resolved.failed, resolved.error], [0, "", 0, ""], "lookups that failed");
    // A write that is under way when the leadership moves may be told so; its client tries again.
    ok(written.failed <= 10, JSON.stringify(written));
    // So with a lookup that no agent can answer from memory: one of a thousand, when its server stops at that moment.
    ok(this.again <= 5, `${this.again} lookups over HTTP asked again`);
    type Entry = { Key: string; Value: string };
    const kept = await this.cluster
      .api(await this.cluster.leaderName())
      .get<Entry[]>(`kv/operations/${this.began}?recurse`);
    const values = new Map(kept.map(({ Key, Value }) => [Key, Buffer.from(Value, "base64").toString()]));
    for (const [key, value] of this.acknowledged) equal(values.get(key), value, `${key} was acknowledged and is lost`);
    const gap = Math.max(...this.times.map((time, i) => time - (this.times[i - 1] ?? time)));
    return [
      `${this.acknowledged.size} writes kept, ${written.failed} to be tried again, longest gap ${(gap / 1000).toFixed(2)} s`,
      `${found.total} lookups over HTTP and ${resolved.total} over DNS, none failed, ${this.again} asked again`,
    ].join("; ");
  }
}

/** A cluster of three servers and three agents that is changed under load: one for each file of tests. */
export class Operations {
  readonly rollout: Rollout;

  private constructor(
    readonly cluster: Cluster,
    /** Nodes that ended by themselves, with the reason. */
    readonly crashes: string[],
    /** What people see: progress and warnings. */
    readonly said: string[],
    private readonly undo: readonly (() => unknown)[],
  ) {
    this.rollout = new Rollout(cluster);
  }

  /**
   * Starts a cluster that has a service at two of its agents.
   * @param prefix three numbers of its addresses
   */
  static async start(
    prefix: string,
    { config = {}, ...options }: Pick<ClusterOptions, "config" | "binary" | "now"> = {},
  ): Promise<Operations> {
    const dir = mkdtempSync(join(tmpdir(), "operations-"));
    const crashes: string[] = [];
    const onCrash = (reason: string) => void crashes.push(reason);
    const cluster = await startCluster(
      { dir: join(dir, "run"), config: { ...onLoopback(prefix), ...config }, onCrash, ...options },
      console.error,
    );
    for (const [i, name] of ["agent-1", "agent-2"].entries()) {
      await cluster.api(name).put("agent/service/register", { ID: `web-${i}`, Name: "web", Port: 80 });
    }
    await cluster.until("the service is not there", async () => {
      equal((await cluster.api("agent-3").get<object[]>("health/service/web?passing")).length, 2);
    });
    const { info, warn } = pulumi.log;
    const said: string[] = [];
    const say = (line: string) => Promise.resolve(void said.push(line));
    Object.assign(pulumi.log, { info: say, warn: say });
    return new Operations(cluster, crashes, said, [
      () => Object.assign(pulumi.log, { info, warn }),
      () => cluster.stop(),
      () => rmSync(dir, { recursive: true }),
    ]);
  }

  /** @throws where a node ended by itself */
  async end(): Promise<void> {
    for (const step of this.undo) await step();
    deepEqual(this.crashes, [], "nodes that ended by themselves");
  }

  /** Applies changed settings under load, and says what it was like. */
  async under(change: Record<string, string>, beforeEach?: (node: string) => Promise<void>): Promise<void> {
    const load = new Load(this.cluster, this.rollout);
    const began = Date.now();
    try {
      await this.rollout.up(change, beforeEach);
    } catch (error) {
      await load.end();
      throw error;
    }
    const seen = await load.end();
    console.log(`      ${((Date.now() - began) / 1000).toFixed(0)} s; ${seen}`);
  }
}
