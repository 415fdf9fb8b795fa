import { deepEqual, equal, rejects } from "assert/strict";
import { certificateOf } from "../../lab/trust";
import { Operations } from "./operations";

describe("operations: another certificate authority", function () {
  this.timeout(900_000);
  let operations: Operations;

  before(async function () {
    this.timeout(1_800_000); // the first build of Consul
    operations = await Operations.start("127.53.0");
  });
  after(() => operations.end());

  it("replaces the certificate authority in three steps, and refuses to leave one out", async () => {
    const { cluster, rollout } = operations;
    const issuers = async () =>
      Promise.all(["server-1", "server-2", "server-3"].map(async (s) => (await certificateOf(cluster, s)).issuer.CN));
    await rejects(
      rollout.up({ "consul:certificates": '{"caGeneration":2}' }),
      /nobody trusts certificate authority 2 yet/,
    );
    await operations.under({ "consul:certificates": '{"caAlsoTrusted":[2]}' });
    deepEqual(new Set(await issuers()), new Set(["Consul CA 1 local"]));
    await rejects(
      rollout.up({ "consul:certificates": '{"caGeneration":2}' }),
      /still present certificates of authority 1/,
    );
    await operations.under({ "consul:certificates": '{"caGeneration":2,"caAlsoTrusted":[1]}' });
    deepEqual(new Set(await issuers()), new Set(["Consul CA 2 local"]));
    await operations.under({ "consul:certificates": '{"caGeneration":2}' });
    equal(cluster.caCertificate.match(/BEGIN CERTIFICATE/g)?.length, 1);
  });
});
