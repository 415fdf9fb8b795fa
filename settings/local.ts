import { z } from "zod";
import { extraConfig } from "./extra-config";
import { flag, grpc, label, loopback, serverNodes } from "./values";

const node = z.strictObject({
  name: label.describe("Consul node name"),
  address: loopback.describe("a loopback address"),
});

/** Servers as processes of this machine. */
export const localServers = z.strictObject({
  platform: z.literal("local").describe("where the servers run: here as processes of this machine"),
  nodes: serverNodes(node).describe("the servers, 3 or 5"),
  ui: flag.default(true).describe("web interface"),
  grpc,
  extraConfig: extraConfig("server"),
});

/** Agents as processes of this machine, beside local servers. */
export const localAgents = z.strictObject({
  platform: z
    .literal("local")
    .describe("where the agents run: here as processes of this machine, beside local servers"),
  nodes: z
    .array(node, { error: "a list of agents" })
    .min(1, { error: "at least one agent" })
    .describe("the agents, a process each"),
  extraConfig: extraConfig("agent"),
});
