import { equal, match, notEqual, ok, rejects } from "assert/strict";
import { spawn } from "child_process";
import { createSocket } from "dgram";
import { once } from "events";
import { createServer } from "net";
import { ports } from "../../consul/config";
import type { ConsulNode } from "../../consul/node";
import { assertFree, identity } from "../../local/processes";

const node = (name: string, address: string): ConsulNode => ({ name, role: "server", address, files: [], command: [] });

describe("addresses of local nodes", () => {
  it("are free, or it is said which one is taken", async () => {
    const nodes = [node("server-1", "127.26.0.11"), node("server-2", "127.26.0.12")];
    await assertFree(nodes);
    await assertFree(nodes); // the first check left no port taken

    const tcp = createServer().listen(ports.rpc, "127.26.0.12");
    await once(tcp, "listening");
    await rejects(assertFree(nodes), /^Error: 127\.26\.0\.12:8300 of server-2 is taken: is another cluster running\?/);
    tcp.close();
    await once(tcp, "close");

    const udp = createSocket("udp4").bind(ports.dns, "127.26.0.11");
    await once(udp, "listening");
    await rejects(assertFree(nodes), /^Error: 127\.26\.0\.11:8600 of server-1 is taken/);
    udp.close();
    await once(udp, "close");
    await assertFree(nodes);
  });

  it("are this machine's, or it is said how they become that", async () => {
    const nodes = [node("server-1", "192.0.2.1"), node("server-2", "192.0.2.2")];
    const remedy =
      /^Error: 192\.0\.2\.\d of server-\d is no address of this machine: for a in 192\.0\.2\.1 192\.0\.2\.2; do sudo ifconfig lo0 alias \$a; done$/;
    await rejects(assertFree(nodes), remedy);
  });
});

describe("the identity of a process", () => {
  it("stays as long as it lives, tells it from others, and ends with it", async () => {
    const child = spawn("sleep", ["60"]);
    const pid = child.pid ?? 0;
    const id = identity(pid) ?? "";
    match(id, /\S/);
    equal(identity(pid), id);
    notEqual(identity(process.pid), id);
    child.kill("SIGKILL");
    await once(child, "exit");
    equal(identity(pid), undefined);
    ok(identity(process.pid));
  });
});
