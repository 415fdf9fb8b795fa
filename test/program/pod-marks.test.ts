import { deepEqual, equal, ok } from "assert/strict";
import { runFixture } from "../../local/fixtures";
import { Registered } from "../../local/program";
import { edit, plain } from "./edit";

type Tree = Record<string, unknown>;
interface Template {
  readonly metadata: { readonly labels: Tree; readonly annotations?: Tree };
  readonly spec: { readonly containers?: object };
}

/** Every pod template of a program: of the DaemonSet, the StatefulSet, Jobs and the CronJob. */
function templates(resources: readonly Registered[]): Map<string, Template> {
  const found = new Map<string, Template>();
  const look = (value: unknown, name: string): void => {
    if (value === null || typeof value !== "object") return;
    const { template } = value as { template?: Template };
    if (template?.spec.containers) found.set(name, template);
    Object.values(value).forEach((inner) => look(inner, name));
  };
  for (const { type, name, inputs } of resources) if (type.startsWith("kubernetes:")) look(inputs, name);
  return found;
}

const run = async (cluster: Tree, servers: Tree = {}, agents: Tree = {}) => {
  const { resources } = await runFixture("dev", (config) => {
    plain(config);
    edit(config, "cluster", (block) => Object.assign(block, cluster));
    edit(config, "servers", (block) => Object.assign(block, servers));
    edit(config, "agents", (block) => Object.assign(block, agents));
    config["consul:backups"] = "{}";
    config["consul:gossip"] = '{"generation":2}';
  });
  return { resources, templates: templates(resources) };
};

describe("labels and annotations of pods", () => {
  const podLabels = { team: "platform", "example.com/cost": "42" };
  const podAnnotations = { "example.com/logs": "yes" };

  it("are on every pod, beside the program's own labels, and on no selector", async () => {
    const without = await run({});
    const marked = await run({ podLabels, podAnnotations });
    deepEqual([...marked.templates.keys()].sort(), [...without.templates.keys()].sort());
    ok(marked.templates.size >= 6, [...marked.templates.keys()].join());
    for (const [name, { metadata }] of without.templates) {
      const expected = { labels: { ...podLabels, ...metadata.labels }, annotations: podAnnotations };
      deepEqual(marked.templates.get(name)?.metadata, expected, name);
      equal(metadata.annotations, undefined);
    }
    const selectors = ({ resources }: typeof marked) =>
      JSON.stringify(resources.map(({ inputs }) => (inputs.spec as { selector?: object } | undefined)?.selector));
    equal(selectors(marked), selectors(without));
  });

  it("of the servers and of the agents come with those of the cluster, and win", async () => {
    const { templates: all } = await run(
      { podLabels },
      { podLabels: { team: "servers" } },
      { podLabels: { team: "agents" } },
    );
    const team = (name: string) => all.get(name)?.metadata.labels.team;
    deepEqual(["consul-server", "consul-agent", "consul-server-acl-job"].map(team), ["servers", "agents", "platform"]);
    equal(all.get("consul-agent")?.metadata.labels["example.com/cost"], "42");
  });
});
