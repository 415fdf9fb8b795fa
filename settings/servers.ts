import { z } from "zod";
import { ecsServers } from "./ecs-servers";
import { kubernetesServers } from "./kubernetes-servers";
import { localServers } from "./local";
import { rule } from "./mistakes";
import { ipv4, label, oneOf, whole } from "./values";

/** The servers: machines, pods or processes. */
export const servers = z.discriminatedUnion("platform", [ecsServers, kubernetesServers, localServers], {
  error: "a platform: ecs, kubernetes or local",
});

/** Before servers are changed, and when `up` ends: docs/operations.md. */
export const gate = z.strictObject({
  waitMinutes: whole(1, 240, "minutes")
    .default(10)
    .describe("how long an update waits for the other servers, and at the end for all, to be healthy voters"),
  skip: z
    .array(label, { error: "a list of servers' names" })
    .default([])
    .describe("servers that are updated without asking the others, to repair them; empty it afterwards"),
});

/** While a hand-made cluster is moved here, and not after: docs/migration.md. */
export const migration = z
  .strictObject({
    servers: z
      .array(ipv4, { error: "a list of the old servers' addresses" })
      .default([])
      .describe("addresses of the old servers; ours join them and take over. Empty once they have left"),
    tls: oneOf("offer", "use")
      .default("offer")
      .describe(
        "TLS of the new servers: `offer` gives it to whoever wants it, with `use` they use it themselves; after the migration it is demanded",
      ),
  })
  .check(
    rule(["servers", "tls"], ({ servers, tls }, { wrong }) => {
      if (servers.length === 0 || tls === "offer") return;
      wrong(["tls"], "offer, as long as there are migration.servers: they know nothing of TLS");
    }),
  );
