import { z } from "zod";
import { isNameable, reservedServices } from "../consul/logins";
import { grants } from "./apps";
import { rule } from "./mistakes";
import { label, text } from "./values";

const login = z
  .strictObject({
    namespace: label.describe("namespace of the service accounts; it exists already"),
    serviceAccounts: z
      .array(label, { error: "a list of service accounts" })
      .default([])
      .describe("service accounts that may log in; without any all that the namespace has and will have"),
    services: grants.services
      .optional()
      .describe("services that each registers; without a value the one that is called like the service account"),
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
    apiServer: text(
      "https://<address>:<port> of the cluster's API server, as the Consul servers reach it",
      /^https:\/\/[A-Za-z0-9.-]+(:\d{1,5})?$/,
    )
      .optional()
      .describe("URL of the API server as the Consul servers reach it; required but for servers in Kubernetes"),
    namespaces: z
      .array(login, { error: "a list of namespaces" })
      .describe("who may log in, and what for; keep an empty list where there were some"),
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
