import * as pulumi from "@pulumi/pulumi";

/** What clusters and clouds say where a name or an address is taken (ECS, "RunInstances"; RAM; OSS). */
const taken = /already ?exist|already allocated|AlreadyUsed|Duplicated/i;

/**
 * Says what to do where something that is to be made is there already. An `up` that was killed, or whose runner was
 * lost, leaves what it was making: the engine has not written it down yet. Pulumi's own advice, `pulumi refresh`, does
 * not take such a thing into the state (tried with 3.260). Engines before 3.244 do not pass on every error.
 */
export function explainLeftovers(): void {
  const hook = new pulumi.ErrorHook("consul-leftovers", async ({ type, name, newInputs, failedOperation, errors }) => {
    const message = failedOperation === "create" ? leftover(type, name, newInputs ?? {}, errors[0] ?? "") : undefined;
    if (message !== undefined) await pulumi.log.error(message);
    return false;
  });
  // The newer registerResourceTransform sets options that nobody gave, deleteBeforeReplace among them (tried with 3.248):
  // a Service with a name of its own could not be replaced any more.
  pulumi.runtime.registerStackTransformation(({ type, props, opts }) => {
    if (!/^(alicloud|kubernetes):/.test(type)) return undefined;
    const { hooks = {} } = opts;
    return { props, opts: { ...opts, hooks: { ...hooks, onError: [...(hooks.onError ?? []), hook] } } };
  });
}

/** What to do about a thing that could not be made; undefined where it failed for another reason than being there. */
export function leftover(
  type: string,
  name: string,
  inputs: Readonly<Record<string, unknown>>,
  error: string,
): string | undefined {
  if (!taken.test(error)) return undefined;
  const { what, remedy } = type.startsWith("kubernetes:") ? object(type, inputs) : resource(type, name, inputs);
  return [
    `${what} is there already, and this stack does not know it.`,
    `  - An \`up\` that was killed leaves what it was making: the warning on pending operations names ${name} then.`,
    `    ${remedy}, and run \`pulumi up\` again.`,
    '  - Else it is not of this stack: leave it alone (docs/troubleshooting.md, "… already exists").',
  ].join("\n");
}

function object(type: string, inputs: Readonly<Record<string, unknown>>) {
  const kind = type.replace(/.*:/, "");
  const { name = "", namespace } = inputs.metadata as { name?: string; namespace?: string };
  // Whatever else is in a namespace would go with it.
  if (kind === "Namespace") return { what: `${kind} ${name}`, remedy: "Set consul:cluster.createNamespace to false" };
  const [where, what] = namespace === undefined ? ["", name] : [` -n ${namespace}`, `${namespace}/${name}`];
  const young = kind === "PersistentVolumeClaim" ? "If it is as young as that `up` and holds nothing, take" : "Take";
  // A Service may have a fixed address, which is what is taken then.
  const addressed = kind === "Service" ? ", or its address," : "";
  return {
    what: `${kind} ${what}${addressed}`,
    remedy: `${young} it away, \`kubectl${where} delete ${kind.toLowerCase()} ${name}\``,
  };
}

function resource(type: string, name: string, inputs: Readonly<Record<string, unknown>>) {
  if (!type.endsWith(":Instance")) return { what: name, remedy: "Take it away in the cloud's console" };
  const { instanceName, privateIp } = inputs as { instanceName: string; privateIp: string };
  const find = `\`aliyun ecs DescribeInstances --InstanceName ${instanceName}\``;
  return {
    what: `A machine with ${instanceName}'s address ${privateIp}`,
    remedy:
      `Where the machine has just gone, wait a minute: an address is given back late. ` +
      `Else, and unless a data disk is attached to it (${find} has the id), take it away, ` +
      "`aliyun ecs DeleteInstance --Force true --InstanceId ID`",
  };
}
