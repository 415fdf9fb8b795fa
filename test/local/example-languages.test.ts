import { deepEqual, equal, match, ok } from "assert/strict";
import { execFileSync, spawnSync } from "child_process";
import { createHash } from "crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "fs";
import { homedir, tmpdir } from "os";
import { join } from "path";
import { parse } from "yaml";
import { runFixture } from "../../local/fixtures";
import { programDir } from "../../local/program";
import { exampleOutputs } from "../program/example";

// What application stacks in other languages, and manifests that no Pulumi program writes, make of the Consul stack.

interface Variable {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: unknown;
}
interface Pod {
  readonly metadata: { readonly annotations: Record<string, string> };
  readonly spec: { readonly containers: readonly { readonly env: readonly Variable[] }[] };
}
interface Made {
  readonly type: string;
  readonly inputs: { readonly spec: { readonly template: Pod } };
}

const examples = join(programDir, "examples");
const orders = (exampleOutputs.apps as Record<string, { environment: Variable[]; accessorId: string }>).orders;
const read = (path: string) => readFileSync(join(examples, path), "utf8");

/** What the container has to have, whatever language its stack is written in. */
function assertReachesConsul({ metadata, spec }: Pod) {
  deepEqual(spec.containers[0]?.env, orders?.environment);
  equal(metadata.annotations["consul-token"], orders?.accessorId);
}

/** Runs a Python program against Pulumi's mocks for Python, and prints each resource as a line of JSON. */
const pythonRunner = `
import json, runpy, sys
import pulumi

outputs, config = json.loads(sys.argv[1]), json.loads(sys.argv[2])

class Mocks(pulumi.runtime.Mocks):
    def new_resource(self, args):
        if args.typ == "pulumi:pulumi:StackReference":
            return [args.name, {"name": args.name, "outputs": outputs, "secretOutputNames": []}]
        print(json.dumps({"type": args.typ, "inputs": args.inputs}), flush=True)
        return [args.name, args.inputs]
    def call(self, args):
        return {}

pulumi.runtime.set_mocks(Mocks(), project="orders", stack="prod")
pulumi.runtime.set_all_config(config)

@pulumi.runtime.test
def run():
    runpy.run_path("__main__.py", run_name="__main__")

run()
`;

const config = {
  "orders:consulStack": "organization/consul/prod",
  "orders:namespace": "shop",
  "orders:image": "registry.example.com/orders:1.0.0",
};

describe("an application's stack in Python", function () {
  this.timeout("5m");
  let python: string;
  let directory: string;

  before(function () {
    const requirements = read("stack-python/requirements.txt");
    const digest = createHash("sha256").update(requirements).digest("hex").slice(0, 16);
    const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
    const venv = join(cache, "consul-alicloud", `python-${digest}`);
    python = join(venv, "bin/python");
    directory = mkdtempSync(join(tmpdir(), "consul-python-"));
    if (existsSync(join(venv, "complete"))) return;
    const requirementsFile = join(examples, "stack-python/requirements.txt");
    for (const [command = "", ...args] of [
      ["python3", "-m", "venv", "--clear", venv],
      [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirementsFile],
    ]) {
      const { status, stderr, error } = spawnSync(command, args, { encoding: "utf8" });
      if (status === 0) continue;
      const reason = error?.message ?? stderr.trim().split("\n").at(-1) ?? "";
      console.log(`      skipped: Pulumi for Python cannot be installed here: ${reason}`);
      this.skip();
    }
    writeFileSync(join(venv, "complete"), "");
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  function run(outputs: object) {
    const runner = join(directory, "run.py");
    writeFileSync(runner, pythonRunner);
    const args = [runner, JSON.stringify(outputs), JSON.stringify(config)];
    const { status, stdout, stderr } = spawnSync(python, args, {
      cwd: join(examples, "stack-python"),
      encoding: "utf8",
    });
    const lines = stdout.split("\n").filter((line) => line.startsWith("{"));
    return { status, stderr, made: lines.map((line) => JSON.parse(line) as Made) };
  }

  it("gives its container the environment that the Consul stack made", () => {
    const { status, stderr, made } = run(exampleOutputs);
    equal(status, 0, stderr);
    const [deployment] = made.filter(({ type }) => type === "kubernetes:apps/v1:Deployment");
    ok(deployment);
    assertReachesConsul(deployment.inputs.spec.template);
  });

  it("says what to do where the Consul stack knows no such application, or is of an older release", () => {
    match(run({ ...exampleOutputs, apps: {} }).stderr, /has no token for "orders": add it to consul:apps there/);
    const old = run({ ...exampleOutputs, apps: { orders: {} } });
    match(old.stderr, /gives no environment for "orders": run `pulumi up` there with this release/);
  });
});

describe("an application's stack in Pulumi's YAML", () => {
  it("refers to nothing that the Consul stack does not give", () => {
    const text = read("stack-yaml/Pulumi.yaml");
    const { config: declared } = parse(text) as { config: Record<string, unknown> };
    const references = [...text.matchAll(/\$\{([^}]+)\}/g)].map(([, path = ""]) => path);
    ok(references.length >= 5);
    for (const path of references) {
      const [first = "", ...rest] = path.split(".");
      if (first in declared) continue;
      equal(`${first}.${rest[0] ?? ""}`, "consul.outputs", path);
      const value = rest.slice(1).reduce<unknown>((at, key) => (at as Record<string, unknown>)[key], exampleOutputs);
      ok(value !== undefined, path);
    }
  });
});

describe("an application that no Pulumi program describes", () => {
  type Source = { configMapRef: { name: string } };
  const { spec } = parse(read("plain/deployment.yaml")) as {
    spec: { template: { spec: { containers: { env: Variable[]; envFrom: Source[] }[] } } };
  };
  const [container] = spec.template.spec.containers;

  it("takes what `up` has put into its namespace: the ConfigMap, and the Secret of its token", async () => {
    const { resources } = await runFixture("prod", () => undefined);
    const objects = resources.map(
      ({ inputs }) => inputs as { kind?: string; metadata?: { name: string; namespace: string }; data?: object },
    );
    const named = (kind: string, name: string) =>
      objects.find(
        (object) => object.kind === kind && object.metadata?.name === name && object.metadata.namespace === "shop",
      );
    equal(container?.envFrom.length, 1);
    const shared = named("ConfigMap", container.envFrom[0]?.configMapRef.name ?? "")?.data as Record<string, string>;
    equal(shared.CONSUL_HTTP_ADDR, "http://consul-agent.consul.svc:8500");
    for (const { valueFrom } of container.env) {
      const { secretKeyRef } = valueFrom as { secretKeyRef?: { name: string; key: string } };
      if (secretKeyRef) ok(secretKeyRef.key in (named("Secret", secretKeyRef.name)?.data ?? {}), secretKeyRef.name);
    }
    // The same variables as the output has, but for the node's address, which no ConfigMap can have.
    const names = [...Object.keys(shared), ...container.env.map(({ name }) => name), "HOST_IP"];
    deepEqual(names.sort(), orders?.environment.map(({ name }) => name).sort());
  });

  it("is the same in the values of a chart", () => {
    const { extraEnv, extraEnvFrom } = parse(read("plain/values.yaml")) as { extraEnv: unknown; extraEnvFrom: unknown };
    deepEqual(extraEnv, container?.env);
    deepEqual(extraEnvFrom, container?.envFrom);
  });
});

describe("the packages that examples pin", () => {
  it("are this project's own versions", () => {
    const { dependencies } = JSON.parse(execFileSync("npm", ["pkg", "get"], { cwd: programDir }).toString()) as {
      dependencies: Record<string, string>;
    };
    const expected = ["@pulumi/pulumi", "@pulumi/kubernetes"].map(
      (name) =>
        `${name.replace("@pulumi/pulumi", "pulumi").replace("@pulumi/", "pulumi-")}==${dependencies[name] ?? ""}`,
    );
    deepEqual(read("stack-python/requirements.txt").trim().split("\n"), expected);
  });
});
