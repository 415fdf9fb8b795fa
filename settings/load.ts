import * as pulumi from "@pulumi/pulumi";
import { z } from "zod";
import { parseSettings, schema, Settings } from "./schema";

/** The project's name: `pulumi new` asks for one, and this is the only one with which the settings' keys are found. */
const projectName = "consul";

/**
 * Reads the settings of the running stack. The only place that touches Pulumi's configuration.
 * @throws SettingsError, or RunError where the project has another name and so no defaults
 */
export function loadSettings(): Settings {
  const given: Record<string, unknown> = {};
  const config = pulumi.runtime.allConfig();
  for (const [key, value] of Object.entries(config)) {
    if (key.startsWith("consul:")) given[key.slice("consul:".length)] = structured(key.slice("consul:".length), value);
  }
  const project = pulumi.getProject();
  if (project !== projectName && given.datacenter === undefined) {
    throw new pulumi.RunError(
      `Pulumi.yaml has the name ${project}, not ${projectName}: the settings' keys begin with ${projectName}:, and the ` +
        `defaults in Pulumi.yaml are those of the project of that name. Set name: ${projectName} there; nothing was created`,
    );
  }
  // The engine names the secret keys here, and nowhere else where a program can ask for all of them.
  const secret = new Set(JSON.parse(process.env.PULUMI_CONFIG_SECRET_KEYS ?? "[]") as string[]);
  return parseSettings(given, (key) => secret.has(`consul:${key}`), config["alicloud:region"]);
}

/** What the program needs to reach the ECS API by itself, next to the alicloud provider. */
export interface CloudConfig {
  readonly region: string;
  /** host:port, where it is not the region's own. */
  readonly endpoint?: string | undefined;
  readonly accessKey?: string | undefined;
  readonly secretKey?: string | undefined;
  readonly securityToken?: string | undefined;
  /** Profile of the aliyun CLI's configuration. */
  readonly profile?: string | undefined;
  /** RAM role of the machine that this runs on. */
  readonly ecsRoleName?: string | undefined;
  readonly assumeRole?: { readonly roleArn: string; readonly sessionName?: string } | undefined;
}

/** The alicloud provider's own configuration and environment, read as the provider reads them: configuration first. */
export function loadCloudConfig(): CloudConfig {
  const given = pulumi.runtime.allConfig();
  const variable = (...names: string[]) => names.map((name) => process.env[name]).find((value) => value);
  const first = (key: string, ...names: string[]) => given[`alicloud:${key}`] ?? variable(...names);
  const endpoints = JSON.parse(given["alicloud:endpoints"] ?? "[]") as { ecs?: string }[];
  const assumeRole = given["alicloud:assumeRole"];
  return {
    region: first("region", "ALICLOUD_REGION", "ALIBABA_CLOUD_REGION") ?? "cn-beijing",
    endpoint: endpoints[0]?.ecs ?? variable("ALIBABA_CLOUD_ENDPOINT_ECS", "ECS_ENDPOINT"),
    accessKey: first("accessKey", "ALICLOUD_ACCESS_KEY", "ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABACLOUD_ACCESS_KEY_ID"),
    secretKey: first(
      "secretKey",
      "ALICLOUD_SECRET_KEY",
      "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
      "ALIBABACLOUD_ACCESS_KEY_SECRET",
    ),
    securityToken: first(
      "securityToken",
      "ALICLOUD_SECURITY_TOKEN",
      "ALIBABA_CLOUD_SECURITY_TOKEN",
      "ALIBABACLOUD_SECURITY_TOKEN",
    ),
    profile: first("profile", "ALICLOUD_PROFILE", "ALIBABA_CLOUD_PROFILE"),
    ecsRoleName: first("ecsRoleName", "ALIBABA_CLOUD_ECS_METADATA"),
    assumeRole: assumeRole === undefined ? undefined : (JSON.parse(assumeRole) as CloudConfig["assumeRole"]),
  };
}

/** Pulumi hands every value over as text; what is not text by its schema is JSON. */
function structured(key: string, value: string): unknown {
  const field = (schema.shape as Record<string, z.ZodType>)[key];
  if (field === undefined || field instanceof z.ZodString || field instanceof z.ZodEnum) return value;
  if (field instanceof z.ZodOptional && field.unwrap() instanceof z.ZodString) return value;
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return value;
  }
}
