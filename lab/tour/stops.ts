import assert from "assert/strict";
import { ChildProcess, spawn } from "child_process";
import { once } from "events";
import { join } from "path";
import { ports } from "../../consul/config";
import { programDir } from "../../local/program";
import type { Cluster } from "../../local/supervisor";
import { Command, Shell } from "./shell";

/** One stop of the tour: what there is to see, and the commands that show it. */
export interface Stop {
  readonly title: string;
  readonly text: string;
  readonly commands: readonly Command[];
}

/**
 * The stops of the tour, in order.
 * @param leader name of the server that leads now
 * @param started is told of each process that a stop starts, so that it ends with the tour
 */
export function stops(cluster: Cluster, leader: string, started: (child: ChildProcess) => void): Stop[] {
  const shell = new Shell(cluster);
  return [
    ...clusterStops(cluster, shell, leader),
    ...serviceStops(cluster, shell),
    applicationStop(cluster, shell, started),
  ];
}

/** Members, the leader, and its failure. */
function clusterStops(cluster: Cluster, shell: Shell, leader: string): Stop[] {
  const killLeader = async () => {
    await cluster.kill(leader);
    const killed = Date.now();
    const next = await cluster.until("no new leader", async () => {
      const name = await cluster.leaderName();
      assert.notEqual(name, leader);
      await cluster.api("agent-1").put("kv/tour/failover", "yes");
      return name;
    });
    const seconds = ((Date.now() - killed) / 1000).toFixed(1);
    return `${leader} is gone; ${next} leads, and a write went through ${seconds} s later`;
  };
  const startAgain = async () => {
    cluster.start(leader);
    await cluster.ready();
    return `${leader} is alive`;
  };
  return [
    {
      title: "The members",
      text: "Three servers and one client, each at an address of its own. Every node knows every other one by gossip.",
      commands: [
        shell.consul(/server-1.*alive(.|\n)*server-2.*alive(.|\n)*server-3.*alive(.|\n)*agent-1.*alive/, "members"),
      ],
    },
    {
      title: "The leader",
      text: "One server leads; the others follow its log. Ask any node: every node knows the leader.",
      commands: [shell.get(/:8300/, "status/leader"), shell.consul(/leader/, "operator", "raft", "list-peers")],
    },
    {
      title: "The leader fails",
      text: "Its process is killed, as by a power cut. The other two elect a new leader, and writes go on.",
      commands: [
        { shown: () => `kill -9 ${cluster.pid(leader) ?? ""}   # ${leader}`, run: killLeader },
        shell.consul(/failed/, "members"),
      ],
    },
    {
      title: "The server comes back",
      text: "The same node, with its data: it is a voter again as soon as it has caught up.",
      commands: [
        { shown: () => cluster.node(leader).command.join(" "), run: startAgain },
        shell.consul(/(true(.|\n)*){3}/, "operator", "raft", "list-peers"),
      ],
    },
  ];
}

/** A service that is registered by hand and discovered, and keys with values. */
function serviceStops(cluster: Cluster, shell: Shell): Stop[] {
  const server = cluster.node("server-1").address;
  const check = { TCP: `${server}:${ports.https}`, Interval: "10s", DeregisterCriticalServiceAfter: "90m" };
  const own = { ID: "userServiceId", Name: "userService", Tags: ["primary", "v1"], Address: "127.0.0.1", Port: 8000 };
  const writeWithoutToken = () =>
    cluster
      .api("agent-1", null)
      .put("kv/user/config/connections", "6")
      .then(
        () => assert.fail("a write without a token was accepted"),
        (error: unknown) => (error as Error).message.replace(/^[^:]*:[^ ]* /, ""),
      );
  const fields = ["Node", "ServiceID", "ServiceAddress", "ServicePort"];
  return [
    {
      title: "Register a service, over HTTP",
      text: "At the client of its own node, with a token that may. The client runs the health check from now on.",
      commands: [
        shell.put("agent/service/register", { ...own, Check: check }),
        shell.consul(/userService/, "catalog", "services"),
      ],
    },
    {
      title: "Discover the service, over HTTP and over DNS",
      text: "Nobody needs a token for that: the anonymous token may read services.",
      commands: [
        shell.get(/"ServicePort": 8000/, "catalog/service/userService", ...fields),
        // The health check passes before the service is in DNS.
        shell.dig(/^127\.0\.0\.1$/, "userService.service.consul"),
        shell.dig(/8000/, "primary.userService.service.consul", "SRV"),
        shell.put("agent/service/deregister/userServiceId"),
      ],
    },
    {
      title: "Keys and values",
      text: "Written to the leader, read from any server; a write without a token is refused.",
      commands: [
        shell.consul(/Success/, "kv", "put", "user/config/connections", "5"),
        shell.consul(/Value +5/, "kv", "get", "-detailed", "user/config/connections"),
        { shown: `curl -s -X PUT -d 6 ${shell.client}/v1/kv/user/config/connections`, run: writeWithoutToken },
      ],
    },
  ];
}

/** An application that registers and deregisters itself. */
function applicationStop(cluster: Cluster, shell: Shell, started: (child: ChildProcess) => void): Stop {
  const address = cluster.node("agent-1").address.replace(/\d+$/, "101");
  const own = { CONSUL_HTTP_ADDR: shell.client, SERVICE_NAME: "greeter", POD_IP: address, DRAIN_SECONDS: "1" };
  let running: ChildProcess | undefined;
  const start = async () => {
    const env = { ...own, CONSUL_HTTP_TOKEN: cluster.managementToken };
    const server = join(programDir, "examples/stack-typescript/app/server.js");
    running = spawn(process.execPath, [server], { stdio: "ignore", env });
    started(running);
    type Entry = { Service: { ID: string } };
    return cluster.until("the application is not found", async () => {
      const [entry] = await cluster.api("agent-1", null).get<Entry[]>("health/service/greeter?passing");
      assert(entry);
      return `${entry.Service.ID} is registered and passes its check`;
    });
  };
  const stop = async () => {
    assert(running);
    const exited = once(running, "exit");
    running.kill("SIGTERM");
    await exited;
    return cluster.until("the application is still found", async () => {
      assert.deepEqual(await cluster.api("agent-1", null).get("catalog/service/greeter"), []);
      return "deregistered, then stopped";
    });
  };
  return {
    title: "Services that come and go by themselves",
    text:
      "What Registrator did from outside, watching Docker: an application registers when it starts, at the client of\n" +
      "its own node, and deregisters before it stops. This one is examples/stack-typescript.",
    commands: [
      shell.consul(/Success/, "kv", "put", "config/greeter/data", "greeting: hello"),
      { shown: `SERVICE_NAME=greeter POD_IP=${address} node examples/stack-typescript/app/server.js &`, run: start },
      shell.dig(new RegExp(`^${address}$`), "greeter.service.consul"),
      { shown: "kill %1", run: stop },
    ],
  };
}
