import { rmSync } from "fs";
import { join } from "path";
import { parseArgs } from "util";
import { badClients } from "./bad-clients";
import * as drills from "./faults";
import { quantile, Tally } from "./load";
import { programDir } from "../local/program";
import { Cluster, onLoopback, Progress } from "../local/supervisor";

/** What a drill shows: a table, and what of its promises was not kept. */
interface Shown {
  readonly figures: unknown;
  readonly table: readonly (readonly string[])[];
  readonly broken: readonly string[];
}

interface Drill {
  readonly title: string;
  run(cluster: Cluster, progress: Progress): Promise<Shown>;
}

const catalogue: Record<string, Drill> = {
  accident: { title: "A server dies that 94 of 151 services were registered at", run: showAccident },
  leader: { title: "The leader is killed, twenty times", run: showLeader },
  servers: { title: "A leader freezes, two of three servers are down, a server's data is gone", run: showServers },
  agents: { title: "An agent restarts as its pod does, one leaves first, one loses its data", run: showAgents },
  blackout: { title: "All six processes are killed at once", run: showBlackout },
  clients: { title: "Clients that must not get in", run: showClients },
};

const help = `npm run drill [-- [OPTION…] NAME…]   breaks a cluster on this machine on purpose and shows what still works

${Object.entries(catalogue)
  .map(([name, { title }]) => `  ${name.padEnd(10)} ${title}`)
  .join("\n")}

  --json     one JSON object on standard output at the end, progress on standard error
  --help     show this

All of them unless named; about three minutes on two idle cores. Exit status 1 where a promise is not kept.
Ctrl-C stops everything. CONSUL_BIN names the consul to run; else it is looked for, downloaded or built.`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: { json: { type: "boolean", default: false }, help: { type: "boolean", short: "h", default: false } },
    allowPositionals: true,
  });
  const unknown = positionals.filter((name) => !(name in catalogue));
  if (unknown.length > 0) {
    throw new Error(`no drill is called ${unknown.join(", ")}: ${Object.keys(catalogue).join(", ")}`);
  }
  if (values.help) {
    console.log(help);
    return 0;
  }
  const { json } = values;
  const cluster = new Cluster({
    dir: join(programDir, ".local", "drill"),
    config: onLoopback("127.23.0"),
    reset: true,
    onCrash: (reason) => console.error(reason),
  });
  const interrupted = new Promise<NodeJS.Signals>((signalled) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, signalled);
  });
  const work = async () => {
    for (const step of cluster.steps()) {
      progress(step.title);
      await step.run(progress);
    }
    const shown: Record<string, Shown> = {};
    for (const [name, drill] of Object.entries(catalogue)) {
      if (positionals.length > 0 && !positionals.includes(name)) continue;
      progress(drill.title);
      shown[name] = await drill.run(cluster, (line) => progress(`${drill.title}: ${line}`));
      progress("");
      if (!json) console.log(`\n${drill.title}\n\n${asText(shown[name])}`);
    }
    const broken = Object.values(shown).flatMap((drill) => drill.broken);
    const seconds = Math.round(process.uptime());
    const figures = Object.fromEntries(Object.entries(shown).map(([name, drill]) => [name, drill.figures]));
    if (json) console.log(JSON.stringify({ ok: broken.length === 0, seconds, broken, drills: figures }, null, 2));
    else if (broken.length === 0) console.log(`\nEvery promise is kept, ${seconds} s`);
    else console.log(`\n${broken.length} promises are broken, ${seconds} s; logs: ${cluster.dir}/*/consul.log`);
    return broken.length === 0 ? 0 : 1;
  };
  try {
    const outcome = await Promise.race([interrupted, work()]);
    await cluster.stop();
    if (outcome === 0) rmSync(cluster.dir, { recursive: true });
    if (typeof outcome === "number") return outcome;
    console.error(`${outcome}: every node is stopped; logs are in ${cluster.dir}`);
    return 130;
  } finally {
    await cluster.stop();
  }
}

/** On a terminal one line that changes, else a line each. */
function progress(line: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${line.slice(0, process.stderr.columns - 1)}`);
  else if (line !== "") console.error(line);
}

function asText({ table, broken }: Shown): string {
  const widths = (table[0] ?? []).map((_, i) => Math.max(...table.map((row) => (row[i] ?? "").length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => cell.padEnd((widths[i] ?? 0) + 3))
      .join("")
      .trimEnd();
  return [...table.map((row) => `  ${line(row)}`), ...broken.map((promise) => `  BROKEN: ${promise}`)].join("\n");
}

const seconds = (value: number) => `${value.toFixed(1)} s`;
const failed = ({ failed: count, total, slowest }: Tally) => `${count} of ${total} failed, slowest ${seconds(slowest)}`;

/** What is not as it ought to be: name and value of each figure that is above its limit. */
function above(limits: readonly (readonly [what: string, value: number, limit: number])[]): string[] {
  const wrong = limits.filter(([, value, limit]) => !(value <= limit));
  return wrong.map(([what, value, limit]) => `${what}: ${Math.round(value * 100) / 100}, at most ${limit}`);
}

/**
 * No lookup may fail over DNS, nor over HTTP where it is answered from what the agent knows. A plain one goes to a server,
 * and Consul does not repeat it where that one has just died or has just come back: a few in a hundred may fail then.
 */
function lookups(what: string, of: drills.Lookups, plain: number) {
  const limits = { DNS: 0, "HTTP ?cached": 0, HTTP: Math.floor(of.HTTP.total * plain) };
  return drills.ways.map((way) => [`${what}: failed lookups, ${way}`, of[way].failed, limits[way]] as const);
}

async function showAccident(cluster: Cluster, progress: Progress): Promise<Shown> {
  progress("registered at the servers");
  const old = await drills.accident(cluster, "server");
  progress("registered at the nodes' agents");
  const now = await drills.accident(cluster, "agent");
  const row = (what: string, figure: (of: drills.Accident) => string) => [what, figure(old), figure(now)];
  return {
    figures: { atServers: old, atAgents: now },
    table: [
      ["", "at the servers, as in seed 000", "at the agents"],
      row("services, away for", (of) => `${of.services}, ${seconds(of.seconds)}`),
      ...drills.ways.map((way) => row(`lookups, ${way}`, (of) => failed(of.lookups[way]))),
      row("health updates", (of) => failed(of.updates)),
      row("services lost", (of) => `${of.lost} of ${of.services}`),
    ],
    broken: above([
      ...lookups("at the agents", now.lookups, 0),
      ["at the agents: failed health updates", now.updates.failed, 0],
      ["at the agents: lost services", now.lost, 0],
      ["at the servers: services that are found in spite of all", drills.spread[1] - old.lost, 0],
    ]),
  };
}

async function showLeader(cluster: Cluster, progress: Progress): Promise<Shown> {
  const figures = await drills.killLeader(cluster, 20, progress);
  const row = (what: string, values: readonly number[]) => [
    what,
    ...[Math.min(...values), quantile(values), Math.max(...values)].map(seconds),
  ];
  return {
    figures,
    table: [
      ["", "best", "median", "worst"],
      row("until a write succeeds", figures.gaps),
      row("from the killed server's start to three healthy voters", figures.returns),
      ...drills.ways.map((way) => [`lookups at the agents, ${way}`, failed(figures.lookups[way]), "", ""]),
    ],
    broken: above([
      ["median of the write gaps", quantile(figures.gaps), 2.5],
      ["worst of the write gaps", Math.max(...figures.gaps), 5],
      ...lookups("leader killed", figures.lookups, 0.05),
    ]),
  };
}

async function showServers(cluster: Cluster, progress: Progress): Promise<Shown> {
  progress("10,000 keys, then the leader is frozen");
  const paused = await drills.pauseLeader(cluster);
  progress("two of three servers are killed");
  const two = await drills.killTwo(cluster);
  progress("a server's data is deleted");
  const loss = await drills.loseData(cluster);
  const row = (what: string, of: (outage: drills.Outage) => string, lost = "") => [what, of(paused), of(two), lost];
  const kept = (yes: boolean) => (yes ? "the same at each server" : "NOT the same");
  const promises = (what: string, outage: drills.Outage) => [
    ...lookups(what, outage.lookups, 0.1),
    [`${what}: keys that changed`, outage.keysKept ? 0 : 1, 0] as const,
  ];
  const notFound = drills.ways.filter((way) => two.firstLookup[way] !== "").length;
  return {
    figures: { paused, two, loss },
    table: [
      ["", "leader frozen, 6 s", "two of three down, 8 s", "data deleted"],
      ...drills.ways.map((way) => row(`lookups at the agents, ${way}`, ({ lookups: of }) => failed(of[way]))),
      row("first lookup ever of a service", ({ firstLookup }) =>
        drills.ways.every((way) => firstLookup[way] === "") ? "found" : "NOT found",
      ),
      row("reads of a key, ?stale, at the agents", ({ staleReads }) => failed(staleReads)),
      row("writes, from the third second on", ({ writes }) => failed(writes)),
      row("a write succeeds after", ({ writeAfter }) => seconds(writeAfter)),
      row("three healthy voters, from the undoing on", ({ returned }) => seconds(returned), seconds(loss.returned)),
      row("10,000 keys", ({ keysKept }) => kept(keysKept), kept(loss.keysKept)),
    ],
    broken: above([
      ...promises("leader frozen", paused),
      ["leader frozen: seconds until a write succeeds", paused.writeAfter, 5],
      ...promises("two servers down", two),
      ["two servers down: ways in which a service is not found that was never looked up before", notFound, 0],
      ["two servers down: writes that were accepted by less than a majority", two.writes.total - two.writes.failed, 0],
      ["two servers back: seconds until there are three healthy voters", two.returned, 15],
      ["data deleted: keys that changed", loss.keysKept ? 0 : 1, 0],
      ["data deleted: seconds until there are three healthy voters", loss.returned, 40],
    ]),
  };
}

async function showAgents(cluster: Cluster): Promise<Shown> {
  const figures = await drills.restartAgents(cluster);
  const { away, restart, restartHttp, leave, dataLoss } = figures;
  return {
    figures,
    table: [
      [
        `restarted as the DaemonSet does it, away for ${seconds(away)}`,
        `its service is missing for ${seconds(restart)}`,
      ],
      ["… a service with an HTTP check of 10 s, no heartbeats", `is missing for ${seconds(restartHttp)}`],
      ["restarted with `consul leave` first, as by hand", `its service is missing for ${seconds(leave)}`],
      ["killed, its data lost", `a new registration is in the catalog after ${seconds(dataLoss.registered)}`],
      ["names of its address", dataLoss.nodes.join(", ")],
      ["instances of its service at any time", `at most ${dataLoss.instances}`],
    ],
    broken: above([
      // Gossip takes a node for dead after 5 s or so; where this machine is so slow, there is nothing to promise.
      ["seconds without the restarted agent's service", restart, away < 4.5 ? 0 : Infinity],
      ["seconds until an agent without its data registers something", dataLoss.registered, 15],
      ["names of one address", dataLoss.nodes.length, 1],
      ["instances of one service", dataLoss.instances, 1],
    ]),
  };
}

async function showBlackout(cluster: Cluster): Promise<Shown> {
  const figures = await drills.killAll(cluster);
  return {
    figures,
    table: [
      ["a leader after", seconds(figures.leader)],
      ["every node and service in the catalog after", seconds(figures.complete)],
      ["10,000 keys", figures.keysKept ? "the same at each server" : "NOT the same"],
    ],
    broken: above([
      ["seconds until everything is back", figures.complete, 20],
      ["keys that changed", figures.keysKept ? 0 : 1, 0],
    ]),
  };
}

async function showClients(cluster: Cluster): Promise<Shown> {
  const figures = await badClients(cluster);
  const known = (seen: boolean, gossips: boolean) =>
    seen ? `yes${gossips ? ": gossip asks for its key alone" : ""}` : "no";
  return {
    figures,
    table: [
      ["", "refused with", "among the members"],
      ...figures.map(({ what, said, seen, gossips }) => [what, said, known(seen, gossips)]),
    ],
    broken: [
      ...figures.filter(({ said }) => said === "").map(({ what }) => `${what}: is not refused`),
      ...figures.filter(({ served }) => served).map(({ what }) => `${what}: is given the catalog, or a vote`),
      ...figures.filter(({ seen, gossips }) => seen && !gossips).map(({ what }) => `${what}: is a member`),
    ],
  };
}

main().then(
  (status) => process.exit(status),
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  },
);
