import { deepEqual, equal, match, notDeepEqual, ok, rejects } from "assert/strict";
import { execFile } from "child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { promisify } from "util";
import { parse } from "yaml";
import { perform } from "../../local/command";
import { task } from "../../local/compose";
import { buildTool } from "../../tools/build";

interface Service {
  image: string;
  entrypoint: string[];
  user: string;
  ports?: string[];
  volumes?: string[];
  networks: Record<string, { ipv4_address: string }>;
  healthcheck?: { test: string[] };
  depends_on?: Record<string, { condition: string }>;
  configs: { source: string; target: string }[];
  secrets: { source: string; target: string }[];
}

describe("npm run compose", function () {
  this.timeout(600_000);
  let directory: string;
  before(() => (directory = mkdtempSync(join(tmpdir(), "consul-compose-"))));
  after(() => rmSync(directory, { recursive: true, force: true }));

  const dir = () => join(directory, "project");
  async function write(...args: string[]): Promise<string> {
    let said = "";
    const say = (text: string) => void (said += text);
    const status = await perform(task, ["--dir", dir(), ...args], say, say);
    if (status !== 0) throw new Error(said);
    return said;
  }
  const read = (file = "compose.yaml") => readFileSync(join(dir(), file), "utf8");
  const services = () => (parse(read()) as { services: Record<string, Service> }).services;
  const secrets = () => readdirSync(join(dir(), "secrets")).map((file) => read(`secrets/${file}`));

  it("writes three servers and a client with static addresses on a network of their own", async () => {
    const said = await write();
    match(said, /docker compose up --wait/);
    const { acl, ...nodes } = services();
    deepEqual(
      Object.entries(nodes).map(([name, { networks }]) => `${name} ${networks.consul?.ipv4_address ?? ""}`),
      ["server-1 172.28.5.11", "server-2 172.28.5.12", "server-3 172.28.5.13", "agent-1 172.28.5.21"],
    );
    ok(acl);
    for (const { image, user, entrypoint } of Object.values(nodes)) {
      equal(image, "hashicorp/consul:1.22.7");
      equal(user, "100:1000");
      match(
        entrypoint.slice(0, 3).join(" "),
        /^\/bin\/sh -c install .*\/serf\/local\.keyring && exec "\$\$0" "\$\$@"$/,
      );
      deepEqual(entrypoint.slice(3, 7), [
        "consul",
        "agent",
        "-config-dir=/consul/config",
        "-config-dir=/consul/secrets",
      ]);
      ok(!entrypoint.join(" ").includes("127."));
    }
  });

  it("is what the Compose Specification says a project is, by its own checker", async function () {
    this.timeout(600_000);
    const checker = await buildTool("compose", console.error);
    const check = (file: string) => promisify(execFile)(checker, ["--format", "json", file], { cwd: dir() });
    const { stdout } = await check("compose.yaml");
    const project = JSON.parse(stdout) as { services: object; secrets: Record<string, { file: string }> };
    deepEqual(Object.keys(project.services).sort(), ["acl", "agent-1", "server-1", "server-2", "server-3"]);
    for (const { file } of Object.values(project.secrets)) ok(statSync(file).isFile());
    // And the checker does check.
    writeFileSync(join(dir(), "broken.yaml"), read().replace("healthcheck:", "healthchecks:"));
    await rejects(check("broken.yaml"), /services\.server-1\.healthchecks/);
  });

  it("refers to nothing that it does not have: services, files, networks, volumes", () => {
    const project = parse(read()) as Record<
      "services" | "configs" | "secrets" | "networks" | "volumes",
      Record<string, unknown>
    >;
    let references = 0;
    const has = (where: keyof typeof project, name: string) => {
      ok(name in project[where], `${name} is not in ${where}`);
      references += 1;
    };
    for (const { depends_on = {}, configs, secrets, networks, volumes = [] } of Object.values(services())) {
      for (const name of Object.keys(depends_on)) has("services", name);
      for (const { source } of configs) has("configs", source);
      for (const { source } of secrets) has("secrets", source);
      for (const name of Array.isArray(networks) ? (networks as string[]) : Object.keys(networks)) {
        has("networks", name);
      }
      for (const volume of volumes) has("volumes", volume.split(":")[0] ?? "");
    }
    ok(references > 30);
  });

  it("publishes the UI on this machine alone, and nothing else", () => {
    const published = Object.values(services()).flatMap(({ ports }) => ports ?? []);
    deepEqual(published, ["127.0.0.1:8500:8500"]);
    match(read("configs/server-1-consul.json"), /"ui_config": \{\n\s+"enabled": true/);
  });

  it("has every secret in a file of its own that only this user reaches, and none anywhere else", () => {
    equal(statSync(dir()).mode & 0o777, 0o700);
    const values = secrets().flatMap(
      (text) => text.match(/-----BEGIN EC PRIVATE KEY|"(?:encrypt|agent|initial_management|SecretID)": "[^"]+"/g) ?? [],
    );
    ok(values.length > 10);
    const token = read("secrets/acl-management-token").trim();
    const open = [read(), ...readdirSync(join(dir(), "configs")).map((file) => read(`configs/${file}`))];
    for (const text of open) {
      ok(!text.includes(token) && !text.includes("PRIVATE KEY"));
      for (const value of values) ok(!text.includes(value.split('"').at(-2) ?? value));
    }
    for (const { configs } of Object.values(services())) {
      for (const { target } of configs) ok(!/secret|key/.test(target));
    }
  });

  it("waits for what it needs: tokens after healthy servers, the client after its token", () => {
    const { acl, "agent-1": agent, ...servers } = services();
    deepEqual(
      Object.entries(acl?.depends_on ?? {}),
      Object.keys(servers).map((name) => [name, { condition: "service_healthy" }]),
    );
    deepEqual(agent?.depends_on, { acl: { condition: "service_completed_successfully" } });
    for (const { healthcheck } of [agent, ...Object.values(servers)]) {
      match(healthcheck?.test.join(" ") ?? "", /^CMD .*\/v1\/status\/leader/);
    }
  });

  it("keeps its keys, until it is told to forget them", async () => {
    const before = secrets();
    await write();
    deepEqual(secrets(), before);
    await write("--reset");
    notDeepEqual(secrets(), before);
  });

  it("takes another network, and says what is wrong with one that is none", async () => {
    await write("--subnet", "10.99.7");
    equal(services()["server-1"]?.networks.consul?.ipv4_address, "10.99.7.11");
    match(read("configs/agent-1-consul.json"), /"10\.99\.7\.11"/);
    match(read(), /subnet: 10\.99\.7\.0\/24/);
    await rejects(write("--subnet", "8.8.8"), /--subnet 8\.8\.8: three numbers of a private network are wanted/);
    match(await write("--help"), /^npm run compose/);
  });
});
