import type { Browser } from "playwright-core";
import { findOnPath } from "../../local/consul-binary";

/**
 * A real browser without a window: the Chromium that is on PATH. None is downloaded.
 * @returns undefined where there is none
 */
export async function openBrowser(): Promise<Browser | undefined> {
  const executablePath = ["chromium", "chromium-browser", "google-chrome"]
    .map((name) => findOnPath(name))
    .find(Boolean);
  if (executablePath === undefined) return undefined;
  const { chromium } = await import("playwright-core");
  // Chromium refuses to run as root with its sandbox, as in a container. It opens pages of our own alone.
  return chromium.launch({ executablePath, chromiumSandbox: process.getuid?.() !== 0 });
}
