import * as k8s from "@kubernetes/client-node";
import { deepEqual, equal } from "assert/strict";
import { execFile } from "child_process";
import { readFile } from "fs/promises";
import { tmpdir } from "os";
import { join } from "path";
import { promisify } from "util";
import { parse } from "yaml";
import { runFixture } from "../../local/fixtures";
import { plain } from "../program/edit";
import { Kube, startKubeOrSkip } from "./kube";
import { isKubernetesObject, Manifest, zonedVolumes } from "./kube-objects";

// Applications, backups and monitoring, on a real API server that has the real definitions of Prometheus' operator.

const operator = { version: "v0.85.0", sum: "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=" };

/** The operator's definitions, from its own release. */
async function definitions(): Promise<Manifest[]> {
  const module = `github.com/prometheus-operator/prometheus-operator@${operator.version}`;
  const { stdout } = await promisify(execFile)("go", ["mod", "download", "-json", module], { cwd: tmpdir() });
  const { Dir, Sum } = JSON.parse(stdout) as { Dir: string; Sum: string };
  equal(Sum, operator.sum);
  const files = ["podmonitors", "servicemonitors", "prometheusrules"].map((name) =>
    join(Dir, "example", "prometheus-operator-crd", `monitoring.coreos.com_${name}.yaml`),
  );
  return Promise.all(files.map(async (file) => parse(await readFile(file, "utf8")) as Manifest));
}

const namespaceOf = (name: string): Manifest => ({ apiVersion: "v1", kind: "Namespace", metadata: { name } });

/** The Kubernetes objects of a stack that has these settings beside its own. */
async function objects(stack: "prod" | "dev", settings: Record<string, unknown>, without: string[] = []) {
  const { resources } = await runFixture(stack, (config) => {
    plain(config);
    for (const [key, value] of Object.entries(settings)) config[`consul:${key}`] = JSON.stringify(value);
    for (const key of without) Reflect.deleteProperty(config, `consul:${key}`);
  });
  return resources.filter(isKubernetesObject).map(({ inputs }) => inputs as unknown as Manifest);
}

describe("applications, backups and monitoring, on a real API server", function () {
  this.timeout("3m");
  let kube: Kube;

  before(async function () {
    kube = await startKubeOrSkip(this);
    await kube.apply([...(await definitions()), ...["shop", "ops"].map(namespaceOf)]);
    await kube.waitFor("the operator's kinds are served", async () => {
      const api = kube.kubeconfig.makeApiClient(k8s.CustomObjectsApi);
      for (const plural of ["podmonitors", "servicemonitors", "prometheusrules"]) {
        await api.listClusterCustomObject({ group: "monitoring.coreos.com", version: "v1", plural });
      }
    });
  });

  after(async () => {
    await (kube as Kube | undefined)?.stop();
  });

  const versions = async (all: readonly Manifest[]) => {
    const read = await Promise.all(all.map((object) => kube.objects.read(structuredClone(object))));
    return read.map(({ metadata }) => metadata?.resourceVersion);
  };

  it("are accepted beside agents of servers on ECS, and the Job for tokens completes", async () => {
    const made = await objects("prod", {
      apps: [{ name: "orders", namespace: "shop", services: ["orders"] }],
      backups: {},
      monitoring: { namespace: "ops", labels: { release: "prometheus" } },
    });
    const warnings = await kube.apply(made);
    // Prometheus' operator looks for Endpoints unless the monitor asks for slices.
    deepEqual(
      warnings.filter((warning) => !warning.includes("Endpoints is deprecated")),
      [],
    );
    const jobs = kube.kubeconfig.makeApiClient(k8s.BatchV1Api);
    await kube.waitFor("the Job is complete", async () => {
      const { items } = await jobs.listNamespacedJob({ namespace: "consul" });
      deepEqual(
        items.map(({ status }) => status?.succeeded),
        [1],
      );
    });
    const before = await versions(made);
    await kube.apply(made);
    deepEqual(await versions(made), before, "a second time there is nothing to do");
  });

  it("have monitors of which the server drops nothing", async () => {
    const api = kube.kubeconfig.makeApiClient(k8s.CustomObjectsApi);
    const made = await objects("prod", {
      backups: {},
      monitoring: { namespace: "ops", labels: { release: "prometheus" } },
    });
    const custom = made.filter(({ apiVersion }) => apiVersion === "monitoring.coreos.com/v1");
    equal(custom.length, 3);
    for (const { kind, metadata, spec } of custom) {
      const plural = `${kind.toLowerCase()}s`;
      const place = { group: "monitoring.coreos.com", version: "v1", namespace: "ops", plural, name: metadata.name };
      const stored = (await api.getNamespacedCustomObject(place)) as { spec: object };
      // The server may add defaults. Every field that was sent must be there.
      const text = JSON.stringify(defaultsRemoved(stored.spec, spec));
      equal(text, JSON.stringify(defaultsRemoved(spec, spec)), `${kind} ${metadata.name}`);
    }
  });

  it("are accepted in a namespace of the strictest level, and a snapshot's pod runs there", async () => {
    await kube.apply(zonedVolumes("alicloud-disk-topology-alltype", "20Gi", 3));
    const made = await objects("dev", { backups: {}, cluster: { context: "dev", namespace: "consul-dev" } }, [
      "agents",
    ]);
    deepEqual(await kube.apply(made), []);
    const place = { name: "by-hand", namespace: "consul-dev" };
    const cronJob = made.find(({ kind }) => kind === "CronJob")?.spec as { jobTemplate: { spec: object } };
    const { spec } = cronJob.jobTemplate;
    deepEqual(await kube.apply([{ apiVersion: "batch/v1", kind: "Job", metadata: place, spec }]), []);
    const batch = kube.kubeconfig.makeApiClient(k8s.BatchV1Api);
    await kube.waitFor("the snapshot's pod has run", async () => {
      const { status } = await batch.readNamespacedJob(place);
      equal(status?.succeeded, 1);
    });
    const core = kube.kubeconfig.makeApiClient(k8s.CoreV1Api);
    const claim = await core.readNamespacedPersistentVolumeClaim({ ...place, name: "consul-snapshots" });
    equal(claim.status?.phase, "Bound");
  });
});

/** The part of a value that another value has too, keys in one order. */
function defaultsRemoved(value: unknown, like: unknown): unknown {
  if (Array.isArray(value) && Array.isArray(like)) return value.map((entry, i) => defaultsRemoved(entry, like[i]));
  if (value === null || typeof value !== "object" || like === null || typeof like !== "object") return value;
  const [of, wanted] = [value as Record<string, unknown>, like as Record<string, unknown>];
  return Object.fromEntries(
    Object.keys(wanted)
      .sort()
      .map((key) => [key, defaultsRemoved(of[key], wanted[key])]),
  );
}
