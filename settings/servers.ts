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
  /** How long to wait for the other servers, and at the end for all, to be healthy voters. */
  waitMinutes: whole(1, 240, " (minutes)").default(10),
  /** Servers to update without asking: one that is down and that this update repairs. Empty it afterwards. */
  skip: z.array(label, { error: "a list of servers' names" }).default([]),
});

/** While a hand-made cluster is moved here, and not after: docs/migration.md. */
export const migration = z
  .strictObject({
    /** Addresses of its servers. Ours join them and take over; the list is empty once they have left. */
    servers: z.array(ipv4, { error: "a list of the old servers' addresses" }).default([]),
    /** TLS of our servers. offer: whoever wants it has it. use: they use it themselves. After that it is demanded. */
    tls: oneOf("offer", "use").default("offer"),
  })
  .check(
    rule(["servers", "tls"], ({ servers, tls }, { wrong }) => {
      if (servers.length === 0 || tls === "offer") return;
      wrong(["tls"], "offer, as long as there are migration.servers: they know nothing of TLS");
    }),
  );
