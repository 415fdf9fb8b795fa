import { knownWeakness } from "../consul/releases";
import type { Settings } from "./schema";

/** Where Consul's maker has its releases and its image; what the settings say unless they say something else. */
const makers = { downloadMirror: "https://releases.hashicorp.com/consul", imageRegistry: "hashicorp" };

/**
 * What is accepted and should not stay: one line each, with the key, its value and the remedy.
 * @param region of the cloud, where it is known
 */
export function warningsOf(settings: Settings, region?: string): string[] {
  const { version, downloadMirror, downloadSha256 } = settings;
  const warnings = [knownWeakness(version), ...(isMainland(region) ? outOfReach(settings, region) : [])];
  if (installsConsul(settings) && downloadMirror !== makers.downloadMirror && downloadSha256 === "") {
    warnings.push(
      `consul:downloadMirror ${downloadMirror} says itself which checksum is right: set consul:downloadSha256 to the one that \`npm run mirror\` printed once it had checked HashiCorp's signature`,
    );
  }
  return warnings.filter((warning) => warning !== undefined);
}

/** Whether a region is in mainland China, from where most foreign sites are slow or out of reach. */
function isMainland(region: string | undefined): region is string {
  return region?.startsWith("cn-") === true && region !== "cn-hongkong";
}

/** Whether this stack has machines that fetch Consul. */
function installsConsul({ servers }: Settings): boolean {
  return servers?.platform === "ecs";
}

function outOfReach(settings: Settings, region: string): string[] {
  const { servers, agents, apps, monitoring, downloadMirror, imageRegistry } = settings;
  const warnings: string[] = [];
  if (installsConsul(settings) && downloadMirror === makers.downloadMirror) {
    warnings.push(
      `consul:downloadMirror ${downloadMirror} is hardly reached from ${region}: \`npm run mirror\` puts Consul into a bucket of yours (docs/mainland.md)`,
    );
  }
  const owners = [servers, agents].filter((block) => block?.platform === "kubernetes");
  const jobs = apps !== undefined || monitoring?.scrape === true;
  const own = owners.length > 0 && owners.every((block) => "image" in block && block.image !== undefined);
  if ((owners.length > 0 || jobs) && !own && imageRegistry === makers.imageRegistry) {
    warnings.push(
      `consul:imageRegistry ${imageRegistry} is on Docker Hub, which is hardly reached from ${region}: \`npm run mirror -- --image\` copies the image into a registry of yours (docs/mainland.md)`,
    );
  }
  return warnings;
}
