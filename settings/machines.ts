import { z } from "zod";
import { duration, flag } from "./values";

/** Agents on machines that are no nodes of the Kubernetes cluster: what the output `machineUserData` is made of. */
export const machines = z.strictObject({
  dns: flag
    .default(false)
    .describe("names below .consul for the machine's own programs, by systemd-resolved 246 or later"),
  leaveOnStop: flag
    .default(false)
    .describe("leave the cluster before stopping: the machine's services go missing for 6 to 8 s at each restart"),
  reconnectTimeout: duration().default("15m").describe("how long a machine that is gone stays in the catalog"),
});
