import { Deployment } from "@pulumi/kubernetes/apps/v1/deployment";
import { Job } from "@pulumi/kubernetes/batch/v1/job";
import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap";
import { Provider } from "@pulumi/kubernetes/provider";
import * as pulumi from "@pulumi/pulumi";
import { appAccess, consulOutputs } from "consul-alicloud-outputs";
import { readdirSync, readFileSync } from "fs";
import { join } from "path";

const config = new pulumi.Config();
const name = "orders";
const port = 8080;
const namespace = config.require("namespace");
const consul = consulOutputs(new pulumi.StackReference(config.require("consulStack")));
const provider = new Provider("cluster", {
  kubeconfig: config.getSecret("kubeconfig"),
  context: config.get("context"),
});
const labels = { "app.kubernetes.io/name": name };
const withProvider = { provider };

/** The agent of the pod's own node, and the token that may do what this container does and no more. */
const environment = (app: string) => appAccess(consul, app).apply(({ environment }) => [...environment]);
const unprivileged = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  runAsNonRoot: true,
  runAsUser: 1000,
  runAsGroup: 1000,
  capabilities: { drop: ["ALL"] },
};
const podDefaults = {
  automountServiceAccountToken: false,
  securityContext: { seccompProfile: { type: "RuntimeDefault" } },
};

/** Files in a ConfigMap that never changes: other files are another one, which Pulumi names, and pods roll with it. */
function files(what: string, data: Record<string, string>): ConfigMap {
  return new ConfigMap(`${name}-${what}`, { metadata: { namespace, labels }, data, immutable: true }, withProvider);
}

// The configuration goes into Consul's KV before any pod starts with it, by a token that may write there and nothing
// else; the application's own may only read. A changed file is another Job, which runs once.
const settings = files("settings", { data: readFileSync(join(__dirname, "orders.yaml"), "utf8") });
const configured = new Job(
  `${name}-configure`,
  {
    metadata: { namespace, labels },
    spec: {
      backoffLimit: 5,
      template: {
        metadata: { labels: { "app.kubernetes.io/name": `${name}-configure` } },
        spec: {
          ...podDefaults,
          restartPolicy: "OnFailure",
          containers: [
            {
              name: "configure",
              image: consul.consulImage,
              command: ["consul", "kv", "put", `config/${name}/data`, "@/settings/data"],
              env: environment(`${name}-config`),
              resources: { requests: { cpu: "10m", memory: "64Mi" }, limits: { memory: "128Mi" } },
              securityContext: unprivileged,
              volumeMounts: [{ name: "settings", mountPath: "/settings", readOnly: true }],
            },
          ],
          volumes: [{ name: "settings", configMap: { name: settings.metadata.name } }],
        },
      },
    },
  },
  withProvider,
);

const app = join(__dirname, "app");
const program = files(
  "program",
  Object.fromEntries(readdirSync(app).map((file) => [file, readFileSync(join(app, file), "utf8")])),
);
const probe = (path: string) => ({ httpGet: { path, port: "http" }, periodSeconds: 5, timeoutSeconds: 3 });

const deployment = new Deployment(
  name,
  {
    metadata: { name, namespace, labels },
    spec: {
      replicas: config.requireNumber("replicas"),
      revisionHistoryLimit: 10,
      selector: { matchLabels: labels },
      strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: "25%", maxUnavailable: 0 } },
      template: {
        // The token's public id: a new token rolls the pods.
        metadata: { labels, annotations: { "consul-token": appAccess(consul, name).accessorId } },
        spec: {
          ...podDefaults,
          // Deregister, wait until nobody has the address from DNS any more, then stop: see app/server.js.
          terminationGracePeriodSeconds: 30,
          topologySpreadConstraints: [
            {
              maxSkew: 1,
              topologyKey: "kubernetes.io/hostname",
              whenUnsatisfiable: "ScheduleAnyway",
              labelSelector: { matchLabels: labels },
            },
          ],
          containers: [
            {
              name,
              image: config.require("image"),
              command: ["node", "/app/server.js"],
              env: environment(name).apply((variables) => [
                ...variables,
                { name: "SERVICE_NAME", value: name },
                { name: "PORT", value: String(port) },
              ]),
              ports: [{ name: "http", containerPort: port }],
              startupProbe: { ...probe("/health/live"), failureThreshold: 30 },
              livenessProbe: { ...probe("/health/live"), failureThreshold: 3 },
              readinessProbe: { ...probe("/health"), failureThreshold: 2 },
              resources: { requests: { cpu: "50m", memory: "64Mi" }, limits: { memory: "256Mi" } },
              securityContext: unprivileged,
              volumeMounts: [{ name: "program", mountPath: "/app", readOnly: true }],
            },
          ],
          volumes: [{ name: "program", configMap: { name: program.metadata.name } }],
        },
      },
    },
  },
  { provider, dependsOn: [configured] },
);

/** What the application is called in Consul's DNS. */
export const address = pulumi.interpolate`${deployment.metadata.name}.service.consul`;
/** The datacenter it is in. */
export const datacenter = consul.datacenter;
