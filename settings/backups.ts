import { z } from "zod";
import { quantity, text, whole } from "./values";

/** Snapshots of the cluster's state. */
export const backups = z.strictObject({
  /** Hours between snapshots, counted from midnight UTC. */
  everyHours: z.literal([1, 2, 3, 4, 6, 8, 12, 24], { error: "one of 1, 2, 3, 4, 6, 8, 12, 24 (hours)" }).default(6),
  /** Snapshots kept on each server's data disk, or on the volume of the CronJob. */
  keep: whole(1, 1000).default(28),
  /** Bucket to be made for copies: private, encrypted, versioned. For servers on ECS. */
  bucket: text(
    "the name of a new OSS bucket: 3 to 63 lower-case letters, digits and dashes, not taken by anybody",
    /^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/,
  ).optional(),
  /** Where in the bucket; the machines may put objects there and nowhere else. */
  prefix: text("a path that ends with a slash, such as consul/", /^([A-Za-z0-9_.-]+\/)+$/).default("consul/"),
  /** Days after which the bucket drops a copy. */
  bucketDays: whole(1, 3650, " (days)").default(90),
  /** Volume of the CronJob that takes the snapshots of servers in the cluster. */
  volumeSize: quantity("20Gi").default("20Gi"),
});
