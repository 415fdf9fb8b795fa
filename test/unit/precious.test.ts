import { deepEqual, equal, match, ok, throws } from "assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "fs";
import { createServer, IncomingMessage } from "http";
import { AddressInfo } from "net";
import { tmpdir } from "os";
import { join } from "path";
import { forge, putComment } from "../../policy/comment";
import { changes, main, marker, report } from "../../policy/precious";

const urn = (type: string, name: string) => `urn:pulumi:prod::consul::consul:index:EcsServers$${type}::${name}`;
const instance = urn("alicloud:ecs/instance:Instance", "consul-consul-1");
const disk = urn("alicloud:ecs/ecsDisk:EcsDisk", "consul-consul-1-data");
const caKey = urn("tls:index/privateKey:PrivateKey", "consul-trust-ca-key-1");
const rule = urn("alicloud:ecs/securityGroupRule:SecurityGroupRule", "consul-rpc-10.16.0.0-16");

/** A step as the engine writes it. The states in it are not looked at. */
const step = (op: string, of: string, replaceReasons?: string[], diffReasons?: string[]) => ({
  op,
  urn: of,
  provider: "urn:pulumi:prod::consul::pulumi:providers:alicloud::default_3_108_0::04da6b54-80e4-46f7-96ec-b56ff0331ba9",
  oldState: { urn: of, custom: true, type: "t", inputs: { userData: "[secret]" }, protect: true },
  newState: { urn: of, custom: true, type: "t", inputs: { userData: "[secret]" }, protect: true },
  ...(replaceReasons ? { replaceReasons } : {}),
  ...(diffReasons ? { diffReasons } : {}),
  detailedDiff: null,
});
const digest = (...steps: object[]) => ({
  config: { "consul:environment": "prod" },
  steps,
  duration: 1e9,
  changeSummary: {},
});
const lost = (...steps: object[]) => changes(digest(...steps)).map(({ op, loses }) => [op, loses]);

describe("what a preview would lose", () => {
  it("is nothing where servers are created or updated in place", () => {
    deepEqual(lost(step("create", instance), step("update", disk, undefined, ["size"]), step("same", caKey)), [
      ["create", undefined],
      ["update", undefined],
    ]);
  });

  for (const [what, of] of [
    ["server", instance],
    ["disk", disk],
    ["key", caKey],
    ["key", urn("random:index/randomPassword:RandomPassword", "consul-trust-gossip-key-1")],
    ["key", urn("tls:index/selfSignedCert:SelfSignedCert", "consul-trust-ca-1")],
    ["server", urn("kubernetes:apps/v1:StatefulSet", "consul-server")],
    ["server", urn("kubernetes:core/v1:Namespace", "consul-namespace")],
    ["disk", urn("kubernetes:core/v1:PersistentVolumeClaim", "data")],
    ["backup", urn("alicloud:oss/bucket:Bucket", "backups")],
  ] as const) {
    it(`is a ${what} where ${of.split("::")[2]?.split("$")[1] ?? ""} is deleted or replaced`, () => {
      deepEqual(lost(step("delete", of)), [["delete", what]]);
      for (const op of ["replace", "create-replacement", "delete-replaced", "import-replacement"]) {
        deepEqual(lost(step(op, of)), [["replace", what]], op);
      }
    });
  }

  it("is counted once for the three steps of a replacement, with the properties behind it", () => {
    const steps = ["create-replacement", "replace", "delete-replaced"].map((op) =>
      step(op, instance, ["availabilityZone"], ["availabilityZone", "vswitchId"]),
    );
    deepEqual(changes(digest(...steps)), [
      {
        urn: instance,
        type: "alicloud:ecs/instance:Instance",
        name: "consul-consul-1",
        op: "replace",
        because: ["availabilityZone", "vswitchId"],
        loses: "server",
      },
    ]);
  });

  it("is nothing where a security rule or a ConfigMap is replaced: they are made again as they were", () => {
    deepEqual(lost(step("replace", rule), step("delete", urn("kubernetes:core/v1:ConfigMap", "old"))), [
      ["replace", undefined],
      ["delete", undefined],
    ]);
  });

  it("is nothing where only the state is looked at", () => {
    const ops = [
      "same",
      "read",
      "read-replacement",
      "refresh",
      "discard",
      "discard-replaced",
      "remove-pending-replace",
    ];
    deepEqual(lost(...ops.map((op) => step(op, instance))), []);
  });

  it("is a server where an operation of a later CLI is not known", () => {
    deepEqual(lost(step("teleport", instance)), [["unknown", "server"]]);
  });

  it("is not read from what is no preview", () => {
    for (const value of [null, {}, [], { error: "x" }, "text"]) {
      throws(() => changes(value), /not the output of pulumi preview --json/);
    }
    throws(() => changes({ steps: [{ op: "same" }] }), /a step without op and urn/);
    deepEqual(changes({ changeSummary: { same: 3 } }), []);
  });
});

describe("the check in CI", () => {
  let directory: string;
  before(() => (directory = mkdtempSync(join(tmpdir(), "consul-precious-"))));
  after(() => rmSync(directory, { recursive: true }));

  function check(content: string, ...args: string[]) {
    const file = join(directory, "preview.json");
    writeFileSync(file, content);
    let out = "";
    let error = "";
    const write = (text: string) => void (out += text);
    const code = main([file, ...args], write, (text) => void (error += text));
    return { code, out, error };
  }
  const replaced = JSON.stringify(
    digest(step("replace", disk, ["zoneId"]), step("update", rule, undefined, ["description"])),
  );

  it("fails on a replaced disk, and passes with the label", () => {
    const failed = check(replaced, "--stack", "prod");
    equal(failed.code, 1);
    match(
      failed.out,
      /\| \*\*replace: a disk is lost\*\* \| consul-consul-1-data \| alicloud:ecs\/ecsDisk:EcsDisk \| zoneId \|/,
    );
    match(failed.out, /give this request the label `allow-replacement`/);
    const allowed = check(replaced, "--stack", "prod", "--allow");
    equal(allowed.code, 0);
    match(allowed.out, /The label `allow-replacement` says that this is wanted/);
  });

  it("writes the comment with its marker first, and no value in it", () => {
    const comment = join(directory, "comment.md");
    equal(check(replaced, "--stack", "prod", "--comment", comment).code, 1);
    const text = readFileSync(comment, "utf8");
    equal(text.split("\n")[0], marker("prod"));
    ok(!text.includes("[secret]"));
  });

  it("passes and says so where nothing changes", () => {
    const { code, out } = check(JSON.stringify(digest(step("same", instance))), "--stack", "dev");
    equal(code, 0);
    match(out, /No server, disk or key is replaced or deleted\.\n\nNothing changes\.\n$/);
  });

  it("fails on what it cannot read, rather than pass", () => {
    equal(check("", "--stack", "prod").code, 2);
    equal(check('{"message": "error"}', "--stack", "prod").code, 2);
    match(check(replaced).error, /needs a file and --stack/);
    match(check("", "--help").out, /^node --require/);
  });

  it("puts no markup of a resource's name into the comment, and cuts it before the forge refuses it", () => {
    const [nasty] = changes(digest(step("update", urn("a:b/c:D", "x|y](javascript:z)<img>"))));
    ok(nasty);
    match(report("prod", [nasty], false), /\| x\\\|y\\\]\(javascript:z\)\\<img\\> \|/);
    const many = Array.from({ length: 2000 }, () => nasty);
    ok(report("prod", many, false).length < 65_536);
  });
});

describe("the comment on a request", () => {
  interface Call {
    method: string;
    path: string;
    token: string;
    body: string;
  }

  /** A forge that has the given comments and records the requests. */
  async function withForge(
    comments: { id: number; body: string }[],
    use: (url: string, calls: Call[]) => Promise<void>,
  ) {
    const calls: Call[] = [];
    const server = createServer((request, response) => {
      void read(request).then((body) => {
        const { method = "", url = "", headers } = request;
        const token = String(headers["private-token"] ?? headers.authorization);
        calls.push({ method, path: url, token, body });
        if (token.includes("wrong")) return response.writeHead(403).end("no such right");
        const page = Number(new URL(url, "http://x").searchParams.get("page") ?? 1);
        response.end(JSON.stringify(method === "GET" ? comments.slice((page - 1) * 100, page * 100) : {}));
        return response;
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, calls);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }
  async function read(request: IncomingMessage): Promise<string> {
    let text = "";
    for await (const chunk of request) text += String(chunk);
    return text;
  }
  const github = (url: string, token = "t") => ({
    GITHUB_API_URL: url,
    GITHUB_REPOSITORY: "team/consul",
    PULL_REQUEST: "7",
    GITHUB_TOKEN: token,
  });
  const gitlab = (url: string) => ({
    GITLAB_CI: "true",
    CI_API_V4_URL: url,
    CI_PROJECT_ID: "3",
    CI_MERGE_REQUEST_IID: "9",
    GITLAB_TOKEN: "t",
  });
  const text = `${marker("prod")}\nnew`;
  const others = Array.from({ length: 120 }, (_, i) => ({ id: i + 1, body: `I like ${marker("prod")}` }));

  it("is added where there is none yet", async () => {
    await withForge(others.slice(0, 3), async (url, calls) => {
      equal(await putComment(text, forge(github(url))), "added");
      deepEqual(
        calls.map(({ method, path }) => `${method} ${path}`),
        ["GET /repos/team/consul/issues/7/comments?per_page=100&page=1", "POST /repos/team/consul/issues/7/comments"],
      );
      deepEqual(JSON.parse(calls[1]?.body ?? ""), { body: text });
      equal(calls[1]?.token, "Bearer t");
    });
  });

  it("is changed where an earlier run made it, however many others there are", async () => {
    await withForge([...others, { id: 121, body: `${marker("prod")}\nold` }], async (url, calls) => {
      equal(await putComment(text, forge(github(url))), "changed");
      equal(calls.at(-1)?.method, "PATCH");
      equal(calls.at(-1)?.path, "/repos/team/consul/issues/comments/121");
    });
  });

  it("is one for each stack", async () => {
    await withForge([{ id: 1, body: `${marker("dev")}\nold` }], async (url) => {
      equal(await putComment(text, forge(github(url))), "added");
    });
  });

  it("works the same on GitLab", async () => {
    await withForge([{ id: 5, body: `${marker("prod")}\nold` }], async (url, calls) => {
      equal(await putComment(text, forge(gitlab(url))), "changed");
      deepEqual(
        calls.map(({ method, path }) => `${method} ${path}`),
        [
          "GET /projects/3/merge_requests/9/notes?sort=asc&per_page=100&page=1",
          "PUT /projects/3/merge_requests/9/notes/5",
        ],
      );
    });
    await withForge([], async (url, calls) => {
      equal(await putComment(text, forge(gitlab(url))), "added");
      equal(calls.at(-1)?.path, "/projects/3/merge_requests/9/notes");
    });
  });

  it("says what is missing or refused", async () => {
    throws(() => forge({ GITHUB_API_URL: "x", GITHUB_REPOSITORY: "a/b" }), /^Error: PULL_REQUEST is not set$/);
    throws(() => forge({ GITLAB_CI: "true" }), /^Error: CI_API_V4_URL is not set$/);
    await withForge([], async (url) => {
      const refused = await putComment(text, forge(github(url, "wrong"))).catch((error: unknown) => String(error));
      match(refused, /GET http.*: 403 no such right/);
    });
  });
});
