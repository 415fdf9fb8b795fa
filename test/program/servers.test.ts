import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import * as pulumi from "@pulumi/pulumi";
import { Cloud } from "../../components/ecs/cloud";
import { FakeCloud, words } from "../../components/ecs/fake-cloud";
import { commandText } from "../../consul/machine/commands";
import { digest } from "../../consul/secrets";
import { pinnedVersion, Registered } from "../../local/program";
import { FixtureProviders, prodOutputs, runFixture } from "../../local/fixtures";
import { edit } from "./edit";

const ofType = (resources: readonly Registered[], type: string) =>
  resources.filter((resource) => resource.type.endsWith(type));

/** Healthy machines of the prod stack. A test may say that some do not run. */
class ProdCloud extends FakeCloud {
  constructor(private readonly status = "Running") {
    super({ names: ["consul-1", "consul-2", "consul-3"], version: pinnedVersion });
  }

  override async machines(vpcId?: string, tag?: { key: string; value: string }) {
    deepEqual([vpcId, tag], ["vpc-bp1example0000000000", { key: "consul-datacenter", value: "aly-consul" }]);
    return (await super.machines()).map((machine) => ({ ...machine, status: this.status }));
  }
}

class ProvidersWithCloud extends FixtureProviders {
  constructor(
    readonly cloud: Cloud,
    stackOutputs = prodOutputs,
  ) {
    super(stackOutputs);
  }
}

describe("servers of the whole program", () => {
  it("asks at the end whether every server is well, and takes agents along only then", async () => {
    const cloud = new ProdCloud();
    const { resources, outputs } = await runFixture("prod", undefined, new ProvidersWithCloud(cloud));
    // The last one asks whether a rotation that was killed has left anything behind.
    deepEqual(
      cloud.commands.map(([call]) => call?.script),
      ["machine/quorum.sh", "scripts/unwanted.sh"],
    );
    equal(outputs.consulVersion?.value, pinnedVersion);
    const instances = ofType(resources, ":Instance").map(({ urn }) => urn);
    for (const urn of instances) ok(ofType(resources, ":DaemonSet")[0]?.options.dependsOn.includes(urn), urn);

    const stopped = new ProvidersWithCloud(new ProdCloud("Stopped"));
    await rejects(
      runFixture("prod", undefined, stopped),
      /the servers are not all well:\n {2}consul-1 \(i-consul-1\) is Stopped/,
    );
  });

  it("has a gate at each server, with a name of its own, and tags that say what it was set to", async () => {
    const { resources } = await runFixture("prod");
    for (const { inputs, options } of ofType(resources, ":Instance")) {
      deepEqual(options.hooks, { BeforeUpdate: [`consul-${String(inputs.instanceName)}-quorum-gate`] });
      const tags = inputs.tags as Record<string, string>;
      deepEqual([tags["consul-version"], tags["consul-gossip"], tags["consul-ca"]], [pinnedVersion, "1", "1"]);
    }
    const { resources: changed } = await runFixture("prod", (config) => {
      edit(config, "gossip", (gossip) => Object.assign(gossip, { generation: 3, alsoAccepted: [2] }));
      edit(config, "certificates", (certificates) =>
        Object.assign(certificates, { caGeneration: 2, caAlsoTrusted: [1] }),
      );
    });
    for (const { inputs } of ofType(changed, ":Instance")) {
      const tags = inputs.tags as Record<string, string>;
      deepEqual([tags["consul-gossip"], tags["consul-ca"]], ["3+2", "2+1"]);
    }
  });

  it("takes old keys and tokens away after a rotation, without sending a secret to the cloud", async () => {
    const cloud = new ProdCloud();
    const providers = new ProvidersWithCloud(cloud);
    const { secrets } = await runFixture(
      "prod",
      (config) => {
        edit(config, "tokens", (tokens) => (tokens.agentGeneration = 2));
        edit(config, "gossip", (gossip) => Object.assign(gossip, { generation: 2, alsoAccepted: [1] }));
      },
      providers,
    );
    equal(cloud.commands.length, 3);
    match(
      words(cloud.commands[1] ?? []),
      /^scripts\/behind.sh [0-9a-f]{8}\[\+\][0-9a-f]{8}\[\.\][0-9a-f]{8}\[\.\][0-9a-f]{8}$/,
    );
    match(
      words(cloud.commands[2] ?? []),
      /^scripts\/acl.sh \/etc\/consul.acl; scripts\/keyring.sh only [0-9a-f]{64},[0-9a-f]{64}$/,
    );
    deepEqual(cloud.commands[2]?.[0]?.environment, { ACL_OWNER: "consul-alicloud:agents" });
    for (const text of cloud.commands.map(commandText)) for (const secret of secrets) ok(!text.includes(secret));
  });

  it("trusts two authorities while one takes over from the other, and protects the one that signs", async () => {
    for (const [signer, other] of [
      [1, 2],
      [2, 1],
    ] as const) {
      const { resources, outputs } = await runFixture("prod", (config) => {
        edit(config, "certificates", (c) => Object.assign(c, { caGeneration: signer, caAlsoTrusted: [other] }));
      });
      const bundle = String(outputs.caCertificate?.value);
      match(bundle, /consul-trust-ca-1\n[^]*consul-trust-ca-2\n/);
      for (const { inputs } of ofType(resources, ":LocallySignedCert")) {
        match(String(inputs.caCertPem), new RegExp(`consul-trust-ca-${signer}\n`));
      }
      for (const type of [":PrivateKey", ":SelfSignedCert"]) {
        const authorities = ofType(resources, type).filter(({ name }) => /-ca(-key)?-\d$/.test(name));
        deepEqual(
          authorities.map(({ name, options }) => [name.endsWith(String(signer)), options.protect]),
          [signer === 1, signer === 2].map((signs) => [signs, signs]),
        );
      }
      const agents = ofType(resources, ":ConfigMap").map(
        ({ inputs }) => (inputs.data as Record<string, string>)["ca.pem"],
      );
      ok(agents.includes(bundle));
    }
  });

  it("marks each agent with what it was started with", async () => {
    const trust = async (change?: (config: Record<string, string>) => void) => {
      const { resources } = await runFixture("prod", change);
      const secret = ofType(resources, ":Secret").find(({ name }) => name === "consul-agent-secrets")?.inputs;
      const text = (secret?.data as Record<string, string>)["secrets.json"] ?? "";
      const { node_meta } = JSON.parse(Buffer.from(text, "base64").toString()) as { node_meta: { trust: string } };
      return node_meta.trust.split(".");
    };
    const [gossip, token, ca] = await trust();
    const next = await trust((c) => edit(c, "gossip", (g) => (g.alsoAccepted = [2])));
    const [key, other] = (next[0] ?? "").split("+");
    deepEqual([key, next[1], next[2]], [gossip, token, ca]);
    const changed = await trust((c) =>
      edit(c, "gossip", (g) => Object.assign(g, { generation: 2, alsoAccepted: [1] })),
    );
    deepEqual(changed, [`${other}+${gossip}`, token, ca]);
    const both = await trust((c) => edit(c, "certificates", (x) => (x.caAlsoTrusted = [2])));
    deepEqual([both[0], both[1], both[2] === ca], [gossip, token, false]);
  });

  it("makes a gossip key for each generation, and gives every node all of them, secret", async () => {
    const { resources, outputs } = await runFixture("prod", (config) => {
      edit(config, "gossip", (gossip) => Object.assign(gossip, { generation: 2, alsoAccepted: [1] }));
    });
    const made = resources.map(({ name }) => name).filter((name) => name.startsWith("consul-trust-gossip-"));
    const names = ["key-1", "key-2", "since-1", "since-2"].map((name) => `consul-trust-gossip-${name}`);
    deepEqual(made.sort(), names);
    const keys = outputs.gossipKeys?.value as string[];
    deepEqual([keys.length, keys[0] === keys[1], keys[0]], [2, false, outputs.gossipKey?.value]);
    const keyring = `${JSON.stringify(keys)}\n`;
    const agent = ofType(resources, ":Secret").find(({ name }) => name === "consul-agent-secrets");
    const data = agent?.inputs.data as Record<string, string>;
    equal(Buffer.from(data["gossip.keyring"] ?? "", "base64").toString(), keyring);
    ok(agent?.secretInputs.includes("data"));
    for (const { inputs } of ofType(resources, ":Instance")) {
      const text = Buffer.from(String(inputs.userData), "base64").toString();
      ok(text.includes(`put /etc/consul.d/gossip.keyring 0640 consul <<'END_OF_FILE'\n${keyring}`));
    }
    for (const key of keys) ok(!JSON.stringify(ofType(resources, ":DaemonSet")).includes(key));
  });

  it("has an existing gossip key by its digest in the tags, as generation 1 through all steps", async () => {
    const existingKey = `${"A".repeat(43)}=`;
    const tag = async (gossip: object) => {
      const { resources, outputs } = await runFixture("prod", (config) => {
        edit(config, "gossip", (all) => Object.assign(all, gossip, { existingKey }));
      });
      const tags = ofType(resources, ":Instance").map(
        ({ inputs }) => (inputs.tags as Record<string, string>)["consul-gossip"],
      );
      equal(new Set(tags).size, 1);
      const keys = outputs.gossipKeys?.value as string[];
      return [tags[0] ?? "", keys.indexOf(existingKey)];
    };
    const own = `existing-${digest(existingKey).slice(0, 8)}`;
    deepEqual(await tag({}), [own, 0]);
    deepEqual(await tag({ alsoAccepted: [2] }), [`${own}+2`, 0]);
    deepEqual(await tag({ generation: 2, alsoAccepted: [1] }), [`2+${own}`, 1]);
  });

  it("lets agents of another stack be older than their servers, not newer", async () => {
    const at = (version: string) => runFixture("prod-agents", (config) => void (config["consul:version"] = version));
    await at("1.22.3");
    await rejects(at("2.9.0"), {
      message: `consul:version is 2.9.0, but the servers of organization/consul/prod-servers run ${pinnedVersion}: update that stack first`,
    });
  });

  describe("warnings", () => {
    const said: string[] = [];
    const { warn } = pulumi.log;
    before(() => Object.assign(pulumi.log, { warn: (line: string) => Promise.resolve(void said.push(line)) }));
    after(() => Object.assign(pulumi.log, { warn }));

    beforeEach(() => void said.splice(0));

    it("come for a version with a known weakness, and for no other", async () => {
      const at = (version: string) => runFixture("prod-servers", (config) => void (config["consul:version"] = version));
      for (const sound of ["1.22.5", pinnedVersion, "2.0.0"]) await at(sound);
      deepEqual(said, []);
      await at("1.22.3");
      deepEqual(said, [
        "consul:version 1.22.3 has CVE-2026-2808 (files of a server can be read through the Kubernetes auth method): set 1.22.5 or later",
      ]);
    });

    it("come for foreign sources in the mainland, and for a mirror that says itself which checksum is right", async () => {
      const foreign = (stack: string, region: string) =>
        runFixture(stack, (config) => {
          config["alicloud:region"] = region;
          // Zones are named after their region: cn-hongkong-h, ap-southeast-1h.
          const zones = `${region}${/\d$/.test(region) ? "" : "-"}`;
          const servers = config["consul:servers"];
          if (servers) config["consul:servers"] = servers.replace(/"zone":"[a-z-]+-(\w)"/g, `"zone":"${zones}$1"`);
          config["consul:downloadMirror"] = "https://releases.hashicorp.com/consul";
          config["consul:downloadSha256"] = "";
          config["consul:imageRegistry"] = "hashicorp";
        });
      await foreign("prod", "cn-hongkong");
      await foreign("prod", "ap-southeast-1");
      await runFixture("prod");
      await runFixture("prod-agents");
      deepEqual(said, []);
      const taken = (): string[] => (said as string[]).splice(0).map((line) => line.split(" is ")[0] ?? "");
      const [mirror, registry] = [
        "consul:downloadMirror https://releases.hashicorp.com/consul",
        "consul:imageRegistry hashicorp",
      ];
      await foreign("prod", "cn-beijing");
      deepEqual(taken(), [mirror, registry]);
      await foreign("prod-servers", "cn-beijing");
      deepEqual(taken(), [mirror]);
      await foreign("prod-agents", "cn-beijing");
      deepEqual(taken(), [registry]);
      await runFixture("prod-servers", (config) => void (config["consul:downloadSha256"] = ""));
      match(
        said.splice(0).join(),
        /says itself which checksum is right: set consul:downloadSha256 to the one that `npm run mirror`/,
      );
    });

    it("come for what runs out soon, and the days are an output", async () => {
      const { outputs } = await runFixture("prod");
      deepEqual(said, []);
      ok((outputs.daysLeft?.value as { ca: number }).ca > 365);
      const soon = new Date(Date.now() + 10.5 * 86_400_000).toISOString();
      const providers = new (class extends FixtureProviders {
        override resource(args: Parameters<FixtureProviders["resource"]>[0]) {
          const made = super.resource(args);
          return args.type.endsWith("edCert") ? { ...made, state: { ...made.state, validityEndTime: soon } } : made;
        }
      })();
      const { outputs: late } = await runFixture("prod", undefined, providers);
      deepEqual(late.daysLeft?.value, {
        ca: 10,
        serverCertificate: 10,
        gossipKey: (outputs.daysLeft?.value as { gossipKey: number }).gossipKey,
      });
      deepEqual(said, [
        `10 days left, the certificate authority runs out: introduce the next one (docs/operations.md) (${soon})`,
        `10 days left, a server certificate runs out: \`pulumi up\` renews it (${soon})`,
      ]);
    });
  });
});
