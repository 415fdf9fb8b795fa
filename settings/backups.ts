import { z } from "zod";
import { quantity, text, whole } from "./values";

/** Snapshots of the cluster's state. */
export const backups = z.strictObject({
  everyHours: z
    .literal([1, 2, 3, 4, 6, 8, 12, 24], { error: "one of 1, 2, 3, 4, 6, 8, 12, 24 (hours)" })
    .default(6)
    .describe("hours between snapshots, counted from midnight UTC"),
  keep: whole(1, 1000)
    .default(28)
    .describe("snapshots kept on each server's data disk, or on the volume of the CronJob"),
  bucket: text(
    "the name of a new OSS bucket: 3 to 63 lower-case letters, digits and dashes, not taken by anybody",
    /^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/,
  )
    .optional()
    .describe("name of a new OSS bucket for copies: private, encrypted, versioned; with servers on ECS"),
  prefix: text("a path that ends with a slash, such as consul/", /^([A-Za-z0-9_.-]+\/)+$/)
    .default("consul/")
    .describe("where in the bucket, with a slash at the end; the machines may put objects there and nowhere else"),
  bucketDays: whole(1, 3650, "days").default(90).describe("days after which the bucket drops a copy"),
  volumeSize: quantity("20Gi").default("20Gi").describe("volume of the CronJob, with servers in Kubernetes"),
});
