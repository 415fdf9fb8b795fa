import { ok } from "assert/strict";
import { execFile } from "child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "fs";
import { tmpdir } from "os";
import { delimiter, join } from "path";
import { promisify } from "util";
import { healthy } from "../../lab/healthy";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { programDir, stackConfig } from "../../local/program";
import { documented } from "../documents";

/** What has to be there before a command, what stands for its placeholders, and what it has to say. */
interface Case {
  /** The server where it is run, server-1 unless given: after that one has left. */
  readonly at?: string;
  readonly before?: () => Promise<unknown>;
  readonly placeholders?: () => Promise<Record<string, string>>;
  readonly says: RegExp;
}

describe("commands of the documents, on a cluster of this machine", function () {
  this.timeout(600_000);
  const directory = mkdtempSync(join(tmpdir(), "commands-"));
  let cluster: Cluster;

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    cluster = await startCluster({ dir: join(directory, "run"), config: onLoopback("127.49.0") }, console.error);
    mkdirSync(join(directory, "bin"));
    symlinkSync(cluster.consul, join(directory, "bin", "consul"));
    symlinkSync(join(programDir, "examples"), join(directory, "examples"));
  });
  after(async () => {
    await cluster.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  const api = (name = "server-1") => cluster.api(name);
  const peers = async (at: string) => {
    type Peers = { Servers: { ID: string; Leader: boolean }[] };
    return (await api(at).get<Peers>("operator/raft/configuration")).Servers;
  };
  const follower = async (at = "server-1") => (await peers(at)).find(({ Leader }) => !Leader)?.ID ?? "";
  const token = async () => (await api().put<{ AccessorID: string }>("acl/token", { Description: "old" })).AccessorID;

  /** The address of agent-1 where `npm start` runs. */
  const agent =
    (JSON.parse(stackConfig("local")["consul:agents"] ?? "") as { nodes: { name: string; address: string }[] }).nodes[0]
      ?.address ?? "";

  // In this order; the last takes a server away.
  const cases: Readonly<Record<string, Case>> = {
    "curl -k https://<server>:8501/v1/status/leader": {
      placeholders: () => Promise.resolve({ "<server>": cluster.node("server-2").address }),
      says: /^"127\.49\.0\.1\d:8300"$/,
    },
    [`curl "http://${agent}:8500/v1/health/service/consul?stale"`]: {
      placeholders: () => Promise.resolve({ [agent]: cluster.node("agent-1").address }),
      says: /"Node":"server-3"/,
    },
    'curl -X PUT -H "X-Consul-Token: $CONSUL_HTTP_TOKEN" --data @examples/catalog-sync/external.json "$CONSUL_HTTP_ADDR/v1/catalog/register"':
      { says: /^true$/ },
    "consul members": { says: /^agent-3 +127\.49\.0\.23:8301 +alive +client +1\./m },
    "consul catalog services": { says: /^consul-members$/m },
    "consul kv get -recurse -keys | wc -l": {
      before: () => api().put("kv/a/b", "c"),
      says: /^\s*[1-9]\d*\s*$/,
    },
    "consul kv get consul-snapshot/metrics": {
      before: () => api().put("kv/consul-snapshot/metrics", "consul_snapshot 1"),
      says: /^consul_snapshot 1$/m,
    },
    "consul operator autopilot state": { says: /^Healthy: +true$/m },
    "consul operator autopilot set-config -min-quorum=3": { says: /^Configuration updated/ },
    "consul operator raft list-peers": { says: /^server-3 .* true +3 /m },
    "consul operator raft transfer-leader -id=ID-OF-A-NEW-SERVER": {
      placeholders: async () => ({ "ID-OF-A-NEW-SERVER": await follower() }),
      says: /Success/,
    },
    "consul snapshot save before.snap": { says: /Saved and verified snapshot/ },
    "consul snapshot inspect": { placeholders: () => Promise.resolve({ inspect: "inspect before.snap" }), says: /KVS/ },
    "consul snapshot inspect FILE": { placeholders: () => Promise.resolve({ FILE: "before.snap" }), says: /KVS/ },
    "consul snapshot restore": {
      placeholders: () => Promise.resolve({ restore: "restore before.snap" }),
      says: /Restored snapshot/,
    },
    "CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token consul snapshot restore FILE": {
      placeholders: () =>
        Promise.resolve({ " FILE": " before.snap", "/etc/consul.management-token": cluster.tokenFile }),
      says: /Restored snapshot/,
    },
    "consul acl token list": { says: /^Description: +Agents \[consul-alicloud:agents\]$/m },
    "consul acl token list | grep -E '^(AccessorID|Description):'": {
      says: /^Description: +Agents \[consul-alicloud:agents\]$/m,
    },
    "consul acl token read -accessor-id <id>": {
      placeholders: async () => ({ "<id>": await token() }),
      says: /^Description: +old$/m,
    },
    "consul acl token delete -accessor-id=<AccessorID>": {
      placeholders: async () => ({ "<AccessorID>": await token() }),
      says: /deleted successfully/,
    },
    "consul acl token delete -accessor-id=ID": {
      placeholders: async () => ({ "=ID": `=${await token()}` }),
      says: /deleted successfully/,
    },
    "consul force-leave -prune <name>": {
      before: () => cluster.kill("agent-3"),
      placeholders: () => Promise.resolve({ "<name>": "agent-3" }),
      says: /^$/,
    },
    "consul leave": { says: /Graceful leave complete/ },
    "consul operator raft remove-peer -id=…": {
      at: "server-2",
      before: () => cluster.until("server-1 is still in raft", async () => ok((await peers("server-2")).length === 2)),
      placeholders: async () => ({ "…": await follower("server-2") }),
      says: /Removed peer/,
    },
  };

  /** What needs more than such a cluster: peering needs gRPC, a login an API server, maintenance a service. */
  const elsewhere = [
    /^consul (peering|config write) /,
    // test/system/logins.test.ts
    /^consul login$/,
    // test/local/client-suite.ts
    /^curl .*\/agent\/service\/maintenance\//,
  ];

  /** As in a shell on a server, with the management token. */
  async function shell(command: string, at: string): Promise<string> {
    const env = {
      PATH: `${join(directory, "bin")}${delimiter}${process.env.PATH ?? ""}`,
      CONSUL_HTTP_ADDR: `http://${cluster.node(at).address}:8500`,
      CONSUL_HTTP_TOKEN: readFileSync(cluster.tokenFile, "utf8").trim(),
      CONSUL_HTTP_TOKEN_FILE: cluster.tokenFile,
    };
    const { stdout } = await promisify(execFile)("sh", ["-e", "-c", command], { env, cwd: directory, timeout: 60_000 });
    return stdout.trim();
  }

  const wanted = new Set(
    documented()
      .map(({ command }) => command)
      .filter((command) => /^([A-Z_]+=\S+ )?(consul|curl) /.test(command))
      .filter((command) => !elsewhere.some((pattern) => pattern.test(command))),
  );

  it("are all among those below, and none of those has gone from the documents", () => {
    const [inDocuments, here] = [[...wanted].sort().join("\n"), Object.keys(cases).sort().join("\n")];
    ok(inDocuments === here, `in the documents:\n${inDocuments}\n\nhere:\n${here}`);
  });

  for (const [command, { at = "server-1", before: prepare, placeholders, says }] of Object.entries(cases)) {
    it(command, async () => {
      if (at === "server-1") await healthy(cluster, 0);
      await prepare?.();
      const replaced = Object.entries((await placeholders?.()) ?? {}).reduce(
        (text, [from, to]) => text.replace(from, to),
        command,
      );
      const said = await shell(replaced, at);
      ok(says.test(said), `${replaced} says:\n${said}`);
    });
  }
});
