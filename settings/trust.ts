import { z } from "zod";
import { rule } from "./mistakes";
import { secret, text, whole } from "./values";

/** The keys of gossip. */
export const gossip = z
  .strictObject({
    generation: whole(1, 1000)
      .default(1)
      .describe("generation of the gossip key that encrypts; a new one goes in three steps, docs/operations.md"),
    alsoAccepted: z
      .array(whole(1, 1000), { error: "a list of generations such as [2]" })
      .default([])
      .describe(
        "generations whose keys every node knows besides: the next one before it encrypts, the last one until no node starts with it",
      ),
    lifetimeDays: whole(1, 3650, "days").default(365).describe("days after which a new gossip key is due"),
    existingKey: secret(
      text(
        "a gossip key: 16, 24 or 32 bytes in base64",
        /^([A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{32}|[A-Za-z0-9+/]{22}==)$/,
      ),
    )
      .optional()
      .describe(
        "key of a hand-made cluster that is moved here, as generation 1: 16, 24 or 32 bytes in base64; set it with `--secret`, docs/migration.md",
      ),
  })
  .check(
    rule(["generation", "alsoAccepted"], ({ generation, alsoAccepted }, { wrong }) => {
      if (new Set([generation, ...alsoAccepted]).size === alsoAccepted.length + 1) return;
      wrong(["alsoAccepted"], "other generations than gossip.generation, each one once");
    }),
    rule(["generation", "alsoAccepted"], ({ generation, alsoAccepted, existingKey }, { wrong }) => {
      if (existingKey === undefined || [generation, ...alsoAccepted].includes(1)) return;
      wrong(
        ["existingKey"],
        "nothing, once neither gossip.generation nor gossip.alsoAccepted names 1: it is the key of generation 1",
      );
    }),
  );

/** The authority, and the servers' certificates. */
export const certificates = z
  .strictObject({
    caGeneration: whole(1, 1000)
      .default(1)
      .describe(
        "generation of the certificate authority that signs; a new one goes in three steps, docs/operations.md",
      ),
    caAlsoTrusted: z
      .array(whole(1, 1000), { error: "a list of generations such as [2]" })
      .default([])
      .describe(
        "generations that are trusted besides: the next one before it signs, the last one until nobody uses it",
      ),
    caDays: whole(30, 7300, "days").default(3650).describe("days that the authority's certificate is valid"),
    serverDays: whole(2, 3650, "days")
      .default(365)
      .describe("days that a server's certificate is valid; at most `certificates.caDays`"),
    renewDays: whole(1, 365, "days")
      .default(60)
      .describe("`up` renews a server's certificate with fewer days left; fewer than `certificates.serverDays`"),
    warnDays: whole(1, 365, "days")
      .default(30)
      .describe("each preview warns below this many days left, of a certificate, the authority or the gossip key"),
  })
  .check(
    rule(["renewDays", "serverDays"], ({ renewDays, serverDays }, { wrong }) => {
      if (renewDays >= serverDays) wrong(["renewDays"], "fewer days than certificates.serverDays");
    }),
    rule(["serverDays", "caDays"], ({ serverDays, caDays }, { wrong }) => {
      const accepted = `at most certificates.caDays, ${caDays}: no certificate is valid for longer than the authority that signed it`;
      if (serverDays > caDays) wrong(["serverDays"], accepted);
    }),
    rule(["caGeneration", "caAlsoTrusted"], ({ caGeneration, caAlsoTrusted }, { wrong }) => {
      if (new Set([caGeneration, ...caAlsoTrusted]).size === caAlsoTrusted.length + 1) return;
      wrong(["caAlsoTrusted"], "other generations than caGeneration, each one once");
    }),
  );

/** Tokens that this program makes for its own nodes. */
export const tokens = z.strictObject({
  agentGeneration: whole(1, 1000).default(1).describe("raise by one to have a new token for the agents"),
});
