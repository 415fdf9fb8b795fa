import { mkdtempSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import type { Page } from "playwright-core";
import { ports } from "../../consul/config";
import { untilInterrupted } from "../../local/command";
import { Cluster, onLoopback } from "../../local/supervisor";
import type { Progress } from "../../tools/progress";
import { openBrowser } from "./browser";

/** Services that the pictures show: name, tag, and how many instances. */
const services = [
  ["orders", "v2", 3],
  ["payments", "v1", 2],
  ["stock", "v1", 3],
  ["users", "v3", 2],
] as const;

/**
 * Pictures of Consul's UI of a running cluster, by a real browser.
 * @returns PNG by file name
 * @throws where no Chromium is on PATH, or the UI is not part of the consul that runs
 */
export async function screens(progress: Progress): Promise<Record<string, Buffer>> {
  const browser = await openBrowser();
  if (!browser) throw new Error("no chromium is on PATH: install it (Debian: apt-get install chromium)");
  const dir = mkdtempSync(join(tmpdir(), "screens-"));
  const cluster = new Cluster({ dir, config: onLoopback("127.24.0"), onCrash: progress });
  const work = async () => {
    for (const step of cluster.steps()) await step.run(progress);
    await register(cluster);
    const page = await browser.newPage({ viewport: { width: 1280, height: 760 }, deviceScaleFactor: 1 });
    await page.addInitScript(`localStorage.setItem("consul:token", '${JSON.stringify(await ownToken(cluster))}')`);
    const ui = `http://${cluster.node("server-1").address}:${ports.http}/ui/${cluster.datacenter}`;
    return {
      "ui-services.png": await taken(page, `${ui}/services`, "payments"),
      "ui-nodes.png": await taken(page, `${ui}/nodes`, "agent-3"),
    };
  };
  try {
    const made = await untilInterrupted(cluster, work);
    if (typeof made === "string") throw new Error(`ended by ${made}`);
    return made;
  } finally {
    await browser.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

async function register(cluster: Cluster): Promise<void> {
  for (const [Name, tag, count] of services) {
    for (let i = 1; i <= count; i++) {
      const Check = { TTL: "24h", Status: "passing", Name: "heartbeat" };
      const body = { ID: `${Name}-${i}`, Name, Tags: [tag], Port: 8080, Check };
      await cluster.api(`agent-${i}`).put("agent/service/register", body);
    }
  }
  await cluster.until("not every service is in the catalog", async () => {
    const found = await cluster.api("server-1").get<object>("catalog/services");
    for (const [name] of services) if (!(name in found)) throw new Error(name);
  });
}

/** The management token as the UI keeps it once somebody has logged in with it. */
async function ownToken(cluster: Cluster): Promise<object> {
  const { AccessorID } = await cluster.api("server-1").get<{ AccessorID: string }>("acl/token/self");
  return { AccessorID, SecretID: cluster.managementToken };
}

async function taken(page: Page, url: string, shows: string): Promise<Buffer> {
  await page.goto(url);
  await page.getByText(shows, { exact: true }).first().waitFor();
  // What slides in is still moving when its words are there.
  await page.waitForTimeout(1000);
  return page.screenshot();
}
