// The part of Consul's HTTP API that an application needs, at the agent of its own node (CONSUL_HTTP_ADDR).
"use strict";

const base = process.env.CONSUL_HTTP_ADDR ?? "http://127.0.0.1:8500";
const token = process.env.CONSUL_HTTP_TOKEN;

/** @throws where the answer is not a success, with its status and text */
async function call(method, path, body, seconds = 10) {
  const answer = await fetch(`${base}/v1/${path}`, {
    method,
    headers: token ? { "X-Consul-Token": token } : {},
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(seconds * 1000),
  });
  const text = await answer.text();
  if (!answer.ok) {
    throw Object.assign(new Error(`${method} ${path}: ${answer.status} ${text}`), { status: answer.status });
  }
  return { text, index: answer.headers.get("x-consul-index") };
}

/** Instances of a service that pass their checks: [{ address, port }]. */
async function find(service) {
  const { text } = await call("GET", `health/service/${encodeURIComponent(service)}?passing`);
  return JSON.parse(text).map(({ Node, Service }) => ({
    address: Service.Address || Node.Address,
    port: Service.Port,
  }));
}

/** Calls `changed` with the text of a key, now and whenever it changes; undefined where there is no such key. */
async function watch(key, changed, stopped) {
  for (let index = "0"; !stopped();) {
    try {
      // A blocking query: the agent answers when the key changes, or after a minute.
      const answer = await call("GET", `kv/${key}?raw&wait=60s&index=${index}`, undefined, 90);
      if (answer.index !== index) changed(answer.text);
      index = answer.index ?? "0";
    } catch (error) {
      if (error.status === 404) changed(undefined);
      else console.error(`configuration ${key}: ${error.message}`);
      index = "0";
      await new Promise((later) => setTimeout(later, 1000).unref());
    }
  }
}

module.exports = { call, find, watch };
