import { deepEqual, equal, match, ok } from "assert/strict";
import { readFileSync, writeFileSync } from "fs";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { Kube, startKubeOrSkip } from "../system/kube";
import { zonedVolumes } from "../system/kube-objects";
import { needPrograms, Project } from "./project";

// The stack dev by the real engine, in a real API server with its controllers. kwok plays the kubelets, and no container
// runs: what is tried here is what `up` does to the cluster and to its own state.

describe("the stack dev, by the real engine", function () {
  this.timeout(900_000);
  let project: Project;
  let kube: Kube;

  before(async function () {
    needPrograms(this, "pulumi", "kubectl");
    kube = await startKubeOrSkip(this);
    await kube.apply(zonedVolumes("alicloud-disk-topology-alltype", "20Gi", 2));
    project = new Project("dev", { KUBECONFIG: kube.kubeconfigFile });
    project.edit((config) => {
      delete config["consul:backups"];
      config["consul:cluster"] = { context: "test" };
      config["consul:agents"] = { updatePace: { minReadySeconds: 0, maxUnavailable: 4 } };
    });
    await project.done("pulumi stack init dev");
  });

  after(async () => {
    await (kube as Kube | undefined)?.stop();
    (project as Project | undefined)?.remove();
  });

  const level = (value: string) => project.done(`pulumi config set -s dev consul:logLevel ${value}`);
  const objects = async (kind: string, name: string) => {
    const all = await project.done(`kubectl -n consul get ${kind} -o name`);
    return all.split("\n").filter((line) => line.includes(`/${name}`));
  };

  /** While something is done, the API server refuses to change workloads of one kind. */
  async function refusing(resource: string, work: () => Promise<void>): Promise<void> {
    const metadata = { name: "not-today" };
    const rule = { apiGroups: ["apps"], apiVersions: ["v1"], operations: ["UPDATE"], resources: [resource] };
    const validations = [{ expression: "request.userInfo.username != 'admin'", message: "not today" }];
    const policy = {
      metadata,
      spec: { failurePolicy: "Fail", matchConstraints: { resourceRules: [rule] }, validations },
    };
    const binding = { metadata, spec: { policyName: metadata.name, validationActions: ["Deny"] } };
    const file = join(project.workDir, "policy.yaml");
    const apiVersion = "admissionregistration.k8s.io/v1";
    const items = [
      { apiVersion, kind: "ValidatingAdmissionPolicy", ...policy },
      { apiVersion, kind: "ValidatingAdmissionPolicyBinding", ...binding },
    ];
    writeFileSync(file, JSON.stringify({ apiVersion: "v1", kind: "List", items }));
    await project.done(`kubectl apply -f ${file}`);
    await kube.waitFor("the policy holds", async () => {
      const { status } = await project.run(`kubectl -n consul annotate --dry-run=server ${resource} --all a=b`);
      equal(status, 1);
    });
    try {
      await work();
    } finally {
      await project.done(`kubectl delete -f ${file}`);
    }
    await kube.waitFor("the policy is gone", () =>
      project.done(`kubectl -n consul annotate --dry-run=server ${resource} --all a=b`),
    );
  }

  let duration = 0;

  it("comes up in an empty cluster, and then has nothing to do", async () => {
    const begun = Date.now();
    await project.done(project.up);
    duration = Date.now() - begun;
    match(await project.done(`${project.up} --expect-no-changes`), /\d+ unchanged/);
  });

  it("goes back to the settings of before after an `up` that failed half-way, and keeps no object twice", async () => {
    await level("warn");
    await refusing("daemonsets", async () => {
      const { status, text } = await project.run(project.up);
      equal(status, 1, text);
      match(text, /not today/);
    });
    equal((await objects("configmap", "consul-agent-config-")).length, 2);
    await level("debug");
    await project.done(project.up);
    for (const [kind, name] of [
      ["configmap", "consul-agent-config-"],
      ["configmap", "consul-server-config-"],
      ["job", "consul-server-roll-job-"],
    ] as const) {
      equal((await objects(kind, name)).length, 1, name);
    }
  });

  it("asks the servers again where they agreed to a change long ago, by the command that it names", async () => {
    await level("warn");
    await refusing("statefulsets", async () => equal((await project.run(project.up)).status, 1));
    const file = join(project.workDir, "state.json");
    await project.done(`pulumi stack export -s dev --file ${file}`);
    // As if that `up` had ended an hour ago.
    const old = new Date(Date.now() - 3_600_000).toISOString();
    const state = JSON.parse(readFileSync(file, "utf8")) as { deployment: { resources: Resource[] } };
    for (const { urn, outputs } of state.deployment.resources) {
      if (urn.endsWith("::consul-server-roll-job") && outputs.status) outputs.status.completionTime = old;
    }
    writeFileSync(file, JSON.stringify(state));
    await project.done(`pulumi stack import -s dev --file ${file}`);
    const { status, text } = await project.run(project.up);
    equal(status, 1, text);
    const [, remedy = ""] =
      /they agreed to this change at [^]*?Ask again: `pulumi up (--replace '[^']+')`/.exec(text) ?? [];
    ok(remedy, text);
    await project.done(`${project.up} ${remedy}`);
    await project.done(`${project.up} --expect-no-changes`);
  });

  it("is brought to its end by what the messages say, wherever its first `up` was killed", async () => {
    const kills = 8;
    const found: string[] = [];
    for (let i = 1; i <= kills; i++) {
      await project.done(project.destroy);
      // What was left behind under a made-up name is in nobody's way, and here it is not counted either.
      await project.done("kubectl -n consul delete job,configmap,secret -l app.kubernetes.io/name=consul");
      await project.run(project.up, sleep((duration * i) / (kills + 1)));
      await project.unlock();
      for (let tries = 0; ; tries++) {
        const { status, text } = await project.run(project.up);
        if (status === 0) break;
        const remedies = [...text.matchAll(/Take it away, `(kubectl [^`]+)`, and run/g)].map(
          ([, command = ""]) => command,
        );
        ok(remedies.length > 0 && tries < 5, text);
        for (const remedy of new Set(remedies)) found.push(await project.done(remedy));
      }
      await project.done(`${project.up} --expect-no-changes`);
      equal((await objects("pod", "consul-server-")).filter((pod) => /-\d$/.test(pod)).length, 3);
    }
    console.log(`      ${kills} kills, ${found.length} objects taken away`);
  });

  it("leaves what it keeps, and nothing else, when it is destroyed", async () => {
    await project.done(project.destroy);
    deepEqual(await objects("statefulset,daemonset,service,serviceaccount,poddisruptionbudget", "consul"), []);
    equal((await objects("persistentvolumeclaim", "data-consul-server-")).length, 3);
  });
});

interface Resource {
  readonly urn: string;
  readonly outputs: { readonly status?: { completionTime: string } };
}
