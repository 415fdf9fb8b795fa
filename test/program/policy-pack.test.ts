import { deepEqual, equal, ok } from "assert/strict";
import { spawn } from "child_process";
import { once } from "events";
import { join } from "path";
import { createInterface } from "readline";
import { credentials } from "@grpc/grpc-js";
import { AnalyzerClient } from "@pulumi/pulumi/proto/analyzer_grpc_pb";
import {
  AnalyzeDiagnostic,
  AnalyzeRequest,
  AnalyzeResponse,
  AnalyzerResource,
  AnalyzerResourceOptions,
  AnalyzeStackRequest,
  EnforcementLevel,
} from "@pulumi/pulumi/proto/analyzer_pb";
import { Struct } from "google-protobuf/google/protobuf/struct_pb";
import { programDir, Registered } from "../../local/program";
import { runFixture } from "../../local/fixtures";

/** The engine's marks for a secret, and for a value that a preview cannot know. */
const secret = (value: unknown) => ({ "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", value });
const unknownText = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";

/** The policy pack in a process of its own, started as Pulumi's CLI starts it. This test plays the engine. */
describe("the policy pack in its own process", () => {
  let pack: Awaited<ReturnType<typeof start>>;
  let resources: readonly Registered[];

  /** Starts the pack in a stack that has these settings. */
  async function start(config: Readonly<Record<string, string>>) {
    const runner = require.resolve("@pulumi/pulumi/cmd/run-policy-pack");
    const names = { PULUMI_NODEJS_PROJECT: "consul", PULUMI_NODEJS_STACK: "prod" };
    const env = { ...process.env, PULUMI_CONFIG: JSON.stringify(config), ...names };
    const child = spawn(process.execPath, [runner, "127.0.0.1:1", "."], { cwd: join(programDir, "policy"), env });
    child.stderr.pipe(process.stderr);
    const [port] = (await once(createInterface(child.stdout), "line")) as [string];
    const client = new AnalyzerClient(`127.0.0.1:${port}`, credentials.createInsecure());
    const stop = () => {
      client.close();
      child.kill();
    };
    return { client, stop };
  }

  before(async () => {
    resources = (await runFixture("prod")).resources;
    pack = await start({});
  });

  after(() => pack.stop());

  /** The pack's objections to one resource, before the resource is touched. */
  function analyze(
    resource: Registered,
    urn = resource.urn,
    client = pack.client,
  ): Promise<AnalyzeDiagnostic.AsObject[]> {
    const request = new AnalyzeRequest();
    request.setType(resource.type);
    request.setName(resource.name);
    request.setUrn(urn);
    request.setProperties(Struct.fromJavaScript(wrapped(resource) as Parameters<typeof Struct.fromJavaScript>[0]));
    request.setOptions(optionsOf(resource));
    return said((done) => client.analyze(request, done));
  }

  function analyzeStack(all: readonly Registered[]): Promise<AnalyzeDiagnostic.AsObject[]> {
    const request = new AnalyzeStackRequest();
    for (const resource of all) {
      const entry = new AnalyzerResource();
      entry.setType(resource.type);
      entry.setName(resource.name);
      entry.setUrn(resource.urn);
      entry.setProperties(Struct.fromJavaScript(wrapped(resource) as Parameters<typeof Struct.fromJavaScript>[0]));
      entry.setOptions(optionsOf(resource));
      request.addResources(entry);
    }
    return said((done) => pack.client.analyzeStack(request, done));
  }

  const find = (type: string) => {
    const found = resources.find((resource) => resource.type.endsWith(`:${type}`));
    ok(found);
    return structuredClone(found);
  };

  it("has nothing against the program's own resources", async () => {
    for (const resource of resources) deepEqual(await analyze(resource), [], resource.urn);
    deepEqual(await analyzeStack(resources), []);
  });

  it("stops a resource that breaks a rule, before it is touched", async () => {
    const rule = find("SecurityGroupRule");
    rule.inputs.cidrIp = "0.0.0.0/0";
    const [diagnostic, ...rest] = await analyze(rule);
    equal(rest.length, 0);
    equal(diagnostic?.policyname, "no-world-open-rule");
    equal(diagnostic.enforcementlevel, EnforcementLevel.MANDATORY);
    ok(diagnostic.message.includes("lets in 0.0.0.0/0"), diagnostic.message);
  });

  it("stops a stack that has lost a server", async () => {
    const lost = resources.filter(({ name }) => name !== "consul-consul-2");
    deepEqual(
      (await analyzeStack(lost)).map(({ policyname }) => policyname),
      ["odd-number-of-servers"],
    );
  });

  it("knows prod by the stack's name where no setting says it", async () => {
    const disk = find("EcsDisk");
    Object.assign(disk.options, { protect: false });
    const names = async (stack: string) =>
      (await analyze(disk, disk.urn.replace("urn:pulumi:prod::", `urn:pulumi:${stack}::`))).map((d) => d.policyname);
    deepEqual(await names("prod"), ["protected-in-prod"]);
    deepEqual(await names("prod-agents"), ["protected-in-prod"]);
    deepEqual(await names("dev"), []);
  });

  it("says nothing of what a preview cannot know, of a resource or of the stack, and holds for all that is known", async () => {
    const config = find("ConfigMap");
    config.inputs.data = unknownText;
    deepEqual(await analyze(config), []);
    config.inputs.binaryData = { key: Buffer.from("-----BEGIN PRIVATE KEY-----").toString("base64") };
    deepEqual(
      (await analyze(config)).map(({ policyname, enforcementlevel }) => [policyname, enforcementlevel]),
      [["no-plain-secrets", EnforcementLevel.MANDATORY]],
    );
    const hidden = resources.map((one) => ({
      ...one,
      inputs: Object.fromEntries(Object.keys(one.inputs).map((key) => [key, unknownText])),
    }));
    deepEqual(await analyzeStack(hidden), []);
    for (const one of hidden) deepEqual(await analyze(one), [], one.urn);
  });

  it("knows the stack's settings from the engine", async () => {
    const machine = find("Instance");
    machine.inputs.httpTokens = "optional";
    deepEqual(
      (await analyze(machine)).map(({ policyname }) => policyname),
      ["metadata-tokens"],
    );
    const servers = JSON.stringify({ metadataTokens: "optional" });
    const other = await start({ "consul:environment": "prod", "consul:servers": servers });
    try {
      deepEqual(await analyze(machine, machine.urn, other.client), []);
    } finally {
      other.stop();
    }
  });
});

function wrapped({ inputs, secretInputs }: Registered): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(inputs).map(([key, value]) => [key, secretInputs.includes(key) ? secret(value) : value]),
  );
}

function optionsOf({ options }: Registered): AnalyzerResourceOptions {
  const shown = new AnalyzerResourceOptions();
  shown.setProtect(options.protect);
  shown.setAdditionalsecretoutputsList([...options.additionalSecretOutputs]);
  return shown;
}

function said(
  ask: (done: (error: Error | null, response?: AnalyzeResponse) => void) => unknown,
): Promise<AnalyzeDiagnostic.AsObject[]> {
  return new Promise((resolve, reject) => {
    ask((error, response) => {
      if (error || !response) reject(error ?? new Error("no answer"));
      else resolve(response.getDiagnosticsList().map((diagnostic) => diagnostic.toObject()));
    });
  });
}
