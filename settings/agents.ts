import { z } from "zod";
import { extraConfig } from "./extra-config";
import { localAgents } from "./local";
import {
  cloudId,
  duration,
  flag,
  image,
  ipv4,
  loopback,
  podMarks,
  resources,
  seconds,
  text,
  tolerations,
  whole,
} from "./values";

const ownDirectory = "/var/lib/consul-agent";

/** Trees of the node's system, of kubelet and of containerd, and trees that are emptied at boot. */
const systemTree =
  /^\/(bin|boot|dev|etc|lib(32|64|x32)?|opt\/cni|proc|run|sbin|sys|tmp|usr|var\/(run|tmp|lib\/((container\/)?(containerd|kubelet)|cni|docker|etcd)))(\/|$)/;
/** Directories that belong to many; a directory below them may be the agent's own. */
const sharedDirectory = /^\/(home|media|mnt|opt|root|srv|var(\/(cache|log|spool|lib(\/container)?))?)\/?$/;

/** A directory that the agent's pod may own and chown. */
const nodeDirectory = text(
  `a directory of the agent's own on the nodes, such as ${ownDirectory}, without .. in the path: not a directory of the system, kubelet or containerd`,
  /^(\/(?!\.{1,2}(\/|$))[^\s/]+)+\/?$/,
  (value) => systemTree.test(value) || sharedDirectory.test(value),
);

const share = /^[1-9]\d?%$/;
const maxUnavailable = "a number from 1, or a share such as 10%";

const reconnectTimeout = "a duration of at least 1m, such as 15m: an agent that restarts is not to be taken for gone";

/** An agent as a pod on every node of a cluster. */
const kubernetesAgents = z.strictObject({
  // Optional inside the default: only then a block without a platform is known to be one of these.
  platform: z
    .literal("kubernetes")
    .optional()
    .default("kubernetes")
    .describe("where the agents run: here as a pod on every node"),
  image: image.optional().describe("image with Consul; without a value `hashicorp/consul` at `version`"),
  /** Requests and limits of the agent's container. */
  resources: resources({ cpu: "100m", memory: "128Mi", memoryLimit: "512Mi" }),
  tolerations: tolerations
    .default([{ operator: "Exists" }])
    .describe("taints that the agents tolerate; all of them, since an agent belongs on every node"),
  priorityClassName: text("a PriorityClass")
    .default("system-node-critical")
    .describe("PriorityClass that keeps the agents when a node is full"),
  updatePace: z
    .strictObject({
      maxUnavailable: z
        .union([z.number(), z.string()], { error: maxUnavailable })
        .refine((value) => (typeof value === "string" ? share : /^[1-9]\d*$/).test(String(value)), {
          error: maxUnavailable,
        })
        .meta({ title: maxUnavailable, minimum: 1, pattern: share.source })
        .default(1)
        .describe("agents that may be down at once: a number, or a share of the nodes"),
      minReadySeconds: whole(0, 3600, "seconds")
        .default(10)
        .describe(
          "how long an agent must be ready before the next one goes: time for the first run of its services' HTTP checks",
        ),
    })
    .prefault({})
    .describe("how fast a change goes from node to node"),
  hostDataPath: nodeDirectory
    .default(ownDirectory)
    .describe("directory of each node for the agent's data: a restarted pod is then the same Consul node"),
  leaveOnStop: flag
    .default(false)
    .describe("leave the cluster before stopping: the node's services go missing for 6 to 8 s at each restart"),
  reconnectTimeout: duration(reconnectTimeout)
    .refine((value) => seconds(value) === 0 || seconds(value) >= 60, { error: reconnectTimeout })
    .default("15m")
    .describe("how long a node that is gone stays in the catalog, at least 1m"),
  registerMember: flag.default(true).describe("register `consul-members` on each node, for monitoring"),
  recursors: z
    .array(ipv4, { error: "a list of IPv4 addresses" })
    .default([])
    .describe("resolvers for names outside `.consul`; without any such names are refused"),
  listen: z
    .array(loopback, { error: "a list of loopback addresses" })
    .default([])
    .describe(
      "further addresses at which an agent answers HTTP and DNS: 127.0.0.1 for processes on the node that expect Consul there",
    ),
  ...podMarks("the agents' pods, with those of the cluster"),
  extraConfig: extraConfig("agent"),
  nodeSecurityGroupId: cloudId("sg", "the security group of the cluster's nodes")
    .optional()
    .describe(
      "the nodes' security group, which gets rules for gossip from the servers; in the stack that has the servers, on ECS",
    ),
});

/** The agents; in Kubernetes unless they name another platform. */
export const agents = z.discriminatedUnion("platform", [kubernetesAgents, localAgents], {
  error: "a platform: kubernetes or local",
});
