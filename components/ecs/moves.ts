import * as pulumi from "@pulumi/pulumi";
import { movedServers, Place, placesTag } from "../../consul/machine/place";
import { EcsServersSettings } from "../../settings";

/** Tag of the servers' security group that says where each server is. */
const tag = "consul-places";

/**
 * Refuses to move a server. For another zone, or another category of the system disk, the provider makes a new machine
 * beside the old one; for another key it makes a new, empty data disk. The engine calls no update hook for a
 * replacement and deletes the old machine at the very end, so the gate would not be asked. The security group changes
 * before any machine does, so its tag remembers where the servers are, and its hook refuses.
 * @returns what the group is tagged with, and the hook before its updates
 */
export function guardMoves(name: string, settings: EcsServersSettings, lost: readonly string[]) {
  const places = settings.nodes.map((node): Place => ({
    name: node.name,
    zone: node.zone,
    systemDiskCategory: categoryOf(settings, node),
    dataDiskKey: settings.dataDisk.kmsKeyId,
  }));
  const beforeUpdate = new pulumi.ResourceHook(
    `${name}-moves`,
    ({ oldInputs }) => {
      const { tags = {} } = (oldInputs ?? {}) as { tags?: Record<string, string> };
      // The machine of a lost server is gone, so a new machine endangers nothing.
      const moved = movedServers(tags[tag] ?? "", places).filter((server) => !lost.includes(server));
      if (moved.length === 0) return;
      throw new pulumi.RunError(
        `${moved.join(", ")} cannot be moved to another zone, to a system disk of another category or to a data disk of another key: that takes a new machine or disk, ` +
          'made without asking the other servers. Make servers of other names there and take these away: docs/operations.md, "Moving a server"',
      );
    },
    { onDryRun: true },
  );
  return { tags: { [tag]: placesTag(places) }, beforeUpdate };
}

/** Category of a server's system disk. */
export function categoryOf(
  { systemDisk }: Pick<EcsServersSettings, "systemDisk">,
  { systemDiskCategory }: EcsServersSettings["nodes"][number],
): string {
  return systemDiskCategory ?? systemDisk.category;
}
