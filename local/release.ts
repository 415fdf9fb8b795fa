import { createHash } from "crypto";

/** A release of Consul as its maker publishes it: one directory for each version, below it zips and their checksums. */

/** The file names of one version. @param system such as linux_amd64 */
export const releaseFiles = {
  zip: (version: string, system: string) => `consul_${version}_${system}.zip`,
  sums: (version: string) => `consul_${version}_SHA256SUMS`,
  signature: (version: string) => `consul_${version}_SHA256SUMS.sig`,
};

/** The checksum of a file in the text of SHA256SUMS. */
export function sumIn(sums: string, file: string): string | undefined {
  return sums
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .find(([, name]) => name === file)?.[0];
}

/** SHA-256 in hex. */
export function sha256(body: Uint8Array): string {
  return createHash("sha256").update(body).digest("hex");
}

/**
 * The body of an answer.
 * @param timeout milliseconds for the first piece and between two pieces, not for the whole
 * @param progress takes how much of it is there, such as "40 %"
 */
export async function fetched(
  url: string,
  timeout: number,
  progress: (share: string) => void = () => undefined,
): Promise<Uint8Array> {
  const controller = new AbortController();
  const abort = () => controller.abort(new Error(`no answer within ${timeout / 1000} s`));
  const timer = setTimeout(abort, timeout);
  try {
    const response = await fetch(url, { signal: controller.signal });
    if (!response.ok || !response.body) throw new Error(`HTTP status ${response.status}`);
    const total = Number(response.headers.get("content-length") ?? 0);
    const pieces: Uint8Array[] = [];
    let size = 0;
    let said = 0;
    for await (const piece of response.body as AsyncIterable<Uint8Array>) {
      timer.refresh();
      pieces.push(piece);
      size += piece.length;
      if (total > 0 && size - said > total / 20) progress(`${Math.floor((100 * (said = size)) / total)} %`);
    }
    return Buffer.concat(pieces);
  } finally {
    clearTimeout(timer);
  }
}
