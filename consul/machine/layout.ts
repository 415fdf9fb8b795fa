import { NodeLayout } from "../node";

/** Consul's configuration. */
export const etcDir = "/etc/consul.d";

/** What the ACL script puts in place: policies and tokens, a file each. */
export const aclDir = "/etc/consul.acl";

export const unitDir = "/etc/systemd/system";

/** Scripts, and the versions of Consul that are installed. */
export const scriptDir = "/usr/local/lib/consul";

/** Mount point of the data disk; the data directory is below it. */
export const dataMount = "/opt/consul";

/** The binary of one version: the next version is installed beside the one that runs. */
export const consulPath = (version: string) => `${scriptDir}/versions/${version}/consul`;

/** Where a node's things are on an ECS machine. */
export function machineLayout(version: string): NodeLayout {
  return {
    consul: consulPath(version),
    configDir: etcDir,
    secretDir: etcDir,
    dataDir: `${dataMount}/data`,
  };
}
