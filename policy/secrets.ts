import {
  at,
  containers,
  isConfigMap,
  isInstance,
  isSecret,
  podSpec,
  records,
  Seen,
  str,
  texts,
  when,
} from "./resources";

/** What kind of secret is in a text, by its looks. A certificate is public, and its last line may look like a key. */
function looksSecret(text: string): string | undefined {
  const rest = text.replace(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g, "");
  if (/-----BEGIN (?!PUBLIC)[A-Z0-9 ]*KEY-----/.test(rest)) return "a private key";
  if (/(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=(?![A-Za-z0-9+/=])/.test(rest)) return "a gossip key (32 bytes in base64)";
  if (/(?<![0-9a-f-])[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f-])/i.test(rest)) return "a token (a UUID)";
  return undefined;
}

/** Everything in the clear in a resource: all of a ConfigMap, and of a pod what `kubectl describe` shows. */
function inTheClear(seen: Seen): { key: string; text: string }[] {
  if (isConfigMap(seen)) return [...texts(seen.props.data), ...texts(seen.props.binaryData).map(decoded)];
  const shown = containers(podSpec(seen)).flatMap(({ command, args, env }) => [command, args, env]);
  return [...texts(shown), ...texts(at(seen.props, "metadata", "annotations"))];
}
function decoded({ key, text }: { key: string; text: string }) {
  return { key, text: Buffer.from(text, "base64").toString() };
}

/** What of one resource is secret and would be readable, each as a sentence. */
export function plainSecrets(seen: Seen): string[] {
  const found = inTheClear(seen).flatMap(({ key, text }) => {
    const what = looksSecret(text);
    return what === undefined ? [] : [`${key} holds ${what}: it belongs into a Secret`];
  });
  for (const container of containers(podSpec(seen))) {
    for (const { name, value } of records(container.env)) {
      const sensitive = /(TOKEN|SECRET|PASSWORD|ENCRYPT|_KEY)$/.test(str(name));
      if (sensitive && value !== undefined) found.push(`${str(name)} has its value in the clear: use secretKeyRef`);
    }
  }
  if (isInstance(seen) && seen.props.userData !== undefined && !seen.additionalSecretOutputs.includes("userData")) {
    found.push("userData is not among additionalSecretOutputs: it would be plain in the state");
  }
  const mustWrap = isInstance(seen) ? ["userData"] : isSecret(seen) ? ["data", "stringData"] : [];
  for (const key of mustWrap) {
    if (seen.props[key] === undefined || seen.secretInputs === undefined || seen.secretInputs.includes(key)) continue;
    found.push(`${key} is not wrapped in pulumi.secret: it would be plain in previews and in the state`);
  }
  return found;
}

/** Where a secret that the stack itself makes appears in the clear, whatever it looks like; each as a sentence. */
export function leakedSecrets(all: readonly Seen[]): string[] {
  const made = all.flatMap((seen) => {
    if (isSecret(seen)) return texts(seen.props.data).map(decoded).concat(texts(seen.props.stringData));
    return [...texts(seen.props.result), ...texts(seen.props.privateKeyPem)];
  });
  const secrets = new Set(made.flatMap(({ text }) => [text, ...leaves(text)]).filter((text) => text.length >= 16));
  return all.flatMap((seen) =>
    inTheClear(seen).flatMap(({ key, text }) =>
      when(
        [...secrets].some((secret) => text.includes(secret)),
        `${key} of ${seen.name} holds a secret of this stack`,
      ),
    ),
  );
}
/** The texts in a file of a Secret; what is a name in Consul is no secret, such as that of an auth method. */
function leaves(json: string): string[] {
  try {
    return texts(JSON.parse(json)).flatMap(({ key, text }) => (/^(Name|AuthMethod)$/.test(key) ? [] : [text]));
  } catch {
    return [];
  }
}
