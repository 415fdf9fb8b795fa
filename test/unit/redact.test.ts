import { deepEqual, equal, ok } from "assert/strict";
import { randomBytes, randomUUID } from "crypto";
import { privateKey } from "../../local/certificates";
import { redact } from "../../operate/redact";

describe("texts that people send around", () => {
  const clean = (text: string, known: readonly string[] = []) => redact(new Map([["a", text]]), known).get("a") ?? "";

  it("have no secret that is known, as it is, in JSON, in base64, or line by line", () => {
    const key = String(privateKey({ algorithm: "ECDSA", ecdsaCurve: "P256" }).outputs.privateKeyPem);
    const secret = 'a "quoted" secret';
    const line = key.split("\n")[1] ?? "";
    const text = [key, JSON.stringify({ key, secret }), Buffer.from(secret).toString("base64"), `x${line}y`].join("\n");
    const left = clean(text, [key, secret]);
    for (const part of [line, "quoted", Buffer.from(secret).toString("base64")]) ok(!left.includes(part), left);
  });

  const looks: [string, string][] = [
    ["a private key", String(privateKey({ algorithm: "ECDSA", ecdsaCurve: "P256" }).outputs.privateKeyPem)],
    ["the beginning of one", "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIabc"],
    ["a gossip key of 32 bytes", randomBytes(32).toString("base64")],
    ["a gossip key of 16 bytes", randomBytes(16).toString("base64")],
    ["a token", randomUUID()],
    ["a token in capitals", randomUUID().toUpperCase()],
    ["an access key of the cloud", "LTAI5tQx7cYJ9example01"],
    ["a service account's token", "eyJhbGciOiJSUzI1NiIsIm.eyJpc3MiOiJrdWJlcm5ldGVz.c2lnbmF0dXJlLXNpZ25hdHVyZQ"],
  ];
  for (const [what, secret] of looks) {
    it(`have nothing that looks like ${what}`, () => {
      for (const text of [secret, `a "${secret}" b`, `key=${secret}\nnext`]) {
        const left = clean(text);
        ok(left.includes("[secret]"), left);
        ok(!left.includes(secret.split("\n").at(1) ?? secret) && !left.includes(secret), left);
      }
    });
  }

  it("have no value behind a name that says that it is secret", () => {
    for (const name of ["X-Consul-Token", "AccessKeySecret", "SecurityToken", '"SecretID"', "password"]) {
      equal(clean(`${name}: abc-def-ghi-jkl end`), `${name}: [secret] end`);
    }
  });

  it("keep the ids of nodes and accessors in all texts, and digests, certificates and times", () => {
    const [node, accessor, token] = [randomUUID(), randomUUID(), randomUUID()];
    const texts = new Map([
      ["raft", JSON.stringify({ Servers: [{ ID: node, Address: "10.0.0.1:8300" }] })],
      ["self", JSON.stringify({ AccessorID: accessor })],
      ["log", `joined ${node}; accessor ${accessor}; token ${token}`],
      ["digest", `${"0123456789abcdef".repeat(4)} 2026-11-29T12:00:00Z`],
    ]);
    const left = redact(texts, []);
    equal(left.get("log"), `joined ${node}; accessor ${accessor}; token [secret]`);
    for (const name of ["raft", "self", "digest"]) equal(left.get(name), texts.get(name));
    // One that is known to be secret is secret, wherever it stands.
    equal(redact(new Map([["a", JSON.stringify({ ID: token })]]), [token]).get("a"), '{"ID":"[secret]"}');
    deepEqual([...left.keys()], [...texts.keys()]);
  });
});
