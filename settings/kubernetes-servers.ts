import { z } from "zod";
import { rule } from "./mistakes";
import { cidrs, flag, image, oneOf, quantity, resources, serverCount, text, textMap, tolerations } from "./values";

const storage = z.strictObject({
  /** A StorageClass that binds with the pod: any other makes the disk in a zone of its own choice. */
  class: text("a StorageClass of the cluster").default("alicloud-disk-topology-alltype"),
  /** ReadWriteMany for a class of shared storage (NAS). */
  accessMode: oneOf("ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany").default("ReadWriteOnce"),
  /** For each server; 20Gi is the least that this cloud's ESSD come in. May grow later. */
  size: quantity("20Gi").default("20Gi"),
  /** Keep claims, and the namespace they are in, when servers or the stack are taken away. */
  keep: flag.default(true),
  /** A directory on an NFS server (NAS) for all, instead of a class. It must be writable for uid 100, gid 1000. */
  nfs: z
    .strictObject({
      /** The NFS server's name or address. */
      server: text("a host name or address of an NFS server"),
      /** The exported directory. */
      path: text("an absolute path", /^\/\S*$/).default("/"),
      /** NFS 4: with version 3 and nolock, raft's own lock would not be seen by other nodes. */
      mountOptions: z
        .array(text("a mount option"), { error: "a list of mount options" })
        .default(["vers=4.0", "noresvport"]),
    })
    .optional(),
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
    /** Name of the IngressClass; this program knows the annotations of nginx. */
    class: text("an IngressClass of the cluster").default("nginx"),
    /** Name by which people reach the web interface. */
    host: text(
      "a host name such as consul.dev.example.com",
      /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
    ),
    /** The host's certificate: people type tokens into that page. */
    tlsSecret: text("the name of a TLS Secret in consul:cluster.namespace", /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/),
    /** Who is let in. */
    sourceRanges: cidrs("the CIDRs of those who may see it").min(1, {
      error: "at least one CIDR: without any, everybody who reaches the Ingress would be let in",
    }),
    /** Instead of those for the nginx class; docs/in-cluster.md has those for ALB. */
    annotations: textMap("a map of annotations").optional(),
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
  platform: z.literal("kubernetes"),
  /** 3 or 5. */
  count: z.literal([3, 5], { error: serverCount }).default(3),
  /** Image with Consul; default hashicorp/consul at consul:version. */
  image: image.optional(),
  /** Requests and limits of the server's container. */
  resources: resources({ cpu: "250m", memory: "256Mi", memoryLimit: "1Gi" }),
  /** Where raft's data are. */
  storage: storage.check(oneStorage).prefault({}),
  /** The web interface: off, or true for whoever forwards a port, or with an Ingress. */
  ui: z
    .preprocess(
      (value) => (value === true ? {} : value === false ? undefined : value),
      z.strictObject({ ingress: ingress.optional() }, { error: "true, false, or { ingress: ... }" }).optional(),
    )
    .optional(),
  /** Labels of the nodes that may run servers; by default any node. */
  nodeSelector: textMap("a map of node labels").default({}),
  /** Which taints the servers tolerate. */
  tolerations: tolerations.default([]),
  /** Class that keeps the servers when a node is full. */
  priorityClassName: text("a PriorityClass").default("system-cluster-critical"),
});
