import { CustomResource } from "@pulumi/kubernetes/apiextensions/customResource";
import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap";
import { Endpoints } from "@pulumi/kubernetes/core/v1/endpoints";
import { Service } from "@pulumi/kubernetes/core/v1/service";
import * as pulumi from "@pulumi/pulumi";
import { readFileSync } from "fs";
import { join } from "path";
import { parse } from "yaml";
import { snapshotMetricsKey } from "../../consul/access";
import { ports } from "../../consul/config";

export interface MonitoringArgs {
  /** Namespace for everything here. */
  readonly namespace: pulumi.Input<string>;
  /** Namespace of the agents, and of servers in the cluster. */
  readonly consulNamespace: pulumi.Input<string>;
  /** Labels by which Prometheus picks its monitors and rules. */
  readonly labels: Readonly<Record<string, string>>;
  readonly rules: boolean;
  readonly dashboard: boolean;
  /** What to scrape, and the Secret in `namespace` with the token for it; nothing without. */
  readonly scrape?: {
    readonly token: pulumi.Input<{ readonly secretName: string; readonly key: string }>;
    readonly datacenter: pulumi.Input<string>;
    /** Addresses of servers outside the cluster; those inside are found as pods. */
    readonly serverAddresses: pulumi.Input<string[]> | undefined;
    readonly caCertificate: pulumi.Input<string>;
    /** Whether the servers take snapshots. */
    readonly snapshots: boolean;
  };
}

const file = (name: string) => readFileSync(join(__dirname, "..", "..", "monitoring", name), "utf8");
const api = "monitoring.coreos.com/v1";
const metrics = { path: "/v1/agent/metrics", params: { format: ["prometheus"] } };

/**
 * What Prometheus (with its operator: ACK's managed one has it) and Grafana need: the rules and the dashboard of
 * monitoring/, and monitors that give every target the job name and datacenter that those ask for.
 */
export class Monitoring extends pulumi.ComponentResource {
  constructor(name: string, args: MonitoringArgs, opts?: pulumi.ComponentResourceOptions) {
    super("consul:index:Monitoring", name, {}, opts);
    const parent = { parent: this };
    const { namespace, scrape } = args;
    const labels = { ...args.labels, "app.kubernetes.io/name": "consul", "app.kubernetes.io/component": "monitoring" };
    const metadata = (object: string) => ({ name: object, namespace, labels });

    if (args.rules) {
      const spec = parse(file("rules.yaml")) as object;
      new CustomResource(
        `${name}-rules`,
        { apiVersion: api, kind: "PrometheusRule", metadata: metadata("consul"), spec },
        parent,
      );
    }
    if (args.dashboard) {
      const dashboardLabels = { ...labels, grafana_dashboard: "1" };
      new ConfigMap(
        `${name}-dashboard`,
        {
          metadata: { name: "consul-dashboard", namespace, labels: dashboardLabels },
          data: { "consul.json": file("dashboard.json") },
        },
        parent,
      );
    }
    if (scrape) {
      scrapePods("agent", [{ ...target("consul-agents", scrape), port: "http", ...metrics }]);
      scrapeServers(scrape);
    }
    this.registerOutputs({});

    function target(job: string, { token, datacenter }: NonNullable<typeof scrape>) {
      return {
        interval: "30s",
        authorization: {
          credentials: pulumi.output(token).apply(({ secretName, key }) => ({ name: secretName, key })),
        },
        relabelings: [
          { targetLabel: "job", replacement: job },
          { targetLabel: "consul_datacenter", replacement: datacenter },
        ],
      };
    }

    function scrapePods(component: string, podMetricsEndpoints: object[]) {
      const matchLabels = { "app.kubernetes.io/name": "consul", "app.kubernetes.io/component": component };
      new CustomResource(
        `${name}-${component}-pods`,
        {
          apiVersion: api,
          kind: "PodMonitor",
          metadata: metadata(`consul-${component}s`),
          spec: {
            namespaceSelector: { matchNames: [args.consulNamespace] },
            selector: { matchLabels },
            podMetricsEndpoints,
          },
        },
        parent,
      );
    }

    function scrapeServers(wanted: NonNullable<typeof scrape>) {
      const ca = new ConfigMap(
        `${name}-ca`,
        { metadata: metadata("consul-servers-ca"), data: { "ca.pem": wanted.caCertificate } },
        parent,
      );
      const tls = {
        scheme: "https",
        port: "https",
        tlsConfig: {
          ca: { configMap: { name: ca.metadata.name, key: "ca.pem" } },
          serverName: pulumi.interpolate`server.${wanted.datacenter}.consul`,
        },
      };
      const snapshots = {
        ...target("consul-snapshots", wanted),
        ...tls,
        path: `/v1/kv/${snapshotMetricsKey}`,
        params: { raw: [""], stale: [""] },
      };
      const endpoints = [
        { ...target("consul-servers", wanted), ...tls, ...metrics },
        ...(wanted.snapshots ? [snapshots] : []),
      ];
      if (wanted.serverAddresses === undefined) scrapePods("server", endpoints);
      else scrapeAddresses(wanted.serverAddresses, endpoints);
    }

    /** A Service with the addresses of the servers makes them known in the cluster. */
    function scrapeAddresses(serverAddresses: pulumi.Input<string[]>, endpoints: object[]) {
      const serverLabels = { ...labels, "app.kubernetes.io/component": "server-metrics" };
      const port = { name: "https", port: ports.https, protocol: "TCP" };
      const service = new Service(
        `${name}-servers`,
        {
          metadata: {
            name: "consul-servers-metrics",
            namespace,
            labels: serverLabels,
            annotations: { "pulumi.com/skipAwait": "true" },
          },
          spec: { clusterIP: "None", ports: [port] },
        },
        parent,
      );
      const addresses = pulumi.output(serverAddresses).apply((all) => all.map((ip) => ({ ip })));
      // Endpoints, not an EndpointSlice: Prometheus' operator looks for these unless told otherwise, and Kubernetes
      // makes the slice from them.
      new Endpoints(
        `${name}-servers-addresses`,
        {
          metadata: { name: service.metadata.name, namespace, labels: serverLabels },
          subsets: [{ addresses, ports: [port] }],
        },
        parent,
      );
      new CustomResource(
        `${name}-server-monitor`,
        {
          apiVersion: api,
          kind: "ServiceMonitor",
          metadata: metadata("consul-servers"),
          spec: { selector: { matchLabels: { "app.kubernetes.io/component": "server-metrics" } }, endpoints },
        },
        parent,
      );
    }
  }
}
