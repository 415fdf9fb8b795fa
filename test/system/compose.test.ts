import { equal, match, ok } from "assert/strict";
import { ChildProcess, execFile, spawn, spawnSync } from "child_process";
import { once } from "events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { promisify } from "util";
import { parse } from "yaml";
import { compose } from "../../local/compose";
import { findConsul } from "../../local/consul-binary";
import { stackConfig } from "../../local/program";

const run = promisify(execFile);

interface Mount {
  source: string;
  target: string;
}
interface Service {
  entrypoint: string[];
  user: string;
  environment?: Record<string, string>;
  networks: { consul?: { ipv4_address: string } };
  healthcheck?: { test: string[] };
  configs: Mount[];
  secrets: Mount[];
}
interface Project {
  services: Record<string, Service>;
  configs: Record<string, { file: string }>;
  secrets: Record<string, { file: string }>;
}

/**
 * Runs a service as a container engine does, with the kernel's own means: a read-only root of its own,
 * the files at their paths, the service's user without any capability, the project's network.
 */
const container = `set -eu
root=$1 user=$2 consul=$3 files=$4
shift 4
mkdir -p "$root/upper" "$root/work" "$root/merged" "$root/data"
mount -t overlay overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" "$root/merged"
merged=$root/merged
mount --rbind /proc "$merged/proc"
mount --rbind /dev "$merged/dev"
give() {
  mkdir -p "$(dirname "$merged$2")"
  touch "$merged$2"
  mount --bind "$1" "$merged$2"
  mount -o remount,ro,bind "$merged$2"
}
give "$consul" /usr/local/bin/consul
while read -r source target; do give "$source" "$target"; done <"$files"
mkdir -p "$merged/consul/data"
mount --bind "$root/data" "$merged/consul/data"
chown "$user" "$root/data"
mount -t tmpfs tmpfs "$merged/tmp"
mount -o remount,ro,bind "$merged"
exec chroot "$merged" setpriv --reuid "\${user%:*}" --regid "\${user#*:}" --clear-groups --no-new-privs \\
  --inh-caps=-all --bounding-set=-all "$@"
`;

describe("the Compose project", function () {
  this.timeout(300_000);
  let directory: string;
  let project: Project;
  let token: string;
  const undo: (() => unknown)[] = [];

  before(async function () {
    this.timeout(1_800_000);
    directory = mkdtempSync(join(tmpdir(), "consul-compose-"));
    undo.push(() => rmSync(directory, { recursive: true, force: true }));
    await compose(join(directory, "project"), "172.28.5");
    project = parse(readFileSync(join(directory, "project/compose.yaml"), "utf8").replaceAll("$$", "$")) as Project;
    token = readFileSync(join(directory, "project/secrets/acl-management-token"), "utf8").trim();
  });
  after(async () => {
    for (const step of undo.reverse()) await step();
  });

  describe("as an engine would run it", () => {
    let network: ChildProcess;
    let consul: string;
    const containers = new Map<string, ChildProcess>();

    before(async function () {
      const reason =
        process.platform !== "linux" || process.getuid?.() !== 0
          ? "namespaces and mounts need root on Linux"
          : ["unshare", "nsenter", "ip", "setpriv", "curl"].find((tool) => spawnSync("which", [tool]).status !== 0);
      if (reason !== undefined) {
        console.log(`    skipped: ${reason}${reason.includes(" ") ? "" : " is missing"}`);
        this.skip();
      }
      const { "consul:version": version = "", "consul:downloadMirror": downloadMirror = "" } = stackConfig("local");
      consul = await findConsul({ version, downloadMirror, downloadSha256: "" });
      writeFileSync(join(directory, "container.sh"), container);
      network = spawn("unshare", ["--net", "sleep", "infinity"], { stdio: "ignore" });
      undo.push(() => network.kill("SIGKILL"));
      await sleep(200);
      await inNetwork("ip", "link", "set", "lo", "up");
      for (const { networks } of Object.values(project.services)) {
        if (networks.consul) await inNetwork("ip", "address", "add", `${networks.consul.ipv4_address}/24`, "dev", "lo");
      }
    });
    after(async () => {
      for (const name of [...containers.keys()]) await stop(name);
    });

    const inNetwork = (...command: string[]) => run("nsenter", [`--net=/proc/${network.pid ?? 0}/ns/net`, ...command]);
    const service = (name: string): Service => {
      const found = project.services[name];
      ok(found, name);
      return found;
    };

    /** Starts a service in its container. */
    function start(name: string): ChildProcess {
      const { entrypoint, user, environment = {}, configs, secrets } = service(name);
      const root = join(directory, "containers", name);
      mkdirSync(root, { recursive: true });
      const mounts = [
        ...configs.map((m) => [m, project.configs] as const),
        ...secrets.map((m) => [m, project.secrets] as const),
      ];
      const lines = mounts.map(
        ([{ source, target }, from]) => `${join(directory, "project", from[source]?.file ?? "")} ${target}\n`,
      );
      writeFileSync(join(root, "files"), lines.join(""));
      const child = spawn(
        "nsenter",
        [
          `--net=/proc/${network.pid ?? 0}/ns/net`,
          ...["unshare", "--mount", "--propagation", "private", "sh", join(directory, "container.sh")],
          ...[root, user, consul, join(root, "files"), ...entrypoint],
        ],
        {
          env: { PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", ...environment },
          stdio: ["ignore", "pipe", "pipe"],
        },
      );
      for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (text: Buffer) => logs.set(name, (logs.get(name) ?? "") + text.toString()));
      }
      containers.set(name, child);
      return child;
    }
    const logs = new Map<string, string>();

    async function stop(name: string): Promise<void> {
      const child = containers.get(name);
      containers.delete(name);
      if (child?.exitCode !== null) return;
      const exited = once(child, "exit");
      child.kill("SIGTERM");
      await exited;
    }

    /** Waits until the service's own health check passes. */
    async function healthy(name: string): Promise<void> {
      const [, ...test] = service(name).healthcheck?.test ?? [];
      const deadline = Date.now() + 60_000;
      for (;;) {
        const passed = await inNetwork(...test).catch(() => undefined);
        if (passed) return;
        const running = containers.get(name)?.exitCode === null && Date.now() < deadline;
        ok(running, `${name} is not healthy:\n${logs.get(name)?.slice(-2000) ?? ""}`);
        await sleep(200);
      }
    }
    const http = async (...args: string[]) => (await inNetwork("curl", "-sS", "--max-time", "5", ...args)).stdout;

    it("comes up in the order that it says, and becomes a cluster of four", async () => {
      const { acl, ...nodes } = project.services;
      ok(acl);
      const servers = Object.keys(nodes).filter((name) => name.startsWith("server-"));
      for (const name of servers) start(name);
      await Promise.all(servers.map(healthy));
      const [code] = (await once(start("acl"), "exit")) as [number];
      equal(code, 0, logs.get("acl"));
      start("agent-1");
      await healthy("agent-1");
      const members = await http("-H", `X-Consul-Token: ${token}`, "http://172.28.5.21:8500/v1/agent/members");
      const alive = (JSON.parse(members) as { Name: string; Status: number }[]).filter(({ Status }) => Status === 1);
      equal(
        alive
          .map(({ Name }) => Name)
          .sort()
          .join(" "),
        "agent-1 server-1 server-2 server-3",
      );
    });

    it("shows its UI where it publishes a port, and refuses a write without a token", async () => {
      match(await http("-L", "http://172.28.5.11:8500/ui/"), /<title>Consul/);
      match(await http("-X", "PUT", "-d", "x", "http://172.28.5.21:8500/v1/kv/x"), /Permission denied/);
    });

    it("runs as consul without any capability, in a root that it cannot write to", () => {
      const pid = containers.get("server-1")?.pid ?? 0;
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      match(status, /^Uid:\t100\t100\t100\t100$/m);
      match(status, /^Gid:\t1000\t1000\t1000\t1000$/m);
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd"]) match(status, new RegExp(`^${set}:\\t0+$`, "m"));
      match(readFileSync(`/proc/${pid}/mounts`, "utf8"), /^overlay \/ overlay ro,/m);
    });

    it("keeps its data when a container is made anew", async () => {
      await http(
        "-X",
        "PUT",
        "-H",
        `X-Consul-Token: ${token}`,
        "-d",
        "5",
        "http://172.28.5.21:8500/v1/kv/user/config/connections",
      );
      for (const name of ["server-1", "server-2", "server-3"]) await stop(name);
      for (const name of ["server-1", "server-2", "server-3"]) start(name);
      await Promise.all(["server-1", "server-2", "server-3"].map(healthy));
      await healthy("agent-1");
      equal(
        await http("-H", `X-Consul-Token: ${token}`, "http://172.28.5.21:8500/v1/kv/user/config/connections?raw"),
        "5",
      );
    });
  });

  describe("in a container engine", () => {
    it("comes up healthy with `docker compose up --wait`, and answers on this machine", async function () {
      this.timeout(600_000);
      const compose = (...args: string[]) => run("docker", ["compose", ...args], { cwd: join(directory, "project") });
      const why = await run("docker", ["info", "--format", "{{.ServerVersion}}"])
        .then(() => compose("version"))
        .then(() => compose("pull", "--quiet"))
        .then(
          () => undefined,
          (error: unknown) => (error as Error & { stderr?: string }).stderr?.trim().split("\n").at(-1) ?? String(error),
        );
      if (why !== undefined) {
        console.log(`    skipped: no container engine works here: ${why}`);
        this.skip();
      }
      undo.push(() => compose("down", "--volumes"));
      await compose("up", "--wait");
      const leader = await fetch("http://127.0.0.1:8500/v1/status/leader").then((answer) => answer.text());
      match(leader, /172\.28\.5\.1\d:8300/);
    });
  });

  it("leaves nothing of itself on this machine", () => {
    for (const path of ["/consul", "/acl"]) ok(!existsSync(path), path);
  });
});
