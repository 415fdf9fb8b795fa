import { NodeLayout } from "../node";

/** Where things are on an ECS machine. */
export const machineLayout: NodeLayout = {
  consul: "/usr/local/bin/consul",
  configDir: "/etc/consul.d",
  secretDir: "/etc/consul.d",
  dataDir: "/opt/consul/data",
};

/** Mount point of the data disk; the data directory is below it. */
export const dataMount = "/opt/consul";

/** Scripts, and what the ACL script puts in place: policies and tokens, a file each. */
export const scriptDir = "/usr/local/lib/consul";
export const aclDir = "/etc/consul.acl";
