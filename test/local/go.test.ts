import { clientSuite } from "./client-suite";

clientSuite({
  example: "go-app",
  prefix: "127.73.0",
  manifest: "kubernetes.yaml",
  key: "config/orders/data",
  command: (binary) => [binary],
  exit: 0,
});
