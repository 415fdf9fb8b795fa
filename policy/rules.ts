import {
  at,
  containers,
  isAgents,
  isAuthority,
  isDisk,
  isInstance,
  isNot,
  isServerSet,
  isTokensJob,
  list,
  podSpec,
  records,
  Seen,
  str,
  unknown,
  when,
} from "./resources";
import { leakedSecrets, plainSecrets } from "./secrets";

/** The rules of the policy pack as plain functions over plain values, so that tests and `npm run preview` run the same. */

/** The settings of a stack that say which rules hold there. */
export interface StackSettings {
  /** consul:environment. */
  readonly environment: string;
  /** consul:servers.metadataTokens, where it is set. */
  readonly metadataTokens?: string | undefined;
  /** consul:certificates.caGeneration, the generation of the authority that signs; the first one unless set. */
  readonly caGeneration?: number | undefined;
}

/** The settings that the rules need, out of those of a stack. `get` gives the text of a setting, as Pulumi keeps it. */
export function stackSettings(
  get: (key: "environment" | "servers" | "certificates") => string | undefined,
): StackSettings {
  const block = (key: "servers" | "certificates") => JSON.parse(get(key) ?? "{}") as unknown;
  return {
    environment: get("environment") ?? "",
    metadataTokens: str(at(block("servers"), "metadataTokens")),
    caGeneration: Number(at(block("certificates"), "caGeneration") ?? 1),
  };
}

export interface Rule {
  readonly name: string;
  readonly description: string;
  /** What is wrong with one resource, each as a sentence; checked before the resource is touched. */
  readonly resource?: (seen: Seen, settings: StackSettings) => string[];
  /** What is wrong with all of them together; checked at the end of a preview or update. */
  readonly stack?: (seen: readonly Seen[], settings: StackSettings) => string[];
}

/** One breach of a rule. */
export interface Violation {
  readonly rule: string;
  /** The resource; none where it is the stack as a whole. */
  readonly urn?: string;
  readonly message: string;
}

/** Every breach of every rule, as the engine would find them one by one. */
export function violations(seen: readonly Seen[], settings: StackSettings): Violation[] {
  return rules.flatMap((rule) => [
    ...seen.flatMap((one) =>
      (rule.resource?.(one, settings) ?? []).map((message) => ({ rule: rule.name, urn: one.urn, message })),
    ),
    ...(rule.stack?.(seen, settings) ?? []).map((message) => ({ rule: rule.name, message })),
  ]);
}

const zone = ({ props }: Seen) => str(props.availabilityZone);

/** The capabilities that a container may add: with them it gives a directory to Consul's user before Consul starts. */
const allowedCapabilities = ["CHOWN", "DAC_OVERRIDE"];

/**
 * What the Job that makes tokens would have beyond an address of its node's: servers on machines let in the nodes'
 * networks alone, so the Job needs such an address, and nothing else of the node.
 */
function morePrivilegesThanAddress(pod: Record<string, unknown>): string[] {
  const context = (container: unknown, key: string) =>
    at(container, "securityContext", key) ?? at(pod, "securityContext", key);
  return [
    ...when(
      records(pod.volumes).some((volume) => isNot(volume.hostPath, undefined)),
      "mounts a path of the host",
    ),
    ...containers(pod).flatMap((container) => {
      const name = `container ${str(container.name)}`;
      return [
        ...when(isNot(context(container, "runAsNonRoot"), true), `${name} may run as root`),
        ...when(isNot(container.ports, undefined), `${name} opens ports of the host`),
        ...list(at(container, "securityContext", "capabilities", "add")).map((one) => `${name} adds ${str(one)}`),
      ];
    }),
  ];
}

/** The node affinities that agents may have: they keep agents off nodes without a Linux machine behind them. */
const allowedAffinity: Readonly<Record<string, string>> = {
  type: 'NotIn ["virtual-kubelet"]',
  "kubernetes.io/os": 'In ["linux"]',
  "kubernetes.io/arch": 'In ["amd64","arm64"]',
};

export const rules: readonly Rule[] = [
  {
    name: "odd-number-of-servers",
    description: "Three or five servers: an even number tolerates no more failures than one less, and costs more.",
    stack: (all) => {
      const sets = all.filter(isServerSet).map(({ props }) => at(props, "spec", "replicas") ?? 1);
      if (sets.includes(unknown)) return [];
      const count = all.filter(isInstance).length + sets.reduce<number>((sum, n) => sum + Number(n), 0);
      return when(count > 0 && count !== 3 && count !== 5, `${count} servers: have 3 or 5`);
    },
  },
  {
    name: "servers-spread-over-zones",
    description: "In prod no zone holds a majority of the servers, or its failure is the cluster's.",
    stack: (all, { environment }) => {
      const machines = environment === "prod" ? all.filter(isInstance) : [];
      const zones = new Set(machines.map(zone).filter((name) => name !== ""));
      return [...zones].flatMap((name) => {
        const here = machines.filter((machine) => zone(machine) === name).length;
        return when(2 * here > machines.length, `${here} of ${machines.length} servers are in ${name}: spread them`);
      });
    },
    resource: (seen, { environment }) => {
      const constraints = at(podSpec(seen), "topologySpreadConstraints");
      if (environment !== "prod" || !isServerSet(seen) || constraints === unknown) return [];
      const keys = list(constraints).map((constraint) => at(constraint, "topologyKey"));
      return when(
        keys.every((key) => isNot(key, "topology.kubernetes.io/zone")),
        "no topologySpreadConstraint over zones",
      );
    },
  },
  {
    name: "no-public-address",
    description: "Servers and agents are reached from inside the VPC alone.",
    resource: (seen) => {
      const { type, props } = seen;
      if (isInstance(seen)) {
        const bandwidth = at(props, "internetMaxBandwidthOut") ?? 0;
        const open = (bandwidth !== unknown && Number(bandwidth) > 0) || props.allocatePublicIp === true;
        return when(open, "the machine would have a public address: internetMaxBandwidthOut must be 0");
      }
      if (type.startsWith("alicloud:ecs/eip")) return ["an elastic IP is a public address"];
      if (type !== "kubernetes:core/v1:Service") return [];
      const annotation = "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type";
      const balancer = at(props, "spec", "type") === "LoadBalancer";
      const isPublic = isNot(at(props, "metadata", "annotations", annotation), "intranet");
      return [
        ...when(balancer && isPublic, `a LoadBalancer is public unless it has the annotation ${annotation}: intranet`),
        ...when(isNot(at(props, "spec", "externalIPs"), undefined), "externalIPs are addresses from outside"),
      ];
    },
  },
  {
    name: "encrypted-disks",
    description: "System disks and data disks are encrypted: raft data holds tokens and certificates.",
    resource: (seen) => {
      if (isDisk(seen)) return when(isNot(seen.props.encrypted, true), "the disk is not encrypted: set encrypted");
      if (!isInstance(seen)) return [];
      return [
        ...when(
          isNot(seen.props.systemDiskEncrypted, true),
          "the system disk is not encrypted: set systemDiskEncrypted",
        ),
        ...when(
          records(seen.props.dataDisks).some(({ encrypted }) => isNot(encrypted, true)),
          "a data disk of the machine is not encrypted",
        ),
      ];
    },
  },
  {
    name: "metadata-tokens",
    description:
      "The metadata service, which hands out user data, answers only requests with a token, unless the setting " +
      "metadataTokens says optional: an image with an old cloud-init gets its user data in no other way.",
    resource: (seen, { metadataTokens }) => {
      const allowed = metadataTokens === "optional" ? ["required", "optional"] : ["required"];
      return when(
        isInstance(seen) && isNot(seen.props.httpTokens, ...allowed),
        `httpTokens must be ${allowed.join(" or ")}`,
      );
    },
  },
  {
    name: "no-world-open-rule",
    description: "A security rule names a network and one port: never the whole world, never a range.",
    resource: ({ type, props }) => {
      const cidrs =
        type === "alicloud:ecs/securityGroupRule:SecurityGroupRule" &&
        props.type !== "egress" &&
        props.policy !== "drop"
          ? [props.cidrIp, props.ipv6CidrIp]
          : type.endsWith(":NetworkPolicy")
            ? records(at(props, "spec", "ingress")).flatMap(({ from }) =>
                records(from).map((f) => at(f, "ipBlock", "cidr")),
              )
            : [];
      // No network of one's own is wider than a /8; 0.0.0.0/0 can also be written as two halves.
      const open = cidrs.filter((cidr) => typeof cidr === "string" && Number(cidr.split("/")[1] ?? 128) < 8);
      const [first, last] = props.portRange === unknown ? [] : str(props.portRange).split("/");
      return [
        ...open.map((cidr) => `lets in ${str(cidr)}: name the networks that need it`),
        ...when(cidrs.length > 0 && first !== last, `opens the ports ${str(props.portRange)}: one rule per port`),
        ...when(cidrs.length > 0 && first === "22", "opens SSH: nothing here needs it"),
      ];
    },
  },
  {
    name: "nothing-privileged",
    description: "Containers have no privileges beyond owning their data directory.",
    resource: (seen) => {
      const pod = podSpec(seen);
      if (!pod) return [];
      const sockets = records(pod.volumes).map((volume) => str(at(volume, "hostPath", "path")));
      return [
        ...when(pod.hostPID === true || pod.hostIPC === true, "shares the host's processes or memory"),
        ...when(
          pod.hostNetwork === true && !isAgents(seen) && !isTokensJob(seen),
          "is on the host's network, which only agents and the Job that makes tokens need",
        ),
        ...(isTokensJob(seen) ? morePrivilegesThanAddress(pod) : []),
        ...sockets.filter((path) => /^\/$|\.sock$/.test(path)).map((path) => `mounts ${path} of the host`),
        ...containers(pod).flatMap((container) => {
          const context = (...path: string[]) => at(container, "securityContext", ...path);
          const name = `container ${str(container.name)}`;
          const drop = context("capabilities", "drop");
          const dropsAll =
            drop === unknown || (Array.isArray(drop) && (drop.includes("ALL") || drop.includes(unknown)));
          const added = list(context("capabilities", "add")).filter((one) => isNot(one, ...allowedCapabilities));
          return [
            ...when(context("privileged") === true, `${name} is privileged`),
            ...when(
              isNot(context("allowPrivilegeEscalation"), false),
              `${name} may gain privileges: allowPrivilegeEscalation`,
            ),
            ...when(!dropsAll, `${name} does not drop ALL capabilities`),
            ...when(added.length > 0, `${name} adds ${added.join(", ")}`),
          ];
        }),
      ];
    },
  },
  {
    name: "no-plain-secrets",
    description: "No secret in a ConfigMap, in a pod's environment or arguments, or unwrapped in the state.",
    resource: plainSecrets,
    stack: leakedSecrets,
  },
  {
    name: "protected-in-prod",
    description:
      "In prod machines, data disks and the certificate authority that signs cannot be deleted or replaced. " +
      "An authority that signs no more is about to go.",
    resource: (seen, { environment, caGeneration = 1 }) => {
      const signs = isAuthority(seen) && seen.name.endsWith(`-${caGeneration}`);
      const precious = isInstance(seen) || isDisk(seen) || signs;
      return when(environment === "prod" && precious && !seen.protect, "is not protected: set consul:servers.protect");
    },
  },
  {
    name: "pinned-versions",
    description: "Machine and container images are ones that stay: the same program is the same cluster.",
    resource: (seen) => {
      const stays = (image: unknown, kind: RegExp) => image === unknown || kind.test(str(image));
      if (isInstance(seen)) {
        const { imageId } = seen.props;
        return when(!stays(imageId, /_\d{8}\b|^m-[a-z0-9]+$/), `${str(imageId)} is not a dated or own image`);
      }
      const pinned = /(:[^/:@]*\d+\.\d+\.\d+[^/:@]*|@sha256:[0-9a-f]{64})$/;
      const images = containers(podSpec(seen)).map(({ image }) => image);
      return images.filter((one) => !stays(one, pinned)).map((one) => `${str(one)} is not a full version or a digest`);
    },
  },
  {
    name: "no-ui-ingress-in-prod",
    description: "The UI of a production cluster is not published by an Ingress or a Gateway.",
    resource: ({ type }, { environment }) => {
      const publishes = /^kubernetes:.*:(Ingress|HTTPRoute|TLSRoute|GRPCRoute)$/.test(type);
      return when(environment === "prod" && publishes, `a ${type.split(":").pop() ?? ""} in prod: use a port-forward`);
    },
  },
  {
    name: "agents-on-every-node",
    description: "An agent on each real node, tainted or not: a pod whose node has none cannot register.",
    resource: (seen) => {
      if (!isAgents(seen)) return [];
      const pod = podSpec(seen);
      if (!pod) return [];
      const everywhere =
        pod.tolerations === unknown ||
        list(pod.tolerations).some((toleration) => {
          const [key, effect, operator] = ["key", "effect", "operator"].map((name) => at(toleration, name));
          return !isNot(key, undefined) && !isNot(effect, undefined) && !isNot(operator, "Exists");
        });
      const required = at(pod, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution");
      const expressions = records(at(required, "nodeSelectorTerms")).flatMap((term) => records(term.matchExpressions));
      const others = expressions.filter(
        ({ key, operator, values }) =>
          ![key, operator, values, ...list(values)].includes(unknown) &&
          allowedAffinity[str(key)] !== `${str(operator)} ${JSON.stringify(values)}`,
      );
      return [
        ...when(
          isNot(pod.hostNetwork, true),
          "is not on the host's network: pods look for the agent at their node's address",
        ),
        ...when(isNot(pod.dnsPolicy, "ClusterFirstWithHostNet"), "dnsPolicy must be ClusterFirstWithHostNet"),
        ...when(isNot(pod.nodeSelector, undefined), "nodeSelector leaves nodes without an agent"),
        ...when(!everywhere, "does not tolerate every taint: tainted nodes would have no agent"),
        ...others.map(({ key }) => `node affinity over ${str(key)} leaves nodes without an agent`),
      ];
    },
  },
];
