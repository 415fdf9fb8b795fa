import assert from "assert/strict";
import { execFile } from "child_process";
import type { Answer } from "dns-packet";
import { join, relative } from "path";
import { promisify } from "util";
import { ports } from "../../consul/config";
import { lookup } from "../../local/dns";
import { programDir } from "../../local/program";
import type { Cluster } from "../../local/supervisor";

/**
 * One command of the tour: as a person types it, and what runs it here.
 * `run` gives the answer, and throws where the answer is not what it should be.
 */
export interface Command {
  readonly shown: string | (() => string);
  readonly run: () => Promise<string>;
}

/** Makes the commands of the tour, all for the cluster's one client. */
export class Shell {
  /** URL of the client's API. */
  readonly client: string;
  private readonly address: string;

  constructor(private readonly cluster: Cluster) {
    this.address = cluster.node("agent-1").address;
    this.client = `http://${this.address}:${ports.http}`;
  }

  /** `consul …`, with the management token. @param wanted is tried until the answer matches it */
  consul(wanted: RegExp, ...args: string[]): Command {
    const shown = ["consul", ...args.map((arg) => (/\s/.test(arg) ? `'${arg}'` : arg))].join(" ");
    const tokens = { CONSUL_HTTP_ADDR: this.client, CONSUL_HTTP_TOKEN_FILE: this.cluster.tokenFile };
    const env = { PATH: process.env.PATH, ...tokens };
    return this.command(shown, wanted, async () => {
      const { stdout } = await promisify(execFile)(this.cluster.consul, args, { env, cwd: programDir });
      return stdout.trimEnd();
    });
  }

  /** `curl …/v1/path`, without a token. @param fields the fields of each entry that `jq` shows; all unless given */
  get(wanted: RegExp, path: string, ...fields: string[]): Command {
    const filter = fields.length > 0 ? ` | jq '.[] | {${fields.join(", ")}}'` : "";
    return this.command(`curl -s ${this.client}/v1/${path}${filter}`, wanted, async () => {
      const answer = await this.cluster.api("agent-1", null).get<string | Record<string, unknown>[]>(path);
      if (typeof answer === "string") return JSON.stringify(answer);
      return answer.map((entry) => JSON.stringify(entry, fields, 2)).join("\n");
    });
  }

  /** `curl -X PUT …/v1/path`, with the management token. */
  put(path: string, body?: unknown): Command {
    // The token comes from a file: an argument list is no place for a token.
    const header = relative(process.cwd(), join(this.cluster.dir, "header")) || "header";
    const data = body ? ` -d '${JSON.stringify(body)}'` : "";
    return {
      shown: `curl -s -X PUT -H @${header}${data} ${this.client}/v1/${path}`,
      run: async () => (await this.cluster.api("agent-1").put<string>(path, body)) || "(200, and nothing more to say)",
    };
  }

  /** `dig …` at the client's DNS. */
  dig(wanted: RegExp, name: string, type: "A" | "SRV" = "A"): Command {
    const line = (answer: Answer) => {
      if (answer.type === "SRV") return `1 1 ${answer.data.port} ${answer.data.target}.`;
      return answer.type === "A" ? answer.data : answer.type;
    };
    return this.command(`dig @${this.address} -p ${ports.dns} ${name} ${type} +short`, wanted, async () =>
      (await lookup(this.address, name, type)).map(line).join("\n"),
    );
  }

  /** A command whose answer may take a moment to be what it should be. */
  private command(shown: string, wanted: RegExp, answer: () => Promise<string>): Command {
    const attempt = async () => {
      const text = await answer();
      assert.match(text, wanted);
      return text;
    };
    return { shown, run: () => this.cluster.until(shown, attempt) };
  }
}
