import { z } from "zod";
import { extraConfig } from "./extra-config";
import { rule } from "./mistakes";
import {
  cidrs,
  flag,
  grpc,
  image,
  oneOf,
  podMarks,
  quantity,
  resources,
  serverCount,
  text,
  textMap,
  tolerations,
} from "./values";

const storage = z.strictObject({
  class: text("a StorageClass of the cluster")
    .default("alicloud-disk-topology-alltype")
    .describe("a StorageClass that binds with the pod: any other makes the disk in a zone of its own choice"),
  accessMode: oneOf("ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany")
    .default("ReadWriteOnce")
    .describe("access mode of the claims; `ReadWriteMany` for a class of shared storage (NAS)"),
  size: quantity("20Gi")
    .default("20Gi")
    .describe("for each server; may grow where the class allows it. 20Gi is the least that ESSDs come in"),
  keep: flag.default(true).describe("keep claims, and the namespace they are in, when servers or the stack go"),
  nfs: z
    .strictObject({
      server: text("a host name or address of an NFS server").describe("host name or address of the NFS server"),
      path: text("an absolute path", /^\/\S*$/)
        .default("/")
        .describe("directory on it, writable for uid 100 and gid 1000"),
      mountOptions: z
        .array(text("a mount option"), { error: "a list of mount options" })
        .default(["vers=4.0", "noresvport"])
        .describe("NFS 4: with version 3 and nolock, other nodes would not see raft's own lock"),
    })
    .optional()
    .describe("a directory on an NFS server (NAS) for all, instead of a class"),
});

const oneStorage = rule<z.output<typeof storage>>(["class", "accessMode", "keep"], (given, { wrong }) => {
  if (given.nfs === undefined) return;
  for (const key of ["class", "accessMode"] as const) {
    const isDefault = given[key] === storage.shape[key].parse(undefined);
    if (!isDefault) wrong([key], "either this or servers.storage.nfs, not both");
  }
  if (!given.keep) wrong(["keep"], "true: what is on an NFS server is never deleted by this program");
});

const ingress = z
  .strictObject({
    class: text("an IngressClass of the cluster")
      .default("nginx")
      .describe("IngressClass; this program knows the annotations of nginx. In `prod` an Ingress is refused"),
    host: text(
      "a host name such as consul.dev.example.com",
      /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
    ).describe("host name of the page"),
    tlsSecret: text(
      "the name of a TLS Secret in consul:cluster.namespace",
      /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/,
    ).describe("TLS Secret of the host, in `cluster.namespace`: people type tokens into that page"),
    sourceRanges: cidrs("the CIDRs of those who may see it")
      .min(1, {
        error: "at least one CIDR: without any, everybody who reaches the Ingress would be let in",
      })
      .describe("networks that are let in"),
    annotations: textMap("a map of annotations")
      .optional()
      .describe("instead of those for nginx; docs/in-cluster.md has those for ALB"),
  })
  .check(
    rule(["class"], (given, { wrong }) => {
      if (given.class === "nginx" || given.annotations !== undefined) return;
      const accepted =
        "nginx, or servers.ui.ingress.annotations beside it: how this class speaks HTTPS to the servers and limits who is let in (docs/in-cluster.md)";
      wrong(["class"], accepted);
    }),
  );

/** Servers as pods of a StatefulSet. */
export const kubernetesServers = z.strictObject({
  platform: z.literal("kubernetes").describe("where the servers run: here as pods of a StatefulSet"),
  count: z.literal([3, 5], { error: serverCount }).default(3).describe("pods, each on a node of its own"),
  image: image.optional().describe("image with Consul; without a value `imageRegistry` decides"),
  /** Requests and limits of the server's container. */
  resources: resources({ cpu: "250m", memory: "256Mi", memoryLimit: "1Gi" }),
  storage: storage.check(oneStorage).prefault({}).describe("the volumes with raft's data"),
  ui: z
    .preprocess(
      (value) => (value === true ? {} : value === false ? undefined : value),
      z
        .strictObject(
          { ingress: ingress.optional().describe("an Ingress for the page, not in `prod`") },
          { error: "true, false, or { ingress: ... }" },
        )
        .optional(),
    )
    .optional()
    .meta({ type: ["boolean", "object"] })
    .describe("web interface: `true` for whoever forwards a port, or an Ingress; without a value off"),
  grpc,
  nodeSelector: textMap("a map of node labels")
    .default({})
    .describe("labels of the nodes that may run servers; by default any node"),
  tolerations: tolerations.default([]).describe("taints that the servers tolerate, as Kubernetes has them"),
  priorityClassName: text("a PriorityClass")
    .default("system-cluster-critical")
    .describe("PriorityClass that keeps the servers when a node is full"),
  ...podMarks("the servers' pods, with those of the cluster"),
  extraConfig: extraConfig("server"),
});
