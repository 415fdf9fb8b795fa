import { deepEqual } from "assert/strict";
import { spawnSync } from "child_process";
import { accessorId, marked, owners } from "../../consul/acl";
import { unwanted } from "../../consul/machine/commands";
import { withApi } from "../../consul/scripts";
import { withStandIns } from "./stand-ins";

// unwanted.sh with a curl that plays a server. On real servers: test/local/operations-gossip and operations-tokens.

const curl = `#!/bin/sh
for word in "$@"; do :; done
case $word in
  */operator/keyring) answer=$PLAY/keyring ;;
  */acl/tokens) answer=$PLAY/tokens ;;
esac
[ -s "$answer" ] || { echo "curl: (28) as played" >&2 && exit 28; }
cat "$answer"
`;

const token = (secret: string, description: string) => ({
  CreateIndex: 12,
  AccessorID: accessorId(secret),
  SecretID: secret,
  Description: description,
  Policies: [{ ID: "0", Name: "agents" }],
});
const ofAgents = (secret: string) => token(secret, marked("Agents", owners.agents));
const others = [
  token("server", marked("Server consul-1", owners.servers)),
  token("orders", marked("orders", "0123456789abcdef")),
  token("by hand", "made by hand, not [consul-alicloud:agents] at all"),
  token("bootstrap", "Bootstrap Token (Global Management)"),
];
const keyring = (...keys: string[]) =>
  `${JSON.stringify([{ WAN: false, Datacenter: "dc", Segment: "", Keys: Object.fromEntries(keys.map((key) => [key, 3])), PrimaryKeys: { [keys[0] ?? ""]: 3 }, NumNodes: 3 }])} 200`;
const tokens = (...all: object[]) => `${JSON.stringify([...all, ...others])} 200`;

/** What the script finds where these keys and this token of agents are wanted. An empty answer never comes. */
function found(answers: { readonly keyring: string; readonly tokens: string }, keys = ["a+/=", "b"]): string[] {
  return withStandIns({ curl }, ({ environment, file }) => {
    for (const [name, content] of Object.entries(answers)) file(name, content);
    const args = unwanted(keys, "now").flatMap((call) => call.args);
    const script = file("unwanted.sh", withApi("scripts/unwanted.sh"));
    const { status, stdout } = spawnSync("sh", [script, ...args], { encoding: "utf8", env: environment });
    if (status !== 0) throw new Error(`it ends with ${status ?? "a signal"}`);
    return stdout.split("\n").filter((word) => word !== "");
  });
}

describe("the script that looks for leftover keys and tokens", () => {
  const clean = { keyring: keyring("a+/=", "b"), tokens: tokens(ofAgents("now")) };

  it("finds nothing where nodes have what is wanted, or less", () => {
    deepEqual(found(clean), []);
    deepEqual(found({ keyring: keyring("a+/="), tokens: tokens() }), []);
  });

  it("finds each gossip key that is none of the wanted ones", () => {
    deepEqual(found({ ...clean, keyring: keyring("a+/=", "old==") }), ["key"]);
    deepEqual(found({ ...clean, keyring: keyring("old==", "older", "b") }), ["key", "key"]);
  });

  it("finds a token of agents that is not the one in use, and takes nobody else's for one", () => {
    deepEqual(found({ ...clean, tokens: tokens(ofAgents("before"), ofAgents("now")) }), ["token"]);
    deepEqual(found({ ...clean, tokens: tokens(ofAgents("now"), ofAgents("before")) }), ["token"]);
  });

  it("leaves out what cannot be found out, and fails nobody for it", () => {
    for (const nothing of ["", "2/3 nodes reported success 500", "Permission denied 403"]) {
      deepEqual(found({ keyring: nothing, tokens: tokens(ofAgents("before")) }), ["token"]);
      deepEqual(found({ keyring: keyring("old=="), tokens: nothing }), ["key"]);
    }
  });
});
