import { ports } from "../consul/config";
import type { ConsulNode } from "../consul/node";

/** An answer of Consul's HTTP API that is not a success. */
export class ApiError extends Error {
  constructor(
    request: string,
    readonly status: number,
    readonly body: string,
  ) {
    super(`${request}: ${status} ${body.trim()}`);
    this.name = "ApiError";
  }
}

/** One node's HTTP API, with one token or none. */
export class Api {
  constructor(
    readonly address: string,
    private readonly token?: string,
    /** Milliseconds until a request is given up. */
    private readonly timeout = 10_000,
  ) {}

  /** @param path what follows /v1/ */
  get<T = unknown>(path: string): Promise<T> {
    return this.request("GET", path);
  }

  /** @param body an object, sent as JSON, or text as it is */
  put<T = unknown>(path: string, body?: unknown): Promise<T> {
    return this.request("PUT", path, typeof body === "object" ? JSON.stringify(body) : (body as string | undefined));
  }

  delete<T = unknown>(path: string): Promise<T> {
    return this.request("DELETE", path);
  }

  /**
   * @returns the answer, parsed where it is JSON
   * @throws ApiError where it is not a success; fetch's own error where there is none in time
   */
  async request<T>(method: string, path: string, body?: string): Promise<T> {
    const response = await fetch(`${this.address}/v1/${path}`, {
      method,
      ...(body === undefined ? {} : { body }),
      ...(this.token === undefined ? {} : { headers: { "X-Consul-Token": this.token } }),
      signal: AbortSignal.timeout(this.timeout),
    });
    const text = await response.text();
    if (!response.ok) throw new ApiError(`${method} ${this.address}/v1/${path}`, response.status, text);
    // Consul calls an empty answer JSON as well.
    const json = text !== "" && response.headers.get("content-type")?.startsWith("application/json") === true;
    return (json ? JSON.parse(text) : text) as T;
  }
}

/**
 * The name of the server that calls itself the leader. What a follower says is not enough: for a while it names a
 * leader that has just died.
 * @throws AggregateError where no server leads
 */
export function leaderAmong(servers: readonly ConsulNode[]): Promise<string> {
  const claims = servers.map(async ({ name, address }) => {
    const leader = await new Api(`http://${address}:${ports.http}`, undefined, 1000).get<string>("status/leader");
    if (leader !== `${address}:${ports.rpc}`) throw new Error(`${name} does not lead, it says "${leader}" does`);
    return name;
  });
  return Promise.any(claims);
}
