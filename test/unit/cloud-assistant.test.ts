import "reflect-metadata"; // @peculiar/x509 needs this
import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import * as x509 from "@peculiar/x509";
import { webcrypto } from "crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "fs";
import { createServer, Server } from "https";
import { AddressInfo } from "net";
import { tmpdir } from "os";
import { join } from "path";
import * as pulumi from "@pulumi/pulumi";
import { MustBeStoppedError, RefusedError } from "../../components/ecs/cloud";
import { EcsApi } from "../../components/ecs/ecs-api";
import { Command, commandText } from "../../consul/machine/commands";
import { loadCloudConfig } from "../../settings";

type Call = Record<string, string>;

const hello: Command = [{ script: "machine/hand-over.sh", args: ["it's $HOME"] }];
type Answer = readonly [status: number, body: object];

/** The real SDK against an API on this machine. The SDK finds the API by the variables that the provider reads. */
describe("commands through Cloud Assistant", () => {
  let server: Server;
  let directory: string;
  let calls: Call[];
  let answers: Record<string, (call: Call, n: number) => Answer>;
  const saved = { ...process.env };

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "consul-cloud-"));
    const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
    const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      name: "CN=simulated",
      keys,
      signingAlgorithm: algorithm,
      extensions: [new x509.SubjectAlternativeNameExtension([{ type: "ip", value: "127.0.0.1" }])],
    });
    const cert = certificate.toString("pem");
    const key = x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY");
    server = createServer({ key, cert }, (request, response) => {
      let body = "";
      request.on("data", (chunk) => (body += String(chunk)));
      request.on("end", () => {
        const query = new URL(request.url ?? "", "https://simulated").searchParams;
        const call = Object.fromEntries([...query, ...new URLSearchParams(body)]);
        calls.push(call);
        const earlier = calls.filter(({ Action }) => Action === call.Action).length - 1;
        const [status, answer] = answers[call.Action ?? ""]?.(call, earlier) ?? [404, { Code: "InvalidAction" }];
        if (status === 0) return void request.socket.destroy();
        response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(answer));
      });
    });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    writeFileSync(join(directory, "ca.pem"), cert);
    Object.assign(process.env, {
      SSL_CERT_FILE: join(directory, "ca.pem"),
      ALIBABA_CLOUD_ENDPOINT_ECS: `127.0.0.1:${(server.address() as AddressInfo).port}`,
      ALICLOUD_ACCESS_KEY: "key-id",
      ALICLOUD_SECRET_KEY: "key-secret",
    });
  });
  after(() => {
    process.env = saved;
    server.closeAllConnections();
    server.close();
    rmSync(directory, { recursive: true });
  });

  beforeEach(() => {
    calls = [];
    answers = {
      DescribeCloudAssistantStatus: () => [200, agents("i-1", "i-2")],
      RunCommand: () => [200, { InvokeId: "t-1" }],
      DescribeInvocationResults: () => [200, results(done("i-1", "one\n"), done("i-2", "two\n"))],
    };
  });

  function agents(...ready: string[]) {
    const of = (id: string) => ({ InstanceId: id, CloudAssistantStatus: String(ready.includes(id)) });
    return { InstanceCloudAssistantStatusSet: { InstanceCloudAssistantStatus: ["i-1", "i-2"].map(of) } };
  }
  function done(InstanceId: string, output: string, InvocationStatus = "Success", more: object = { ExitCode: 0 }) {
    return { InstanceId, InvocationStatus, Output: Buffer.from(output).toString("base64"), ...more };
  }
  const results = (...of: object[]) => ({ Invocation: { InvocationResults: { InvocationResult: of } } });
  const actions = () => calls.map(({ Action }) => Action);

  function connect(): EcsApi {
    pulumi.runtime.setAllConfig({ "alicloud:region": "cn-hangzhou" });
    return new EcsApi(loadCloudConfig());
  }

  it("sends a command to the machines whose agents are there and fetches what it printed", async () => {
    const outcomes = await connect().run(["i-1", "i-2"], hello);
    deepEqual(Object.fromEntries(outcomes), { "i-1": { output: "one\n" }, "i-2": { output: "two\n" } });
    deepEqual(actions(), ["DescribeCloudAssistantStatus", "RunCommand", "DescribeInvocationResults"]);
    const [status, command, result] = calls;
    deepEqual([status?.["InstanceId.1"], status?.["InstanceId.2"]], ["i-1", "i-2"]);
    equal(Buffer.from(command?.CommandContent ?? "", "base64").toString(), commandText(hello));
    deepEqual(
      [command?.Type, command?.ContentEncoding, command?.["InstanceId.2"], command?.RegionId, command?.AccessKeyId],
      ["RunShellScript", "Base64", "i-2", "cn-hangzhou", "key-id"],
    );
    equal(result?.InvokeId, "t-1");
  });

  it("waits while it runs", async () => {
    answers.DescribeInvocationResults = (_, n) => [
      200,
      results(done("i-1", "one\n"), n < 2 ? done("i-2", "", "Running") : done("i-2", "two\n")),
    ];
    const outcomes = await connect().run(["i-1", "i-2"], hello);
    deepEqual(outcomes.get("i-2"), { output: "two\n" });
    equal(actions().filter((action) => action === "DescribeInvocationResults").length, 3);
  });

  it("says which machine's agent is not there, and asks the others", async () => {
    answers.DescribeCloudAssistantStatus = () => [200, agents("i-2")];
    answers.DescribeInvocationResults = () => [200, results(done("i-2", "two\n"))];
    const outcomes = await connect().run(["i-1", "i-2"], hello);
    deepEqual(outcomes.get("i-1"), { problem: "its Cloud Assistant is not there" });
    deepEqual(outcomes.get("i-2"), { output: "two\n" });
    equal(calls[1]?.["InstanceId.2"], undefined);
    answers.DescribeCloudAssistantStatus = () => [200, agents()];
    calls.length = 0;
    equal((await connect().run(["i-1"], hello)).size, 1);
    deepEqual(actions(), ["DescribeCloudAssistantStatus"]);
  });

  it("says why a command failed", async () => {
    answers.DescribeInvocationResults = () => [
      200,
      results(
        done("i-1", "first\nkeyring: no\n", "Failed", { ExitCode: 1 }),
        done("i-2", "", "Timeout", { ErrorCode: "ClientNotResponse", ErrorInfo: "no answer" }),
      ),
    ];
    const outcomes = await connect().run(["i-1", "i-2"], hello);
    deepEqual(Object.fromEntries(outcomes), {
      "i-1": { problem: "the command ended as Failed (1): keyring: no", ran: true },
      "i-2": { problem: "the command ended as Timeout: ClientNotResponse, no answer" },
    });
  });

  it("tries again what is throttled or does not come through, and gives up in the end", async () => {
    answers.RunCommand = (_, n) =>
      n === 0
        ? [400, { Code: "Throttling.User", Message: "Request was denied due to user flow control." }]
        : n === 1
          ? [503, { Code: "ServiceUnavailable", Message: "busy" }]
          : n === 2
            ? [0, {}]
            : [200, { InvokeId: "t-1" }];
    equal((await connect().run(["i-1", "i-2"], hello)).size, 2);
    equal(actions().filter((action) => action === "RunCommand").length, 4);
  });

  it("does not repeat what is wrong for good, and says which permissions it needs", async () => {
    answers.RunCommand = () => [403, { Code: "Forbidden.RAM", Message: "not authorized" }];
    await rejects(connect().run(["i-1"], hello), (error) => {
      ok(error instanceof RefusedError);
      match(
        error.message,
        /^the cloud refuses: Forbidden.RAM, .*not authorized.*; the credentials need ecs:DescribeInstances, .*ecs:RunCommand/,
      );
      return true;
    });
    answers.RunCommand = () => [404, { Code: "InvalidInstance.NotFound", Message: "gone" }];
    await rejects(connect().run(["i-1"], hello), /^Error: the ECS API fails: InvalidInstance.NotFound .*gone/);
    equal(actions().filter((action) => action === "RunCommand").length, 2);
  });

  it("has the credentials of the CLI's profile that the stack file names", async () => {
    mkdirSync(join(directory, ".aliyun"), { recursive: true });
    const profile = { name: "ops", mode: "AK", access_key_id: "of-ops", access_key_secret: "secret", region_id: "r" };
    writeFileSync(join(directory, ".aliyun", "config.json"), JSON.stringify({ current: "other", profiles: [profile] }));
    const { ALICLOUD_ACCESS_KEY, ALICLOUD_SECRET_KEY, HOME } = process.env;
    Object.assign(process.env, { HOME: directory });
    delete process.env.ALICLOUD_ACCESS_KEY;
    delete process.env.ALICLOUD_SECRET_KEY;
    try {
      pulumi.runtime.setAllConfig({ "alicloud:region": "cn-hangzhou", "alicloud:profile": "ops" });
      await new EcsApi(loadCloudConfig()).run(["i-1"], hello);
      equal(calls.find(({ Action }) => Action === "RunCommand")?.AccessKeyId, "of-ops");
    } finally {
      Object.assign(process.env, { ALICLOUD_ACCESS_KEY, ALICLOUD_SECRET_KEY, HOME });
    }
  });

  it("stores user data of a machine that runs, and says where it has to be stopped for that", async () => {
    answers.ModifyInstanceAttribute = (_, n) =>
      n === 0 ? [200, {}] : [403, { Code: "IncorrectInstanceStatus", Message: "not in this status" }];
    await connect().storeUserData("i-1", "dGV4dA==");
    deepEqual([calls[0]?.InstanceId, calls[0]?.UserData], ["i-1", "dGV4dA=="]);
    await rejects(connect().storeUserData("i-1", "dGV4dA=="), MustBeStoppedError);
    answers.StopInstance = () => [200, {}];
    await connect().power("i-1", "stop");
    deepEqual([calls.at(-1)?.InstanceId, calls.at(-1)?.StoppedMode], ["i-1", "KeepCharging"]);
  });

  it("finds machines by VPC and tag", async () => {
    const Instance = [{ InstanceId: "i-1", InstanceName: "consul-1", Status: "Stopped", VpcAttributes: {} }];
    answers.DescribeInstances = () => [200, { Instances: { Instance } }];
    deepEqual(await connect().machines("vpc-1", { key: "consul-datacenter", value: "dc1" }), [
      { id: "i-1", name: "consul-1", status: "Stopped" },
    ]);
    deepEqual(
      [calls[0]?.VpcId, calls[0]?.["Tag.1.Key"], calls[0]?.["Tag.1.Value"]],
      ["vpc-1", "consul-datacenter", "dc1"],
    );
  });
});

describe("where the cloud is found", () => {
  const saved = { ...process.env };
  afterEach(() => {
    process.env = { ...saved };
    pulumi.runtime.setAllConfig({});
  });

  it("is the provider's configuration first, then its variables", () => {
    Object.assign(process.env, {
      ALICLOUD_REGION: "cn-shanghai",
      ALIBABA_CLOUD_ACCESS_KEY_ID: "from env",
      ECS_ENDPOINT: "h:1",
    });
    pulumi.runtime.setAllConfig({});
    deepEqual(
      [loadCloudConfig().region, loadCloudConfig().accessKey, loadCloudConfig().endpoint],
      ["cn-shanghai", "from env", "h:1"],
    );
    pulumi.runtime.setAllConfig({
      "alicloud:region": "cn-hangzhou",
      "alicloud:accessKey": "from config",
      "alicloud:endpoints": '[{"vpc":"v:1","ecs":"e:2"}]',
      "alicloud:assumeRole": '{"roleArn":"acs:ram::1:role/ci"}',
    });
    deepEqual(
      [
        loadCloudConfig().region,
        loadCloudConfig().accessKey,
        loadCloudConfig().endpoint,
        loadCloudConfig().assumeRole?.roleArn,
      ],
      ["cn-hangzhou", "from config", "e:2", "acs:ram::1:role/ci"],
    );
  });
});
