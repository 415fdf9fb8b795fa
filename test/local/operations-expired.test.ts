import { equal, match, notEqual, ok, rejects } from "assert/strict";
import { readFileSync } from "fs";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { certificateOf } from "../../lab/trust";
import { programDir } from "../../local/program";
import { commandsOf, section } from "../documents";
import { Operations } from "./operations";

const servers = ["server-1", "server-2", "server-3"];

/**
 * From "every server certificate has expired" to healthy, by the steps of docs/operations.md. Certificates are made by a
 * clock that is behind by their lifetime, less the seconds that they are good for here.
 */
describe("operations: every server certificate has expired", function () {
  this.timeout(900_000);
  const seconds = 45;
  let operations: Operations;
  /** Milliseconds by which the clock is behind that certificates are made by. */
  let behind = 0;

  const certificates = (serverDays: number) => ({
    "consul:certificates": JSON.stringify({ serverDays, renewDays: 1 }),
  });
  const lag = (days: number) => days * 86_400_000 - seconds * 1000;

  const ends = async () =>
    Promise.all(servers.map(async (server) => Date.parse((await certificateOf(operations.cluster, server)).valid_to)));

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    behind = lag(2);
    operations = await Operations.start("127.88.0", {
      config: certificates(2),
      now: () => new Date(Date.now() - behind),
    });
  });
  after(() => operations.end());

  /** Waits until the certificates that the servers show have expired; the next ones are good. */
  async function expired(): Promise<void> {
    const last = Math.max(...(await ends()));
    ok(last - Date.now() < seconds * 1000, "these are not the ones that expire");
    await sleep(Math.max(0, last - Date.now()) + 1500);
    behind = 0;
  }

  /** Gives all servers certificates that expire in a moment, and lets them. */
  async function expireAgain(serverDays: number): Promise<void> {
    behind = lag(serverDays);
    await operations.rollout.up(certificates(serverDays));
    await expired();
  }

  /** What a reader is told to do, carried out: `pulumi up` is the gate with its machines here. */
  async function runbook(change: Record<string, string> = {}): Promise<void> {
    const text = section(
      readFileSync(join(programDir, "docs/operations.md"), "utf8"),
      "## Certificates that have expired",
    );
    const steps = [...text.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([block]) => commandsOf(block));
    equal(steps.join("\n"), "pulumi up\nconsul operator raft list-peers");
    await operations.rollout.up(change);
    const { Servers } = await operations.cluster
      .api("server-1")
      .get<{ Servers: { Voter: boolean }[] }>("operator/raft/configuration");
    equal(Servers.filter(({ Voter }) => Voter).length, 3);
    for (const end of await ends()) ok(end > Date.now() + 86_400_000, new Date(end).toISOString());
  }

  /** New connections are what expired certificates refuse: none of these may be left. */
  async function restartEach(): Promise<void> {
    for (const server of servers) {
      await operations.cluster.restart(server);
      await operations.rollout.up({});
    }
  }

  const leader = (server: string) => operations.cluster.api(server, null).get<string>("status/leader");

  it("and all run on: a change that restarts Consul gives each one its new certificate first", async () => {
    await expired();
    notEqual(await leader("server-1"), "");
    await operations.under({ "consul:telemetryRetention": "3h" });
    await runbook();
    match(
      operations.said.join("\n"),
      /server-3: its certificate has expired today; it gets the new one before anything/,
    );
    await restartEach();
  });

  it("and one was restarted since, so that it is alone", async () => {
    await expireAgain(3);
    await operations.cluster.restart("server-2");
    await sleep(5000);
    equal(await leader("server-2"), "");
    await runbook({ "consul:telemetryRetention": "4h" });
  });

  it("and all were restarted since, so that there is no leader", async () => {
    await expireAgain(2);
    for (const server of servers) await operations.cluster.restart(server);
    await sleep(5000);
    for (const server of servers) equal(await leader(server), "");
    await runbook({ "consul:telemetryRetention": "5h" });
    await operations.cluster.ready();
    await restartEach();
  });

  it("or was made by a clock that is a day ahead: no server is given it, and another one once the clock is right", async () => {
    const before = await ends();
    behind = -86_400_000;
    await rejects(
      operations.rollout.up(certificates(9)),
      /made by a clock that is ahead: .* by the clock of server-\d .*another number of consul:certificates\.serverDays/,
    );
    equal(String(await ends()), String(before));
    behind = 0;
    // The one that is not valid yet stays in Pulumi's state.
    await rejects(operations.rollout.up(certificates(9)), /made by a clock that is ahead/);
    await operations.rollout.up(certificates(10));
    for (const end of await ends()) ok(end > Date.now() + 9 * 86_400_000, new Date(end).toISOString());
    await restartEach();
  });
});
