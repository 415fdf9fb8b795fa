/** Takes secrets out of texts that people send around. */

/** Digits that mean one node or one entry, and open nothing, by the keys under which Consul has them. */
const publicIds =
  /"(?:ID|NodeID|AccessorID|CreateID|Address)":\s*"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"/g;

const uuids = /\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/gi;

const patterns: readonly RegExp[] = [
  // Also on one line, as JSON has it.
  /-----BEGIN [A-Z ]*PRIVATE KEY-----[^]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g,
  // Gossip keys of 32 and of 16 bytes.
  /(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{22}==)(?![A-Za-z0-9+/=])/g,
  // Access keys of the cloud, and tokens of service accounts.
  /\b(?:LTAI|STS\.)[A-Za-z0-9]{12,}\b/g,
  /\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}/g,
  /(?<=(?:access_?key_?secret|security_?token|x-consul-token|secret_?id|password)["']?\s*[:=]\s*["']?)[^\s"',;]{8,}/gi,
];

const hidden = "[secret]";

/**
 * Texts without secrets: without those that are known, and without whatever looks like one. A UUID may be a token, so
 * only those stay that one of the texts has as the id of a node or an accessor.
 * @param texts by name
 * @param known secrets of which nothing may be left, in base64 neither
 */
export function redact(texts: ReadonlyMap<string, string>, known: readonly string[]): ReadonlyMap<string, string> {
  const secrets = [...new Set(known.flatMap(forms))]
    .filter((text) => text.length > 7)
    .sort((a, b) => b.length - a.length);
  const ids = new Set([...texts.values()].flatMap((text) => [...text.matchAll(publicIds)].map(([, id = ""]) => id)));
  for (const secret of secrets) ids.delete(secret);
  const clean = (text: string) => {
    let left = secrets.reduce((rest, secret) => rest.replaceAll(secret, hidden), text);
    for (const pattern of patterns) left = left.replace(pattern, hidden);
    return left.replace(uuids, (id) => (ids.has(id) ? id : hidden));
  };
  return new Map([...texts].map(([name, text]) => [name, clean(text)]));
}

/** A secret as it may stand in a text: as it is, in JSON, in base64, and each line of a key by itself. */
function forms(secret: string): string[] {
  const lines = secret.includes("\n")
    ? secret.split("\n").filter((line) => line !== "" && !line.startsWith("-----"))
    : [];
  return [secret, JSON.stringify(secret).slice(1, -1), Buffer.from(secret).toString("base64"), ...lines];
}
