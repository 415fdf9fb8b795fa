import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { spawnSync } from "child_process";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "fs";
import { join } from "path";
import { asSeen } from "../../local/preview";
import { pinnedVersion, programDir, ProgramRun } from "../../local/program";
import { violations } from "../../policy/rules";
import { exampleElsewhere, exampleOutputs, runExample } from "./example";

/** The example in a directory of its own, with this project as a package: the layout of another repository. */
describe("the example's stack in another repository", function () {
  this.timeout(120_000);
  let directory: string;
  let repository: string;

  before(() => {
    directory = exampleElsewhere();
    repository = join(directory, "stack-typescript");
    writeFileSync(join(repository, "tsconfig.json"), tsconfig("node10", "commonjs"));
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  function tsconfig(moduleResolution: string, module: string): string {
    const types = { types: ["node"], typeRoots: [join(directory, "node_modules/@types")] };
    const own = { target: "es2022", strict: true, esModuleInterop: true, skipLibCheck: true, noEmit: true };
    return JSON.stringify({ compilerOptions: { ...own, ...types, module, moduleResolution }, include: ["index.ts"] });
  }
  /** The compiler's messages about the example after one edit. */
  function compile(change: [RegExp, string] = [/^/, ""], file = join(repository, "index.ts")): string {
    const before = readFileSync(file, "utf8");
    writeFileSync(file, before.replace(...change));
    try {
      const tsc = join(programDir, "node_modules/typescript/bin/tsc");
      return spawnSync(process.execPath, [tsc, "-p", repository], { encoding: "utf8" }).stdout;
    } finally {
      writeFileSync(file, before);
    }
  }
  const run = (outputs?: Readonly<Record<string, unknown>>) => runExample(directory, outputs);
  const inputs = ({ resources }: ProgramRun, kind: string) =>
    resources.find(({ type }) => type.endsWith(`:${kind}`))?.inputs as unknown as Manifest;

  it("compiles against the package's exports, the old way of finding modules and the new", () => {
    equal(compile(), "");
    writeFileSync(join(repository, "tsconfig.json"), tsconfig("node16", "node16"));
    equal(compile(), "");
    writeFileSync(join(repository, "tsconfig.json"), tsconfig("node10", "commonjs"));
  });

  it("is a small package: nothing but the reader, and @pulumi/pulumi as its only peer", () => {
    const root = join(directory, "node_modules/consul-alicloud-outputs");
    const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((path) => /\.\w+$/.test(path));
    deepEqual(files.sort(), [
      "README.md",
      "dist/components/kubernetes/app-access.d.ts",
      "dist/components/kubernetes/app-access.js",
      "dist/stacks/expiry.d.ts",
      "dist/stacks/expiry.js",
      "dist/stacks/outputs.d.ts",
      "dist/stacks/outputs.js",
      "package.json",
    ]);
    const { dependencies, peerDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as Record<
      string,
      object | undefined
    >;
    equal(dependencies, undefined);
    deepEqual(Object.keys(peerDependencies ?? {}), ["@pulumi/pulumi"]);
  });

  it("does not compile where an output is misspelt, or was renamed by the package", () => {
    match(
      compile([/consul\.datacenter/, "consul.dataCenter"]),
      /Property 'dataCenter' does not exist on type 'ConsulOutputs'/,
    );
    const types = join(directory, "node_modules/consul-alicloud-outputs/dist/stacks/outputs.d.ts");
    match(
      compile([/consulImage:/, "imageOfConsul:"], types),
      /Property 'consulImage' does not exist on type 'ConsulOutputs'/,
    );
  });

  it("deploys pods that reach the agent of their node with their own token, and never holds the token itself", async () => {
    const pod = inputs(await run(), "Deployment").spec.template;
    const [container] = pod.spec.containers;
    ok(container);
    const env = Object.fromEntries(container.env.map(({ name, value, valueFrom }) => [name, value ?? valueFrom]));
    deepEqual(env.CONSUL_HTTP_TOKEN, { secretKeyRef: { name: "orders-consul-token", key: "token" } });
    equal(env.SERVICE_NAME, "orders");
    equal(pod.metadata.annotations["consul-token"], "f1c70e5a-0000-4000-8000-0000000acce5");
    for (const name of ["startupProbe", "livenessProbe", "readinessProbe"] as const) ok(container[name], name);
    ok(pod.spec.terminationGracePeriodSeconds > 6 + 5, "longer than draining takes");
  });

  it("puts the configuration into Consul by a Job with a token of its own, before the pods", async () => {
    const made = await run();
    const job = inputs(made, "Job").spec.template.spec.containers[0];
    deepEqual(job?.command, ["consul", "kv", "put", "config/orders/data", "@/settings/data"]);
    equal(job.image, `hashicorp/consul:${pinnedVersion}`);
    const secret = job.env.find(({ name }) => name === "CONSUL_HTTP_TOKEN")?.valueFrom as {
      secretKeyRef: { name: string };
    };
    equal(secret.secretKeyRef.name, "orders-config-consul-token");
    const deployment = made.resources.find(({ type }) => type.endsWith(":Deployment"));
    ok(deployment?.options.dependsOn.some((urn) => urn.endsWith("::orders-configure")));
    match(
      made.resources.flatMap(({ inputs }) => (inputs.data as { data?: string } | undefined)?.data ?? [])[0] ?? "",
      /^greeting: /m,
    );
  });

  it("has nothing in it that the Consul stack's policy pack would refuse", async () => {
    deepEqual(violations((await run()).resources.map(asSeen), { environment: "prod" }), []);
  });

  it("gives its own outputs in the clear: nothing in them is secret", async () => {
    const { outputs } = await run();
    deepEqual(outputs, {
      address: { value: "orders.service.consul", secret: false },
      datacenter: { value: "aly-consul", secret: false },
    });
  });

  const broken: [what: string, outputs: Readonly<Record<string, unknown>>, message: RegExp][] = [
    [
      "never ran",
      {},
      /stack organization\/consul\/prod has no output "outputsVersion": .* has `pulumi up` run there\?/,
    ],
    [
      "is of an older release, without this output",
      { ...exampleOutputs, apps: undefined },
      /has no output "apps": run `pulumi up` there with this release/,
    ],
    [
      "is of a release with other outputs",
      { ...exampleOutputs, outputsVersion: 2 },
      /gives outputs of version 2, this program reads version 1/,
    ],
    [
      "is of an older release, without the environments of applications",
      { ...exampleOutputs, apps: { orders: {}, "orders-config": {} } },
      /the Consul stack has no environment for "orders(-config)?": run `pulumi up` there with this release/,
    ],
    [
      "does not know the application",
      { ...exampleOutputs, apps: { payments: {} } },
      /the Consul stack has no token for "orders(-config)?", only for: payments; add it to consul:apps there/,
    ],
  ];
  for (const [what, given, message] of broken) {
    it(`says what to do where the Consul stack ${what}`, async () => {
      await rejects(run(given), message);
    });
  }

  it("names a misspelt output at run time too, for who has no compiler", async () => {
    const file = join(repository, "index.ts");
    const before = readFileSync(file, "utf8");
    writeFileSync(file, before.replace("consul.datacenter", "consul.dataCenter"));
    try {
      await rejects(run(), /there is no output "dataCenter" of a Consul stack; there are outputsVersion, /);
    } finally {
      writeFileSync(file, before);
    }
  });
});

interface Container {
  image: string;
  command: string[];
  env: { name: string; value?: string; valueFrom?: unknown }[];
  startupProbe?: unknown;
  livenessProbe?: unknown;
  readinessProbe?: unknown;
}
interface Manifest {
  spec: {
    template: {
      metadata: { annotations: Record<string, string> };
      spec: { containers: Container[]; terminationGracePeriodSeconds: number };
    };
  };
}
