import { z } from "zod";
import { refusedRelease } from "../consul/releases";
import { isCidr, isIpv4, isPrivate } from "./ip";
import { rule } from "./mistakes";

// Kinds of values. Each says what is accepted in the words that stand beside a wrong value. What `meta` has goes into the
// JSON Schema; its `title` stands in the tables of docs/settings.md as the kind of value.

/** Text that matches, by default text that is not blank; `unless` names what is refused all the same. */
export const text = (accepted: string, pattern = /\S/, unless?: (value: string) => boolean) =>
  z
    .string({ error: accepted })
    .refine((value) => pattern.test(value) && !unless?.(value), { error: accepted })
    .meta({ pattern: pattern.source });

export const oneOf = <const T extends readonly [string, ...string[]]>(...values: T) =>
  z.enum(values, { error: `one of ${values.join(", ")}` });

/** A whole number. Not zod's `int()`: where that fails, zod skips the rules of every block around it. */
export const whole = (min: number, max: number, unit?: string) => {
  const error = `a whole number from ${min} to ${max}${unit === undefined ? "" : ` (${unit})`}`;
  return z
    .number({ error })
    .refine((value) => Number.isInteger(value) && value >= min && value <= max, { error })
    .meta({
      type: "integer",
      minimum: min,
      maximum: max,
      title: `${min} to ${max}${unit === undefined ? "" : ` ${unit}`}`,
    });
};

export const flag = z.boolean({ error: "true or false" });

/** Of servers on every platform. */
export const grpc = flag
  .default(false)
  .describe(
    "gRPC with TLS at 8503, for whoever reaches 8501: HashiCorp's catalog sync needs it (docs/applications.md)",
  );

/** A community release of Consul that can be had. */
export const consulVersion = text(
  "a version of Consul's community edition from 1.20.0, such as 2.0.1",
  /^(1\.(2\d|[3-9]\d)|2\.\d+)\.\d+$/,
).refine((value) => !refusedRelease(value), {
  // What is no version at all has been said above.
  when: ({ issues }) => issues.length === 0,
  error: ({ input }) => refusedRelease(String(input)),
});

/** A duration as Go reads it. */
export const duration = (accepted = "a duration such as 30s, 15m or 8h") =>
  text(accepted, /^([1-9]\d*(\.\d+)?(ms|s|m|h))+$/).meta({ title: "duration" });

/** The seconds of a duration as Go reads it. */
export function seconds(value: string): number {
  const units: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, h: 3600 };
  const parts = [...value.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
  return parts.reduce((sum, [, count, unit = ""]) => sum + Number(count) * (units[unit] ?? 0), 0);
}

/** A name that is one DNS label, since Consul answers for it as <name>.node.<datacenter>.consul. */
export const label = text(
  "lower-case letters, digits and dashes, at most 63, such as consul-1",
  /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
).meta({ title: "DNS label" });

export const ipv4 = z
  .string({ error: "an IPv4 address such as 10.16.190.28" })
  .refine(isIpv4, { error: "an IPv4 address such as 10.16.190.28" })
  .meta({ title: "IPv4 address", pattern: /^\d{1,3}(\.\d{1,3}){3}$/.source });

export const loopback = ipv4
  .refine((value) => !isIpv4(value) || value.startsWith("127."), { error: "a loopback address, 127.x.y.z" })
  .meta({ title: "127.x.y.z", pattern: /^127(\.\d{1,3}){3}$/.source });

/** A network. On the internet one of at most 2^16 addresses: nobody has a wider one to let in. */
export const cidr = z
  .string({ error: "a CIDR such as 10.16.0.0/16" })
  .refine(isCidr, { error: "a CIDR with its host bits zero, such as 10.16.0.0/16" })
  .refine((value) => !isCidr(value) || isPrivate(value) || Number(value.split("/")[1]) >= 16, {
    error: "a network of yours: /16 or narrower, or a private one such as 10.0.0.0/8; the world is never let in",
  })
  .meta({ title: "CIDR", pattern: /^\d{1,3}(\.\d{1,3}){3}\/([89]|[12]\d|3[0-2])$/.source });

/** Networks that are let in. */
export const cidrs = (error: string) => z.array(cidr, { error });

/** The id of something in the cloud, such as vpc-bp1x. */
export const cloudId = (prefix: string, what: string) =>
  text(`${what}, ${prefix}-...`, new RegExp(`^${prefix}-[A-Za-z0-9]+$`)).meta({ title: `${prefix}-…` });

export const quantity = (example: string) =>
  text(`a Kubernetes quantity such as ${example}`, /^\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?$/).meta({ title: "quantity" });

/** How much a Kubernetes quantity is, in its own unit. */
function amount(value: string): number {
  const [, count, unit = ""] = /^([\d.]+)(.*)$/.exec(value) ?? [];
  return Number(count) * ({ m: 0.001, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40 }[unit] ?? 1);
}

/** Text that is a secret: an encrypted value may stand in its place in a stack file, and no mistake shows the value. */
export const secret = (of: z.ZodString) => of.meta({ writeOnly: true });

export const textMap = (error: string) => z.record(z.string(), z.string({ error: "text" }), { error });

export const serverCount = "3 or 5 servers: an odd number, so that a majority is left when one fails";

/** Servers that are listed one by one. */
export const serverNodes = <T extends z.ZodType>(node: T) =>
  z
    .array(node, { error: serverCount })
    .check(
      rule([], ({ length }, { wrong }) => {
        if (length !== 3 && length !== 5) wrong([], serverCount, `${length} servers`);
      }),
    )
    .meta({ minItems: 3, maxItems: 5, not: { minItems: 4, maxItems: 4 } });

// --- pods ---

export const image = text(
  "an image with a tag or digest that stays, such as registry-vpc.cn-hangzhou.aliyuncs.com/ops/consul:2.0.1",
  /^(?!.*:latest(@|$))[^\s:@]+(:\d+\/[^\s:@]+)?(:[^\s:@/]+|(:[^\s:@/]+)?@sha256:[0-9a-f]{64})$/,
).meta({ title: "image" });

/** A registry with a namespace in it, below which images have their own names. */
export const imageRegistry = text(
  "a registry and a namespace in it, such as registry-vpc.cn-hangzhou.aliyuncs.com/ops: no scheme, no tag, no slash at its end",
  /^[a-z0-9][a-z0-9.-]*(:\d+)?(\/[a-z0-9][a-z0-9._-]*)*$/,
);

export const tolerations = z
  .array(
    z.strictObject({
      key: z.string().optional(),
      operator: oneOf("Exists", "Equal").optional(),
      value: z.string().optional(),
      effect: oneOf("NoSchedule", "PreferNoSchedule", "NoExecute").optional(),
    }),
    { error: "a list of tolerations" },
  )
  // Kubernetes' own documents have what is inside a toleration.
  .meta({ title: "list of tolerations" });

/** A key of a label or of an annotation: a name, with a domain in front where there is one. */
const markKey = /^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/;
/** Labels by which Services, controllers and this program find pods. */
const ownLabel =
  /^(app\.kubernetes\.io\/(name|component)|([a-z-]+\.)?(statefulset|apps|batch)\.kubernetes\.io\/.*|controller-(revision-hash|uid)|job-name|pod-template-.*)$/;
const labelValue = /^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$/;

/** Labels and annotations of pods. @param whose pods, as the tables have it */
export const podMarks = (whose: string) => ({
  podLabels: textMap("a map of labels")
    .check(
      rule([], (given, { wrong }) => {
        for (const [key, value] of Object.entries(given)) {
          if (!markKey.test(key)) wrong([key], "a label such as team or example.com/team", key);
          else if (ownLabel.test(key)) {
            wrong([key], "a label of yours: by this one Kubernetes and this program find pods");
          } else if (!labelValue.test(value)) wrong([key], "at most 63 letters, digits, dashes, dots and underscores");
        }
      }),
    )
    .default({})
    .describe(`labels of ${whose}`),
  podAnnotations: textMap("a map of annotations")
    .check(
      rule([], (given, { wrong }) => {
        for (const key of Object.keys(given).filter((key) => !markKey.test(key))) {
          wrong([key], "an annotation such as example.com/logs", key);
        }
      }),
    )
    .default({})
    .describe(`annotations of ${whose}`),
});

/** Requests and limits of a container, as Kubernetes has them. No limit for cpu unless one is given. */
export const resources = (usual: { cpu: string; memory: string; memoryLimit: string }) =>
  z
    .strictObject({
      requests: z
        .strictObject({
          cpu: quantity("200m").default(usual.cpu).describe("CPU that the container asks for"),
          memory: quantity("256Mi").default(usual.memory).describe("memory that the container asks for"),
        })
        .prefault({})
        .describe("what the container asks for"),
      limits: z
        .strictObject({
          cpu: quantity("1").optional().describe("most CPU that the container gets; without a value no limit"),
          memory: quantity("1Gi").default(usual.memoryLimit).describe("memory above which the container is killed"),
        })
        .prefault({})
        .describe("what the container gets at most"),
    })
    .check(
      rule(["requests", "limits"], ({ requests, limits }, { wrong, sound }) => {
        for (const kind of ["cpu", "memory"] as const) {
          const most = limits[kind];
          if (most === undefined || !sound("requests", kind) || !sound("limits", kind)) continue;
          const accepted = `at least requests.${kind}, ${requests[kind]}: Kubernetes refuses a pod that asks for more than its limit`;
          if (amount(requests[kind]) > amount(most)) wrong(["limits", kind], accepted);
        }
      }),
    )
    .prefault({})
    .describe("requests and limits of the container, as Kubernetes has them");
