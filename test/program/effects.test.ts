import { deepEqual } from "assert/strict";
import { readFileSync } from "fs";
import { join } from "path";
import { changeOf, Effect, stoppingInputs, Tags } from "../../components/ecs/change";
import { reloadedKeys } from "../../consul/extra-config";
import { runFixture } from "../../local/fixtures";
import { programDir } from "../../local/program";
import { codes, rows, section } from "../documents";
import { plain } from "./edit";

type Config = Record<string, string>;
type Edit = (config: Config) => void;

/** Sets some keys of a block, such as consul:servers. */
const within =
  (key: string, more: (block: Record<string, unknown>) => object): Edit =>
  (config) => {
    const block = JSON.parse(config[`consul:${key}`] ?? "{}") as Record<string, unknown>;
    config[`consul:${key}`] = JSON.stringify({ ...block, ...more(block) });
  };
const servers = (more: object) => within("servers", () => more);
const set =
  (key: string, text: string): Edit =>
  (config) =>
    void (config[`consul:${key}`] = text);

/** For each setting of the table a change of Pulumi.prod.yaml. */
const edits: Readonly<Record<string, Edit>> = {
  "servers.dataDisk.size": servers({ dataDisk: { size: 200 } }),
  "servers.systemDisk.size": servers({ systemDisk: { size: 50 } }),
  "servers.allowedCidrs": servers({ allowedCidrs: { nodes: ["10.17.0.0/16"] } }),
  "servers.tags": servers({ tags: { team: "other" } }),
  "servers.roleName": servers({ roleName: "other" }),
  "servers.metadataTokens": servers({ metadataTokens: "optional" }),
  agents: within("agents", () => ({ leaveOnStop: true })),
  apps: set("apps", '[{"name":"orders","namespace":"shop"}]'),
  monitoring: set("monitoring", '{"labels":{"release":"other"}}'),
  gate: set("gate", '{"waitMinutes":5}'),
  logLevel: set("logLevel", "debug"),
  downloadMirror: set("downloadMirror", "https://mirror.example.com/consul"),
  backups: set("backups", '{"everyHours":12}'),
  "tokens.agentGeneration": set("tokens", '{"agentGeneration":2}'),
  "gossip.generation": set("gossip", '{"generation":2}'),
  "certificates.caGeneration": set("certificates", '{"caGeneration":2,"caAlsoTrusted":[1]}'),
  version: set("version", "1.22.6"),
  raftMultiplier: set("raftMultiplier", "2"),
  telemetryRetention: set("telemetryRetention", "600s"),
  "servers.ui": within("servers", ({ ui, allowedCidrs }) => ({
    ui: ui !== true,
    allowedCidrs: { ...(allowedCidrs as object), api: ["10.9.0.0/24"] },
  })),
  "servers.grpc": servers({ grpc: true }),
  migration: set("migration", '{"tls":"use"}'),
  "servers.imageId": servers({ imageId: "another.vhd" }),
  "servers.instanceType": servers({ instanceType: "ecs.g8i.large" }),
  "servers.keyName": servers({ keyName: "other" }),
  "servers.extraConfig.limits.rpc_rate": servers({ extraConfig: { limits: { rpc_rate: 500 } } }),
  "servers.extraConfig.gossip_lan": servers({ extraConfig: { gossip_lan: { gossip_interval: "300ms" } } }),
  "servers.nodes[].address": within("servers", ({ nodes }) => ({
    nodes: (nodes as object[]).map((node, i) => (i === 0 ? { ...node, address: "10.16.190.27" } : node)),
  })),
};

/** Effects as the document names them, the smallest first. */
const effects: readonly (readonly [name: string, effect: Effect])[] = [
  ["nothing", "none"],
  ["Consul reloads", "reload"],
  ["Consul restarts", "restart"],
  ["machine stops", "stop"],
];

describe("docs/operations.md", () => {
  it("names every key of Consul's that takes no restart", () => {
    const part = section(
      readFileSync(join(programDir, "docs/operations.md"), "utf8"),
      "## More of Consul's configuration",
    );
    const list = /Consul reloads for (.*?)\. /s.exec(part)?.[1] ?? "";
    deepEqual(codes(list).sort(), [...reloadedKeys].sort());
  });

  it("says what a changed setting does to a server on ECS", async function () {
    this.timeout(120_000);
    const document = readFileSync(join(programDir, "docs/operations.md"), "utf8");
    const said = rows(section(document, "## What a change does to a server on ECS")).flatMap(([effect = "", keys]) =>
      codes(keys)
        .filter((key) => key !== "up")
        .map((key) => [key, effect]),
    );
    const instances = async (edit?: Edit) => {
      const change: Edit = (config) => {
        plain(config);
        edit?.(config);
      };
      const { resources } = await runFixture("prod", change);
      return resources.filter(({ type }) => type === "alicloud:ecs/instance:Instance");
    };
    const now = await instances();
    const found: [string, string | undefined][] = [];
    for (const [key, edit] of Object.entries(edits)) {
      const wanted = await instances(edit);
      const changes = now.map(async ({ inputs }, i) => {
        const next = wanted[i]?.inputs ?? {};
        return changeOf(inputs.tags as Tags, next.tags as Tags, await stoppingInputs(inputs, next)).effect;
      });
      // The greatest effect on any of the servers.
      const all = await Promise.all(changes);
      found.push([key, effects.findLast(([, effect]) => all.includes(effect))?.[0]]);
    }
    deepEqual(Object.fromEntries(said), Object.fromEntries(found));
  });
});
