import { dirname } from "path/posix";
import { z } from "zod";
import { snapshotMetricsKey } from "../consul/access";
import { reservedServices } from "../consul/logins";
import { rule } from "./mistakes";
import { flag, label, text, whole } from "./values";

/**
 * A service, or a prefix of services; never one that would let an application pose as the Consul servers or as an agent.
 * Consul's catalog finds a service in any letter case.
 */
const serviceName = text(
  "a service of the application's own, or a prefix with * at its end, such as orders or orders-*; not consul itself, nor consul-members",
  /^[A-Za-z0-9][A-Za-z0-9_.-]*\*?$/,
  (value) => {
    const name = value.toLowerCase();
    const covers = (service: string) => (name.endsWith("*") ? service.startsWith(name.slice(0, -1)) : service === name);
    return reservedServices.some(covers);
  },
);

const prefix = /^[^\s"\\/][^\s"\\]*$/;
const prefixAccepted = "a prefix of keys such as config/orders/, without quotes or a slash in front";
/** Where this program keeps what monitoring reads of the snapshots. */
const snapshotKeys = `${dirname(snapshotMetricsKey)}/`;
const readPrefix = text(prefixAccepted, prefix);
const writePrefix = text(
  `${prefixAccepted}, and none that covers ${snapshotKeys}, which is this program's`,
  prefix,
  (value) => snapshotKeys.startsWith(value) || value.startsWith(snapshotKeys),
);
const keyPrefixes = (of: typeof readPrefix) => z.array(of, { error: "a list of prefixes of keys" }).default([]);

/** What a token may be for, whoever gets it. */
export const grants = {
  services: z.array(serviceName, { error: "a list of services" }),
  kv: z
    .strictObject({
      read: keyPrefixes(readPrefix).describe("prefixes of keys it reads"),
      write: keyPrefixes(writePrefix).describe("prefixes of keys it writes and reads"),
    })
    .prefault({})
    .describe("prefixes of keys that it may use"),
  policy: text("rules in Consul's policy language").optional().describe("more rules in Consul's policy language"),
};

const app = z.strictObject({
  name: label
    .refine((name) => !name.startsWith("consul-") && name !== "secrets", {
      error: "a name that does not begin with consul-, and not secrets, which this program has itself",
    })
    .describe("names its policy, its token and its Secret, <name>-consul-token; not `consul-…`, not `secrets`"),
  namespace: label.describe("namespace that gets the Secret; the application's own, which exists already"),
  services: grants.services
    .default([])
    .describe("services it registers: names, or prefixes that end with *; it finds every service anyway"),
  kv: grants.kv,
  policy: grants.policy,
  tokenGeneration: whole(1, 1000)
    .default(1)
    .describe("raise by one to have a new token; the one before stays valid beside it"),
  revokeOldToken: flag
    .default(false)
    .describe(
      "revoke the token of the generation before: once the application runs with the new one; at once for a leak",
    ),
});

/**
 * Applications and what each may do: a policy, a token, a Secret. Who is taken off the list is revoked. Keep an empty
 * list where there were applications: without the key nobody is left to revoke what is still there.
 */
export const apps = z.array(app, { error: "a list of applications" }).check(
  rule([], (all, { unique }) => {
    const names = all.map((_, i) => [i, "name"]);
    unique("another name", names, "apps");
  }),
);
