import assert from "assert/strict";
import { X509Certificate } from "crypto";
import { connect, PeerCertificate } from "tls";
import { ports } from "../consul/config";
import type { Cluster } from "../local/supervisor";
import { eventually } from "./healthy";

interface Keyring {
  readonly Keys: Readonly<Record<string, number>>;
  readonly PrimaryKeys: Readonly<Record<string, number>>;
  readonly NumNodes: number;
}

/** The gossip keys of every node. A node that gossip takes for away just then makes it an error: asked again. */
export function keyring(cluster: Cluster): Promise<Keyring> {
  return eventually("every node says its keys", async () => {
    const [lan] = await cluster.api("server-1").get<Keyring[]>("operator/keyring");
    assert(lan, "no keyring");
    return lan;
  });
}

/** From when on certificates in PEM are valid, and all authorities that are trusted, as components/trust.ts has it. */
export function certificatesFrom(pems: readonly string[]): string {
  const each = pems.flatMap((pem) => pem.match(/-----BEGIN[^]*?-----END.*\n/g) ?? []);
  return new Date(Math.max(...each.map((pem) => Date.parse(new X509Certificate(pem).validFrom)))).toISOString();
}

/** The certificate that a server shows, checked against what the program says is trusted. */
export function certificateOf(cluster: Cluster, server: string): Promise<PeerCertificate> {
  return new Promise((resolve, reject) => {
    const to = { host: cluster.node(server).address, port: ports.https, ca: cluster.caCertificate };
    const socket = connect(to, () => {
      resolve(socket.getPeerCertificate());
      socket.destroy();
    });
    socket.on("error", reject);
  });
}
