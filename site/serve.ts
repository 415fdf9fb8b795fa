import { once } from "events";
import { readFile } from "fs/promises";
import { createServer, Server } from "http";
import { AddressInfo } from "net";
import { extname, join, normalize } from "path";

const types: Readonly<Record<string, string>> = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".json": "application/json",
  ".png": "image/png",
  ".svg": "image/svg+xml",
};

/**
 * Serves a built site on this machine alone, as hosts of such pages do.
 * @param base where the site is on its host; begins and ends with a slash
 * @param port 0 for any that is free
 */
export async function serve(directory: string, base: string, port: number): Promise<{ url: string; server: Server }> {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname);
    const below = path.startsWith(base) ? normalize(`/${path.slice(base.length)}`) : "/404.html";
    const file = below.endsWith("/") ? `${below}index.html` : below;
    const answer = (status: number, name: string) =>
      readFile(join(directory, name)).then((content) => {
        response.writeHead(status, { "content-type": types[extname(name)] ?? "application/octet-stream" }).end(content);
      });
    answer(file === "/404.html" ? 404 : 200, file)
      .catch(() => answer(404, "/404.html"))
      .catch(() => response.writeHead(404).end());
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}${base}`, server };
}
