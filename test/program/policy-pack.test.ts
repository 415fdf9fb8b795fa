import { deepEqual, equal, ok } from "assert/strict";
import { ChildProcess, spawn } from "child_process";
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
  let pack: ChildProcess;
  let client: AnalyzerClient;
  let resources: readonly Registered[];

  before(async () => {
    resources = (await runFixture("prod")).resources;
    const runner = require.resolve("@pulumi/pulumi/cmd/run-policy-pack");
    const env = { ...process.env, PULUMI_CONFIG: "{}", PULUMI_NODEJS_PROJECT: "consul", PULUMI_NODEJS_STACK: "prod" };
    pack = spawn(process.execPath, [runner, "127.0.0.1:1", "."], { cwd: join(programDir, "policy"), env });
    pack.stderr?.pipe(process.stderr);
    ok(pack.stdout);
    const [port] = (await once(createInterface(pack.stdout), "line")) as [string];
    client = new AnalyzerClient(`127.0.0.1:${port}`, credentials.createInsecure());
  });

  after(() => {
    client.close();
    pack.kill();
  });

  /** The pack's objections to one resource, before the resource is touched. */
  function analyze(resource: Registered, urn = resource.urn): Promise<AnalyzeDiagnostic.AsObject[]> {
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
    return said((done) => client.analyzeStack(request, done));
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

  it("says of what a preview cannot know that it will be checked later, and refuses nothing for it", async () => {
    const config = find("ConfigMap");
    config.inputs.data = unknownText;
    const diagnostics = await analyze(config);
    ok(diagnostics.length > 0);
    for (const { enforcementlevel, message } of diagnostics) {
      equal(enforcementlevel, EnforcementLevel.ADVISORY);
      ok(message.includes("can't be known during preview"), message);
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
