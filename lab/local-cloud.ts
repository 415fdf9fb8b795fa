import { spawn } from "child_process";
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "fs";
import { join } from "path";
import { Cloud, Machine, Outcome } from "../components/ecs/cloud";
import { localLayout } from "../components/local/nodes";
import { AclObject } from "../consul/acl";
import { Command, commandText } from "../consul/machine/commands";
import { UserData } from "../consul/machine/user-data";
import { readScript, withApi } from "../consul/scripts";
import { ApiError } from "../local/api";
import { Cluster } from "../local/supervisor";
import { reason } from "./load";

/**
 * Local servers as if they were machines of the cloud: commands that would go through Cloud Assistant are run here,
 * word for word but for the addresses and files of a machine. Only applying user data is played.
 */
export class LocalCloud implements Cloud {
  /** User data that was stored, and what each server runs, by name. */
  private readonly stored = new Map<string, string>();
  private readonly running = new Map<string, UserData>();
  /** The end of what is being applied on each server: one at a time, as on a machine. */
  private readonly applying = new Map<string, Promise<unknown>>();
  /** What was done to each server: reloaded, restarted, unchanged. */
  readonly applied: string[] = [];
  /** Whether a version that a machine lacks has to be fetched from the mirror; else the machine's image brings it. */
  fetches = false;

  constructor(
    private readonly cluster: Cluster,
    private readonly wanted: (server: string) => UserData,
  ) {}

  private get aclDir(): string {
    return join(this.cluster.dir, "acl");
  }

  private get servers(): string[] {
    return this.cluster.nodes.filter(({ role }) => role === "server").map(({ name }) => name);
  }

  /** Notes that a server was started with what it is to run now, as its unit does. */
  started(server: string): void {
    const userData = this.wanted(server);
    this.running.set(server, userData);
    writeFileSync(this.runsFile(server), `${userData.config} ${userData.start}\n`);
  }

  private runsFile(server: string): string {
    return join(this.cluster.dir, `${server}.runs`);
  }

  machines(): Promise<Machine[]> {
    const status = (name: string) => (this.cluster.pid(name) === undefined ? "Stopped" : "Running");
    const made = this.servers.filter((name) => this.has(name));
    return Promise.resolve(made.map((name) => ({ id: `i-${name}`, name, status: status(name) })));
  }

  /** Whether a server has a machine: one that was never started has none. */
  has(server: string): boolean {
    return existsSync(join(this.cluster.dir, server));
  }

  storeUserData(id: string, userData: string): Promise<void> {
    this.stored.set(id.replace("i-", ""), Buffer.from(userData, "base64").toString());
    return Promise.resolve();
  }

  power(id: string, action: string): Promise<void> {
    return Promise.reject(new Error(`nothing here needs to ${action} ${id}`));
  }

  async run(ids: readonly string[], command: Command, seconds = 120): Promise<ReadonlyMap<string, Outcome>> {
    const outcomes = ids.map(async (id) => [id, await this.answer(id.replace("i-", ""), command, seconds)] as const);
    return new Map(await Promise.all(outcomes));
  }

  private async answer(server: string, command: Command, seconds: number): Promise<Outcome> {
    const [call] = command;
    if (call?.script === "machine/install.sh") return this.install(server, call.args);
    if (call?.script !== "machine/apply.sh") return this.shell(server, commandText(command), seconds);
    const before = this.applying.get(server);
    const now = (async () => {
      await before;
      return this.apply(server, ...(call.args as [string, string]));
    })();
    this.applying.set(
      server,
      now.catch(() => undefined),
    );
    return now;
  }

  private install(server: string, args: readonly string[]): Promise<Outcome> {
    const [version = ""] = args;
    if (!this.fetches) this.brings(server, version);
    const script = [`set -- ${args.map((arg) => `'${arg}'`).join(" ")}`, readScript("machine/install.sh")].join("\n");
    const lib = this.libOf(server);
    return this.shell(server, `export CONSUL_LIB=${lib} CONSUL_BIN=${join(lib, "consul")}\n${script}`);
  }

  /** A machine has a version: as a link to what the cluster runs, where a machine of the cloud has a copy. */
  brings(server: string, version: string): void {
    const directory = join(this.libOf(server), "versions", version);
    if (existsSync(directory)) return;
    mkdirSync(directory, { recursive: true });
    symlinkSync(this.cluster.consul, join(directory, "consul"));
  }

  private libOf(server: string): string {
    return join(this.cluster.dir, `${server}.lib`);
  }

  /** As converge.sh, for a process. */
  private async apply(server: string, config: string, how: string): Promise<Outcome> {
    const wanted = this.wanted(server);
    if (wanted.config !== config || this.stored.get(server) !== wanted.text) return { problem: "stale", ran: true };
    const before = this.running.get(server);
    let result = "unchanged";
    if (before?.start !== wanted.start) {
      if (how === "reload") return { output: "restart needed\n" };
      await this.cluster.restart(server);
      result = "restarted";
    } else if (before.config !== wanted.config) {
      this.cluster.write(server);
      const problem = await this.cluster
        .api(server)
        .put("agent/reload")
        .then(() => "", refusal);
      if (problem !== "") return { problem, ran: true };
      result = "reloaded";
    }
    this.started(server);
    this.applied.push(`${server} ${result}`);
    const acl = await this.shell(
      server,
      "CONSUL_HTTP_ADDR=http://127.0.0.1:8500 CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token /usr/local/lib/consul/acl.sh /etc/consul.acl",
    );
    return "problem" in acl ? acl : { output: `${result}\n` };
  }

  /** What user data leaves on a machine for the script that keeps policies and tokens. */
  writeAcl(objects: readonly AclObject[]): void {
    rmSync(this.aclDir, { recursive: true, force: true });
    mkdirSync(this.aclDir);
    writeFileSync(join(this.aclDir, "acl.sh"), withApi("scripts/acl.sh"), { mode: 0o700 });
    for (const { file, content } of objects) writeFileSync(join(this.aclDir, file), content, { mode: 0o600 });
  }

  /** @param seconds after which the command is ended, as Cloud Assistant does */
  shell(server: string, command: string, seconds = 120): Promise<Outcome> {
    const here = command
      .replaceAll("http://127.0.0.1:8500", `http://${this.cluster.node(server).address}:8500`)
      .replaceAll("/etc/consul.management-token", this.cluster.tokenFile)
      .replaceAll("/usr/local/lib/consul/acl.sh", `sh ${join(this.aclDir, "acl.sh")}`)
      .replaceAll("/etc/consul.acl", this.aclDir)
      .replaceAll("/run/consul.runs", this.runsFile(server))
      .replaceAll("/run/consul.lock", join(this.cluster.dir, `${server}.lock`))
      .replaceAll("=/etc/consul.d", `=${join(this.cluster.dir, localLayout(server).secretDir)}`)
      .replaceAll("systemctl reload consul.service", `kill -HUP ${this.cluster.pid(server) ?? 0}`)
      .replaceAll("systemctl show", "false systemctl show");
    return new Promise((resolve) => {
      const child = spawn("sh", { stdio: ["pipe", "pipe", "pipe"], detached: true });
      const late = setTimeout(() => {
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
        resolve({ problem: `the command ended as Timeout: it takes longer than ${seconds} s` });
      }, seconds * 1000);
      let [output, error] = ["", ""];
      child.stdout.on("data", (data) => (output += String(data)));
      child.stderr.on("data", (data) => (error += String(data)));
      child.on("close", (code) => {
        clearTimeout(late);
        resolve(code === 0 ? { output } : { problem: `exit ${code ?? ""}: ${error}${output}`, ran: true });
      });
      child.stdin.end(here);
    });
  }
}

/** What converge.sh says where Consul does not reload. */
function refusal(error: unknown): string {
  const what = error instanceof ApiError ? "refuses to reload" : "does not answer";
  return `exit 1: consul-converge: Consul ${what}: ${reason(error)}`;
}
