import { stackConfig } from "../../local/program";

/** Takes away what a stack has beside servers and agents, for a test that switches on what it is about. */
export function plain(config: Record<string, string>): void {
  for (const feature of ["apps", "backups", "dns", "logins", "monitoring"]) {
    Reflect.deleteProperty(config, `consul:${feature}`);
  }
  edit(config, "agents", (agents) => delete agents.nodeSecurityGroupId);
  if (config["consul:servers"]?.includes('"ecs"')) edit(config, "servers", (servers) => delete servers.ui);
}

/** The configuration of the stack prod without these. */
export function plainProd(): Record<string, string> {
  const config = stackConfig("prod");
  plain(config);
  return config;
}

/** Edits one structured setting in place. */
export function edit(
  config: Record<string, string>,
  key: string,
  change: (value: Record<string, unknown>) => void,
): void {
  const value = JSON.parse(config[`consul:${key}`] ?? "{}") as Record<string, unknown>;
  change(value);
  config[`consul:${key}`] = JSON.stringify(value);
}
