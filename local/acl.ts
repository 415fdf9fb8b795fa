import type { AclObject } from "../consul/acl";
import { Api, ApiError } from "./api";

/**
 * Puts policies and tokens in place as consul/scripts/acl.sh does on a server, for machines that lack a shell's tools.
 * As often as it is run: what is there is brought to what the objects say.
 * @throws the first failure; a cluster that has just got its leader is worth another try
 */
export async function applyAcl(api: Api, objects: readonly AclObject[]): Promise<void> {
  const of = (kind: string) => objects.filter(({ file }) => file.startsWith(`${kind}.`));
  await Promise.all(of("policy").map((object) => putPolicy(api, object)));
  await Promise.all(of("token").map((object) => putToken(api, object)));
}

/** What an object is called in its file's name: a policy's name, a token's accessor id. */
function key({ file }: AclObject): string {
  return file.replace(/^[a-z]+\./, "").replace(/\.json$/, "");
}

async function putPolicy(api: Api, object: AclObject): Promise<void> {
  const there = await unlessMissing(api.get<{ ID: string }>(`acl/policy/name/${key(object)}`));
  await api.put(there ? `acl/policy/${there.ID}` : "acl/policy", object.content);
}

async function putToken(api: Api, object: AclObject): Promise<void> {
  const there = await unlessMissing(api.get(`acl/token/${key(object)}`));
  await api.put(there ? `acl/token/${key(object)}` : "acl/token", object.content);
}

/** Consul answers 404 for a policy that is not there, and 403 "ACL not found" for a token. */
async function unlessMissing<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof ApiError && (error.status === 404 || error.body.includes("ACL not found"))) return undefined;
    throw error;
  }
}
