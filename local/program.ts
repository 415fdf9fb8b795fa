import * as pulumi from "@pulumi/pulumi";
import { MockMonitor } from "@pulumi/pulumi/runtime/mocks";
import { readFileSync } from "fs";
import { join } from "path";
import { parse } from "yaml";
import { Cloud } from "../components/ecs/cloud";
import { FakeCloud } from "../components/ecs/fake-cloud";
import { stableJson } from "../consul/node";
import { digest } from "../consul/secrets";
import { loadSettings, Settings } from "../settings";
import { consulStack } from "../stacks/consul";
import { holdsSecret, plain } from "./marks";

/** The directory of the program, where index.ts and Pulumi.yaml are. */
export const programDir = join(__dirname, "..");

/** A resource as the program registered it: inputs with secrets unwrapped, and the options that matter. */
export interface Registered {
  readonly urn: string;
  readonly type: string;
  readonly name: string;
  readonly custom: boolean;
  readonly inputs: Record<string, unknown>;
  /** Top-level inputs that are secret. */
  readonly secretInputs: readonly string[];
  readonly options: {
    readonly parent: string;
    readonly provider: string;
    readonly dependsOn: readonly string[];
    /** For each input, the resources it comes from. */
    readonly inputDependencies: Readonly<Record<string, readonly string[]>>;
    readonly protect: boolean;
    readonly deleteBeforeReplace: boolean;
    readonly deletedWith: string;
    readonly retainOnDelete: boolean;
    readonly ignoreChanges: readonly string[];
    readonly replaceOnChanges: readonly string[];
    readonly additionalSecretOutputs: readonly string[];
    readonly customTimeouts: Readonly<Record<string, string>>;
    readonly hooks: Readonly<Record<string, readonly string[]>>;
  };
}

/** What a provider answers for one resource: its id and outputs. */
export interface Provided {
  readonly id: string;
  readonly state: Record<string, unknown>;
}

/** Stands in for the providers: called for each resource and each function of a provider. */
export interface Providers {
  resource(args: pulumi.runtime.MockResourceArgs): Provided | Promise<Provided>;
  call(args: pulumi.runtime.MockCallArgs): Record<string, unknown> | Promise<Record<string, unknown>>;
  /** Machines of servers on ECS; a fake whose servers are all well unless given. */
  readonly cloud?: Cloud;
}

export interface ProgramRun {
  readonly resources: readonly Registered[];
  /** Outputs of the stack by name, and which of them are secret. */
  readonly outputs: Readonly<Record<string, { readonly value: unknown; readonly secret: boolean }>>;
}

/**
 * The configuration of a stack as the engine would hand it to the program: defaults of Pulumi.yaml, then the stack's
 * own file. Values that are not text are JSON. `secure:` values cannot be read without the engine and are an error.
 */
export function stackConfig(stack: string, directory = programDir): Record<string, string> {
  const project = parse(readFileSync(join(directory, "Pulumi.yaml"), "utf8")) as {
    config?: Record<string, { default?: unknown }>;
  };
  const own = parse(readFileSync(join(directory, `Pulumi.${stack}.yaml`), "utf8")) as {
    config?: Record<string, unknown>;
  };
  const merged: Record<string, unknown> = {};
  for (const [key, entry] of Object.entries(project.config ?? {})) {
    if (entry.default !== undefined) merged[`consul:${key}`] = entry.default;
  }
  Object.assign(merged, own.config ?? {});
  const text = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));
  return Object.fromEntries(Object.entries(merged).map(([key, value]) => [key, text(value)]));
}

/** The version of Consul that Pulumi.yaml pins: what a stack has that names no other. */
export const pinnedVersion = stackConfig("local")["consul:version"] ?? "";

// The mock monitor claims to know hooks and does not: without these two answers no hook would ever be registered.
Object.assign(MockMonitor.prototype, {
  registerResourceHook: (_: unknown, done: (error: unknown, reply: object) => void) => done(null, {}),
  registerErrorHook: (_: unknown, done: (error: unknown, reply: object) => void) => done(null, {}),
});

/**
 * Runs the whole program in this process against Pulumi's own test monitor, until everything is registered.
 * Runs must follow one another.
 * @param config every setting of the stack: key to text or JSON
 * @param load the program that is run: as index.ts unless given
 * @throws what the program throws, or the first failure of an output
 */
export async function runProgram(
  stack: string,
  config: Readonly<Record<string, string>>,
  providers: Providers,
  load?: () => unknown,
): Promise<ProgramRun> {
  const resources: Registered[] = [];
  let failure: unknown;
  let failed: (error: unknown) => void = () => undefined;
  // Where a resource cannot be registered, whatever depends on it never settles: the first failure ends the run.
  const failing = new Promise<void>((resolve) => (failed = (error) => resolve(void (failure ??= error))));
  /** Takes note of a provider's failure: Pulumi does not pass the failure on to everything that waits. */
  const noted = async <T>(answer: () => T | Promise<T>): Promise<T> => {
    try {
      return await answer();
    } catch (error) {
      failed(error);
      throw error;
    }
  };
  let fake: FakeCloud | undefined;
  await pulumi.runtime.setMocks(
    {
      newResource: async (args) => {
        // The ids of components and the stack are not a provider's business.
        if (args.custom === false && args.type !== "pulumi:pulumi:StackReference") return { id: undefined, state: {} };
        const inputs = named(args.type, args.name, plain(args.inputs) as Record<string, unknown>);
        if (args.type === "alicloud:ecs/instance:Instance") {
          const { instanceName, tags } = inputs as { instanceName: string; tags: Record<string, string> };
          fake?.booted(instanceName, tags["consul-config"] ?? "");
        }
        return noted(() => providers.resource({ ...args, inputs }));
      },
      call: (args) => noted(() => providers.call(args)),
    },
    "consul",
    stack,
    false,
    "organization",
  );
  pulumi.runtime.setAllConfig({ ...config });
  record(resources);

  /** As index.ts, with another cloud. */
  const ownProgram = (): unknown => {
    const settings = loadSettings();
    const cloud = providers.cloud ?? wellCloud(settings);
    if (cloud instanceof FakeCloud) fake = cloud;
    return consulStack(settings, cloud);
  };

  process.on("unhandledRejection", failed);
  try {
    const exported = (await (load ?? ownProgram)()) as Record<string, pulumi.Output<unknown>>;
    const outputs: Record<string, { value: unknown; secret: boolean }> = {};
    for (const [name, output] of Object.entries(exported)) {
      const wrapped = pulumi.output(output);
      const settled = wrapped as unknown as { promise(): Promise<unknown>; isSecret: Promise<boolean> };
      const value = await Promise.race([settled.promise(), failing]);
      if (failure !== undefined) break;
      outputs[name] = { value, secret: await settled.isSecret };
    }
    await Promise.race([(pulumi.runtime as unknown as { waitForRPCs(): Promise<void> }).waitForRPCs(), failing]);
    await new Promise((resolve) => setImmediate(resolve));
    if (failure !== undefined) throw failure as Error;
    return { resources: resources.sort((a, b) => (a.urn < b.urn ? -1 : 1)), outputs };
  } finally {
    process.off("unhandledRejection", failed);
  }
}

/** A fake cloud whose servers are all well. */
function wellCloud({ servers, version }: Settings): FakeCloud {
  const names = servers?.platform === "ecs" ? servers.nodes.map(({ name }) => name) : [];
  return new FakeCloud({ names, version });
}

/** Records every resource from the request that registers it: Pulumi's mocks show inputs, but no options. */
function record(into: Registered[]): void {
  const monitor = pulumi.runtime as unknown as { getMonitor(): MockMonitor };
  const target = monitor.getMonitor() as unknown as {
    registerResource: (request: Request, done: Done) => Promise<void>;
  };
  const original = target.registerResource.bind(target);
  target.registerResource = (request, done) =>
    original(request, (error, reply) => {
      if (!error && reply && request.getType() !== "pulumi:pulumi:Stack") {
        const urn = reply.getUrn();
        // The engine refuses this, and the monitor of tests does not.
        if (into.some((other) => other.urn === urn)) return void done(new Error(`two resources have the name ${urn}`));
        into.push(registered(request, urn));
      }
      done(error, reply);
    });
}

type Done = (error: unknown, reply?: { getUrn(): string }) => void;

/** The part of the engine's RegisterResourceRequest that is recorded. */
interface Request {
  getType(): string;
  getName(): string;
  getCustom(): boolean;
  getParent(): string;
  getProvider(): string;
  getProtect(): boolean;
  getDeletebeforereplace(): boolean;
  getDeletedwith(): string;
  getRetainondelete(): boolean;
  getDependenciesList(): string[];
  getIgnorechangesList(): string[];
  getReplaceonchangesList(): string[];
  getAdditionalsecretoutputsList(): string[];
  getObject(): { toJavaScript(): Record<string, unknown> };
  getPropertydependenciesMap(): { forEach(visit: (value: { getUrnsList(): string[] }, key: string) => void): void };
  getCustomtimeouts(): { getCreate(): string; getUpdate(): string; getDelete(): string } | undefined;
  getHooks(): Record<string, () => string[]> | undefined;
}

function registered(request: Request, urn: string): Registered {
  const inputs = request.getObject().toJavaScript();
  const inputDependencies: Record<string, string[]> = {};
  request.getPropertydependenciesMap().forEach((value, key) => {
    if (value.getUrnsList().length > 0) inputDependencies[key] = [...value.getUrnsList()].sort();
  });
  const timeouts = request.getCustomtimeouts();
  const hooks = request.getHooks();
  return {
    urn,
    type: request.getType(),
    name: request.getName(),
    custom: request.getCustom(),
    inputs: named(request.getType(), request.getName(), plain(inputs) as Record<string, unknown>),
    secretInputs: Object.keys(inputs)
      .filter((key) => holdsSecret(inputs[key]))
      .sort(),
    options: {
      parent: request.getParent(),
      provider: request.getProvider().replace(/::[^:]*$/, ""),
      dependsOn: [...request.getDependenciesList()].sort(),
      inputDependencies,
      protect: request.getProtect(),
      deleteBeforeReplace: request.getDeletebeforereplace(),
      deletedWith: request.getDeletedwith(),
      retainOnDelete: request.getRetainondelete(),
      ignoreChanges: request.getIgnorechangesList(),
      replaceOnChanges: request.getReplaceonchangesList(),
      additionalSecretOutputs: request.getAdditionalsecretoutputsList(),
      customTimeouts: timeouts
        ? { create: timeouts.getCreate(), update: timeouts.getUpdate(), delete: timeouts.getDelete() }
        : {},
      hooks: hooks
        ? Object.fromEntries(
            ["BeforeCreate", "AfterCreate", "BeforeUpdate", "AfterUpdate", "BeforeDelete", "AfterDelete"]
              .map((when) => [when, hooks[`get${when}List`]?.call(hooks) ?? []] as const)
              .filter(([, names]) => names.length > 0),
          )
        : {},
    },
  };
}

/**
 * Inputs as the provider completes them: an object of Kubernetes that has no name gets one. The provider's names end at
 * random, and are other ones at each replacement; these change with the inputs, so that two runs can be compared.
 */
function named(type: string, name: string, inputs: Record<string, unknown>): Record<string, unknown> {
  const { metadata } = inputs as { metadata?: { name?: string } };
  if (!type.startsWith("kubernetes:") || metadata?.name !== undefined) return inputs;
  return { ...inputs, metadata: { ...metadata, name: `${name}-${digest(stableJson(inputs)).slice(0, 8)}` } };
}
