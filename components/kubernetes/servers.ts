import { StatefulSet } from "@pulumi/kubernetes/apps/v1/statefulSet";
import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap";
import { PersistentVolume } from "@pulumi/kubernetes/core/v1/persistentVolume";
import { PersistentVolumeClaim } from "@pulumi/kubernetes/core/v1/persistentVolumeClaim";
import { Secret } from "@pulumi/kubernetes/core/v1/secret";
import { Service } from "@pulumi/kubernetes/core/v1/service";
import { ServiceAccount } from "@pulumi/kubernetes/core/v1/serviceAccount";
import { Ingress } from "@pulumi/kubernetes/networking/v1/ingress";
import { PodDisruptionBudget } from "@pulumi/kubernetes/policy/v1/podDisruptionBudget";
import type { Provider } from "@pulumi/kubernetes/provider";
import * as pulumi from "@pulumi/pulumi";
import { ports, ServerConfig, trustPattern } from "../../consul/config";
import { readScript, withApi } from "../../consul/scripts";
import { refusedStep, setTo } from "../../consul/upgrade";
import { stableJson } from "../../consul/node";
import {
  apiService,
  base64Values,
  byName,
  contentName,
  podLayout,
  realLinuxNodes,
  ServerPod,
  serverSet,
  unprivileged,
  unprivilegedPod,
} from "../../consul/pod/pod";
import { digest } from "../../consul/secrets";
import { KubernetesServersSettings, Settings } from "../../settings";
import { aclFiles, serversJob, ServersJobArgs } from "./job";
import { Trust } from "../trust";

export interface KubernetesServersArgs {
  readonly settings: KubernetesServersSettings;
  readonly config: ServerConfig;
  /** What is the whole stack's and decides how servers are changed. */
  readonly deployment: Pick<Settings, "version" | "certificates" | "gate" | "gossip" | "tokens">;
  readonly namespace: pulumi.Input<string>;
  /** One for each server, in the order of the StatefulSet's ordinals. */
  readonly pods: readonly ServerPod[];
  readonly trust: Trust;
  /** Takes over the claims that an earlier stack left behind. Without one they go with the stack. */
  readonly keeper: Provider | undefined;
}

/**
 * Consul servers in the cluster: a StatefulSet, its data in claims that outlive it, and Jobs that do what has to be done
 * at the servers themselves: before a change see that they can take it, after it put ACLs in place.
 */
export class KubernetesServers extends pulumi.ComponentResource {
  /** There once the servers are up to date and have their ACLs. Not the component: that is what `retire` makes as well. */
  readonly ready: pulumi.Output<pulumi.Resource[]>;
  /** Takes away gossip keys and agents' tokens that no node needs any more, once the agents are up to date. */
  readonly retire: (after: pulumi.Output<unknown>) => pulumi.Output<void>;

  constructor(name: string, args: KubernetesServersArgs, opts?: pulumi.ComponentResourceOptions) {
    super("consul:index:KubernetesServers", name, {}, opts);
    const { settings, namespace, pods, trust, config, deployment: stack } = args;
    const { storage } = settings;
    const parent = { parent: this };
    const labels = { "app.kubernetes.io/name": "consul", "app.kubernetes.io/component": "server" };
    const image = settings.image ?? `hashicorp/consul:${stack.version}`;
    // `up` waits for the StatefulSet; waiting for the same pods, or for a controller, would say nothing about the servers.
    const noWait = { "pulumi.com/skipAwait": "true" };

    // What the servers were last set to: the next change compares, in its preview already, without asking anybody.
    const step = setTo(stack);
    const refuseStep = new pulumi.ResourceHook(
      `${name}-step`,
      ({ oldInputs }) => {
        const { metadata } = oldInputs as { metadata: { annotations?: Partial<typeof step> } };
        const refusal = refusedStep(metadata.annotations ?? {}, step);
        if (refusal !== undefined && stack.gate.skip.length === 0) {
          throw new pulumi.RunError(`the servers are not updated: ${refusal}`);
        }
      },
      { onDryRun: true },
    );

    const nodes = pods.map((pod) =>
      trust.serverNode(pod.name, config, { name: "$(POD_NAME)", address: "$(POD_IP)" }, podLayout),
    );
    const configMap = createConfigMap();
    const secret = createSecret();
    const account = new ServiceAccount(
      `${name}-account`,
      { metadata: { name: serverSet, namespace, labels }, automountServiceAccountToken: false },
      parent,
    );
    const headless = createHeadlessService();
    const api = createApiService();
    const claims = storage.nfs ? [createSharedClaim(storage.nfs)] : pods.map(createClaim);
    const statefulSet = createStatefulSet();
    new PodDisruptionBudget(
      `${name}-budget`,
      {
        metadata: { name: serverSet, namespace, labels },
        spec: { maxUnavailable: 1, selector: { matchLabels: labels } },
      },
      parent,
    );
    const acl = aclFiles(trust.acl);
    this.ready = pulumi.output([job("acl", acl, [statefulSet, api])]);
    this.retire = retire;
    if (settings.ui?.ingress) createIngress(settings.ui.ingress);
    this.registerOutputs({});

    // Names made from the content: see components/kubernetes-agents.ts.
    function createConfigMap(): ConfigMap {
      const [first] = nodes;
      if (!first) throw new Error("a StatefulSet without servers");
      const data = pulumi.unsecret(
        first.apply(({ files }) => ({
          ...byName(files.filter((file) => !file.secret)),
          "ready.sh": readScript("pod/ready.sh"),
          "before-stop.sh": withApi("pod/before-stop.sh"),
        })),
      );
      return new ConfigMap(
        `${name}-config`,
        {
          metadata: { name: data.apply((content) => contentName(serverSet, content)), namespace, labels },
          immutable: true,
          data,
        },
        parent,
      );
    }

    /** One for all: a StatefulSet cannot name another Secret in each pod. `<pod>.<file>`, of which a pod mounts its own. */
    function createSecret(): Secret {
      const data = pulumi.secret(
        pulumi.all([pulumi.all(nodes), trust.managementToken]).apply(([described, managementToken]) =>
          Object.fromEntries(
            pods.flatMap((pod, i) => {
              const files = byName(described[i]?.files.filter((file) => file.secret) ?? []);
              return Object.entries(base64Values({ ...files, "management-token": managementToken })).map(
                ([file, content]) => [`${pod.name}.${file}`, content] as const,
              );
            }),
          ),
        ),
      );
      const metadataName = pulumi.unsecret(data.apply((content) => contentName(serverSet, content)));
      return new Secret(
        `${name}-secrets`,
        { metadata: { name: metadataName, namespace, labels }, immutable: true, type: "Opaque", data },
        parent,
      );
    }

    /** A name for each pod, before it is ready: that is how servers that start find each other. */
    function createHeadlessService(): Service {
      return new Service(
        `${name}-headless`,
        {
          metadata: { name: serverSet, namespace, labels, annotations: noWait },
          spec: {
            clusterIP: "None",
            publishNotReadyAddresses: true,
            selector: labels,
            ports: [
              { name: "rpc", port: ports.rpc, targetPort: "rpc", protocol: "TCP" },
              { name: "gossip-tcp", port: ports.gossip, targetPort: "gossip-tcp", protocol: "TCP" },
              { name: "gossip-udp", port: ports.gossip, targetPort: "gossip-udp", protocol: "UDP" },
              { name: "https", port: ports.https, targetPort: "https", protocol: "TCP" },
            ],
          },
        },
        parent,
      );
    }

    /** Any server that is ready, for people and for the Ingress. */
    function createApiService(): Service {
      return new Service(
        `${name}-api`,
        {
          metadata: { name: apiService, namespace, labels, annotations: noWait },
          spec: {
            selector: labels,
            ports: [{ name: "https", port: ports.https, targetPort: "https", protocol: "TCP" }],
          },
        },
        parent,
      );
    }

    // Claims are resources of their own, under the names that the StatefulSet looks for: so `destroy` says that it keeps
    // them, and a larger size is an update of the claim and not a new StatefulSet.
    function createClaim(pod: ServerPod): PersistentVolumeClaim {
      return new PersistentVolumeClaim(
        `${name}-data-${pod.name}`,
        {
          // A class that binds with the first pod leaves it pending until then.
          metadata: { name: `data-${pod.name}`, namespace, labels, annotations: noWait },
          spec: claimSpec(),
        },
        args.keeper ? { ...parent, provider: args.keeper, retainOnDelete: true } : parent,
      );
    }

    function claimSpec() {
      return {
        accessModes: [storage.accessMode],
        storageClassName: storage.class,
        resources: { requests: { storage: storage.size } },
      };
    }

    /** One volume for all servers, each with a directory of its own. */
    function createSharedClaim(nfs: NonNullable<typeof storage.nfs>): PersistentVolumeClaim {
      const claimName = `${serverSet}-data`;
      const shared = {
        accessModes: ["ReadWriteMany"],
        storageClassName: "",
        volumeMode: "Filesystem",
      };
      const volume = new PersistentVolume(
        `${name}-nfs`,
        {
          metadata: { name: pulumi.interpolate`${namespace}-${claimName}`, labels },
          spec: {
            ...shared,
            capacity: { storage: storage.size },
            persistentVolumeReclaimPolicy: "Retain",
            mountOptions: [...nfs.mountOptions],
            nfs: { server: nfs.server, path: nfs.path },
            claimRef: { apiVersion: "v1", kind: "PersistentVolumeClaim", namespace, name: claimName },
          },
        },
        parent,
      );
      return new PersistentVolumeClaim(
        `${name}-data`,
        {
          metadata: { name: claimName, namespace, labels },
          spec: {
            ...shared,
            volumeName: volume.metadata.name,
            resources: { requests: { storage: storage.size } },
          },
        },
        parent,
      );
    }

    function createStatefulSet(): StatefulSet {
      const environment = [
        { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
        { name: "POD_IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } },
        // For the scripts, and for `kubectl exec`: who may do that may read the file as well.
        { name: "CONSUL_HTTP_ADDR", value: `http://${config.localAddress}:${ports.http}` },
        { name: "CONSUL_HTTP_TOKEN_FILE", value: `${podLayout.secretDir}/management-token` },
      ];
      const run = (file: string) => ["/bin/sh", "-c", `exec /bin/sh ${podLayout.configDir}/${file} "$POD_IP"`];
      const own = "$(POD_NAME)";
      const spec = {
        serviceName: headless.metadata.name,
        replicas: pods.length,
        selector: { matchLabels: labels },
        // None becomes ready before a majority is there.
        podManagementPolicy: "Parallel",
        updateStrategy: { type: "RollingUpdate" },
        persistentVolumeClaimRetentionPolicy: { whenDeleted: "Retain", whenScaled: "Retain" },
        revisionHistoryLimit: 10,
        template: {
          metadata: { labels },
          spec: {
            serviceAccountName: account.metadata.name,
            automountServiceAccountToken: false,
            enableServiceLinks: false,
            priorityClassName: settings.priorityClassName,
            // Long enough for before-stop.sh (60 s) and Consul's own end.
            terminationGracePeriodSeconds: 90,
            nodeSelector: settings.nodeSelector,
            tolerations: settings.tolerations.map((toleration) => ({ ...toleration })),
            affinity: {
              nodeAffinity: realLinuxNodes(),
              podAntiAffinity: {
                requiredDuringSchedulingIgnoredDuringExecution: [
                  { labelSelector: { matchLabels: labels }, topologyKey: "kubernetes.io/hostname" },
                ],
              },
            },
            topologySpreadConstraints: [
              {
                maxSkew: 1,
                topologyKey: "topology.kubernetes.io/zone",
                whenUnsatisfiable: "ScheduleAnyway",
                labelSelector: { matchLabels: labels },
              },
            ],
            securityContext: { ...unprivilegedPod, fsGroupChangePolicy: "OnRootMismatch" },
            containers: [
              {
                name: "consul",
                image,
                imagePullPolicy: "IfNotPresent",
                command: pulumi.unsecret(pulumi.all(nodes).apply(([first]) => [...(first?.command ?? [])])),
                env: environment,
                ports: [
                  { name: "rpc", containerPort: ports.rpc, protocol: "TCP" },
                  { name: "gossip-tcp", containerPort: ports.gossip, protocol: "TCP" },
                  { name: "gossip-udp", containerPort: ports.gossip, protocol: "UDP" },
                  { name: "https", containerPort: ports.https, protocol: "TCP" },
                ],
                // No liveness probe: a server without a leader is not better for being started again.
                readinessProbe: {
                  exec: { command: run("ready.sh") },
                  initialDelaySeconds: 2,
                  periodSeconds: 3,
                  timeoutSeconds: 5,
                  failureThreshold: 2,
                  successThreshold: 1,
                },
                lifecycle: { preStop: { exec: { command: run("before-stop.sh") } } },
                resources: settings.resources,
                securityContext: unprivileged,
                terminationMessagePolicy: "FallbackToLogsOnError",
                volumeMounts: [
                  { name: "config", mountPath: podLayout.configDir, readOnly: true },
                  { name: "secrets", mountPath: podLayout.secretDir, subPathExpr: own, readOnly: true },
                  { name: "data", mountPath: podLayout.dataDir, ...(storage.nfs ? { subPathExpr: own } : {}) },
                  // Snapshots are put together there.
                  { name: "tmp", mountPath: "/tmp" },
                ],
              },
            ],
            volumes: [
              { name: "config", configMap: { name: configMap.metadata.name, defaultMode: 0o444 } },
              {
                name: "secrets",
                secret: { secretName: secret.metadata.name, defaultMode: 0o440, items: secretItems() },
              },
              { name: "tmp", emptyDir: {} },
              ...(storage.nfs ? [{ name: "data", persistentVolumeClaim: { claimName: `${serverSet}-data` } }] : []),
            ],
          },
        },
        ...(storage.nfs ? {} : { volumeClaimTemplates: [{ metadata: { name: "data" }, spec: claimSpec() }] }),
      };
      return new StatefulSet(
        name,
        { metadata: { name: serverSet, namespace, labels, annotations: { ...step } }, spec },
        {
          ...parent,
          hooks: { beforeUpdate: [refuseStep] },
          dependsOn: [...claims, beforeChange(spec)],
          // The claims are there already; a change of the template would only make a new StatefulSet.
          ignoreChanges: ["spec.volumeClaimTemplates"],
          // A server that comes back under another address is taken in again after 40 to 70 s, one after another.
          customTimeouts: { create: "15m", update: "1h", delete: "15m" },
        },
      );
    }

    function secretItems() {
      return pulumi.unsecret(secret.data.apply((data) => Object.keys(data).sort())).apply((keys) =>
        keys.map((key) => {
          const pod = pods.find((candidate) => key.startsWith(`${candidate.name}.`))?.name ?? "";
          return { key, path: `${pod}/${key.slice(pod.length + 1)}` };
        }),
      );
    }

    /**
     * What Kubernetes does not see to: it replaces a server although another one is out, and one that starts with a new
     * gossip key would stay alone. Runs before each change of the pods; after a failure nothing has been touched.
     */
    function beforeChange(spec: pulumi.Input<object>) {
      const { waitMinutes, skip } = stack.gate;
      const hosts = pods.map(({ host }) => `https://${host}:${ports.https}`);
      const seconds = String(waitMinutes * 60);
      const keyFile = `${podLayout.secretDir}/gossip-key`;
      return job("roll", {
        scripts: { "roll.sh": withApi("pod/roll.sh"), "keyring.sh": withApi("scripts/keyring.sh") },
        command: ["roll.sh", seconds, skip.join(",") || "none", keyFile, ...hosts],
        files: trust.gossipKey.apply((key) => ({ "gossip-key": key })),
        environment: { FOR: pulumi.unsecret(pulumi.output(spec).apply((all) => digest(stableJson(all)))) },
        minutes: waitMinutes + 15,
        retry: false,
      });
    }

    function retire(after: pulumi.Output<unknown>): pulumi.Output<void> {
      if (stack.gossip.generation === 1 && stack.tokens.agentGeneration === 1) return after.apply(() => undefined);
      const { caCertificate, gossipKey, agentToken } = trust;
      const command = pulumi.output({ ca: caCertificate, gossipKey, agentToken }).apply(({ ca, ...secrets }) => {
        return ["retire.sh", "300", trustPattern(ca, secrets), digest(secrets.gossipKey), podLayout.secretDir];
      });
      const scripts = {
        "retire.sh": withApi("pod/retire.sh"),
        "behind.sh": withApi("scripts/behind.sh"),
        "keyring.sh": withApi("scripts/keyring.sh"),
        "acl.sh": readScript("scripts/acl.sh"),
      };
      const { id } = job(
        "retire",
        { scripts, command: pulumi.unsecret(command), files: acl.files },
        after.apply(() => []),
      );
      return id.apply(() => undefined);
    }

    function job(
      what: string,
      wanted: Pick<ServersJobArgs, "scripts" | "command" | "files" | "environment" | "minutes" | "retry">,
      dependsOn: pulumi.Input<pulumi.Resource[]> = [],
    ) {
      return serversJob(
        `${name}-${what}`,
        {
          prefix: `${serverSet}-${what}`,
          namespace,
          labels: { ...labels, "app.kubernetes.io/component": `server-${what}` },
          image,
          serverUrls: [pulumi.interpolate`https://${apiService}.${namespace}.svc:${ports.https}`],
          caCertificate: trust.caCertificate,
          managementToken: trust.managementToken,
          ...wanted,
        },
        { ...parent, dependsOn },
      );
    }

    function createIngress(ingress: NonNullable<NonNullable<KubernetesServersSettings["ui"]>["ingress"]>) {
      new Ingress(
        `${name}-ui`,
        {
          metadata: {
            name: "consul-ui",
            namespace,
            labels,
            annotations: {
              ...noWait,
              ...(ingress.annotations ?? {
                "nginx.ingress.kubernetes.io/backend-protocol": "HTTPS",
                "nginx.ingress.kubernetes.io/whitelist-source-range": ingress.sourceRanges.join(","),
              }),
            },
          },
          spec: {
            ingressClassName: ingress.class,
            tls: [{ hosts: [ingress.host], secretName: ingress.tlsSecret }],
            rules: [
              {
                host: ingress.host,
                http: {
                  paths: [
                    {
                      path: "/",
                      pathType: "Prefix",
                      backend: { service: { name: api.metadata.name, port: { name: "https" } } },
                    },
                  ],
                },
              },
            ],
          },
        },
        parent,
      );
    }
  }
}
