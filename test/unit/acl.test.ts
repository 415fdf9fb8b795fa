import { deepEqual, equal, match } from "assert/strict";
import { spawnSync } from "child_process";
import { existsSync, mkdirSync, readFileSync } from "fs";
import { join } from "path";
import { withApi } from "../../consul/scripts";
import { withStandIns } from "./stand-ins";

// acl.sh with a curl that plays the servers. On real ones: test/local/access.test.ts.

const curl = `#!/bin/sh
for word in "$@"; do
  case $before in -X) method=$word ;; esac
  before=$word
done
path=\${word#*/v1/}
echo "$method $path" >>"$PLAY/asked"
answer="$PLAY/$method $(echo "$path" | tr / _)"
if [ -e "$answer" ]; then cat "$answer"; else printf '{} 200'; fi
`;

const owner = "consul-alicloud:apps:0123456789abcdef";
const id = (n: number) => `f1c70e5a-0000-4000-8000-${String(n).padStart(12, "0")}`;

/** A token as the list of Consul 1.22 has it. */
const ours = (n: number, description = "orders") => ({
  AccessorID: id(n),
  SecretID: id(900 + n),
  Description: `${description} [${owner}]`,
  Policies: [
    { ID: id(500), Name: "app" },
    { ID: id(501), Name: "app-2" },
  ],
  Local: false,
});
/** One that a login made: its first field is another. */
const login = (n: number, description = 'token created via login: {"pod":"shop/orders"}') => ({
  Name: "kubernetes-shop-17",
  ...ours(n),
  Description: description,
  AuthMethod: "kubernetes",
});

interface Play {
  /** What Consul answers, by method and path; other questions get an empty object. */
  readonly answers?: Readonly<Record<string, string>>;
  readonly tokens?: readonly object[];
  readonly files?: Readonly<Record<string, object>>;
  readonly environment?: Readonly<Record<string, string>>;
  /** Programs that take the place of the machine's own. */
  readonly programs?: Readonly<Record<string, string>>;
}

/** Runs the script once. @returns how it ended, and what it asked for but the answers' reading */
function run({ answers = {}, tokens = [], files = {}, environment = {}, programs = {} }: Play) {
  const own = {
    curl,
    // Time is over after the second attempt.
    sleep: `#!/bin/sh\necho >"$PLAY/slept"\n`,
    date: `#!/bin/sh\n[ ! -e "$PLAY/slept" ] || printf 9\necho 100\n`,
  };
  return withStandIns({ ...own, ...programs }, ({ directory, environment: standing, file }) => {
    const objects = join(directory, "objects");
    mkdirSync(objects);
    for (const [name, content] of Object.entries(files)) file(`objects/${name}`, JSON.stringify(content));
    const all = {
      "GET status/leader": '"10.0.0.1:8300" 200',
      "GET acl/tokens": `${JSON.stringify(tokens)} 200`,
      "GET acl/policies": "[] 200",
      ...answers,
    };
    for (const [question, answer] of Object.entries(all)) file(question.replaceAll("/", "_"), answer);
    const { status, stdout, stderr } = spawnSync("sh", [file("acl.sh", withApi("scripts/acl.sh")), objects], {
      encoding: "utf8",
      env: { ...standing, ACL_OWNER: owner, ...environment },
    });
    const asked = readFileSync(join(directory, "asked"), "utf8").trim().split("\n");
    return {
      status,
      stdout,
      stderr,
      changes: asked.filter((line) => !line.startsWith("GET ")),
      triedAgain: existsSync(join(directory, "slept")),
    };
  });
}

describe("the script for policies and tokens", () => {
  const kept = { [`token.${id(1)}.json`]: {} };

  it("tells tokens apart, whatever their first field is", () => {
    // Behind one that is wanted, behind one that is not, and before both.
    const tokens = [login(9), ours(1), login(10), ours(2), login(11), login(12)];
    const { status, stdout, changes } = run({ tokens, files: kept });
    deepEqual(changes, [`DELETE acl/token/${id(2)}`, `PUT acl/token/${id(1)}`]);
    deepEqual([status, stdout.includes(`revoked token orders (${id(2)})`)], [0, true]);
  });

  for (const [what, description] of [
    ["braces", '}, {"AccessorID": {'],
    ["quotes and backslashes", String.raw`\"}{\\" [${owner}]\" \\`],
    ["nothing", ""],
    ["the mark of the owner, but not at its end", `x [${owner}]" y`],
  ] as const) {
    it(`reads no token wrongly whose description has ${what}`, () => {
      const tokens = [login(9, description), ours(2), login(10, description)];
      deepEqual(run({ tokens, files: kept }).changes, [`DELETE acl/token/${id(2)}`, `PUT acl/token/${id(1)}`]);
    });
  }

  const policies = { "policy.bad.json": {}, "policy.good.json": {}, [`token.${id(1)}.json`]: {} };
  const refusal = "rpc error making call: Failed to parse ACL rules: At 1:12 500";

  it("revokes, goes on, and says at once what Consul refuses for good", () => {
    const { status, stderr, changes, triedAgain } = run({
      tokens: [ours(2)],
      files: policies,
      answers: {
        "GET acl/policy/name/bad": "not found 404",
        "GET acl/policy/name/good": "not found 404",
        [`GET acl/token/${id(1)}`]: "not found 404",
        "PUT acl/policy": refusal,
        "PUT acl/token": 'No such ACL policy with name "bad" 500',
      },
    });
    deepEqual(changes, [`DELETE acl/token/${id(2)}`, "PUT acl/policy", "PUT acl/policy", "PUT acl/token"]);
    deepEqual([status, triedAgain], [1, false]);
    equal(stderr.match(/PUT acl\/policy policy\.(bad|good)\.json: .*At 1:12 500/g)?.length, 2, stderr);
    match(stderr, /PUT acl\/token token\..*No such ACL policy/);
  });

  for (const [what, answer, hopeless] of [
    ["what Consul cannot read", "Policy decoding failed: unexpected EOF 400", true],
    ["a rule that is no rule", 'Invalid service policy: &acl.ServiceRule{Name:"x"} 500', true],
    ["a name that is none", "Invalid Policy: invalid Name. Only alphanumeric characters 500", true],
    ["what another server has just made", 'Invalid Policy: A Policy with Name "bad" already exists 500', false],
    ["no leader", "No cluster leader 500", false],
    ["a token that is not known yet", "Permission denied 403", false],
    ["too many questions", "Your IP is issuing too many concurrent connections 429", false],
  ] as const) {
    it(`${hopeless ? "does not try again after" : "tries again after"} ${what}`, () => {
      const { status, stderr, triedAgain } = run({
        files: { "policy.bad.json": {} },
        answers: { "GET acl/policy/name/bad": "not found 404", "PUT acl/policy": answer },
      });
      deepEqual([status, triedAgain], [1, !hopeless]);
      match(stderr, /PUT acl\/policy policy\.bad\.json: /);
    });
  }

  it("tries again where one thing is refused for good and another may pass", () => {
    const { triedAgain } = run({
      files: policies,
      answers: {
        "PUT acl/policy": refusal,
        "GET acl/policy/name/bad": "not found 404",
        [`PUT acl/token/${id(1)}`]: "No cluster leader 500",
      },
    });
    equal(triedAgain, true);
  });

  it("tries again where a policy is not there yet that a token names", () => {
    const answers = { [`PUT acl/token/${id(1)}`]: 'No such ACL policy with name "bad" 500' };
    equal(run({ files: kept, answers }).triedAgain, true);
  });

  it("does not say that all is in place where a list could not be read: nothing would have been revoked", () => {
    const awk = "#!/bin/sh\nexit 127\n";
    const { status, stdout } = run({ files: kept, tokens: [ours(1), ours(2)], programs: { awk } });
    equal(status, 1);
    equal(stdout, "");
  });
});
