import { deepEqual, equal, match } from "assert/strict";
import { createHash } from "crypto";
import { spawnSync } from "child_process";
import { existsSync, readFileSync } from "fs";
import { join } from "path";
import { withApi } from "../../consul/scripts";
import { withStandIns } from "./stand-ins";

// keyring.sh with a curl that plays the members. On real ones: test/local/gossip.test.ts.

/** Takes the next answer for each GET, the last one again and again; an empty one fails as curl does in vain (28). */
const curl = `#!/bin/sh
for word in "$@"; do
  case $before in -X) method=$word ;; esac
  before=$word
done
case $word in */status/leader) [ -z "$FROZEN" ] || exit 28; printf '"%s" 200' "$LEADER" && exit 0 ;; esac
echo "$method" >>"$PLAY/asked"
[ "$method" = GET ] || { printf ' 200' && exit 0; }
answer=$(head -n 1 "$PLAY/answers")
[ "$(wc -l <"$PLAY/answers")" = 1 ] || sed -i 1d "$PLAY/answers"
[ -n "$answer" ] || { echo "curl: (28) as played" >&2 && exit 28; }
printf '%s' "$answer"
`;

const answer = (Keys: object, PrimaryKeys: object) =>
  `${JSON.stringify([{ WAN: false, Datacenter: "dc", Segment: "", Keys, PrimaryKeys, NumNodes: 3 }])} 200`;
/** What Consul says where it has not heard of every member. */
const incomplete = "2/3 nodes reported success 500";
const unreachable = "";

/** Runs the script. @returns its exit code and errors, and what it asked for but the answers' reading */
function run(answers: readonly string[], args: (keyring: string) => readonly string[], environment = {}) {
  return withStandIns({ curl, sleep: "#!/bin/sh\n" }, ({ directory, environment: own, file }) => {
    file("answers", answers.map((line) => `${line}\n`).join(""));
    file("behind.sh", "echo agent-7\n");
    const { status, stderr } = spawnSync(
      "sh",
      [file("keyring.sh", withApi("scripts/keyring.sh")), ...args(file("keys", '["new","old"]'))],
      {
        encoding: "utf8",
        env: { ...own, KEYRING_DEADLINE: "20", KEYRING_PATIENCE: "1", LEADER: "10.0.0.1:8300", ...environment },
      },
    );
    const asked = existsSync(join(directory, "asked"))
      ? readFileSync(join(directory, "asked"), "utf8").trim().split("\n")
      : [];
    return { status, stderr, changes: asked.filter((method) => method !== "GET") };
  });
}

describe("the script for gossip keys", () => {
  const digest = createHash("sha256").update("new").digest("hex");
  const only = () => ["only", digest];
  const use = (keys: string) => ["use", keys];
  const both = answer({ old: 3, new: 3 }, { new: 3 });
  const gone = answer({ new: 3 }, { new: 3 });

  it("removes an old key, and looks whether it is gone", () => {
    const { status, changes } = run([both, both, gone], only);
    deepEqual([status, changes], [0, ["DELETE"]]);
  });

  for (const [what, said] of [
    ["not all members have answered", incomplete],
    ["nobody has answered", unreachable],
  ] as const) {
    it(`does not take a key for removed where ${what}`, () => {
      const left = answer({ old: 1, new: 3 }, { new: 3 });
      const { status, changes } = run([both, both, said, left, gone], only);
      deepEqual([status, changes], [0, ["DELETE", "DELETE"]]);
    });
  }

  it("gives a server up that says nothing, so that another one can be asked", () => {
    const { status, stderr, changes } = run([unreachable], only, { FROZEN: "yes" });
    deepEqual([status, stderr, changes], [1, "keyring: Consul does not answer\n", []]);
  });

  it("gives a server up that knows no leader: where the network cut it off, it would speak for itself alone", () => {
    const alone = JSON.stringify([{ WAN: false, Keys: { new: 1 }, PrimaryKeys: { new: 1 }, NumNodes: 1 }]);
    const { status, stderr, changes } = run([`${alone} 200`], only, { LEADER: "" });
    deepEqual([status, stderr, changes], [1, "keyring: this server sees no leader\n", []]);
  });

  it("asks who is behind before it switches, whatever the next answer is", () => {
    const installed = answer({ old: 3, new: 3 }, { old: 3 });
    const { status, stderr, changes } = run([installed, installed, unreachable, installed], use, {
      GOSSIP_PATTERN: "new",
    });
    equal(status, 1, stderr);
    match(stderr, /nothing is switched, these nodes do not start with the gossip keys for this step yet: agent-7\./);
    deepEqual(changes, []);
  });
});
