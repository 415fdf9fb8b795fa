import { execFile, execFileSync } from "child_process";
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "fs";
import { delimiter, join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { promisify } from "util";
import * as pulumi from "@pulumi/pulumi";
import { AclObject } from "../../consul/acl";
import { ports } from "../../consul/config";
import { readScript, withApi } from "../../consul/scripts";
import { findConsul, versionOf, wantedConsul } from "../../local/consul-binary";
import { lookup } from "../../local/dns";
import { stackConfig } from "../../local/program";
import { Cluster, onLoopback } from "../../local/supervisor";
import { buildTool } from "../../tools/build";
import { eventually, healthy } from "../healthy";
import { reason } from "../load";
import { Rollout } from "../rollout";
import { Clients } from "./clients";

/** What a cluster is before anything happens to it. */
export interface Beginning {
  /** 3 unless given. */
  readonly servers?: number;
  /** Begins with the version of Consul before the one in the settings. */
  readonly earlierVersion?: boolean;
  /** The victim's data lies on a small disk of its own. Takes root. */
  readonly smallDisk?: boolean;
  /** The victim runs as a user of its own, so that its traffic can be told from that of others. Takes root. */
  readonly ownUser?: boolean;
}

/** The server that faults happen to; it leads when they do. */
export const victim = "server-2";
/** The agent whose stack is left behind. */
export const leftBehind = "agent-2";
/** User that the victim runs as where it has one of its own. */
export const victimUser = 5002;
/** `RestartSec=` of consul.service. */
const unitRestartSeconds = 5;
/** Consul keeps 64 MiB for each part of its log. */
const diskMegabytes = 256;

/** A cluster that an operation and a fault happen to, with clients at its agents. */
export class Subject {
  /** Warnings of the program. */
  readonly warnings: string[] = [];
  readonly rollout: Rollout;
  readonly clients: Clients;
  /** How `up` goes: as one command that nobody disturbs, unless a fault says otherwise. */
  how: (up: () => Promise<void>) => Promise<void> = (up) => up();

  /** Settings that differ from the stack's file, as they were when `up` last ended well, and what is to change. */
  private change: Readonly<Record<string, string | undefined>> = {};
  private readonly before: { readonly image: string; readonly consul: string };

  private constructor(
    readonly cluster: Cluster,
    private settings: Readonly<Record<string, string | undefined>>,
    /** Three numbers of its addresses. */
    readonly prefix: string,
    /** Milliseconds by which the clock of whoever runs `up` is ahead. */
    readonly clock: { ahead: number },
    /** The consul of the settings' version, as the nodes run it. */
    readonly consul: string,
  ) {
    this.rollout = new Rollout(cluster);
    this.before = { image: this.rollout.image, consul: cluster.consul };
    this.clients = new Clients(cluster, "web", () => this.rollout.resting);
    this.rollout.answered = (agent) => this.clients.answered(agent);
    const note = (line: string) => Promise.resolve(void this.warnings.push(line));
    Object.assign(pulumi.log, { warn: note, info: () => Promise.resolve() });
  }

  /**
   * Starts it, with a service at two agents.
   * @param made is told of the cluster before its first process
   */
  static async start(
    dir: string,
    prefix: string,
    { servers = 3, earlierVersion = false, smallDisk = false, ownUser = false }: Beginning,
    made: (cluster: Cluster) => void = () => undefined,
  ): Promise<Subject> {
    const wanted = wantedConsul(stackConfig("local"));
    const wrap = (version: string, consul: string) => (ownUser ? wrapped(dir, version, consul) : consul);
    const consul = wrap(wanted.version, await findConsul(wanted));
    const previous = earlierVersion ? await buildTool("consul-previous") : undefined;
    const version = previous === undefined ? wanted.version : await versionOf(previous);
    const binary = previous === undefined ? consul : wrap(version, previous);
    if (smallDisk) mountDisk(dataOf(dir));
    const clock = { ahead: 0 };
    const config = { ...onLoopback(prefix, servers, 2), "consul:version": version };
    const cluster: Cluster = new Cluster({
      dir,
      binary,
      config,
      now: () => new Date(Date.now() + clock.ahead),
      onCrash: (reason) => restarted(cluster, reason),
    });
    made(cluster);
    for (const step of cluster.steps()) await step.run(() => undefined);
    for (const name of ["agent-1", "agent-2"]) {
      await cluster.api(name).put("agent/service/register", { ID: `web-${name}`, Name: "web", Port: 80 });
    }
    // Over DNS, as clients do from now on: what an agent was never asked for it does not know when servers are gone.
    for (const name of ["agent-1", "agent-2"]) {
      await eventually("the service is not found", async () => {
        const found = await lookup(cluster.node(name).address, "web.service.consul", "A");
        if (found.length < 2) throw new Error(`${name} finds ${found.length}`);
      });
    }
    await healthy(cluster);
    return new Subject(cluster, config, prefix, clock, consul);
  }

  /** `pulumi up` with changed settings. */
  async up(change: Readonly<Record<string, string | undefined>> = {}): Promise<void> {
    this.change = change;
    await this.how(() => this.rollout.up(change));
    this.settings = { ...this.settings, ...change };
  }

  /**
   * `pulumi up --refresh` with the settings from before the change: it makes the machines that are missing. Servers that
   * left because the change takes them away are started first, where it says so.
   */
  async refresh(): Promise<void> {
    const { rollout, cluster, settings } = this;
    [rollout.image, cluster.consul] = [this.before.image, this.before.consul];
    const before = Object.fromEntries(Object.keys(this.change).map((key) => [key, settings[key]]));
    rollout.refresh();
    await rollout.up(before).catch(async (error: unknown) => {
      const stopped = [...reason(error).matchAll(/StartInstance --InstanceId i-([\w-]+)/g)].map(
        ([, name = ""]) => name,
      );
      if (stopped.length === 0) throw error;
      stopped.forEach((name) => cluster.start(name));
      await sleep(200); // what fails unheard belongs to the first attempt
      await rollout.up(before);
    });
  }

  servers(count: number): Record<string, string> {
    return { "consul:servers": onLoopback(this.prefix, count)["consul:servers"] ?? "" };
  }

  /** Servers that raft has, each with whether it has a vote, by the leader's account. */
  async voters(): Promise<string[]> {
    type Raft = { Servers: { Node: string; Voter: boolean }[] };
    const api = this.cluster.api(await this.cluster.leaderName());
    const { Servers } = await api.get<Raft>("operator/raft/configuration");
    return Servers.map(({ Node, Voter }) => `${Node}${Voter ? "" : " without a vote"}`).sort();
  }

  /** Hands the leadership to a server. */
  async lead(server: string): Promise<void> {
    const { cluster } = this;
    await eventually(`${server} does not lead`, async () => {
      const leader = await cluster.leaderName();
      if (leader === server) return;
      type Raft = { Servers: { ID: string; Node: string }[] };
      const { Servers } = await cluster.api(leader).get<Raft>("operator/raft/configuration");
      const id = Servers.find(({ Node }) => Node === server)?.ID ?? "";
      await cluster.api(leader).request("POST", `operator/raft/transfer-leader?id=${id}`);
      throw new Error("it was asked to");
    });
  }

  /** Runs consul's command as people do on a server. @throws what it says */
  async command(server: string, ...args: readonly string[]): Promise<string> {
    const { cluster } = this;
    const env = {
      CONSUL_HTTP_ADDR: `http://${cluster.node(server).address}:${ports.http}`,
      CONSUL_HTTP_TOKEN_FILE: cluster.tokenFile,
    };
    return said(promisify(execFile)(this.consul, args, { env }));
  }

  /** Policies and tokens of applications, as the Job in Kubernetes keeps them: it knows the servers and no leader. */
  async applications(objects: readonly AclObject[], owner: string): Promise<void> {
    const { cluster } = this;
    const dir = join(cluster.dir, "applications");
    rmSync(dir, { recursive: true, force: true });
    mkdirSync(dir);
    for (const { file, content } of objects) writeFileSync(join(dir, file), content, { mode: 0o600 });
    const servers = cluster.nodes.filter(({ role }) => role === "server");
    const env = {
      PATH: process.env.PATH,
      CONSUL_HTTP_ADDR: servers.map(({ address }) => `http://${address}:${ports.http}`).join(" "),
      CONSUL_HTTP_TOKEN_FILE: cluster.tokenFile,
      ACL_OWNER: owner,
      ACL_DEADLINE: String(this.rollout.waitMinutes * 60),
    };
    await said(promisify(execFile)("sh", ["-c", withApi("scripts/acl.sh"), "acl.sh", dir], { env }));
  }

  /** Where servers keep snapshots: on the data disk, as on a machine. */
  get snapshots(): readonly string[] {
    const servers = this.cluster.nodes.filter(({ role }) => role === "server");
    return servers.map(({ name }) => this.snapshotsOf(name));
  }

  private snapshotsOf(server: string): string {
    return join(this.dataOf(server), "snapshots");
  }

  /**
   * consul-snapshot.service on each server that runs, one after another. It fails at a server that knows no leader, which
   * matters where no other server takes a snapshot.
   * @throws what it says where it fails, unless a snapshot was taken
   */
  async snapshot(): Promise<void> {
    const { cluster } = this;
    const bin = join(cluster.dir, "snapshot");
    mkdirSync(bin, { recursive: true });
    writeFileSync(join(bin, "snapshot.sh"), readScript("scripts/snapshot.sh"));
    rmSync(join(bin, "consul"), { force: true });
    symlinkSync(this.consul, join(bin, "consul"));
    await eventually("the servers have no leader", () => cluster.leaderName()); // no timer runs at the very moment
    const problems: Error[] = [];
    let taken = false;
    for (const { name, address } of cluster.runningNodes.filter(({ role }) => role === "server")) {
      const env = {
        PATH: [bin, process.env.PATH].join(delimiter),
        CONSUL_HTTP_ADDR: `http://${address}:${ports.http}`,
        CONSUL_HTTP_TOKEN_FILE: cluster.tokenFile,
        SNAPSHOT_SERVER: address,
      };
      const args = [join(bin, "snapshot.sh"), this.snapshotsOf(name), "3", "6"];
      try {
        const output = await said(promisify(execFile)("sh", args, { env }));
        taken ||= output.includes("raft index");
      } catch (error) {
        problems.push(error as Error);
      }
    }
    if (problems[0] && !taken) throw problems[0];
  }

  /** Whether a write is acknowledged within some seconds. */
  async writes(seconds = 20): Promise<boolean> {
    const write = () => this.cluster.api("agent-1").put("kv/matrix/one-more", "x");
    return eventually("no write", write, seconds).then(
      () => true,
      () => false,
    );
  }

  dataOf(server: string): string {
    return dataOf(this.cluster.dir, server);
  }
}

/** As the unit's `Restart=` does. A server that has left ends well, and its unit was stopped at once. */
function restarted(cluster: Cluster, how: string): void {
  const [name = ""] = how.split(" ");
  if (how.includes("ended with status 0")) return;
  setTimeout(() => {
    // It may be started already, or its machine be gone.
    if (cluster.pid(name) === undefined && existsSync(join(cluster.dir, name))) cluster.start(name);
  }, unitRestartSeconds * 1000).unref();
}

function dataOf(dir: string, server = victim): string {
  return join(dir, server, "data");
}

/** In the mount namespace of this process alone: it goes with the process. */
function mountDisk(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${diskMegabytes}m`, "tmpfs", path]);
}

/** A consul that the victim runs as its own user; it may read and write the files of this one. */
function wrapped(dir: string, version: string, consul: string): string {
  mkdirSync(join(dir, "bin"), { recursive: true });
  const path = join(dir, "bin", `consul-${version}`);
  const as = `setpriv --reuid=${victimUser} --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override`;
  const script = ["#!/bin/sh", `case "$*" in *${victim}/*) exec ${as} ${consul} "$@" ;; esac`, `exec ${consul} "$@"`];
  writeFileSync(path, `${script.join("\n")}\n`, { mode: 0o755 });
  return path;
}

/** @returns what a script printed @throws with the last lines of what it said, in place of its whole command line */
async function said(script: Promise<{ readonly stdout: string }>): Promise<string> {
  const { stdout } = await script.catch((error: unknown) => {
    const { stderr, message } = error as Error & { stderr?: string };
    const lines = (stderr ?? "").trim().split("\n").slice(-3).join("; ");
    throw new Error(lines === "" ? message : lines, { cause: error });
  });
  return stdout;
}
