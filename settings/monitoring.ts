import { z } from "zod";
import { flag, label, textMap } from "./values";

/** What Prometheus and Grafana get. */
export const monitoring = z.strictObject({
  /** Namespace for rules, monitors and dashboard; default consul:cluster.namespace. */
  namespace: label.optional(),
  /** Let Prometheus (its operator's PodMonitor and ServiceMonitor) scrape agents and servers, with a token for it. */
  scrape: flag.default(true),
  /** Install monitoring/rules.yaml as a PrometheusRule. */
  rules: flag.default(true),
  /** Install monitoring/dashboard.json as a ConfigMap that Grafana's sidecar finds. */
  dashboard: flag.default(true),
  /** Labels by which Prometheus picks its monitors and rules, such as release: kube-prometheus-stack. */
  labels: textMap("a map of labels").default({}),
});
