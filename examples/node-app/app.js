// A service that registers at the agent of its own node, with npm's consul.
"use strict";
const Consul = require("consul");
const { createServer } = require("http");
const { parse } = require("yaml");

const name = "orders";
const address = process.env.POD_IP;
const port = 8080;
const id = `${name}-${address.replaceAll(".", "-")}`;
/** Milliseconds between deregistering and the end: longer than anybody keeps an address from DNS, which is 5 s. */
const drain = 1000 * Number(process.env.DRAIN_SECONDS ?? 6);

// This client reads no environment: host, port and token have to be handed over.
const { hostname, port: agentPort } = new URL(process.env.CONSUL_HTTP_ADDR);
const consul = new Consul({
  host: hostname,
  port: agentPort,
  defaults: { token: process.env.CONSUL_HTTP_TOKEN, timeout: 10_000 },
});

let configuration; // until it was read once
let stopping = false;
/** What was asked of the agent last: nothing registers while the instance is deregistered. */
let turn = Promise.resolve();

async function keepRegistered() {
  if (stopping || configuration === undefined) return;
  await heartbeat().catch(async (error) => {
    // The agent knows no such check: a new instance, or an agent that has lost its data.
    if (error.response?.statusCode !== 404) throw error;
    await consul.agent.service.register({
      name,
      id,
      address,
      port,
      check: { ttl: "30s", deregistercriticalserviceafter: "10m" },
    });
    console.log(`registered ${id}`);
    await heartbeat();
  });
}

const heartbeat = () => consul.agent.check.pass(`service:${id}`);

setInterval(() => {
  turn = turn.then(keepRegistered).catch((error) => console.error(`no heartbeat: ${error.message}`));
}, 3000);

const watch = consul.watch({
  method: consul.kv.get,
  // Without a limit of its own the watch waits up to 30 s after an agent was away.
  backoffMax: 2000,
  options: { key: `config/${name}/data`, wait: "60s", timeout: 70_000 },
});
watch.on("change", (entry) => {
  if (entry) configuration = parse(entry.Value);
  else console.error(`there is no key config/${name}/data`);
});
watch.on("error", (error) => console.error(`configuration not read: ${error.message}`));

async function find(service) {
  const instances = await consul.health.service({ service, passing: true });
  return instances.map(({ Node, Service }) => ({ address: Service.Address || Node.Address, port: Service.Port }));
}

async function answer(url) {
  if (url === "/health/live") return [200, { id }];
  if (url === "/health/ready") return [configuration === undefined || stopping ? 503 : 200, { id }];
  if (url === "/") return [200, { name, greeting: configuration?.greeting ?? "" }];
  if (url.startsWith("/find/")) return [200, await find(url.slice("/find/".length))];
  return [404, {}];
}

const server = createServer((request, response) => {
  void answer(request.url)
    .catch((error) => [503, { error: error.message }])
    .then(([status, body]) => {
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    });
});
server.listen(port, address);

/** Deregisters, waits until nobody has the address any more, and only then closes the port. */
async function stop() {
  if (stopping) return;
  stopping = true;
  await turn;
  await consul.agent.service.deregister(id).then(
    () => console.log(`deregistered ${id}`),
    (error) => console.error(`not deregistered: ${error.message}`),
  );
  await new Promise((later) => setTimeout(later, drain));
  server.close(() => process.exit(0)); // requests under way are answered
  server.closeIdleConnections();
}
process.on("SIGTERM", stop);
process.on("SIGINT", stop);
