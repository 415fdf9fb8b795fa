import assert from "assert/strict";
import { execFile } from "child_process";
import { setTimeout as sleep } from "timers/promises";
import { promisify } from "util";
import { agentNodeId } from "../../consul/config";
import { edit } from "../program/edit";
import { runProgram, stackConfig } from "../../local/program";
import { clusterProviders, consulOf, eventually, namespace, Servers, skipWithoutPods, Wanted } from "./kube-cluster";
import { Pod, PodSpec, World } from "./pods";

// The DaemonSet's pod, started as a kubelet starts it, at a real cluster of three servers: the same description as in prod,
// where the servers are elsewhere. Each test goes on from where the one before left the cluster.

describe("an agent's pod, started as a kubelet starts it", function () {
  this.timeout(600_000);
  const backing = clusterProviders();
  let world: World;
  let wanted: Wanted;
  let servers: Servers;
  let agent: Pod;
  let nodeId: string;

  const node = "cn-hangzhou.10.16.1.23";
  const api = () => `http://${agent.address}:8500`;
  const auth = () => `X-Consul-Token: ${wanted.output("managementToken")}`;
  const describeWith = async (agents: Record<string, unknown> = {}) => {
    const config = stackConfig("dev");
    edit(config, "agents", (settings) => Object.assign(settings, agents));
    return new Wanted(await runProgram("dev", config, backing));
  };
  const start = (spec = wanted.agent) =>
    world.startPod({ name: "consul-agent-x7k2p", namespace, spec, objects: wanted.objects, node });
  const sh = async (script: string, input = "") => {
    const { code, output } = await agent.exec(["sh", "-c", script], { input });
    assert.equal(code, 0, output);
    return output.trim();
  };
  const ready = () =>
    eventually("the probe passes", async () => assert.ok(await agent.isReady(), agent.log().slice(-1000)));
  /** Consul's own word for how a node is, as the servers see it. */
  const statusOf = async (name: string) => {
    const members = await servers.consul(0, "members");
    return new RegExp(`^${name} .*?(alive|left|leaving|failed) `, "m").exec(members)?.[1];
  };
  const idOf = async (name: string) => {
    const nodes = await servers.consul(0, "catalog", "nodes", "-detailed");
    return nodes.split("\n").flatMap((line) => (line.startsWith(`${name} `) ? [line.split(/\s+/)[1] ?? ""] : []));
  };

  /** Whether its service is in the catalog. */
  const seen = async () => (await servers.consul(0, "catalog", "nodes", "-service=orders")).includes(node);

  before(async function () {
    this.timeout("40m"); // a first build of Consul and CoreDNS
    await skipWithoutPods(this);
    wanted = await describeWith();
    world = await World.start(await consulOf("dev"));
    for (const name of ["node-0", "node-1", "node-2", node]) await world.addNode(name);
    servers = new Servers(world, wanted);
  });

  after(async () => {
    await (world as World | undefined)?.stop();
  });

  it("is not ready before there are servers, and opens no port that could be taken for that", async () => {
    agent = await start();
    await sleep(3000);
    assert.equal(await agent.isReady(), false);
    assert.equal(await sh("cat /proc/1/comm"), "consul", "it waits and does not end");
    assert.equal((await agent.exec(["curl", "-s", api()])).code, 7, "connection refused");
    await Promise.all(servers.ordinals.map((ordinal) => servers.start(ordinal)));
    await servers.ready(servers.ordinals);
    const job = wanted.program.resources.find(({ name }) => name === "consul-server-acl-job")?.inputs;
    const { template } = job?.spec as { template: { spec: PodSpec } };
    const acl = await world.startPod({
      name: "acl",
      namespace,
      spec: template.spec,
      objects: wanted.objects,
      node: "node-0",
    });
    assert.match((await acl.finished()).output, /policies and tokens are in place/);
    await ready();
  });

  it("runs the command with the node's name and address in it, and no secret", async () => {
    const argv = (await sh("tr '\\0' '\\n' </proc/1/cmdline")).split("\n");
    assert.deepEqual(argv, [
      "consul",
      "agent",
      "-config-dir=/consul/config",
      "-config-dir=/consul/secrets",
      `-node=${node}`,
      `-bind=${agent.address}`,
      `-advertise=${agent.address}`,
      `-client=${agent.address}`,
    ]);
    const environment = (await sh("tr '\\0' '\\n' </proc/1/environ")).split("\n");
    for (const line of [
      `NODE_NAME=${node}`,
      `HOST_IP=${agent.address}`,
      `POD_IP=${agent.address}`,
      `POD_NAMESPACE=${namespace}`,
      `CONSUL_HTTP_ADDR=${api()}`,
    ]) {
      assert.ok(environment.includes(line), line);
    }
    const visible = [...argv, ...environment, agent.log()].join("\n");
    for (const output of ["gossipKey", "agentToken", "managementToken"]) {
      assert.ok(!visible.includes(wanted.output(output)), output);
    }
    const info = await sh(
      "read -r CONSUL_HTTP_TOKEN && export CONSUL_HTTP_TOKEN && consul info",
      `${wanted.output("managementToken")}\n`,
    );
    assert.match(info, /known_servers = 3/, "kubectl exec needs no address");
  });

  it("has the files with the modes that they are given, as consul and with no privilege", async () => {
    const listed = (await sh("cd /consul && stat -L -c '%n %a %g' config/* secrets/*")).split("\n");
    assert.deepEqual(listed, [
      "config/ca.pem 444 1000",
      "config/consul.json 444 1000",
      "secrets/gossip.keyring 440 1000",
      "secrets/secrets.json 440 1000",
    ]);
    assert.equal(await sh("cat /consul/config/ca.pem"), wanted.output("caCertificate").trim());
    const secrets = JSON.parse(await sh("cat /consul/secrets/secrets.json")) as { encrypt: string };
    assert.equal(secrets.encrypt, wanted.output("gossipKey"));
    const keyring = JSON.stringify([wanted.output("gossipKey")]);
    assert.equal(await sh("cat /consul/secrets/gossip.keyring"), keyring);
    assert.equal(await sh("cat /consul/data/serf/local.keyring"), keyring);
    assert.equal(await sh("echo $(id -u) $(id -g) $(stat -c '%u %g' /consul/data)"), "100 1000 100 1000");
    assert.match(await sh("cat /proc/1/status"), /^CapBnd:\s0+\nCapAmb:\s0+\nNoNewPrivs:\s1$/m);
    for (const path of ["/x", "/consul/config/x", "/consul/secrets/x", "/etc/x"]) {
      assert.notEqual((await agent.exec(["touch", path])).code, 0, path);
    }
    assert.equal(await sh("touch /consul/data/x && rm /consul/data/x && echo written"), "written");
    assert.equal(await sh("cat /proc/1/comm"), "consul", "SIGTERM reaches Consul itself");
  });

  it("is the node of its host in the catalog, and answers at its address", async () => {
    await eventually("it is in the catalog", async () => assert.equal((await idOf(node)).length, 1));
    const [id = ""] = await idOf(node);
    nodeId = await sh("cat /consul/data/node-id");
    assert.ok(nodeId.startsWith(id), `${nodeId} ${id}`);
    assert.equal(await statusOf(node), "alive");
    const reply = await world.run("curl", ["-s", `${api()}/v1/status/leader`]);
    assert.match(reply, /^"10\..*:8300"$/, "HTTP answers at the node's address");
    await eventually("it has registered what is its own", async () => {
      const members = await world.run("curl", ["-s", "-H", auth(), `${api()}/v1/catalog/service/consul-members`]);
      assert.match(members, new RegExp(`"Node":\\s?"${node}"`));
    });
  });

  it("is not ready while the servers are frozen, and ready again without a restart", async () => {
    await signalServers("STOP");
    try {
      await eventually("the probe fails", async () => assert.equal(await agent.isReady(), false));
      assert.equal(await sh("cat /proc/1/comm"), "consul", "nothing ends it");
    } finally {
      await signalServers("CONT");
    }
    await servers.ready(servers.ordinals);
    await ready();
  });

  it("is not ready while no server leads, although its API answers with 200", async () => {
    const gone = [1, 2];
    const addresses = gone.map((ordinal) => servers.get(ordinal).address);
    await Promise.all(gone.map((ordinal) => servers.stop(ordinal, "kill")));
    await eventually("nobody leads", async () => {
      const reply = await world.run("curl", ["-s", "-w", " %{http_code}", `${api()}/v1/status/leader`]);
      assert.equal(reply, '"" 200');
    });
    assert.equal(await agent.isReady(), false);
    // Not ready, and it serves all the same: the Services lead to it.
    const lookup = `const resolver = new (require("dns").promises.Resolver)();
      resolver.setServers(["${agent.address}:8600"]);
      resolver.resolve4("consul.service.consul").then((found) => console.log(found.length));`;
    assert.match(await world.run(process.execPath, ["-e", lookup]), /^[1-3]\n$/);
    await Promise.all(gone.map((ordinal, i) => servers.start(ordinal, addresses[i])));
    await servers.ready(servers.ordinals);
    await ready();
  });

  it("stops by SIGTERM without leaving, and comes back as the same node with what was registered", async () => {
    const service = JSON.stringify({ name: "orders", id: "orders-1", port: 8080 });
    await world.run("curl", ["-sf", "-X", "PUT", "-H", auth(), "-d", service, `${api()}/v1/agent/service/register`]);
    await eventually("it is discovered", async () => assert.ok(await seen()));
    const since = Date.now();
    await agent.delete();
    const seconds = (Date.now() - since) / 1000;
    assert.ok(seconds < 20, `it took ${seconds} s of the 30 that a kubelet gives it`);
    assert.match(agent.log(), /signal=terminated|Caught/);
    assert.match((await statusOf(node)) ?? "", /^(alive|failed)$/);
    assert.ok(await seen(), "its service stays while it is away");
    agent = await start();
    await ready();
    assert.equal(await sh("cat /consul/data/node-id"), nodeId);
    assert.deepEqual((await idOf(node)).length, 1, "one node of that name");
    assert.equal(await statusOf(node), "alive");
    assert.match(await world.run("curl", ["-s", "-H", auth(), `${api()}/v1/agent/services`]), /"orders-1"/);
    assert.ok(await seen());
  });

  it("comes back the same after its node has lost power", async () => {
    await agent.kill();
    agent = await start();
    await ready();
    assert.equal(await sh("cat /consul/data/node-id"), nodeId);
    await eventually("it is alive", async () => assert.equal(await statusOf(node), "alive"));
    assert.match(await world.run("curl", ["-s", "-H", auth(), `${api()}/v1/agent/services`]), /"orders-1"/);
  });

  it("is the same node, and never locked out, when it comes back at once with its data lost", async () => {
    assert.equal(nodeId, agentNodeId(node));
    await agent.kill();
    await promisify(execFile)("rm", ["-r", hostDirectory()]);
    agent = await start();
    await ready();
    assert.equal(await sh("cat /consul/data/node-id"), nodeId);
    await eventually("what it registers is in the catalog", async () => {
      assert.ok(!(await seen()), "the service that it knows no more");
      assert.equal((await idOf(node)).length, 1);
    });
    assert.doesNotMatch(agent.log(), /is reserved by node/);
  });

  it("takes over a directory of the host that belongs to root, and the id in it", async () => {
    await agent.delete();
    const before = "c0ffee00-0000-4000-8000-000000000001";
    await promisify(execFile)("sh", ["-c", `echo ${before} >"$1/node-id"`, "sh", hostDirectory()]);
    await chown("0:0");
    agent = await start();
    await eventually("it runs", async () => assert.equal(await sh("cat /consul/data/node-id"), before));
    assert.equal(await sh("stat -c '%u %g' /consul/data/node-id"), "100 1000");
    await agent.delete();
    await promisify(execFile)("rm", [`${hostDirectory()}/node-id`]);
    agent = await start();
    await ready();
  });

  it("cannot start without the container that does that, which is what it is for", async () => {
    await agent.delete();
    await chown("0:0");
    const lame = await start({ ...wanted.agent, initContainers: [] });
    const { code, output } = await lame.finished();
    assert.notEqual(code, 0);
    assert.match(output, /local\.keyring.*: Permission denied/);
  });

  it("answers at the node's loopback as well, where it is told to", async () => {
    await agent.delete();
    wanted = await describeWith({ listen: ["127.0.0.1"] });
    agent = await start();
    await ready();
    for (const address of [agent.address, "127.0.0.1"]) {
      assert.match(await sh(`curl -s http://${address}:8500/v1/status/leader`), /:8300/, address);
    }
    const lookup = `const resolver = new (require("dns").promises.Resolver)();
      resolver.setServers(["127.0.0.1:8600"]);
      resolver.resolve4("consul.service.consul").then((found) => console.log(found.length));`;
    assert.equal(await sh(`'${process.execPath}' -e '${lookup}'`), "3");
    await agent.delete();
  });

  it("leaves where it is told to", async () => {
    wanted = await describeWith({ leaveOnStop: true });
    agent = await start();
    await ready();
    assert.equal(await sh("cat /consul/data/node-id"), nodeId);
    await agent.delete();
    await eventually("it has left", async () => assert.equal(await statusOf(node), "left"));
  });

  /** Freezes or thaws every server's process. */
  async function signalServers(signal: "STOP" | "CONT") {
    const script = `for p in /proc/[0-9]*; do
      [ "$(cat $p/comm 2>/dev/null)" = consul ] && tr '\\0' '\\n' <$p/cmdline | grep -q '^-node=consul-server-' && kill -${signal} \${p#/proc/} && echo one
    done; true`;
    assert.equal((await world.run("sh", ["-c", script])).match(/one/g)?.length, 3);
  }

  /** The agent's directory on its host. */
  function hostDirectory(): string {
    const [{ hostPath } = {}] = wanted.agent.volumes?.filter(({ name }) => name === "data") ?? [];
    assert.ok(hostPath);
    return `${world.directory}/nodes/${node}${hostPath.path}`;
  }

  /** Gives it to somebody. */
  async function chown(owner: string) {
    await promisify(execFile)("chown", ["-R", owner, hostDirectory()]);
  }
});
