import { createSocket } from "dgram";
import { Answer, Packet, decode, encode, streamDecode, streamEncode } from "dns-packet";
import { connect } from "net";

export interface Reply {
  /** NOERROR, NXDOMAIN, SERVFAIL, REFUSED… */
  readonly rcode: string;
  readonly answers: readonly Answer[];
}

/** Asks a DNS server, over UDP unless told otherwise. @throws where there is no answer within 5 s */
export function ask(
  server: { address: string; port: number },
  name: string,
  type: "A" | "SRV" | "TXT" = "A",
  protocol: "udp" | "tcp" = "udp",
): Promise<Reply> {
  const query: Packet = {
    type: "query",
    id: 1 + Math.floor(Math.random() * 65_000),
    flags: 256,
    questions: [{ type, name }],
  };
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => finish(new Error(`no answer of ${server.address}:${server.port} for ${name}`)), 5000);
    let close = () => undefined as unknown;
    const finish = (result: Error | Packet) => {
      clearTimeout(late);
      close();
      if (result instanceof Error) reject(result);
      // Types of dns-packet leave out the response code.
      else resolve({ rcode: (result as unknown as { rcode: string }).rcode, answers: result.answers ?? [] });
    };
    if (protocol === "udp") {
      const socket = createSocket("udp4");
      close = () => socket.close();
      socket.once("error", finish).once("message", (message) => finish(decode(message)));
      socket.send(encode(query), server.port, server.address);
    } else {
      const socket = connect(server.port, server.address, () => socket.write(streamEncode(query)));
      close = () => socket.destroy();
      let received = Buffer.alloc(0);
      socket.once("error", finish).on("data", (data) => {
        received = Buffer.concat([received, data]);
        if (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) finish(streamDecode(received));
      });
    }
  });
}
