import { PolicyPack } from "@pulumi/policy";
import { Config } from "@pulumi/pulumi";
import type { Seen } from "./resources";
import { rules } from "./rules";

/** What the engine says of a resource, to a resource policy and to a stack policy alike. */
interface Told {
  readonly type: string;
  readonly name: string;
  readonly urn: string;
  readonly props: Record<string, unknown>;
  readonly opts: { readonly protect: boolean; readonly additionalSecretOutputs: string[] };
}

const seen = ({ type, name, urn, props, opts }: Told): Seen => ({ type, name, urn, props, ...opts });

/** The stack's own setting where the engine passes it on, else the stack's name: prod-cluster-b is prod. */
const environment = (urn: string): string =>
  new Config("consul").get("environment") ?? (urn.split("::")[0] ?? "").split(":").pop()?.split("-")[0] ?? "";

new PolicyPack("consul-alicloud", {
  enforcementLevel: "mandatory",
  policies: rules.flatMap(({ name, description, resource, stack }) => [
    ...(resource
      ? [
          {
            name,
            description,
            validateResource: (told: Told, report: (message: string) => void) =>
              resource(seen(told), environment(told.urn)).forEach((message) => report(message)),
          },
        ]
      : []),
    ...(stack
      ? [
          {
            name: resource ? `${name}-in-stack` : name,
            description,
            validateStack: ({ resources }: { resources: Told[] }, report: (message: string) => void) =>
              stack(resources.map(seen), environment(resources[0]?.urn ?? "")).forEach((message) => report(message)),
          },
        ]
      : []),
  ]),
});
