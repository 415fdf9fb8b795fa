import { createSocket, Socket } from "dgram";
import { Answer, decode, encode } from "dns-packet";
import { ports } from "../consul/config";

/** Milliseconds until a question that got no answer is asked once more, and until it is given up then. */
const patience = 2000;

/** A stub resolver for Consul's DNS: one UDP socket for all questions; each is asked twice at most, as by a libc. */
export class Resolver {
  private readonly socket: Socket = createSocket("udp4");
  private readonly waiting = new Map<number, (answer: Buffer) => void>();
  private id = 0;

  constructor() {
    // The machine of a dead server says that its port is closed. That is an error of the socket, and of no question.
    this.socket.on("error", () => undefined);
    this.socket.on("message", (message) => this.waiting.get(message.readUInt16BE(0))?.(message));
  }

  /**
   * @param server address of the node that is asked
   * @returns the records of a name, none where the name does not exist
   * @throws where the answer is an error (SERVFAIL), or there is none within 4 s
   */
  async records(server: string, name: string, type: "A" | "SRV"): Promise<Answer[]> {
    const message = (await this.ask(server, name, type)) ?? (await this.ask(server, name, type));
    if (!message) throw new Error(`no answer of ${server}:${ports.dns} for ${name}`);
    const answer = decode(message);
    const code = (answer.flags ?? 0) & 0xf;
    if (code !== 0 && code !== 3) throw new Error(`${server} answers ${name} with DNS error ${code}`);
    return answer.answers ?? [];
  }

  /** The addresses of a name. As `records` in all else. */
  async addresses(server: string, name: string): Promise<string[]> {
    return (await this.records(server, name, "A")).flatMap((record) => (record.type === "A" ? record.data : []));
  }

  close(): void {
    this.socket.close();
  }

  private async ask(server: string, name: string, type: "A" | "SRV"): Promise<Buffer | undefined> {
    const id = (this.id = (this.id + 1) % 0x10000);
    const query = encode({ type: "query", id, questions: [{ type, name }] });
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<Buffer | undefined>((answered) => {
        timer = setTimeout(() => answered(undefined), patience);
        this.waiting.set(id, answered);
        this.socket.send(query, ports.dns, server);
      });
    } finally {
      clearTimeout(timer);
      this.waiting.delete(id);
    }
  }
}

/** Asks a node's DNS one question. As `Resolver.records` in all else. */
export async function lookup(server: string, name: string, type: "A" | "SRV"): Promise<Answer[]> {
  const resolver = new Resolver();
  try {
    return await resolver.records(server, name, type);
  } finally {
    resolver.close();
  }
}
