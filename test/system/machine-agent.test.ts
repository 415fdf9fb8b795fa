import assert from "assert/strict";
import { readFileSync } from "fs";
import { readableUserData } from "../../consul/machine/user-data";
import { findConsul } from "../../local/consul-binary";
import { stackConfig } from "../../local/program";
import { plainProd } from "../program/edit";
import { createNetwork, leftovers, Machine, Network } from "./machine";
import { mirrorAddress } from "./machine-services";
import { acceptingProviders, describeProd } from "./prod-servers";
import { machinesOrSkip } from "./rootfs";

// Agents on machines that are no nodes of the cluster: booted by cloud-init from the output `machineUserData`, beside the
// servers of Pulumi.prod.yaml. One is made with the user data, the other exists and is given the script.

/** As a machine is to get it here, where the mirror has no certificate. */
const readable = (text: string) =>
  readableUserData(text).replaceAll(`https://${mirrorAddress}`, `http://${mirrorAddress}`);
const asManager = "CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token";

describe("agents on machines from the program's user data", function () {
  this.timeout("5m");
  const providers = acceptingProviders();
  const version = stackConfig("prod")["consul:version"] ?? "";
  let net: Network;
  let servers: Machine[];
  let app: Machine;
  let old: Machine;
  let userData: string;
  let downloadSha256: string;

  async function describe(changed: Readonly<Record<string, unknown>> = {}) {
    const config: Record<string, string> = {
      ...plainProd(),
      "consul:downloadMirror": `https://${mirrorAddress}/consul`,
      "consul:downloadSha256": downloadSha256,
      "consul:machines": JSON.stringify({ dns: true }),
    };
    for (const [key, value] of Object.entries(changed)) config[`consul:${key}`] = JSON.stringify(value);
    const described = await describeProd(config, providers);
    userData = described.outputs.machineUserData ?? "";
    return described;
  }
  const members = async () => servers[0]?.until(`${asManager} consul members | grep -E '^app-1 .* alive .* client '`);

  before(async function () {
    this.timeout("30m");
    await machinesOrSkip(this);
    const consul = readFileSync(await findConsul({ version, downloadMirror: "", downloadSha256: "" }));
    const { nodes } = JSON.parse(stackConfig("prod")["consul:servers"] ?? "{}") as { nodes: { vswitchCidr: string }[] };
    net = await createNetwork({ vswitches: [...nodes.map(({ vswitchCidr }) => vswitchCidr), "10.16.8.0/24"] });
    downloadSha256 = net.mirror.offer(version, consul);
    const { servers: described } = await describe();
    servers = [];
    for (const server of described) {
      const machine = await net.machine({ ...server, userData: readable(server.text) });
      await machine.attach(await net.disk({ serial: server.serial, size: 512 }));
      servers.push(machine);
    }
    app = await net.machine({ name: "app-1", address: "10.16.8.5", userData: readable(userData) });
    old = await net.machine({ name: "Old-Billing", address: "10.16.8.6" });
    await Promise.all([...servers, app, old].map((machine) => machine.boot()));
  });
  after(async () => {
    await (net as Network | undefined)?.destroy();
  });

  it("join with no further help, by the machine's own name and address", async () => {
    assert.match((await members()) ?? "", /^app-1\s+10\.16\.8\.5:8301\s+alive/);
    await app.until("systemctl is-active consul.service");
    assert.equal(await app.run("systemctl --failed --plain --no-legend"), "");
  });

  it("answer the machine's own programs, over HTTP and, by the machine's resolver, over DNS", async () => {
    await app.until("curl -sSf http://127.0.0.1:8500/v1/status/leader | grep -q :8300");
    const found = await app.until("getent ahostsv4 consul.service.consul");
    for (const address of ["10.16.190.28", "10.16.190.40", "10.16.190.70"]) assert.ok(found.includes(address), found);
  });

  it("keep secrets from everyone else on the machine, and run without rights", async () => {
    assert.equal(await app.run("stat -c '%a %U:%G' /etc/consul.d/secrets.json"), "640 root:consul\n");
    assert.equal(await app.run("ps -o user= -C consul"), "consul\n");
    assert.equal((await app.exec("runuser -u nobody cat /etc/consul.d/secrets.json")).code, 1);
    assert.doesNotMatch(await app.run("ps -eo args"), /[0-9a-f]{8}-[0-9a-f]{4}-4/);
  });

  it("are put on a machine that exists by the same text as a script, and left alone by it the second time", async () => {
    const script = readable(userData);
    await old.run("cat >/root/agent.sh", { input: script });
    await old.run("sh /root/agent.sh");
    await servers[0]?.until(`${asManager} consul members | grep -E '^old-billing .* alive'`);
    assert.match(await old.run("sh /root/agent.sh"), /consul-agent: unchanged/);
  });

  it("are the same node after a reboot", async () => {
    const id = await app.run("cat /opt/consul/data/node-id");
    await app.shutdown();
    await app.boot();
    await members();
    assert.equal(await app.run("cat /opt/consul/data/node-id"), id);
    await app.until("getent ahostsv4 consul.service.consul");
  });

  it("survive a rotation of the gossip key: a machine that was left behind joins, and one with the new key too", async () => {
    const rotation = await describe({ gossip: { generation: 1, alsoAccepted: [2] } });
    const key = (text: string) =>
      /put \/etc\/consul\.d\/gossip\.keyring[^\n]*\n([\s\S]*?)END_OF_FILE/.exec(readable(text))?.[1] ?? "";
    assert.notEqual(key(userData), "");
    const keys = JSON.parse(key(userData)) as string[];
    assert.equal(keys.length, 2);
    // What `up` does at the servers: everybody knows both keys, then the new one encrypts.
    for (const command of ["install", "use"]) {
      const body = JSON.stringify({ Key: keys[1] });
      const method = command === "install" ? "POST" : "PUT";
      await servers[0]?.run(
        `curl -sSf -H "X-Consul-Token: $(cat /etc/consul.management-token)" -X ${method} -d @- http://127.0.0.1:8500/v1/operator/keyring`,
        { input: body },
      );
    }
    assert.equal(rotation.servers.length, 3);
    // The new user data, run as root or by a boot.
    app.setUserData(readable(userData));
    await app.shutdown();
    await app.boot();
    await members();
    await app.until("curl -sSf http://127.0.0.1:8500/v1/status/leader | grep -q :8300");
  });

  it("refuse to become what they are not: a server's machine keeps its configuration", async () => {
    const before = await servers[0]?.run("cat /etc/consul.d/consul.json");
    const refused = await servers[0]?.exec("sh -s", { input: readable(userData) });
    assert.equal(refused?.code, 1);
    assert.match(refused.stderr, /this machine is a Consul server; nothing was changed/);
    assert.equal(await servers[0]?.run("cat /etc/consul.d/consul.json"), before);
  });

  it("leave nothing behind", async () => {
    await net.destroy();
    assert.deepEqual(leftovers(net.id), []);
  });
});
