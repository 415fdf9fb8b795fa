import { deepEqual, equal, ok } from "assert/strict";
import { execFile } from "child_process";
import { readFileSync } from "fs";
import { join } from "path";
import { promisify } from "util";
import { ports } from "../../consul/config";
import { programDir } from "../../local/program";
import { commandsOf, section } from "../documents";
import { eventually } from "./kube-cluster";
import { Operations } from "./operations";

const prefix = "127.89.0";

/** A server goes to another place: the steps of docs/operations.md, with processes for machines. */
describe("operations: a server is moved", function () {
  this.timeout(900_000);
  let operations: Operations;
  const text = section(readFileSync(join(programDir, "docs/operations.md"), "utf8"), "## Moving a server");
  const blocks = [...text.matchAll(/^ *```sh\n[\s\S]*?^ *```/gm)].map(([block]) => commandsOf(block));

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    operations = await Operations.start(prefix);
  });
  after(() => operations.end());

  const servers = (...numbers: number[]) => ({
    "consul:servers": JSON.stringify({
      platform: "local",
      nodes: numbers.map((n) => ({ name: `server-${n}`, address: `${prefix}.${10 + n}` })),
    }),
  });

  /** A documented command on a server, as it stands there. */
  async function run(server: string, command: string): Promise<string> {
    const { cluster } = operations;
    const { stdout } = await promisify(execFile)("sh", ["-c", command.replace(/^consul\b/, cluster.consul)], {
      env: {
        PATH: process.env.PATH,
        CONSUL_HTTP_ADDR: `http://${cluster.node(server).address}:${ports.http}`,
        CONSUL_HTTP_TOKEN_FILE: cluster.tokenFile,
      },
    });
    return stdout;
  }
  const voters = (peers: string) => [...peers.matchAll(/^(\S+) .* true /gm)].map(([, name]) => name).sort();

  it("one after another, with all data, and nothing of it is left in raft", async () => {
    const { cluster, crashes } = operations;
    const [[autopilot = ""] = [], [leave = "", stop = "", peers = ""] = [], ...others] = blocks;
    deepEqual(others, [], "more steps than this test carries out");
    const api = cluster.api("server-1");
    for (let i = 0; i < 200; i++) await api.put(`kv/before/${i}`, String(i));

    const order: string[] = [];
    await operations.under(servers(1, 2, 3, 4, 5), (node) => Promise.resolve(void order.push(node)));
    deepEqual(order.slice(0, 5), ["server-1", "server-2", "server-3", "server-4", "server-5"]);
    equal(voters(await run("server-1", peers)).length, 5);

    await run("server-1", autopilot);
    for (const [i, goes] of ["server-3", "server-5"].entries()) {
      await run(goes, leave);
      // What the unit's `Restart=` would undo; a process that is not started again is stopped.
      equal(stop, "systemctl stop consul");
      await eventually(`${goes} has left`, async () => {
        equal(cluster.pid(goes), undefined);
        const left = voters(await run("server-1", peers));
        ok(!left.includes(goes) && left.length === 4 - i, left.join());
      });
    }
    equal(crashes.splice(0).length, 2, "both have ended by themselves");

    await operations.under(servers(1, 2, 4));
    deepEqual(voters(await run("server-4", peers)), ["server-1", "server-2", "server-4"]);
    const own = await cluster.api("server-4").get<{ Key: string }[]>("kv/before/?recurse&stale");
    equal(own.length, 200);
    const { MinQuorum } = await api.get<{ MinQuorum: number }>("operator/autopilot/configuration");
    equal(MinQuorum, 3);
    // The new one carries the cluster with any other: one of the old ones dies.
    await cluster.kill("server-1");
    await eventually("server-2 and server-4 have a leader", async () => {
      ok(/^server-[24]$/.test(await cluster.leaderName()));
    });
    cluster.start("server-1");
  });
});
