import { z } from "zod";
import { isNameable, reservedServices } from "../consul/logins";
import { grants } from "./apps";
import { rule } from "./mistakes";
import { label, text } from "./values";

const login = z
  .strictObject({
    /** Namespace of the service accounts; it exists already. */
    namespace: label,
    /** Service accounts that may log in; none for all that the namespace has and will have. */
    serviceAccounts: z.array(label, { error: "a list of service accounts" }).default([]),
    /** Services that each of them registers; without a value the one that is called like the service account. */
    services: grants.services.optional(),
    kv: grants.kv,
    policy: grants.policy,
  })
  .check(
    rule(["namespace", "serviceAccounts", "services"], (given, { unique, wrong }) => {
      const { namespace, serviceAccounts, services } = given;
      const paths = serviceAccounts.map((_, i) => ["serviceAccounts", i]);
      unique("another service account", paths);
      for (const [i, name] of serviceAccounts.entries()) {
        if (services === undefined && reservedServices.includes(name)) {
          wrong(
            ["serviceAccounts", i],
            "services beside it: without them it would register a service of Consul itself",
          );
        }
        if (!isNameable(namespace, name)) {
          wrong(["serviceAccounts", i], "a name with at most 104 characters together with its namespace's");
        }
      }
    }),
  );

/** Applications that get their tokens by themselves, with the token of their Kubernetes service account. */
export const logins = z
  .strictObject({
    /** URL of the cluster's API server as the Consul servers reach it. */
    apiServer: text(
      "https://<address>:<port> of the cluster's API server, as the Consul servers reach it",
      /^https:\/\/[A-Za-z0-9.-]+(:\d{1,5})?$/,
    ).optional(),
    /** Who may log in, and what for. Keep an empty list where there were some: somebody has to take their tokens away. */
    namespaces: z.array(login, { error: "a list of namespaces" }),
  })
  .check(
    rule(["namespaces"], ({ namespaces }, { sound, wrong }) => {
      const seen = new Set<string>();
      for (const [i, { namespace, serviceAccounts }] of namespaces.entries()) {
        if (!sound("namespaces", i)) continue;
        for (const account of serviceAccounts.length > 0 ? new Set(serviceAccounts) : [undefined]) {
          const key = `${namespace}/${account ?? ""}`;
          const what = account === undefined ? "all service accounts" : `the service account ${account}`;
          if (seen.has(key)) wrong(["namespaces", i, "namespace"], `one entry for ${what} of a namespace`);
          seen.add(key);
        }
      }
    }),
  );
