import { deepEqual, equal, match, ok } from "assert/strict";
import { spawnSync } from "child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { serverPods } from "../../consul/pod/pod";
import { ScriptPath, withApi } from "../../consul/scripts";

// The scripts of the gate in the cluster, with a curl that plays the servers. On real ones: test/local/kube-servers.test.ts.

/** What a server says to a path; a number is the code with which curl fails. */
type Answers = Readonly<Record<string, string | number>>;

const names = ["consul-server-0", "consul-server-1", "consul-server-2"];
const urls = serverPods(3, "consul").map(({ host }) => `https://${host}:8501`);
const everyName = names.join(",");
const health = (unhealthy: readonly string[] = [], tolerance = 1) =>
  JSON.stringify({
    Healthy: unhealthy.length === 0,
    FailureTolerance: tolerance,
    Servers: names.map((name) => ({ ID: name, Name: name, Healthy: !unhealthy.includes(name), Voter: true })),
  });
const well: Answers = {
  "GET status/leader": '"10.0.0.1:8300"',
  "GET operator/autopilot/health": health(),
  "GET operator/autopilot/configuration": '{"CleanupDeadServers":true,"MinQuorum":0}',
  "PUT operator/autopilot/configuration": "true",
};
const leaderless: Answers = {
  "GET status/leader": '""',
  "GET operator/autopilot/health": "No cluster leader",
  "GET operator/autopilot/configuration": "No cluster leader",
};

/** Fails as curl does where it cannot resolve a name (6), cannot connect (7), or waits in vain (28). */
const curl = `#!/bin/sh
for word in "$@"; do
  case $before in -X) method=$word ;; --max-time) seconds=$word ;; --data-binary) cp "\${word#@}" "$PLAY/sent" ;; esac
  before=$word
done
url=\${word#*//}
answer="$PLAY/\${url%%.*}/$method $(echo "\${url#*/v1/}" | tr / _)"
echo "$method \${url%%.*} \${url#*/v1/}" >>"$PLAY/asked"
code=6
[ ! -d "$PLAY/\${url%%.*}" ] || code=7
[ ! -e "$answer.fails" ] || code=$(cat "$answer.fails")
if [ -e "$PLAY/slow" ] && [ "$seconds" -lt "$(cat "$PLAY/slow")" ]; then code=28
elif [ -e "$answer" ]; then cat "$answer" && echo ' 200' && exit 0; fi
echo "curl: ($code) as played" >&2
exit "$code"
`;

class Play {
  private readonly directory = mkdtempSync(join(tmpdir(), "consul-roll-"));

  constructor(servers: Readonly<Record<string, Answers>>) {
    this.file("bin/curl", curl);
    this.file("bin/sleep", '#!/bin/sh\necho "$1" >>"$PLAY/slept"\n');
    this.file("token", "secret");
    this.file("key", "new-gossip-key");
    this.file("keyring.sh", 'echo "$@" >"$PLAY/keyring"\n');
    for (const [server, answers] of Object.entries(servers)) {
      mkdirSync(join(this.directory, server));
      for (const [question, answer] of Object.entries(answers)) {
        const name = question.replaceAll("/", "_");
        this.file(`${server}/${name}${typeof answer === "number" ? ".fails" : ""}`, String(answer));
      }
    }
  }

  file(name: string, content: string) {
    const path = join(this.directory, name);
    mkdirSync(join(path, ".."), { recursive: true });
    writeFileSync(path, content);
    if (name.startsWith("bin/")) chmodSync(path, 0o755);
  }

  /** What was written there; undefined where nothing was. */
  written(name: string): string | undefined {
    const path = join(this.directory, name);
    return existsSync(path) ? readFileSync(path, "utf8") : undefined;
  }

  run(script: ScriptPath, args: readonly string[], environment: Readonly<Record<string, string>> = {}) {
    this.file("script.sh", withApi(script));
    const { status, stdout, stderr } = spawnSync("sh", [join(this.directory, "script.sh"), ...args], {
      encoding: "utf8",
      env: {
        PATH: `${join(this.directory, "bin")}:${process.env.PATH ?? ""}`,
        PLAY: this.directory,
        CONSUL_HTTP_TOKEN_FILE: join(this.directory, "token"),
        CONSUL_HTTP_ADDR: urls[0] ?? "",
        ...environment,
      },
    });
    return { status, stdout, stderr };
  }

  roll(skip = "none", environment: Readonly<Record<string, string>> = {}) {
    return this.run("pod/roll.sh", ["0", skip, join(this.directory, "key"), ...urls], environment);
  }

  get key(): string {
    return join(this.directory, "key");
  }

  remove() {
    rmSync(this.directory, { recursive: true });
  }
}

describe("the gate of servers in the cluster", () => {
  const plays: Play[] = [];
  const play = (servers: Readonly<Record<string, Answers>>) => {
    const made = new Play(servers);
    plays.push(made);
    return made;
  };
  const all = (answers: Answers) => play(Object.fromEntries(names.map((name) => [name, answers])));
  after(() => plays.forEach((made) => made.remove()));
  const exist = { SERVERS_EXIST: "consul-server" };

  it("lets servers be changed that are all well, tells them their number, and gives them the key", () => {
    const made = all(well);
    const { status, stdout } = made.roll("none", exist);
    equal(status, 0);
    match(stdout, /all servers are healthy voters/);
    equal(made.written("sent"), '{"CleanupDeadServers":true,"MinQuorum":3}');
    equal(made.written("keyring"), `use ${made.key}\n`);
  });

  it("has nothing to be careful with at the first start: no StatefulSet was there, and no name of a pod", () => {
    const made = play({});
    const { status, stdout } = made.roll();
    deepEqual([status, stdout], [0, "roll: there are no servers yet\n"]);
    equal(made.written("keyring"), undefined);
  });

  it("changes nothing where certificates are not valid yet by the clock here, and waits for minutes", () => {
    const made = all(well);
    const now = Math.floor(Date.now() / 1000);
    const from = (seconds: number) => ({ ...exist, CERTIFICATES_FROM: String(now + seconds) });
    const { status, stderr } = made.roll("none", from(86_400));
    equal(status, 1);
    match(
      stderr,
      /NOT changed: .* a clock that is ahead: they are valid from 20\S+Z on, and by the clock of the node here it is 20\S+Z\. .*consul:certificates\.serverDays/,
    );
    equal(made.written("keyring"), undefined);
    equal(made.roll("none", from(200)).status, 0);
    match(made.written("slept") ?? "", /^(200|199)\n/);
  });

  for (const [what, code] of [
    ["cannot be resolved", 6],
    ["refuse to connect", 7],
    ["are behind a closed network", 28],
  ] as const) {
    it(`stops where there is a StatefulSet and its servers ${what}`, () => {
      const made = all(Object.fromEntries(Object.keys(well).map((question) => [question, code])));
      const { status, stderr } = made.roll("none", exist);
      equal(status, 1);
      match(stderr, /the servers were NOT changed: no server answers \(curl: \(\d+\) as played\)/);
      match(stderr, /name them in consul:gate\.skip/);
      equal(made.written("keyring"), undefined);
    });
  }

  it("stops where pods have names although nothing says that there is a StatefulSet, as after an older release", () => {
    const made = play({ "consul-server-1": { "GET status/leader": 28 } });
    const { status, stderr } = made.roll();
    equal(status, 1);
    match(stderr, /no server answers/);
  });

  it("stops where the servers answer and none leads, unless all of them are to be repaired", () => {
    for (const skip of ["none", "consul-server-0,consul-server-1"]) {
      const { status, stderr } = all(leaderless).roll(skip, exist);
      equal(status, 1, skip);
      match(stderr, /no leader knows of them \(No cluster leader\)/);
    }
    const { status, stdout } = all(leaderless).roll(everyName, exist);
    equal(status, 0);
    match(stdout, /gate\.skip names every server/);
  });

  it("goes on without an answer where all servers are to be repaired, and says what they were not told", () => {
    const made = play({});
    const { status, stderr } = made.roll(everyName, exist);
    equal(status, 0);
    match(stderr, /they have not been told their number and the gossip key/);
  });

  it("takes a server without a name for the one that is to be repaired, and for no other", () => {
    // As a leader says that was started after consul-server-1 had been lost.
    const looks = health(["consul-server-1"]).replace('"Name":"consul-server-1"', '"Name":""');
    const left = { ...well, "GET operator/autopilot/health": looks };
    const servers = { "consul-server-0": left, "consul-server-2": left };
    equal(play(servers).roll("consul-server-1", exist).status, 0);
    for (const skip of ["none", "consul-server-2"]) {
      const { status, stderr } = play(servers).roll(skip, exist);
      equal(status, 1);
      match(stderr, /a server that the leader knows no name of is not a healthy voter/);
    }
  });

  it("asks a server that knows a leader, although one that is cut off is the first to answer", () => {
    const made = play({ "consul-server-0": leaderless, "consul-server-1": well, "consul-server-2": well });
    const { status, stdout, stderr } = made.roll("consul-server-0", exist);
    equal(status, 0, stderr);
    match(stdout, /all servers are healthy voters/);
    equal(made.written("keyring"), `use ${made.key}\n`);
  });

  it("asks only for those that are not to be repaired", () => {
    const down = { ...well, "GET operator/autopilot/health": health(["consul-server-2"], 0) };
    const refused = all(down).roll("consul-server-1", exist);
    equal(refused.status, 1);
    match(refused.stderr, /NOT changed: consul-server-2 is not a healthy voter/);
    equal(all(down).roll("consul-server-2", exist).status, 0);
  });
});

describe("the keyring's script", () => {
  it("waits for as long as a thousand members take to answer", () => {
    const key = "bmV3";
    const made = new Play({
      "consul-server-0": {
        "GET status/leader": '"10.0.0.1:8300"',
        "GET operator/keyring": JSON.stringify([
          { WAN: false, Keys: { [key]: 1000 }, PrimaryKeys: { [key]: 1000 }, NumNodes: 1000 },
        ]),
      },
    });
    try {
      made.file("key", key);
      // Whoever gives up before that has no answer.
      made.file("slow", "13");
      const { status, stdout, stderr } = made.run("scripts/keyring.sh", ["use", made.key], { KEYRING_DEADLINE: "0" });
      equal(status, 0, stderr);
      match(stdout, /all 1000 members encrypt with the wanted key/);
      ok(!made.written("asked")?.includes("POST"));
    } finally {
      made.remove();
    }
  });
});
