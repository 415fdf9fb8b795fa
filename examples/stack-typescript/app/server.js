// A service as the Spring ones are, in plain Node: registers at the agent of its node, serves, finds others, reads its
// configuration from Consul's KV and follows its changes, deregisters before it stops.
"use strict";
const { Resolver } = require("dns").promises;
const { createServer } = require("http");
const { call, find, watch } = require("./consul");

const { SERVICE_NAME: name = "orders", POD_IP: address = "127.0.0.1" } = process.env;
const port = Number(process.env.PORT ?? 8080);
/** Seconds between deregistering and stopping: longer than DNS answers are kept (5 s). */
const drain = Number(process.env.DRAIN_SECONDS ?? 6);
const id = `${name}-${address.replaceAll(".", "-")}-${port}`;
const state = { configuration: undefined, registered: false, stopping: false };

const resolver = new Resolver();
if (process.env.DNS_SERVER) resolver.setServers([process.env.DNS_SERVER]);

const routes = {
  "/": async () => ({ name, id, greeting: setting("greeting") }),
  /** Alive: this process answers. */
  "/health/live": async () => ({ id }),
  /** Ready: configured and not on the way out. What Consul and the kubelet ask. */
  "/health": async () => {
    if (state.configuration === undefined) throw new Error("no configuration yet");
    if (state.stopping) throw new Error("stopping");
    return { id, registered: state.registered };
  },
  /** Another service by the HTTP API: which instances there are, and what one of them answers. */
  "/find/": async (service) => {
    const instances = await find(service);
    const one = instances[Math.floor(Math.random() * instances.length)];
    if (!one) throw new Error(`no instance of ${service}`);
    const answer = await fetch(`http://${one.address}:${one.port}/`, { signal: AbortSignal.timeout(5000) });
    return { instances, answer: await answer.json() };
  },
  /** The same by DNS. */
  "/resolve/": async (service) => {
    const [instances, addresses] = await Promise.all([
      resolver.resolveSrv(`${service}.service.consul`),
      resolver.resolve4(`${service}.service.consul`),
    ]);
    return { addresses, ports: instances.map((instance) => instance.port) };
  },
};

/** One value of the configuration; flat YAML is enough here, Spring reads the whole language. */
function setting(key) {
  return new RegExp(`^${key}: *(.*)$`, "m").exec(state.configuration ?? "")?.[1];
}

async function register() {
  await call("PUT", "agent/service/register", {
    ID: id,
    Name: name,
    Address: address,
    Port: port,
    Check: {
      HTTP: `http://${address}:${port}/health`,
      Interval: "5s",
      Timeout: "3s",
      DeregisterCriticalServiceAfter: "10m",
    },
  });
  if (!state.registered) console.log(`registered ${id}`);
  state.registered = true;
}

/** An agent whose data was lost does not know its services any more. */
async function keepRegistered() {
  if (state.stopping) return;
  await call("GET", `agent/service/${id}`).catch(async (error) => {
    if (error.status !== 404) throw error;
    await register();
  });
}

async function stop(signal) {
  if (state.stopping) return;
  state.stopping = true;
  console.log(`${signal}: deregistering ${id}, then ${drain} s for those who still have the address`);
  await call("PUT", `agent/service/deregister/${id}`).catch((error) => console.error(error.message));
  setTimeout(() => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  }, drain * 1000);
}

const server = createServer((request, response) => {
  const url = request.url ?? "/";
  const [, path, argument] = /^(\/find\/|\/resolve\/)([\w.-]+)$/.exec(url) ?? [url, url, ""];
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  Promise.resolve()
    .then(() => (route ? route(argument) : Promise.reject(Object.assign(new Error("not found"), { status: 404 }))))
    .then((body) => send(200, body))
    .catch((error) => send(error.status === 404 ? 404 : 503, { error: error.message }));
  const send = (status, body) => {
    response.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(body)}\n`);
  };
});

server.listen(port, address, () => {
  console.log(`${id} listens on ${address}:${port}`);
  void watch(
    `config/${name}/data`,
    (text) => (state.configuration = text),
    () => state.stopping,
  );
  const attempt = () =>
    keepRegistered().catch((error) => console.error(`not registered: ${error.cause?.message ?? error.message}`));
  void attempt();
  setInterval(attempt, 5000).unref();
});
process.on("SIGTERM", stop);
process.on("SIGINT", stop);
