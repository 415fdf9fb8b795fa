import { createSocket } from "dgram";
import { Answer, OptAnswer, Packet, TRUNCATED_RESPONSE, decode, encode, streamDecode, streamEncode } from "dns-packet";
import { connect } from "net";

export interface Reply {
  /** NOERROR, NXDOMAIN, SERVFAIL, REFUSED… */
  readonly rcode: string;
  readonly answers: readonly Answer[];
  readonly additionals: readonly Answer[];
  /** Whether the answer says that it was cut, so that one asks again over TCP. */
  readonly truncated: boolean;
  /** Bytes of the message. */
  readonly size: number;
}

/** UDP: 512 bytes at most, or what a resolver with EDNS accepts; or TCP. */
export type Transport = "udp" | { readonly edns: number } | "tcp";

function opt(udpPayloadSize: number): OptAnswer {
  return {
    type: "OPT",
    name: ".",
    udpPayloadSize,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  };
}

/** Asks a DNS server, over UDP unless told otherwise. @throws where there is no answer within 5 s */
export function ask(
  server: { address: string; port: number },
  name: string,
  type: "A" | "SRV" | "TXT" = "A",
  transport: Transport = "udp",
): Promise<Reply> {
  const query: Packet = {
    type: "query",
    id: 1 + Math.floor(Math.random() * 65_000),
    flags: 256,
    questions: [{ type, name }],
    ...(typeof transport === "object" ? { additionals: [opt(transport.edns)] } : {}),
  };
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => finish(new Error(`no answer of ${server.address}:${server.port} for ${name}`)), 5000);
    let close = () => undefined as unknown;
    const finish = (result: Error | Packet, size = 0) => {
      clearTimeout(late);
      close();
      if (result instanceof Error) reject(result);
      // Types of dns-packet leave out the response code.
      else {
        resolve({
          rcode: (result as unknown as { rcode: string }).rcode,
          answers: result.answers ?? [],
          additionals: result.additionals ?? [],
          truncated: ((result.flags ?? 0) & TRUNCATED_RESPONSE) !== 0,
          size,
        });
      }
    };
    if (transport !== "tcp") {
      const socket = createSocket("udp4");
      close = () => socket.close();
      socket.once("error", finish).once("message", (message) => finish(decode(message), message.length));
      socket.send(encode(query), server.port, server.address);
    } else {
      const socket = connect(server.port, server.address, () => socket.write(streamEncode(query)));
      close = () => socket.destroy();
      let received = Buffer.alloc(0);
      socket.once("error", finish).on("data", (data) => {
        received = Buffer.concat([received, data]);
        if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
        finish(streamDecode(received), received.length - 2);
      });
    }
  });
}

/** As a resolver of a libc: UDP first, and TCP where the answer says that it was cut. */
export async function resolve(
  server: { address: string; port: number },
  name: string,
  type: "A" | "SRV",
  edns?: number,
): Promise<Reply> {
  const reply = await ask(server, name, type, edns === undefined ? "udp" : { edns });
  return reply.truncated ? ask(server, name, type, "tcp") : reply;
}
