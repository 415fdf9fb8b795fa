import { z } from "zod";
import { rule } from "./mistakes";
import { quantity, text, whole } from "./values";

/** The ACK cluster that an OIDC provider was made for by ACK; undefined for a provider that somebody else made. */
export const rrsaCluster = (providerArn: string) => /\/ack-rrsa-(\w+)$/.exec(providerArn)?.[1];

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
    .describe("name of a new OSS bucket for copies: private, encrypted, versioned"),
  prefix: text("a path that ends with a slash, such as consul/", /^([A-Za-z0-9_.-]+\/)+$/)
    .default("consul/")
    .describe(
      "where in the bucket, with a slash at the end; whoever takes snapshots may put objects there and nowhere else",
    ),
  bucketDays: whole(1, 3650, "days").default(90).describe("days after which the bucket drops a copy"),
  rrsa: z
    .strictObject({
      providerArn: text(
        "the ARN of the cluster's OIDC provider in RAM, acs:ram::<account>:oidc-provider/ack-rrsa-<cluster id>",
        /^acs:ram::\d+:oidc-provider\/[\w.-]+$/,
      ).describe("ARN of the OIDC provider that ACK made in RAM for the cluster"),
      issuerUrl: text("the https URL of the cluster's OIDC issuer", /^https:\/\/[\w.-]+(\/[\w.-]+)*$/).describe(
        "URL of the cluster's OIDC issuer, which ACK shows beside it",
      ),
    })
    .check(
      rule(["providerArn", "issuerUrl"], ({ providerArn, issuerUrl }, { wrong }) => {
        const id = rrsaCluster(providerArn);
        if (id === undefined || issuerUrl.endsWith(`/${id}`)) return;
        wrong(["issuerUrl"], `the issuer of the same cluster, which ends with /${id}`);
      }),
    )
    .optional()
    .describe("for a bucket with servers in Kubernetes: how their pod gets a RAM role, once the cluster has RRSA"),
  volumeSize: quantity("20Gi").default("20Gi").describe("volume of the CronJob, with servers in Kubernetes"),
});
