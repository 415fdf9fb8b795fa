import { StatefulSet } from "@pulumi/kubernetes/apps/v1/statefulSet";
import type { Job } from "@pulumi/kubernetes/batch/v1/job";
import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap";
import { ServiceAccount } from "@pulumi/kubernetes/core/v1/serviceAccount";
import { PodDisruptionBudget } from "@pulumi/kubernetes/policy/v1/podDisruptionBudget";
import type { Provider } from "@pulumi/kubernetes/provider";
import * as pulumi from "@pulumi/pulumi";
import { owners } from "../../consul/acl";
import { ports, ServerConfig, trustPattern } from "../../consul/config";
import { digests, gossipPattern, keyringText } from "../../consul/gossip";
import { ConsulNode, stableJson } from "../../consul/node";
import { consulImage, ImageSettings, PodImage } from "../../consul/pod/image";
import { apiService, podCommand, podLayout, ServerPod, serverSet } from "../../consul/pod/pod";
import { readScript, withApi } from "../../consul/scripts";
import { digest } from "../../consul/secrets";
import { refusedConsent, refusedStep, SetTo, setTo } from "../../consul/upgrade";
import { KubernetesServersSettings, Settings } from "../../settings";
import { Trust } from "../trust";
import { valueOf } from "../value-of";
import { createUiIngress } from "./ingress";
import { aclWork, serversJob, ServersJobArgs } from "./job";
import { byName, frozenConfigMap, frozenSecret, labelsOf, noWait } from "./objects";
import { configMount, Mount, PodMarks, podMetadata, secretsMount, temporaryMount } from "./pod";
import { serverPod } from "./server-pod";
import { createServices } from "./server-services";
import { createStorage, ServerStorage } from "./storage";

export interface KubernetesServersArgs {
  readonly settings: KubernetesServersSettings;
  readonly config: ServerConfig;
  /** What is the whole deployment's and decides how servers are changed. */
  readonly deployment: Pick<Settings, "certificates" | "gate" | "gossip" | "tokens"> & ImageSettings;
  readonly namespace: pulumi.Input<string>;
  /** One for each server, in the order of the StatefulSet's ordinals. */
  readonly pods: readonly ServerPod[];
  readonly trust: Trust;
  /** What every pod in the cluster has. */
  readonly marks: PodMarks;
  /** Takes over the claims that an earlier stack left behind. Without one they go with the stack. */
  readonly keeper: Provider | undefined;
}

/** The part of a StatefulSet's inputs that its hook compares. */
interface StatefulSetInputs {
  readonly metadata: { readonly annotations?: Partial<SetTo> };
  readonly spec: object;
}

const labels = labelsOf("server");

/** The ConfigMap that exists as soon as a StatefulSet may exist, and the key in it. */
const marker = { name: "consul-server-exists", key: "statefulset" };

/**
 * Consul servers in the cluster: a StatefulSet, its data in claims that outlive it, and Jobs that do what has to be done
 * at the servers themselves: before a change see that they can take it, after it put ACLs in place.
 */
export class KubernetesServers extends pulumi.ComponentResource {
  /** Settles once the servers are current and have their ACLs. The component itself also waits for the Job of `retire`. */
  readonly ready: pulumi.Output<pulumi.Resource[]>;
  private readonly image: PodImage;

  constructor(
    private readonly name: string,
    private readonly args: KubernetesServersArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("consul:index:KubernetesServers", name, {}, opts);
    const { settings, namespace, pods, keeper, trust, deployment } = args;
    this.image = consulImage(deployment, settings.image);
    const nodes = this.describeNodes();
    const { headless, api } = createServices(name, { namespace, labels, grpc: settings.grpc }, this);
    const storage = createStorage(name, { settings: settings.storage, namespace, labels, pods, keeper }, this);
    const mounts = [...this.createFiles(nodes), storage.mount, temporaryMount()];
    const statefulSet = this.createStatefulSet(nodes, mounts, headless.metadata.name, storage);
    this.createBudget();
    this.ready = pulumi.output([this.job("acl", aclWork(owners.servers, trust.acl), [statefulSet, api])]);
    const ingress = settings.ui?.ingress;
    if (ingress) createUiIngress(name, { settings: ingress, namespace, labels, service: api.metadata.name }, this);
    this.registerOutputs({});
  }

  /** Takes away gossip keys and agents' tokens that no node needs any more, after something; says when. */
  retire(after: pulumi.Output<unknown>): pulumi.Output<void> {
    const { trust, deployment } = this.args;
    const { gossip, tokens } = deployment;
    if (gossip.generation === 1 && tokens.agentGeneration === 1) return after.apply(() => undefined);
    const { caCertificate, gossipKeys, agentToken } = trust;
    const command = pulumi.output({ ca: caCertificate, gossipKeys, agentToken }).apply(({ ca, ...secrets }) => {
      return ["retire.sh", "300", trustPattern(ca, secrets), digests(secrets.gossipKeys), podLayout.secretDir];
    });
    const acl = aclWork(owners.agents, trust.acl);
    const scripts = {
      ...acl.scripts,
      "retire.sh": withApi("pod/retire.sh"),
      "behind.sh": withApi("scripts/behind.sh"),
      "keyring.sh": withApi("scripts/keyring.sh"),
    };
    const { id } = this.job(
      "retire",
      { ...acl, scripts, command: pulumi.unsecret(command) },
      after.apply(() => []),
    );
    return id.apply(() => undefined);
  }

  private describeNodes(): pulumi.Output<ConsulNode>[] {
    const { pods, trust, config } = this.args;
    const placement = { name: "$(POD_NAME)", address: "$(POD_IP)" };
    return pods.map((pod) => trust.serverNode(pod.name, config, placement, podLayout));
  }

  private createFiles(nodes: readonly pulumi.Output<ConsulNode>[]): Mount[] {
    const { namespace, pods, trust } = this.args;
    const [first] = nodes;
    if (!first) throw new Error("a StatefulSet without servers");
    const object = { namespace, labels };
    const data = pulumi.unsecret(
      first.apply(({ files }) => ({
        ...byName(files.filter((file) => !file.secret)),
        "ready.sh": readScript("pod/ready.sh"),
        "before-stop.sh": withApi("pod/before-stop.sh"),
      })),
    );
    const config = frozenConfigMap(`${this.name}-config`, { ...object, data }, { parent: this });
    // One for all servers, since a StatefulSet cannot name another Secret in each pod. Each pod mounts its own part.
    const secretData = pulumi
      .all([pulumi.all([...nodes]), trust.managementToken])
      .apply(([nodes, managementToken]) => secretFiles(pods, nodes, managementToken));
    const secret = frozenSecret(`${this.name}-secrets`, { ...object, data: secretData }, { parent: this });
    const items = pulumi
      .unsecret(secret.data.apply((data) => Object.keys(data).sort()))
      .apply((keys) => keys.map((key) => ({ key, path: pathInVolume(pods, key) })));
    const volume = { secret: { secretName: secret.metadata.name, defaultMode: 0o440, items } };
    return [
      configMount(config.metadata.name),
      { ...secretsMount(secret.metadata.name), subPathExpr: "$(POD_NAME)", volume },
    ];
  }

  private createStatefulSet(
    nodes: readonly pulumi.Output<ConsulNode>[],
    mounts: readonly Mount[],
    serviceName: pulumi.Output<string>,
    { claims, claimTemplates }: ServerStorage,
  ): StatefulSet {
    const { settings, namespace, pods, config, marks } = this.args;
    const account = new ServiceAccount(
      `${this.name}-account`,
      { metadata: { name: serverSet, namespace, labels }, automountServiceAccountToken: false },
      { parent: this },
    );
    const command = pulumi.unsecret(pulumi.all([...nodes]).apply(([first]) => (first ? podCommand(first) : [])));
    const spec = {
      serviceName,
      replicas: pods.length,
      selector: { matchLabels: labels },
      // None becomes ready before a majority is there.
      podManagementPolicy: "Parallel",
      updateStrategy: { type: "RollingUpdate" },
      persistentVolumeClaimRetentionPolicy: { whenDeleted: "Retain", whenScaled: "Retain" },
      revisionHistoryLimit: 10,
      template: {
        metadata: podMetadata(labels, marks, settings),
        spec: serverPod({
          settings,
          config,
          image: this.image,
          command,
          mounts,
          account: account.metadata.name,
          labels,
        }),
      },
      ...claimTemplates,
    };
    const { deployment } = this.args;
    const consent = this.beforeChange(spec);
    // What comes after the StatefulSet does not wait for servers that may be lost.
    const annotations = { ...setTo(deployment), ...(deployment.gate.skip.length > 0 ? noWait : {}) };
    return new StatefulSet(
      this.name,
      { metadata: { name: serverSet, namespace, labels, annotations }, spec },
      {
        parent: this,
        hooks: { beforeUpdate: [this.changeHook(consent)] },
        dependsOn: [...claims, this.createMarker(consent)],
        // The claims exist already. A change of the template would only replace the StatefulSet.
        ignoreChanges: ["spec.volumeClaimTemplates"],
        // A server that comes back under another address is taken in again after 40 to 70 s, one after another.
        customTimeouts: { create: "15m", update: "1h", delete: "15m" },
      },
    );
  }

  /**
   * Refuses a step that is too long, in the preview already: annotations say what the servers were last set to. Refuses
   * a change to which the Job agreed long ago, in an `up` that ended before the change.
   */
  private changeHook(consent: Job): pulumi.ResourceHook {
    const { deployment } = this.args;
    const step = setTo(deployment);
    const preview = pulumi.runtime.isDryRun();
    return new pulumi.ResourceHook(
      `${this.name}-step`,
      async ({ oldInputs, newInputs }) => {
        const [before, after] = [oldInputs, newInputs] as [StatefulSetInputs, StatefulSetInputs];
        const refusal = refusedStep(before.metadata.annotations ?? {}, step);
        if (refusal !== undefined && deployment.gate.skip.length === 0) {
          throw new pulumi.RunError(`the servers are not updated: ${refusal}`);
        }
        if (preview || stableJson(before.spec) === stableJson(after.spec)) return;
        const { urn, agreed } = await valueOf(
          pulumi.output({ urn: consent.urn, agreed: consent.status.completionTime }),
        );
        const old = refusedConsent(agreed, new Date());
        if (old !== undefined) {
          throw new pulumi.RunError(`the servers are not updated: ${old}. Ask again: \`pulumi up --replace '${urn}'\``);
        }
      },
      { onDryRun: true },
    );
  }

  private createBudget() {
    new PodDisruptionBudget(
      `${this.name}-budget`,
      {
        metadata: { name: serverSet, namespace: this.args.namespace, labels },
        spec: { maxUnavailable: 1, selector: { matchLabels: labels } },
      },
      { parent: this },
    );
  }

  /**
   * The Job that does what a StatefulSet does not: Kubernetes replaces a server although another one is down, and a
   * server that starts with a new gossip key would stay alone. The Job runs before each change of the pods. Where the Job
   * fails, no pod was touched.
   */
  private beforeChange(spec: pulumi.Input<object>) {
    const { pods, trust, deployment } = this.args;
    const { waitMinutes, skip } = deployment.gate;
    const hosts = pods.map(({ host }) => `https://${host}:${ports.https}`);
    const { gossipKeys } = trust;
    const keyFile = `${podLayout.secretDir}/gossip.keyring`;
    return this.job("roll", {
      scripts: {
        "roll.sh": withApi("pod/roll.sh"),
        "keyring.sh": withApi("scripts/keyring.sh"),
        "behind.sh": withApi("scripts/behind.sh"),
      },
      command: ["roll.sh", String(waitMinutes * 60), skip.join(",") || "none", keyFile, ...hosts],
      files: gossipKeys.apply((keys) => ({ "gossip.keyring": keyringText(keys) })),
      environment: {
        FOR: pulumi.unsecret(pulumi.output(spec).apply((all) => digest(stableJson(all)))),
        CERTIFICATES_FROM: trust.certificatesFrom.apply((time) => String(Math.floor(Date.parse(time) / 1000))),
        GOSSIP_PATTERN: pulumi.unsecret(gossipKeys.apply(gossipPattern)),
      },
      variables: [{ name: "SERVERS_EXIST", valueFrom: { configMapKeyRef: { ...marker, optional: true } } }],
      minutes: waitMinutes + 15,
      retry: false,
    });
  }

  /**
   * Tells the Job above, from the second change on, that a StatefulSet may exist. This ConfigMap is made after the first
   * Job and before the StatefulSet, and is deleted after the StatefulSet. The program cannot tell by itself: it does not
   * see the state, hooks are called only for updates, and a Job with the argument "first" would be another Job at the
   * next `up`. A Job that asked the API server would need rights and a way there; here the kubelet looks when the Job
   * starts.
   */
  private createMarker(firstJob: pulumi.Resource): ConfigMap {
    return new ConfigMap(
      `${this.name}-marker`,
      {
        metadata: { name: marker.name, namespace: this.args.namespace, labels },
        data: { [marker.key]: serverSet },
      },
      { parent: this, dependsOn: [firstJob] },
    );
  }

  private job(
    what: string,
    wanted: Pick<ServersJobArgs, "scripts" | "command" | "files" | "environment" | "variables" | "minutes" | "retry">,
    dependsOn: pulumi.Input<pulumi.Resource[]> = [],
  ) {
    const { namespace, trust, marks } = this.args;
    return serversJob(
      `${this.name}-${what}`,
      {
        accountName: `${serverSet}-${what}`,
        namespace,
        labels: labelsOf(`server-${what}`),
        marks,
        image: this.image,
        serverUrls: [pulumi.interpolate`https://${apiService}.${namespace}.svc:${ports.https}`],
        caCertificate: trust.caCertificate,
        managementToken: trust.managementToken,
        ...wanted,
      },
      { parent: this, dependsOn },
    );
  }
}

/** The secret files of all servers, as `<pod>.<file>`. */
function secretFiles(pods: readonly ServerPod[], nodes: readonly ConsulNode[], managementToken: string) {
  const files = pods.flatMap((pod, i) => {
    const own = byName(nodes[i]?.files.filter((file) => file.secret) ?? []);
    return Object.entries({ ...own, "management-token": managementToken }).map(
      ([file, content]) => [`${pod.name}.${file}`, content] as const,
    );
  });
  return Object.fromEntries(files);
}

/** Where the volume has a file of the Secret: in the directory of the file's own pod. */
function pathInVolume(pods: readonly ServerPod[], key: string): string {
  const pod = pods.find((candidate) => key.startsWith(`${candidate.name}.`))?.name ?? "";
  return `${pod}/${key.slice(pod.length + 1)}`;
}
