import * as k8s from "@kubernetes/client-node";
import assert from "assert/strict";
import { runFixture } from "../../local/fixtures";
import { edit, plain } from "../program/edit";
import { Kube, startKubeOrSkip } from "./kube";
import { isKubernetesObject, Manifest, realNodes } from "./kube-objects";

// What Pulumi.prod.yaml and Pulumi.prod-agents.yaml put into a cluster, on a real API server with its controllers and
// scheduler. At the end the same checks run on broken objects, to show that each can fail. kube-servers.test.ts has the
// servers in Kubernetes.

const namespace = "consul";
const selector = "app.kubernetes.io/name=consul,app.kubernetes.io/component=agent";

/** The Kubernetes objects of a run, and every secret in them. */
interface Described {
  readonly objects: readonly Manifest[];
  readonly secrets: ReadonlySet<string>;
}

/** A stack's objects. A roll waits 1 s between pods, not prod's 10 s: eleven pods would take two minutes. */
async function describeStack(stack: string, settings: Readonly<Record<string, string>> = {}): Promise<Described> {
  const { resources, secrets, outputs } = await runFixture(stack, (config) => {
    plain(config);
    edit(config, "agents", (agents) => (agents.updatePace = { maxUnavailable: 1, minReadySeconds: 1 }));
    Object.assign(config, settings);
  });
  const sensitive = Object.values(outputs).flatMap(({ value, secret }) => (secret ? [String(value)] : []));
  return {
    objects: resources.filter(isKubernetesObject).map(({ inputs }) => inputs as unknown as Manifest),
    secrets: new Set([...secrets, ...sensitive]),
  };
}

/** The only object of a kind. */
function one({ objects }: Pick<Described, "objects">, kind: string): Manifest {
  const [found, ...others] = objects.filter((object) => object.kind === kind);
  assert.ok(found && others.length === 0, `objects of kind ${kind}`);
  return found;
}

const inNamespace = ({ objects }: Described) => objects.filter(({ kind }) => kind !== "Namespace");

/** Every pod template of a stack, with the object that has the template. */
function podTemplates({ objects }: Described): Record<string, k8s.V1PodSpec> {
  interface Templated {
    readonly template: { readonly spec: k8s.V1PodSpec };
    readonly jobTemplate: { readonly spec: { readonly template: { readonly spec: k8s.V1PodSpec } } };
  }
  const specOf = ({ kind, spec }: Manifest) =>
    (kind === "CronJob" ? (spec as Templated).jobTemplate.spec : (spec as Templated)).template.spec;
  const makesPods = ({ kind }: Manifest) => ["CronJob", "DaemonSet", "Job", "StatefulSet"].includes(kind);
  // The ends of some names are made up.
  const nameOf = ({ kind, metadata }: Manifest) => `${kind} ${metadata.name.replace(/-[0-9a-f]{8}$/, "")}`;
  return Object.fromEntries(objects.filter(makesPods).map((object) => [nameOf(object), specOf(object)]));
}

describe("agents in the cluster, on a real API server", function () {
  this.timeout("3m");
  let kube: Kube;
  let core: k8s.CoreV1Api;
  let apps: k8s.AppsV1Api;
  let prod: Described;

  const pods = async () => (await core.listNamespacedPod({ namespace, labelSelector: selector })).items;

  /** Says of a pod, as its kubelet does, whether its probe passes. */
  const setReady = (name: string, status: "True" | "False") =>
    core.patchNamespacedPodStatus(
      { name, namespace, body: { status: { conditions: [{ type: "Ready", status }] } } },
      k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.StrategicMergePatch),
    );

  /** Waits until the DaemonSet has finished its roll. */
  const settled = () =>
    kube.waitFor("every agent is up to date and ready", async () => {
      const { metadata, status } = await apps.readNamespacedDaemonSet({ namespace, name: "consul-agent" });
      assert.equal(status?.observedGeneration, metadata?.generation);
      assert.notEqual(status?.desiredNumberScheduled, 0);
      assert.equal(status?.updatedNumberScheduled, status?.desiredNumberScheduled);
      assert.equal(status?.numberAvailable, status?.desiredNumberScheduled);
      assert.equal((await pods()).length, status?.desiredNumberScheduled);
    });

  // --- checks of the good objects, and then of objects that are broken on purpose

  async function oneOnEachRealNode() {
    const nodes = (await pods()).map(({ spec }) => spec?.nodeName ?? "").sort();
    assert.deepEqual(nodes, realNodes.map(({ metadata }) => metadata.name).sort(), "nodes with an agent");
  }

  /** Others reach the agents by their node's address, which outlives a pod. */
  async function onTheirNodesNetwork() {
    for (const { spec, status } of await pods()) {
      assert.equal(status?.podIP, status?.hostIP, "an agent's address is its node's");
      assert.equal(spec?.nodeName, `cn-hangzhou.${status?.hostIP ?? ""}`);
    }
  }

  async function withoutServiceAccountToken() {
    for (const { spec } of await pods()) {
      const projected = spec?.volumes?.filter((volume) => volume.projected) ?? [];
      assert.deepEqual(projected, [], "a service account's token");
    }
  }

  /** An instance must be deregistered where it was registered, so each node has to reach its own agent only. */
  async function selectedByNodeLocalServices() {
    const discovery = kube.kubeconfig.makeApiClient(k8s.DiscoveryV1Api);
    const expected = (await pods()).map(({ spec, status }) => [spec?.nodeName, status?.hostIP, true].join(" ")).sort();
    const ports = {
      "consul-agent": ["dns-tcp 8600 TCP", "dns-udp 8600 UDP", "http 8500 TCP"],
      "consul-dns": ["dns-tcp 8600 TCP", "dns-udp 8600 UDP"],
    };
    for (const [name, portsOfName] of Object.entries(ports)) {
      const { spec } = await core.readNamespacedService({ namespace, name });
      assert.equal(spec?.internalTrafficPolicy, "Local", `traffic policy of ${name}`);
      await kube.waitFor(
        `${name} leads to eleven agents`,
        async () => {
          const labelSelector = `kubernetes.io/service-name=${name}`;
          const { items } = await discovery.listNamespacedEndpointSlice({ namespace, labelSelector });
          const endpoints = items.flatMap((slice) => slice.endpoints);
          assert.equal(endpoints.length, 11, `endpoints of ${name}`);
          const seen = endpoints.map(({ nodeName, addresses, conditions }) =>
            [nodeName, ...addresses, conditions?.ready].join(" "),
          );
          assert.deepEqual(seen.sort(), expected);
          for (const slice of items) {
            const described = slice.ports?.map(
              (port) => `${port.name ?? ""} ${port.port ?? ""} ${port.protocol ?? ""}`,
            );
            assert.deepEqual(described?.sort(), portsOfName);
          }
        },
        5,
      );
    }
  }

  /** Whoever may read ConfigMaps and pods must not learn a secret from them. */
  async function secretsInSecretsAlone({ objects, secrets }: Described) {
    const found: string[] = [];
    for (const object of objects.filter(({ kind }) => kind !== "Secret")) {
      const text = JSON.stringify(await kube.objects.read(structuredClone(object)));
      for (const secret of secrets) {
        // A PEM block in JSON has its line ends escaped.
        const forms = [secret, JSON.stringify(secret).slice(1, -1), Buffer.from(secret).toString("base64")];
        if (forms.some((form) => text.includes(form))) found.push(`${object.kind} ${object.metadata.name}`);
      }
    }
    assert.deepEqual(found, [], "objects that give a secret away");
  }

  /** Rolls the agents to other settings. */
  async function rollsOneAtATime(next: Described) {
    const count = await kube.followPods(namespace, selector);
    assert.equal(count.fewest(), 11);
    try {
      assert.deepEqual(await kube.apply(next.objects), []);
      await settled();
      assert.equal(count.ready().length, 11);
      assert.equal(count.fewest(), 10, "ready agents at the worst moment");
    } finally {
      count.stop();
    }
  }

  const mounted = async () => {
    const names = (await pods()).map(
      ({ spec }) => spec?.volumes?.find(({ name }) => name === "config")?.configMap?.name ?? "",
    );
    return [...new Set(names)];
  };

  /** Every object in the namespace, of the kinds that the program makes and that controllers make for it. */
  const present = async () => {
    const made = prod.objects.map(({ apiVersion, kind }) => `${apiVersion} ${kind}`);
    const owned = ["v1 Pod", "v1 Endpoints", "apps/v1 ControllerRevision", "discovery.k8s.io/v1 EndpointSlice"];
    const found: string[] = [];
    for (const type of new Set([...made, ...owned])) {
      const [apiVersion = "", kind = ""] = type.split(" ");
      if (kind === "Namespace") continue;
      const { items } = await kube.objects.list(apiVersion, kind, namespace);
      found.push(...items.map(({ metadata }) => `${kind} ${metadata?.name ?? ""}`));
    }
    return found.sort();
  };
  /** Objects that Kubernetes itself puts into every namespace. */
  const empty = ["ConfigMap kube-root-ca.crt", "ServiceAccount default"];

  before(async function () {
    kube = await startKubeOrSkip(this);
    core = kube.kubeconfig.makeApiClient(k8s.CoreV1Api);
    apps = kube.kubeconfig.makeApiClient(k8s.AppsV1Api);
    prod = await describeStack("prod");
  });

  after(async () => {
    await (kube as Kube | undefined)?.stop();
  });

  it("are accepted without a warning, in the namespace as the program labels it", async () => {
    assert.deepEqual(await kube.apply([one(prod, "Namespace")]), []);
    await kube.waitFor("the namespace has what each has", async () => assert.deepEqual(await present(), empty));
    assert.deepEqual(await kube.apply(prod.objects), []);
    await settled();
  });

  it("are eleven, one on each real node and none on a virtual one", oneOnEachRealNode);
  it("have their nodes' addresses", onTheirNodesNetwork);
  it("are given no token of a service account", withoutServiceAccountToken);
  it("are behind Services that stay on the caller's node", selectedByNodeLocalServices);
  it("stay in their Services while none of them is ready, as without a leader", async () => {
    const discovery = kube.kubeconfig.makeApiClient(k8s.DiscoveryV1Api);
    const all = (await pods()).map(({ metadata }) => metadata?.name ?? "");
    await Promise.all(all.map((name) => setReady(name, "False")));
    await kube.waitFor("no agent is ready", async () => {
      const { status } = await apps.readNamespacedDaemonSet({ namespace, name: "consul-agent" });
      assert.equal(status?.numberReady, 0);
    });
    for (const name of ["consul-agent", "consul-dns"]) {
      await kube.waitFor(`${name} still leads to all agents`, async () => {
        const labelSelector = `kubernetes.io/service-name=${name}`;
        const { items } = await discovery.listNamespacedEndpointSlice({ namespace, labelSelector });
        const conditions = items.flatMap(({ endpoints }) => endpoints.map(({ conditions }) => conditions));
        // kube-proxy goes by "ready". "serving" shows that the controller knows how the pods are.
        assert.deepEqual(
          conditions.map((condition) => [condition?.serving, condition?.ready]),
          all.map(() => [false, true]),
        );
      });
    }
    await Promise.all(all.map((name) => setReady(name, "True")));
    await settled();
  });

  it("have their secrets in Secrets alone", () => secretsInSecretsAlone(prod));

  it("roll one at a time when a setting changes, and back to the objects there were", async function () {
    this.timeout("5m");
    const nameOf = (stack: Described, kind: string) => one(stack, kind).metadata.name;
    const before = nameOf(prod, "ConfigMap");
    assert.deepEqual(await mounted(), [before]);
    const changed = await describeStack("prod", { "consul:logLevel": "warn" });
    assert.notEqual(nameOf(changed, "ConfigMap"), before);
    assert.equal(nameOf(changed, "Secret"), nameOf(prod, "Secret"));

    await rollsOneAtATime(changed);
    assert.deepEqual(await mounted(), [nameOf(changed, "ConfigMap")]);
    // Pulumi deletes replaced objects at the end of an update.
    await kube.remove([one(prod, "ConfigMap")]);

    await rollsOneAtATime(await describeStack("prod"));
    assert.deepEqual(await mounted(), [before]);
    await kube.remove([one(changed, "ConfigMap")]);
    const { data } = await core.readNamespacedConfigMap({ namespace, name: before });
    assert.deepEqual(data, one(prod, "ConfigMap").data);
    await oneOnEachRealNode();
  });

  it("leave nothing behind when they are deleted", async () => {
    assert.ok((await present()).length > empty.length + 11 + inNamespace(prod).length, "there is something to delete");
    await kube.remove(inNamespace(prod));
    await kube.waitFor("only what each namespace has is left", async () => assert.deepEqual(await present(), empty));
    await kube.remove([one(prod, "Namespace")]);
    await assert.rejects(core.readNamespace({ name: namespace }), { code: 404 });
  });

  it("are the same on a second cluster, without its servers", async () => {
    const second = await describeStack("prod-agents");
    assert.deepEqual(await kube.apply(second.objects), []);
    await settled();
    await oneOnEachRealNode();
    await onTheirNodesNetwork();
    await withoutServiceAccountToken();
    await selectedByNodeLocalServices();
    await secretsInSecretsAlone(second);
    await kube.remove(second.objects);
  });

  describe("and the levels of Pod Security", () => {
    const levels = ["restricted", "baseline"] as const;

    before(async () => {
      await kube.apply(
        levels.map((name) => ({
          apiVersion: "v1",
          kind: "Namespace",
          metadata: { name, labels: { "pod-security.kubernetes.io/enforce": name } },
        })),
      );
      for (const level of levels) {
        await kube.waitFor(`${level} has its service account`, () =>
          core.readNamespacedServiceAccount({ name: "default", namespace: level }),
        );
      }
    });
    after(() => kube.remove(levels.map((name) => ({ apiVersion: "v1", kind: "Namespace", metadata: { name } }))));

    /** A level's objections to a pod, in the API server's words; undefined where there are none. Nothing is created. */
    async function objection(level: string, wanted: k8s.V1PodSpec) {
      const spec = structuredClone(wanted);
      delete spec.serviceAccountName; // the account does not exist here
      const volumes = (spec.volumes ??= []);
      for (const { name } of spec.containers.flatMap(({ volumeMounts }) => volumeMounts ?? [])) {
        if (volumes.some((volume) => volume.name === name)) continue;
        // The volume that a StatefulSet makes from its claims' template.
        volumes.push(Object.assign(new k8s.V1Volume(), { name, persistentVolumeClaim: { claimName: name } }));
      }
      const pod = { apiVersion: "v1", kind: "Pod", metadata: { name: "tried", namespace: level }, spec };
      return kube.objects.create(pod, undefined, "All").then(
        () => undefined,
        (error: unknown) => {
          if (!(error instanceof k8s.ApiException)) throw error;
          const body: unknown = error.body;
          const { message = "" } = (typeof body === "string" ? JSON.parse(body) : body) as { message?: string };
          const [, said] = /violates PodSecurity "\w+:latest": (.*)$/.exec(message) ?? [];
          if (said === undefined) throw new Error(`refused for another reason: ${message}`);
          return said;
        },
      );
    }

    /** The strictest level that each pod of a stack meets; below "restricted" with the next level's objections. */
    async function strictest(stack: Described) {
      const found: Record<string, string> = {};
      for (const [name, spec] of Object.entries(podTemplates(stack))) {
        if ((await objection("restricted", spec)) === undefined) found[name] = "restricted";
        else found[name] = (await objection("baseline", spec)) ?? "baseline";
      }
      return found;
    }

    const everything = {
      "consul:apps": JSON.stringify([{ name: "orders", namespace: "shop", services: ["orders"] }]),
      "consul:backups": "{}",
    };
    const agents =
      'host namespaces (hostNetwork=true), hostPath volumes (volume "data"), ' +
      'hostPort (container "consul" uses hostPorts 8301, 8500, 8600)';

    it("meet privileged alone: their node's network, its disk and its ports are what they are for", async () => {
      assert.deepEqual(await strictest(prod), { "DaemonSet consul-agent": agents });
      const { labels } = one(prod, "Namespace").metadata;
      assert.equal(labels?.["pod-security.kubernetes.io/enforce"], "privileged");
    });

    it("would meet baseline without these, and restricted without the container that hands their disk over, too", async () => {
      const { "DaemonSet consul-agent": spec } = podTemplates(prod);
      assert.ok(spec);
      const bare = structuredClone(spec);
      bare.hostNetwork = false;
      bare.volumes = bare.volumes?.filter(({ hostPath }) => hostPath === undefined) ?? [];
      for (const port of bare.containers.flatMap(({ ports }) => ports ?? [])) delete port.hostPort;
      assert.equal(await objection("baseline", bare), undefined);
      delete bare.initContainers;
      assert.equal(await objection("restricted", bare), undefined);
    });

    it("is the strictest for everything else in the cluster", async () => {
      const { "DaemonSet consul-agent": ofAgents, ...others } = await strictest(await describeStack("dev", everything));
      assert.equal(ofAgents, agents);
      assert.deepEqual(kinds(others), ["CronJob", "Job", "StatefulSet"]);
      assert.deepEqual(new Set(Object.values(others)), new Set(["restricted"]), JSON.stringify(others));
    });

    it("is the strictest for Jobs at servers on ECS too, but for the network of their node", async () => {
      const { "DaemonSet consul-agent": ofAgents, ...others } = await strictest(
        await describeStack("prod", everything),
      );
      assert.equal(ofAgents, agents);
      assert.deepEqual(kinds(others), ["Job"]);
      const level = "host namespaces (hostNetwork=true)";
      assert.deepEqual(new Set(Object.values(others)), new Set([level]), JSON.stringify(others));
    });

    const kinds = (found: Record<string, string>) =>
      [...new Set(Object.keys(found).map((name) => name.replace(/ .*/, "")))].sort();
  });

  describe("spoilt on purpose", () => {
    type Spoil = (objects: Mutable) => void;
    interface Mutable {
      readonly daemonSet: k8s.V1DaemonSet;
      readonly pod: k8s.V1PodSpec;
      readonly account: k8s.V1ServiceAccount;
      readonly configMap: k8s.V1ConfigMap;
      readonly secret: k8s.V1Secret;
      readonly services: readonly k8s.V1Service[];
    }

    /** prod's objects, changed. */
    const spoilt = (spoil: Spoil): Described => {
      const objects = structuredClone(prod.objects);
      const the = (kind: string) => one({ objects }, kind) as unknown;
      const daemonSet = the("DaemonSet") as k8s.V1DaemonSet;
      const pod = daemonSet.spec?.template.spec;
      assert.ok(pod);
      spoil({
        daemonSet,
        pod,
        account: the("ServiceAccount") as k8s.V1ServiceAccount,
        configMap: the("ConfigMap") as k8s.V1ConfigMap,
        secret: the("Secret") as k8s.V1Secret,
        services: objects.filter(({ kind }) => kind === "Service") as unknown[] as k8s.V1Service[],
      });
      return { objects, secrets: prod.secrets };
    };

    interface Mutation {
      readonly what: string;
      readonly spoil: Spoil;
      readonly check: (stack: Described) => Promise<void>;
      readonly complaint: RegExp;
    }

    const mutations: readonly Mutation[] = [
      {
        what: "hostNetwork off",
        spoil: ({ pod }) => (pod.hostNetwork = false),
        check: onTheirNodesNetwork,
        complaint: /an agent's address is its node's/,
      },
      {
        what: "virtual nodes allowed",
        spoil: ({ pod }) => {
          const [term] =
            pod.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms ?? [];
          assert.ok(term?.matchExpressions);
          const others = term.matchExpressions.filter(({ key }) => key !== "type");
          assert.equal(others.length, term.matchExpressions.length - 1);
          term.matchExpressions = others;
        },
        check: oneOnEachRealNode,
        complaint: /nodes with an agent[^]*virtual-kubelet-cn-hangzhou-h/,
      },
      {
        what: "a node left out, for want of a toleration or by a selector",
        spoil: ({ pod }) => (pod.nodeSelector = { "topology.kubernetes.io/zone": "cn-hangzhou-h" }),
        check: oneOnEachRealNode,
        complaint: /nodes with an agent/,
      },
      {
        what: "a secret moved into the ConfigMap",
        spoil: ({ configMap, secret }) => {
          const file = secret.data?.["secrets.json"];
          assert.ok(file !== undefined);
          configMap.data = { ...configMap.data, "secrets.json": Buffer.from(file, "base64").toString() };
        },
        check: secretsInSecretsAlone,
        complaint: /objects that give a secret away[^]*ConfigMap consul-agent-/,
      },
      {
        what: "a token in the command",
        spoil: ({ pod, secret }) => {
          const file = Buffer.from(secret.data?.["secrets.json"] ?? "", "base64").toString();
          const { acl } = JSON.parse(file) as { acl: { tokens: { agent: string } } };
          pod.containers[0]?.command?.push(`-token=${acl.tokens.agent}`);
        },
        check: secretsInSecretsAlone,
        complaint: /objects that give a secret away[^]*DaemonSet consul-agent/,
      },
      {
        what: "the service account's token mounted",
        spoil: ({ account, pod }) => {
          account.automountServiceAccountToken = true;
          pod.automountServiceAccountToken = true;
        },
        check: withoutServiceAccountToken,
        complaint: /a service account's token/,
      },
      {
        what: "a Service that sends requests anywhere",
        spoil: ({ services }) => {
          for (const { spec } of services) if (spec) spec.internalTrafficPolicy = "Cluster";
        },
        check: selectedByNodeLocalServices,
        complaint: /traffic policy of consul-agent/,
      },
      {
        what: "a Service that selects others",
        spoil: ({ services }) => {
          for (const { spec } of services) if (spec) spec.selector = { "app.kubernetes.io/name": "konsul" };
        },
        check: selectedByNodeLocalServices,
        complaint: /endpoints of consul-agent/,
      },
      {
        what: "two pods at a time",
        spoil: ({ daemonSet }) => {
          const strategy = daemonSet.spec?.updateStrategy?.rollingUpdate;
          assert.ok(strategy);
          strategy.maxUnavailable = 2;
        },
        check: async (stack) => {
          const changed = structuredClone(stack);
          const { spec } = one(changed, "DaemonSet") as unknown as k8s.V1DaemonSet;
          assert.ok(spec?.template.spec);
          spec.template.spec.terminationGracePeriodSeconds = 31;
          await rollsOneAtATime(changed);
        },
        complaint: /ready agents at the worst moment[^]*9 !== 10/,
      },
    ];

    before(() => kube.apply([one(prod, "Namespace")]));

    for (const { what, spoil, check, complaint } of mutations) {
      it(`are found out: ${what}`, async () => {
        const stack = spoilt(spoil);
        assert.deepEqual(await kube.apply(inNamespace(stack)), [], "the API server itself has nothing against it");
        try {
          await settled();
          await assert.rejects(check(stack), complaint);
        } finally {
          await kube.remove(inNamespace(stack));
        }
      });
    }
  });
});
