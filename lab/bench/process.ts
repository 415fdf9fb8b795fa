import * as grpc from "@grpc/grpc-js";
import { MockMonitor } from "@pulumi/pulumi/runtime/mocks";
import { EngineService } from "@pulumi/pulumi/proto/engine_grpc_pb";
import { LogRequest, LogSeverity, RequirePulumiVersionResponse } from "@pulumi/pulumi/proto/engine_pb";
import { ResourceMonitorService } from "@pulumi/pulumi/proto/resource_grpc_pb";
import { spawn } from "child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "fs";
import { Empty } from "google-protobuf/google/protobuf/empty_pb";
import { tmpdir } from "os";
import { join } from "path";
import { parse } from "yaml";
import { programDir, Providers, stackConfig } from "../../local/program";

export interface ProcessRun {
  readonly exitCode: number | null;
  /** Types of the resources that were registered. */
  readonly types: readonly string[];
  /** What the program told the engine, errors included. */
  readonly log: string;
  /** What the program printed. */
  readonly printed: string;
  /** Seconds of CPU, user and system, that the program's process used. */
  readonly cpu: number;
  /** Peak memory of that process in MB. */
  readonly memory: number;
}

export interface ProcessOptions {
  readonly directory?: string;
  readonly config?: Readonly<Record<string, string>>;
  /** Pulumi's own way of loading a TypeScript program, instead of what Pulumi.yaml says. */
  readonly pulumiDefault?: boolean;
}

/**
 * Runs the program in a process of its own, as the language host of the Pulumi CLI starts it for a preview, with the
 * options of Pulumi.yaml. (An update would ask the cloud whether the servers are well.) The monitor and the engine that
 * the program talks to over gRPC are made here, on loopback.
 */
export async function runProcess(
  stack: string,
  providers: Providers,
  options: ProcessOptions = {},
): Promise<ProcessRun> {
  const directory = options.directory ?? programDir;
  const runtime = (
    parse(readFileSync(join(directory, "Pulumi.yaml"), "utf8")) as {
      runtime: { options: { typescript?: boolean; nodeargs?: string } };
    }
  ).runtime.options;
  const types: string[] = [];
  const log: string[] = [];
  const server = await serve(providers, types, log);
  const scratch = mkdtempSync(join(tmpdir(), "consul-program-"));
  try {
    const usage = join(scratch, "usage.json");
    const measure = join(scratch, "measure.js");
    writeFileSync(
      measure,
      `process.on("exit", () => require("fs").writeFileSync(${JSON.stringify(usage)}, JSON.stringify(process.resourceUsage())));`,
    );
    const nodeArgs = options.pulumiDefault ? [] : (runtime.nodeargs ?? "").split(" ").filter(Boolean);
    const runner = join(directory, "node_modules/@pulumi/pulumi/cmd/run");
    const child = spawn(
      process.execPath,
      [...nodeArgs, "--require", measure, runner, "--monitor", server.address, "--engine", server.address]
        .concat(["--project", "consul", "--stack", stack, "--organization", "organization", "--pwd", directory])
        .concat(["--dry-run", "--parallel", "16", join(directory, "index.ts")]),
      {
        cwd: directory,
        env: {
          ...process.env,
          PULUMI_CONFIG: JSON.stringify(options.config ?? stackConfig(stack)),
          PULUMI_CONFIG_SECRET_KEYS: "[]",
          PULUMI_NODEJS_TYPESCRIPT: String(options.pulumiDefault ?? runtime.typescript ?? true),
        },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    const stop = () => child.kill("SIGKILL");
    process.once("exit", stop);
    let printed = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => (printed += chunk.toString()));
    }
    const exitCode = await new Promise<number | null>((resolve) => child.on("close", resolve));
    process.off("exit", stop);
    const used = JSON.parse(readFileSync(usage, "utf8")) as NodeJS.ResourceUsage;
    const cpu = (used.userCPUTime + used.systemCPUTime) / 1e6;
    return { exitCode, types, log: log.join("\n"), printed, cpu, memory: used.maxRSS / 1024 };
  } finally {
    server.stop();
    rmSync(scratch, { recursive: true, force: true });
  }
}

type Unary = grpc.handleUnaryCall<unknown, unknown>;
type Handler = (request: unknown, callback: (error: unknown, reply: unknown) => void) => unknown;

/** A monitor and an engine over gRPC: Pulumi's own test monitor behind the service that programs talk to. */
async function serve(providers: Providers, types: string[], log: string[]) {
  const monitor = new MockMonitor({
    newResource: (args) => {
      types.push(args.type);
      if (args.custom === false && args.type !== "pulumi:pulumi:StackReference") return { id: undefined, state: {} };
      return providers.resource(args);
    },
    call: (args) => providers.call(args),
  }) as unknown as Record<string, Handler | undefined>;

  const answer =
    (handle: Handler): Unary =>
    (call, callback) =>
      void handle(call.request, (error, reply) => callback(error as grpc.ServiceError | null, reply));
  const empty: Handler = (_, callback) => callback(null, new Empty());
  const known: Record<string, Handler> = {
    supportsFeature,
    registerResourceOutputs: empty,
    signalAndWaitForShutdown: empty,
    registerResourceHook: empty,
    registerErrorHook: empty,
    requirePulumiVersion: (_, callback) => callback(null, new RequirePulumiVersionResponse()),
    log: (request, callback) => {
      const line = request as LogRequest;
      if (line.getSeverity() !== LogSeverity.DEBUG) log.push(line.getMessage());
      callback(null, new Empty());
    },
  };
  const implement = (service: grpc.ServiceDefinition) =>
    Object.fromEntries(
      Object.keys(service).map((method) => {
        const own = monitor[method]?.bind(monitor);
        return [
          method,
          answer(known[method] ?? own ?? ((_, done) => done({ code: grpc.status.UNIMPLEMENTED }, undefined))),
        ];
      }),
    );
  const server = new grpc.Server();
  const monitorService = ResourceMonitorService as unknown as grpc.ServiceDefinition;
  const engineService = EngineService as unknown as grpc.ServiceDefinition;
  server.addService(monitorService, implement(monitorService));
  server.addService(engineService, { ...implement(engineService), ...engineState() });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  return { address: `127.0.0.1:${port}`, stop: () => server.forceShutdown() };
}

function supportsFeature(request: unknown, callback: (error: unknown, reply: unknown) => void) {
  const { SupportsFeatureResponse } =
    require("@pulumi/pulumi/proto/resource_pb") as typeof import("@pulumi/pulumi/proto/resource_pb");
  const reply = new SupportsFeatureResponse();
  // As MockMonitor has it: without outputValues, so that inputs arrive as plain values and marked secrets.
  reply.setHassupport((request as { getId(): string }).getId() !== "outputValues");
  callback(null, reply);
}

/** The engine remembers which resource is the stack. */
function engineState(): Record<string, Unary> {
  const { GetRootResourceResponse, SetRootResourceResponse } =
    require("@pulumi/pulumi/proto/engine_pb") as typeof import("@pulumi/pulumi/proto/engine_pb");
  let root = "";
  return {
    getRootResource: (_, callback) => {
      const reply = new GetRootResourceResponse();
      reply.setUrn(root);
      callback(null, reply);
    },
    setRootResource: (call, callback) => {
      root = (call.request as { getUrn(): string }).getUrn();
      callback(null, new SetRootResourceResponse());
    },
  };
}
