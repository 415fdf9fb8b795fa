import { clientSuite } from "./client-suite";

clientSuite({
  example: "python-app",
  prefix: "127.72.0",
  manifest: "kubernetes.yaml",
  key: "config/orders/data",
  command: (folder) => ["env", `PYTHONPATH=${folder}/lib`, "python3", `${folder}/app.py`],
  exit: 0,
});
