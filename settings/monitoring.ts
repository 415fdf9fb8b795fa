import { z } from "zod";
import { flag, label, textMap } from "./values";

/** What Prometheus and Grafana get. */
export const monitoring = z.strictObject({
  namespace: label
    .optional()
    .describe("namespace of rules, monitors and dashboard; without a value `cluster.namespace`"),
  scrape: flag.default(true).describe("let Prometheus' operator scrape agents and servers, with a token for it"),
  rules: flag.default(true).describe("install `monitoring/rules.yaml` as a PrometheusRule"),
  dashboard: flag
    .default(true)
    .describe("install `monitoring/dashboard.json` as a ConfigMap that Grafana's sidecar finds"),
  labels: textMap("a map of labels")
    .default({})
    .describe("labels by which Prometheus picks its monitors and rules, such as release: kube-prometheus-stack"),
});
