import { clientSuite } from "./client-suite";

clientSuite({
  example: "node-app",
  prefix: "127.74.0",
  manifest: "kubernetes.yaml",
  key: "config/orders/data",
  command: (folder) => ["node", `${folder}/app.js`],
  exit: 0,
});
