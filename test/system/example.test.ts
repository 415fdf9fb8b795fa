import * as k8s from "@kubernetes/client-node";
import { deepEqual, equal } from "assert/strict";
import { readFileSync, rmSync } from "fs";
import { join } from "path";
import { parseAllDocuments } from "yaml";
import { programDir } from "../../local/program";
import { exampleElsewhere, runExample } from "../program/example";
import { Kube, startKubeOrSkip } from "./kube";
import { Manifest } from "./kube-objects";

/** The example's stack on a real API server: everything is accepted unchanged, the Job runs, the pods come up. */
describe("the example's stack on Kubernetes", function () {
  this.timeout(300_000);
  let kube: Kube;
  let directory = "";

  before(async function () {
    kube = await startKubeOrSkip(this);
    directory = exampleElsewhere();
  });
  after(async () => {
    // Undefined where the level is skipped.
    await (kube as Kube | undefined)?.stop();
    if (directory !== "") rmSync(directory, { recursive: true, force: true });
  });

  it("is accepted without a warning, configures Consul, and its pods are spread over the nodes", async () => {
    const run = await runExample(directory);
    const secret = (app: string): Manifest => ({
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: `${app}-consul-token`, namespace: "shop" },
      data: { token: Buffer.from("not one").toString("base64") },
    });
    const namespace: Manifest = {
      apiVersion: "v1",
      kind: "Namespace",
      // The strictest level: the example needs nothing of the node.
      metadata: {
        name: "shop",
        labels: { "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted" },
      },
    };
    const made = run.resources.flatMap(({ type, inputs }): Manifest[] => {
      const [, apiVersion, kind] = /^kubernetes:(?:core\/)?([^:]+):(\w+)$/.exec(type) ?? [];
      return apiVersion === undefined ? [] : [{ ...inputs, apiVersion, kind } as unknown as Manifest];
    });
    deepEqual(made.map(({ kind }) => kind).sort(), ["ConfigMap", "ConfigMap", "Deployment", "Job"]);
    deepEqual(await kube.apply([namespace, secret("orders"), secret("orders-config"), ...made]), []);

    const batch = kube.kubeconfig.makeApiClient(k8s.BatchV1Api);
    const apps = kube.kubeconfig.makeApiClient(k8s.AppsV1Api);
    await kube.waitFor("the Job completes", async () => {
      const [job] = (await batch.listNamespacedJob({ namespace: "shop" })).items;
      equal(job?.status?.succeeded, 1);
    });
    await kube.waitFor("the Deployment is available", async () => {
      const { status } = await apps.readNamespacedDeployment({ name: "orders", namespace: "shop" });
      equal(status?.availableReplicas, 3);
    });
    const core = kube.kubeconfig.makeApiClient(k8s.CoreV1Api);
    const pods = await core.listNamespacedPod({ namespace: "shop", labelSelector: "app.kubernetes.io/name=orders" });
    equal(new Set(pods.items.map(({ spec }) => spec?.nodeName)).size, 3);
  });

  it("is in the same namespace as nginx by consul-template, whose manifest is accepted and whose pods start", async () => {
    const text = readFileSync(join(programDir, "examples/consul-template/nginx.yaml"), "utf8");
    deepEqual(await kube.apply(parseAllDocuments(text).map((document) => document.toJS() as Manifest)), []);
    const apps = kube.kubeconfig.makeApiClient(k8s.AppsV1Api);
    await kube.waitFor("the Deployment is available", async () => {
      const { status } = await apps.readNamespacedDeployment({ name: "edge", namespace: "shop" });
      equal(status?.availableReplicas, 2);
    });
  });

  it("is in a cluster that takes HashiCorp's catalog sync as the example has it, with the rights that the sync uses", async () => {
    const name = "consul-sync";
    const labels = { "pod-security.kubernetes.io/enforce": "restricted" };
    const namespace: Manifest = { apiVersion: "v1", kind: "Namespace", metadata: { name, labels } };
    const text = readFileSync(join(programDir, "examples/catalog-sync/sync.yaml"), "utf8");
    const objects = parseAllDocuments(text).map((document) => document.toJS() as Manifest);
    deepEqual(await kube.apply([namespace, ...objects]), []);
    const apps = kube.kubeconfig.makeApiClient(k8s.AppsV1Api);
    await kube.waitFor("the Deployment is available", async () => {
      const { status } = await apps.readNamespacedDeployment({ name: "catalog-sync", namespace: name });
      equal(status?.availableReplicas, 1);
    });
    const reviews = kube.kubeconfig.makeApiClient(k8s.AuthorizationV1Api);
    const may = async (verb: string, group: string, resource: string) => {
      const spec = {
        user: `system:serviceaccount:${name}:catalog-sync`,
        resourceAttributes: { verb, group, resource, namespace: "shop" },
      };
      const body = Object.assign(new k8s.V1SubjectAccessReview(), { spec });
      return (await reviews.createSubjectAccessReview({ body })).status?.allowed;
    };
    for (const verb of ["get", "list", "watch"]) {
      equal(await may(verb, "", "services"), true);
      equal(await may(verb, "discovery.k8s.io", "endpointslices"), true);
    }
    equal(await may("get", "", "nodes"), true);
    for (const verb of ["create", "update", "patch", "delete"]) equal(await may(verb, "", "services"), false);
    for (const resource of ["secrets", "configmaps", "pods"]) equal(await may("get", "", resource), false);
  });
});
