import assert from "assert/strict";
import { setTimeout as sleep } from "timers/promises";
import { ApiError } from "../../local/api";
import { Resolver } from "../../local/dns";
import type { Cluster } from "../../local/supervisor";
import { eventually, first } from "../healthy";
import { Stream, Tally } from "../load";
import { History, linearizable } from "./history";

/** Clients of keys, each one request after another, on keys that they share. */
const writers = 3;
const keys = 4;
/** Milliseconds that a client rests between two requests. */
const rest = 20;

/** What clients saw. */
export interface Seen {
  /** Operations in the history that was checked: writes, and reads that ask for consistency. */
  readonly operations: number;
  /** Seconds, the longest time without an acknowledged write. */
  readonly writeGap: number;
  /** Lookups of a service over DNS. */
  readonly lookups: Tally;
  /** What is wrong with the history, "" for nothing. */
  readonly broken: string;
}

/** Clients that write and read keys and look up a service, through the agents, while something is done to the cluster. */
export class Clients {
  private history = new History();
  /** Keys of their own for each generation: a restored snapshot takes those of before back in time, as it must. */
  private generation = 0;
  private checked = { operations: 0, broken: "" };
  private readonly acknowledged: number[] = [Date.now()];
  private loops: readonly Promise<void>[] = [];
  private running = false;
  private turn = 0;
  private readonly resolver = new Resolver();
  private readonly lookups: Stream;
  /** Lookups without an answer yet, each with the agent that was asked. */
  private readonly asked = new Map<Promise<unknown>, string>();

  /**
   * @param service that two agents have
   * @param resting names the agent that is being restarted, if any: its own clients have to wait
   */
  constructor(
    private readonly cluster: Cluster,
    service: string,
    private readonly resting: () => string,
  ) {
    this.lookups = new Stream(50, async () => {
      const { name, address } = this.agent();
      const answer = this.resolver.addresses(address, `${service}.service.consul`);
      this.asked.set(answer, name);
      const when = new Date().toISOString();
      try {
        assert((await answer).length > 0, "not found");
      } catch (error) {
        throw new Error(`asked at ${when}`, { cause: error }); // the nodes' logs have times
      } finally {
        this.asked.delete(answer);
      }
    });
    this.resume();
  }

  /** Waits until an agent has answered every lookup that it was asked for. */
  async answered(agent: string): Promise<void> {
    const waiting = [...this.asked].filter(([, name]) => name === agent);
    await Promise.allSettled(waiting.map(([answer]) => answer));
  }

  /** Clients of keys begin, with keys that nobody has used before. */
  resume(): void {
    this.generation += 1;
    this.history = new History();
    this.running = true;
    this.loops = Array.from({ length: writers }, (_, client) => this.work(client));
  }

  /** Clients of keys end, and what they saw is checked. */
  async pause(): Promise<void> {
    this.running = false;
    await Promise.all(this.loops);
    // What is there in the end is read by one more: a write that was acknowledged and is lost would be missed then.
    for (let key = 0; key < keys; key++) {
      await eventually("a key cannot be read", () => this.read(writers, this.key(key)));
    }
    const { result, operations, keys: wrong } = await linearizable(this.history.operations);
    this.checked = {
      operations: this.checked.operations + operations,
      broken: this.checked.broken || (result === "ok" ? "" : `history ${result}: ${wrong.join(", ")}`),
    };
  }

  /** Ends all of it. */
  async stop(): Promise<Seen> {
    await this.pause();
    this.acknowledged.push(Date.now());
    const lookups = await this.lookups.stop();
    this.resolver.close();
    const gaps = this.acknowledged.map((time, i) => time - (this.acknowledged[i - 1] ?? time));
    return { ...this.checked, writeGap: Math.max(...gaps) / 1000, lookups };
  }

  private key(number: number): string {
    return `matrix/${this.generation}/${number}`;
  }

  private agent() {
    const agents = this.cluster.runningNodes.filter(({ role, name }) => role === "agent" && name !== this.resting());
    return first(agents, this.turn++ % agents.length);
  }

  private async work(client: number): Promise<void> {
    for (let count = 0; this.running; count++) {
      const key = this.key((client + count) % keys);
      const one = count % 2 === 0 ? this.write(client, key, `${client}-${count}`) : this.read(client, key);
      await one.catch(() => sleep(100));
      await sleep(rest);
    }
  }

  private async write(client: number, key: string, value: string): Promise<void> {
    const api = this.cluster.api(this.agent().name);
    await this.history.write(client, key, value, () => api.put(`kv/${key}`, value), isRefused);
    this.acknowledged.push(Date.now());
  }

  private read(client: number, key: string): Promise<void> {
    const api = this.cluster.api(this.agent().name);
    return this.history.read(client, key, () =>
      api.get<string>(`kv/${key}?raw&consistent`).catch((error: unknown) => {
        if (error instanceof ApiError && error.status === 404) return null;
        throw error;
      }),
    );
  }
}

/** Nobody listened: the request was never sent. */
function isRefused(error: unknown): boolean {
  return ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code === "ECONNREFUSED";
}
