import { z } from "zod";
import { isIpv4 } from "./ip";
import { flag, ipv4, label, serverNodes } from "./values";

const node = z.strictObject({
  name: label,
  address: ipv4.refine((value) => !isIpv4(value) || value.startsWith("127."), {
    error: "a loopback address, 127.x.y.z",
  }),
});

/** Servers as processes of this machine. */
export const localServers = z.strictObject({
  platform: z.literal("local"),
  /** 3 or 5. */
  nodes: serverNodes(node),
  /** Serve the web interface. */
  ui: flag.default(true),
});

/** Agents as processes of this machine, beside local servers. */
export const localAgents = z.strictObject({
  platform: z.literal("local"),
  nodes: z.array(node, { error: "a list of agents" }).min(1, { error: "at least one agent" }),
});
