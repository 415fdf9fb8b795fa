import assert from "assert/strict";
import { createHash } from "crypto";
import { ApiError } from "../../local/api";
import type { Cluster } from "../../local/supervisor";
import { eventually, first, names } from "../healthy";

// Ten thousand keys, to see whether a fault loses or changes any.

const keyCount = 10_000;
const batch = 64; // Consul's limit of operations in one transaction

/** Writes 10,000 keys, unless an earlier experiment has. @returns their checksum, the same at every server */
export async function fill(cluster: Cluster): Promise<string> {
  const agents = names(cluster, "agent");
  const there = await cluster.api(first(agents)).get<string[]>("kv/drill/keys/?keys&separator=").catch(unlessMissing);
  if (there?.length !== keyCount) {
    const keys = Array.from({ length: keyCount }, (_, i) => `drill/keys/${i}`);
    while (keys.length > 0) {
      const set = (Key: string) => ({ KV: { Verb: "set", Key, Value: Buffer.from(Key).toString("base64") } });
      await cluster.api(first(agents)).put("txn", keys.splice(0, batch).map(set));
    }
  }
  return checksum(cluster);
}

function unlessMissing(error: unknown): undefined {
  if (!(error instanceof ApiError && error.status === 404)) throw error;
}

/** Waits until every server, asked for its own copy, has the same keys. @returns SHA-256 of them and their indexes */
export async function checksum(cluster: Cluster): Promise<string> {
  type Pair = Record<"Key" | "Value", string> & Record<"CreateIndex" | "ModifyIndex", number>;
  return eventually("the servers do not have the same keys", async () => {
    const sums = new Set<string>();
    for (const name of names(cluster, "server")) {
      const pairs = await cluster.api(name).get<Pair[]>("kv/drill/keys/?recurse&stale");
      assert.equal(pairs.length, keyCount, name);
      const lines = pairs.map((pair) => [pair.Key, pair.Value, pair.CreateIndex, pair.ModifyIndex].join(" ")).sort();
      sums.add(createHash("sha256").update(lines.join("\n")).digest("hex"));
    }
    assert.equal(sums.size, 1, "different checksums");
    return first([...sums]);
  });
}
