import { PolicyPack, UnknownValueError } from "@pulumi/policy";
import { Config } from "@pulumi/pulumi";
import { isRecord, Seen, unknown } from "./resources";
import { rules, stackSettings, StackSettings } from "./rules";

/** What the engine says of a resource, to a resource policy and to a stack policy alike. */
interface Told {
  readonly type: string;
  readonly name: string;
  readonly urn: string;
  readonly props: Record<string, unknown>;
  readonly opts: { readonly protect: boolean; readonly additionalSecretOutputs: string[] };
}

const seen = ({ type, name, urn, props, opts }: Told): Seen => ({
  type,
  name,
  urn,
  props: known(props) as Record<string, unknown>,
  ...opts,
});

/**
 * A copy with `unknown` for each value that a preview cannot know. In what the engine hands over such a value throws
 * when it is read: a rule would end there, unheard, and the preview would have a line about it.
 */
function known(value: unknown): unknown {
  const entry = (read: () => unknown) => {
    try {
      return known(read());
    } catch (error) {
      if (error instanceof UnknownValueError) return unknown;
      throw error;
    }
  };
  if (Array.isArray(value)) return Array.from(value.keys(), (i) => entry(() => (value as unknown[])[i]));
  if (!isRecord(value)) return value;
  return Object.fromEntries(Object.keys(value).map((key) => [key, entry(() => value[key])]));
}

/** The stack's own settings where the engine passes them on, else the environment by the stack's name: prod-b is prod. */
function settings(urn: string): StackSettings {
  const config = new Config("consul");
  const byName = (urn.split("::")[0] ?? "").split(":").pop()?.split("-")[0];
  return stackSettings((key) => config.get(key) ?? (key === "environment" ? byName : undefined));
}

new PolicyPack("consul-alicloud", {
  enforcementLevel: "mandatory",
  policies: rules.flatMap(({ name, description, resource, stack }) => [
    ...(resource
      ? [
          {
            name,
            description,
            validateResource: (told: Told, report: (message: string) => void) =>
              resource(seen(told), settings(told.urn)).forEach((message) => report(message)),
          },
        ]
      : []),
    ...(stack
      ? [
          {
            name: resource ? `${name}-in-stack` : name,
            description,
            validateStack: ({ resources }: { resources: Told[] }, report: (message: string) => void) =>
              stack(resources.map(seen), settings(resources[0]?.urn ?? "")).forEach((message) => report(message)),
          },
        ]
      : []),
  ]),
});
