import { deepEqual, equal, match, ok, throws } from "assert/strict";
import * as pulumi from "@pulumi/pulumi";
import Ajv from "ajv";
import { execFileSync } from "child_process";
import { existsSync, readdirSync, readFileSync } from "fs";
import { join } from "path";
import { parse } from "yaml";
import {
  projectSettings,
  schemaFile,
  schemaText,
  tablesFiles,
  tablesText,
  withTables,
} from "../../local/expected-settings";
import { chineseDescriptions, descriptionInChinese, kindInChinese } from "../../local/settings-chinese";
import { programDir } from "../../local/program";
import { jsonSchema, loadSettings, parseSettings, SettingsError } from "../../settings";
import { Json, listSettings } from "../../settings/json-schema";
import { codes, rows } from "../documents";

const read = (name: string) => readFileSync(join(programDir, name), "utf8");
const stackFiles = readdirSync(programDir).filter((name) => /^Pulumi\..+\.yaml$/.test(name));
const validate = new Ajv({ allErrors: true, allowUnionTypes: true }).compile(JSON.parse(read(schemaFile)) as object);

type Tree = Record<string, unknown>;
interface StackFile extends Tree {
  config: Tree & Record<"consul:servers", Tree & { nodes: Tree[] }>;
}
const prod = () => parse(read("Pulumi.prod.yaml")) as StackFile;

/** What the schema for editors says of prod's stack file after a change, each with its place. */
function said(change: (file: StackFile) => void): string {
  const file = prod();
  change(file);
  return validate(file)
    ? ""
    : JSON.stringify(validate.errors?.map(({ instancePath, message }) => [instancePath, message]));
}

describe("what is made from the settings' schema", () => {
  it("is committed as it is made: npm run expected renews it", async () => {
    equal(read(schemaFile), await schemaText());
    for (const language of ["en", "zh"] as const) equal(read(tablesFiles[language]), await tablesText(language));
  });

  it("says of each setting, and of each block, what it means", () => {
    const silent: string[] = [];
    const walk = (part: Json, at: string) => {
      for (const one of part.oneOf ?? [part]) {
        for (const [name, value] of Object.entries(one.properties ?? {})) {
          const { description = "", ...setting } = value as Json;
          if (!/\w{3}/.test(description)) silent.push(`${at}${name}`);
          if (setting.title === undefined) walk((setting.items as Json | undefined) ?? setting, `${at}${name}.`);
        }
      }
    };
    walk(jsonSchema(), "");
    deepEqual(silent, [], "these need .describe(...) in settings/");
    ok(listSettings(jsonSchema()).length > 120);
  });

  it("says it in Chinese too, with the same code and figures, and of nothing else", () => {
    const left = new Set(Object.keys(chineseDescriptions));
    for (const { key, platform, schema } of listSettings(jsonSchema())) {
      const chinese = descriptionInChinese(key, platform);
      match(chinese, /\p{Script=Han}/u, key);
      deepEqual(codes(chinese).sort(), codes(schema.description).sort(), key);
      const figures = (text = ""): string[] => text.replace(/#\S+/g, "").match(/\d+(?:[.,]\d+)*/g) ?? [];
      deepEqual(
        figures(schema.description).filter((figure) => !figures(chinese).includes(figure)),
        [],
        key,
      );
      left.delete(key);
      left.delete(`${key} ${platform ?? ""}`);
    }
    deepEqual([...left], []);
    throws(() => descriptionInChinese("gate.nothing", undefined), /has no description of gate\.nothing$/);
    equal(kindInChinese("list: 1 to 12 days, at least 2"), "列表：1 到 12 天，至少 2 个");
    throws(() => kindInChinese("some words"), /has no word for "some words"$/);
    throws(() => kindInChinese("1 to 2 parsecs"), /has no word for/);
  });

  it("has documents as links, and underscores as they are", () => {
    const table = new Map(rows(read(tablesFiles.en)).map(([key = "", ...cells]) => [codes(key)[0], cells]));
    match(table.get("version")?.[2] ?? "", /\[settings\.md\]\(settings\.md#which-version\)/);
    match(table.get("downloadMirror")?.[2] ?? "", /consul\\_\\<version>\\_linux\\_/);
  });

  it("has units and ranges of numbers, and choices, in the tables", () => {
    const table = new Map(rows(read(tablesFiles.en)).map(([key = "", ...cells]) => [codes(key)[0], cells]));
    deepEqual(table.get("gate.waitMinutes")?.slice(0, 2), ["`10`", "1 to 240 minutes"]);
    deepEqual(table.get("servers.dataDisk.size")?.slice(0, 2), ["`100`", "20 to 32768 GiB"]);
    deepEqual(table.get("servers.vpcId")?.slice(0, 2), ["required", "vpc-…"]);
    deepEqual(table.get("migration.tls")?.slice(0, 2), ["`offer`", "`offer`, `use`"]);
  });

  it("has every setting in one table, and no table without settings", () => {
    const settings = listSettings(jsonSchema()).filter(({ key }) => /^(gate|dns)\./.test(key));
    const document = (...blocks: string[]) =>
      blocks.map((block) => `<!-- settings: ${block} -->\n<!-- /settings -->\n`).join("");
    match(withTables(document("gate, dns"), settings), /`gate\.skip`.*\n(.*\n)*.*`dns\.port`/);
    throws(() => withTables(document("gate"), settings), /no table has dns\.coredns, /);
    throws(() => withTables(document("gate", "dns", "gate"), settings), /no settings are left for gate/);
    throws(() => withTables(document("gate, dns, dnss"), settings), /no settings are left for dnss/);
  });

  it("agrees with Pulumi.yaml, which has a default and the same words for each setting that is no block", () => {
    const project = projectSettings();
    const settings = listSettings(jsonSchema()).filter(({ key, required }) => /^\w+$/.test(key) && required);
    deepEqual(Object.keys(project).sort(), settings.map(({ key }) => key).sort());
    for (const { key, schema } of settings) {
      equal(project[key]?.description, schema.description, `description of ${key} in Pulumi.yaml`);
      equal(project[key]?.default === undefined, key === "environment", key);
    }
  });
});

describe("what pulumi new asks for", () => {
  interface Question {
    readonly description?: string;
    readonly default?: string;
    readonly secret?: boolean;
  }
  const { name, template } = parse(read("Pulumi.yaml")) as {
    name: string;
    template: { description: string; quickstart: string; config: Record<string, Question> };
  };
  const questions = Object.entries(template.config);

  it("is for settings that are no blocks, with their words, and an answer that is accepted", () => {
    const settings = new Map(listSettings(jsonSchema()).map((setting) => [setting.key, setting.schema]));
    ok(questions.length > 2);
    for (const [key, { description, default: answer = "", secret = false, ...more }] of questions) {
      deepEqual(more, {}, `${key} has what pulumi new does not know`);
      const schema = settings.get(key.replace(/^consul:/, ""));
      if (!key.startsWith("consul:")) {
        equal(key, "alicloud:region");
        continue;
      }
      ok(schema && /^consul:\w+$/.test(key), `${key} is a setting, and no block`);
      equal(description, schema.description);
      equal(secret, schema.writeOnly === true);
      ok(new Ajv({ strict: false }).validate(schema, answer), `${key}: ${answer}`);
    }
  });

  it("has a name that the settings are found by, and says so", () => {
    equal(name, "consul");
    match(template.quickstart, /Keep the name "consul"/);
    equal(template.description, (parse(read("Pulumi.yaml")) as { description: string }).description);
  });

  it("leaves no placeholder of pulumi new anywhere, which would be filled in", () => {
    const files = execFileSync("git", ["ls-files"], { cwd: programDir, encoding: "utf8" }).trim().split("\n");
    const placeholder = new RegExp("\\$\\{" + "(PROJECT|DESCRIPTION)\\}");
    deepEqual(
      files.filter((file) => existsSync(join(programDir, file)) && placeholder.test(read(file))),
      [],
    );
  });

  it("is answered with the name to keep, where another one was given", async () => {
    await pulumi.runtime.setMocks({ newResource: ({ name }) => ({ id: name, state: {} }), call: () => ({}) }, "mine");
    pulumi.runtime.setAllConfig({ "consul:environment": "dev" });
    try {
      throws(
        () => loadSettings(),
        /Pulumi\.yaml has the name mine, not consul: .* Set name: consul there; nothing was created$/,
      );
    } finally {
      pulumi.runtime.setAllConfig({});
    }
  });
});

describe("the schema of stack files", () => {
  it("is named by every committed stack file", () => {
    ok(stackFiles.length >= 6);
    for (const file of stackFiles) {
      const [, named = ""] = /^# yaml-language-server: \$schema=(\S+)\n/.exec(read(file)) ?? [];
      ok(existsSync(join(programDir, named)), `${file} names "${named}"`);
      equal(named, schemaFile);
    }
  });

  for (const file of stackFiles) {
    it(`accepts ${file}`, () => {
      ok(validate(parse(read(file))), JSON.stringify(validate.errors));
    });
  }

  it("accepts what the CLI writes: numbers as text, encrypted secrets, other providers' keys, its own keys", () => {
    equal(
      said((file) => {
        Object.assign(file, { encryptionsalt: "v1:x", secretsprovider: "passphrase", environment: ["base"] });
        Object.assign(file.config, { "consul:raftMultiplier": "2", "alicloud:profile": "ops" });
        file.config["consul:cluster"] = { kubeconfig: { secure: "v1:x" } };
        file.config["consul:gossip"] = { existingKey: { secure: "v1:x" } };
        file.config["consul:servers"] = { platform: "kubernetes", ui: true, count: 5 } as never;
        file.config["consul:agents"] = { updatePace: { maxUnavailable: "10%" } };
      }),
      "",
    );
  });

  const wrong: [string, RegExp, (file: StackFile) => void][] = [
    ["a key that no setting has", /consul:serverss.*false/, ({ config }) => (config["consul:serverss"] = {})],
    ["such a key in a block", /consul:servers.*additional/, ({ config }) => (config["consul:servers"].imageID = "x")],
    [
      "such a key in a list",
      /nodes\/1.*additional/,
      ({ config }) => (config["consul:servers"].nodes[1] = { nam: "x" }),
    ],
    [
      "four servers",
      /nodes.*must NOT be valid/,
      ({ config: { "consul:servers": s } }) => s.nodes.push({ ...s.nodes[0] }),
    ],
    ["no environment", /required.*consul:environment/, ({ config }) => delete config["consul:environment"]],
    ["a number out of range", /waitMinutes.*<= 240/, ({ config }) => (config["consul:gate"] = { waitMinutes: 241 })],
    ["half a minute", /waitMinutes.*integer/, ({ config }) => (config["consul:gate"] = { waitMinutes: 1.5 })],
    ["no choice of a list", /logLevel.*allowed values/, ({ config }) => (config["consul:logLevel"] = "loud")],
    ["another kind of value", /agents.*must be string/, ({ config }) => (config["consul:agents"] = { image: 5 })],
    [
      "a key in plain text that is none",
      /existingKey.*pattern/,
      ({ config }) => (config["consul:gossip"] = { existingKey: "x" }),
    ],
    ["a platform that is none", /platform.*constant/, ({ config }) => (config["consul:servers"].platform = "vm")],
    ["no configuration", /required.*config/, (file) => Reflect.deleteProperty(file, "config")],
    ["a key beside the configuration", /additional/, (file) => (file.configs = {})],
  ];
  for (const [what, message, change] of wrong) {
    it(`refuses ${what}`, () => match(said(change), message));
  }
});

describe("a key that no setting has", () => {
  const meant = (change: (settings: Tree & { servers: Tree & { nodes: Tree[] } }) => void): string => {
    const scalars = Object.entries(projectSettings()).map(([key, { default: value }]) => [key, value]);
    const own = Object.entries(prod().config).map(([key, value]) => [key.replace("consul:", ""), value]);
    const given = Object.fromEntries([...scalars, ...own]) as Parameters<typeof change>[0];
    delete given["alicloud:region"];
    change(given);
    try {
      parseSettings(given);
    } catch (error) {
      if (error instanceof SettingsError) {
        return error.mistakes.map(({ key, accepted }) => `${key}: ${accepted}`).join("\n");
      }
      throw error;
    }
    return "";
  };
  const node = (given: { servers: { nodes: Tree[] } }) => given.servers.nodes[1] ?? {};

  it("is answered with the one that was meant, at every depth", () => {
    const typos: [string, (given: Tree & { servers: Tree & { nodes: Tree[] } }) => void][] = [
      ["serverStack: no such setting: did you mean `serversStack`?", (g) => (g.serverStack = "a/b/c")],
      ["servers.imageID: no such setting: did you mean `imageId`?", (g) => (g.servers.imageID = "x")],
      ["servers.nodes[1].adress: no such setting: did you mean `address`?", (g) => (node(g).adress = "10.1.1.1")],
      ["servers.dataDsk: no such setting: did you mean `dataDisk`?", (g) => (g.servers.dataDsk = {})],
      ["servers.dataDisk.sise: no such setting: did you mean `size`?", (g) => (g.servers.dataDisk = { sise: 100 })],
      [
        "agents.tolerations[0].efect: no such setting: did you mean `effect`?",
        (g) => (g.agents = { tolerations: [{ efect: "NoSchedule" }] }),
      ],
      [
        "apps[0].kv.reads: no such setting: did you mean `read`?",
        (g) => (g.apps = [{ name: "a", namespace: "b", kv: { reads: [] } }]),
      ],
    ];
    for (const [message, change] of typos) equal(meant(change), message);
  });

  it("is answered with the place where the setting belongs, or with the platform that has it", () => {
    equal(
      meant((given) => (given.vpcId = "vpc-1")),
      "vpcId: no such setting: did you mean `servers.vpcId`?",
    );
    equal(
      meant((given) => (given.servers.count = 3)),
      "servers.count: only with servers.platform: kubernetes",
    );
    equal(
      meant((given) => (given.agents = { nodes: [] })),
      "agents.nodes: only with agents.platform: local",
    );
    equal(
      meant((given) => (given.servers.storage = {})),
      "servers.storage: only with servers.platform: kubernetes",
    );
  });

  it("is no riddle where nothing is like it", () => {
    equal(
      meant((given) => (given.replicas = 3)),
      "replicas: no such setting; docs/settings.md has all of them",
    );
  });
});
