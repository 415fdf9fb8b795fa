import { z } from "zod";
import { consulKeys, refusedConfig } from "../consul/extra-config";
import { rule } from "./mistakes";
import { nearest } from "./suggestion";

/** More of Consul's configuration for a server or an agent, but for what this program keeps for itself. */
export const extraConfig = (role: "server" | "agent") =>
  z
    .record(z.string(), z.unknown(), { error: "a map of Consul's configuration" })
    .check(
      rule([], (extra, { wrong }) => {
        const similar = (key: string) =>
          nearest(
            key,
            consulKeys.map((name) => [name, name]),
          );
        for (const { path, reason } of refusedConfig(extra, role, similar)) wrong(path, reason);
      }),
    )
    .default({})
    .meta({ title: "map of Consul's configuration" })
    .describe(`merged last into the configuration of each ${role}, docs/operations.md; kept in plain text: no secrets`);
