import { CustomResource } from "@pulumi/kubernetes/apiextensions/customResource";
import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap";
import { Endpoints } from "@pulumi/kubernetes/core/v1/endpoints";
import { Service } from "@pulumi/kubernetes/core/v1/service";
import * as pulumi from "@pulumi/pulumi";
import { isIP } from "net";
import { readFileSync } from "fs";
import { join } from "path";
import { parse } from "yaml";
import { snapshotMetricsKey } from "../../consul/access";
import { ports } from "../../consul/config";
import { labelsOf, noWait } from "./objects";

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

type Scrape = NonNullable<MonitoringArgs["scrape"]>;

const file = (name: string) => readFileSync(join(__dirname, "..", "..", "monitoring", name), "utf8");
const api = "monitoring.coreos.com/v1";
const metrics = { path: "/v1/agent/metrics", params: { format: ["prometheus"] } };

/**
 * What Prometheus (with its operator: ACK's managed one has it) and Grafana need: the rules and the dashboard of
 * monitoring/, and monitors that give every target the job name and datacenter that those ask for.
 */
export class Monitoring extends pulumi.ComponentResource {
  private readonly labels: Readonly<Record<string, string>>;

  constructor(
    private readonly name: string,
    private readonly args: MonitoringArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("consul:index:Monitoring", name, {}, opts);
    this.labels = { ...args.labels, ...labelsOf("monitoring") };
    if (args.rules) this.createRules();
    if (args.dashboard) this.createDashboard();
    if (args.scrape) {
      this.scrapePods("agent", [{ ...target("consul-agents", args.scrape), port: "http", ...metrics }]);
      this.scrapeServers(args.scrape);
    }
    this.registerOutputs({});
  }

  private createRules() {
    const spec = parse(file("rules.yaml")) as object;
    this.createCustom("rules", "PrometheusRule", "consul", spec);
  }

  private createDashboard() {
    const labels = { ...this.labels, grafana_dashboard: "1" };
    new ConfigMap(
      `${this.name}-dashboard`,
      { metadata: { ...this.metadata("consul-dashboard"), labels }, data: { "consul.json": file("dashboard.json") } },
      { parent: this },
    );
  }

  private scrapePods(component: string, podMetricsEndpoints: object[]) {
    this.createCustom(`${component}-pods`, "PodMonitor", `consul-${component}s`, {
      namespaceSelector: { matchNames: [this.args.consulNamespace] },
      selector: { matchLabels: labelsOf(component) },
      podMetricsEndpoints,
    });
  }

  private scrapeServers(scrape: Scrape) {
    const ca = new ConfigMap(
      `${this.name}-ca`,
      { metadata: this.metadata("consul-servers-ca"), data: { "ca.pem": scrape.caCertificate } },
      { parent: this },
    );
    const tls = {
      scheme: "https",
      port: "https",
      tlsConfig: {
        ca: { configMap: { name: ca.metadata.name, key: "ca.pem" } },
        serverName: pulumi.interpolate`server.${scrape.datacenter}.consul`,
      },
    };
    const snapshots = {
      ...target("consul-snapshots", scrape),
      ...tls,
      path: `/v1/kv/${snapshotMetricsKey}`,
      params: { raw: [""], stale: [""] },
    };
    const endpoints = [
      { ...target("consul-servers", scrape), ...tls, ...metrics },
      ...(scrape.snapshots ? [snapshots] : []),
    ];
    if (scrape.serverAddresses === undefined) this.scrapePods("server", endpoints);
    else this.scrapeAddresses(scrape.serverAddresses, endpoints);
  }

  /** A Service with the addresses of the servers makes them known in the cluster. */
  private scrapeAddresses(serverAddresses: pulumi.Input<string[]>, endpoints: object[]) {
    const component = labelsOf("server-metrics");
    const labels = { ...this.labels, ...component };
    const port = { name: "https", port: ports.https, protocol: "TCP" };
    const service = new Service(
      `${this.name}-servers`,
      {
        metadata: { ...this.metadata("consul-servers-metrics"), labels, annotations: noWait },
        spec: { clusterIP: "None", ports: [port] },
      },
      { parent: this },
    );
    const addresses = pulumi.output(serverAddresses).apply((all) => all.map((ip) => ({ ip: addressOf(ip) })));
    // Endpoints, not an EndpointSlice: Prometheus' operator looks for these unless told otherwise, and Kubernetes
    // makes the slice from them.
    new Endpoints(
      `${this.name}-servers-addresses`,
      {
        metadata: { name: service.metadata.name, namespace: this.args.namespace, labels },
        subsets: [{ addresses, ports: [port] }],
      },
      { parent: this },
    );
    const matchLabels = { "app.kubernetes.io/component": component["app.kubernetes.io/component"] };
    this.createCustom("server-monitor", "ServiceMonitor", "consul-servers", { selector: { matchLabels }, endpoints });
  }

  private createCustom(name: string, kind: string, object: string, spec: object) {
    new CustomResource(
      `${this.name}-${name}`,
      { apiVersion: api, kind, metadata: this.metadata(object), spec },
      { parent: this },
    );
  }

  private metadata(name: string) {
    return { name, namespace: this.args.namespace, labels: this.labels };
  }
}

/** What each target has: the token, and the names that rules and dashboard ask for. */
function target(job: string, { token, datacenter }: Scrape) {
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

/** @throws RunError where a server has a name: Kubernetes takes nothing but addresses for Endpoints */
function addressOf(server: string): string {
  if (isIP(server) > 0) return server;
  throw new pulumi.RunError(
    `consul:monitoring.scrape: the servers' stack gives names (${server}), since its servers are pods, and not ` +
      "addresses, which Prometheus needs here: set consul:monitoring.scrape: false, and have them scraped by the servers' own stack",
  );
}
