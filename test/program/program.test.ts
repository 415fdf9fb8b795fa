import { deepEqual, equal, notEqual, ok, rejects, throws } from "assert/strict";
import * as pulumi from "@pulumi/pulumi";
import { guardMoves } from "../../components/ecs/moves";
import { Registered, stackConfig } from "../../local/program";
import { EcsServersSettings } from "../../settings";
import { committedText, expectedText } from "../../local/expected";
import { environments, FixtureProviders, prodServersOutputs, runFixture } from "../../local/fixtures";
import { edit, plain } from "./edit";
import { secretOutputs } from "../../stacks/outputs";

const ofType = (resources: readonly Registered[], type: string) =>
  resources.filter((resource) => resource.type.endsWith(type));
const serverName = (resource: Registered) => String(resource.inputs.instanceName);

describe("the whole program", () => {
  for (const environment of environments) {
    it(`makes the committed resources for ${environment} (renew with: npm run expected)`, async () => {
      equal(expectedText(await runFixture(environment)), committedText(environment));
    });

    it(`keeps every secret of ${environment} out of what is not secret`, async () => {
      const run = await runFixture(environment);
      const secrets = [
        ...run.secrets,
        ...["gossipKey", "gossipKeys", "agentToken", "managementToken"].map((k) => String(run.outputs[k]?.value)),
      ];
      ok(secrets.length > 3);
      let looked = 0;
      for (const resource of run.resources) {
        for (const [key, value] of Object.entries(resource.inputs)) {
          if (resource.secretInputs.includes(key)) continue;
          const text = decoded(value);
          looked += 1;
          for (const secret of secrets) {
            ok(!text.includes(secret), `${resource.urn} has a secret in its plain input ${key}`);
          }
        }
        if (resource.type.endsWith(":ConfigMap")) deepEqual(resource.secretInputs, [], "a ConfigMap is public");
      }
      ok(looked > 20);
      for (const [name, { value, secret }] of Object.entries(run.outputs)) {
        const sensitive = (secretOutputs as readonly string[]).includes(name);
        equal(secret, sensitive && value !== "", `output ${name}`);
        if (!sensitive) {
          for (const s of secrets) ok(!JSON.stringify(value).includes(s), `output ${name} holds a secret`);
        }
      }
    });
  }

  it("writes no secret to its log or its standard output", async () => {
    const written: string[] = [];
    const { stdout, stderr } = process;
    const originals = [stdout.write.bind(stdout), stderr.write.bind(stderr)] as const;
    stdout.write = (chunk: string | Uint8Array) => written.push(String(chunk)) > 0;
    stderr.write = (chunk: string | Uint8Array) => written.push(String(chunk)) > 0;
    let run;
    try {
      run = await runFixture("prod");
    } finally {
      stdout.write = originals[0];
      stderr.write = originals[1];
    }
    for (const secret of run.secrets) ok(!written.join("").includes(secret));
  });
});

function decoded(value: unknown): string {
  const text = JSON.stringify(value);
  const plain = (JSON.parse(text, (_, v: unknown) =>
    typeof v === "string" && /^[A-Za-z0-9+/]{16,}={0,2}$/.test(v) ? [v, Buffer.from(v, "base64").toString()] : v,
  ) ?? "") as unknown;
  return text + JSON.stringify(plain);
}

describe("servers on ECS", () => {
  for (const count of [3, 5]) {
    it(`are a chain of ${count}: each after the machine and the disk of the one before, and nothing else between them`, async () => {
      const run = await runFixture("prod", (config) => {
        edit(config, "servers", (servers) => {
          const nodes = servers.nodes as Record<string, unknown>[];
          for (let i = nodes.length; i < count; i++) {
            nodes.push({
              ...nodes[0],
              name: `consul-${i + 1}`,
              address: `10.16.190.${i + 5}`,
              vswitchCidr: "10.16.190.0/27",
            });
          }
        });
      });
      const instances = ofType(run.resources, ":Instance");
      const attachments = ofType(run.resources, ":EcsDiskAttachment");
      deepEqual(
        instances.map(serverName),
        Array.from({ length: count }, (_, i) => `consul-${i + 1}`),
      );
      for (const [i, instance] of instances.entries()) {
        const before = i === 0 ? [] : [instances[i - 1]?.urn, attachments[i - 1]?.urn];
        const wanted = instance.options.dependsOn.filter((urn) => /:Instance::|:EcsDiskAttachment::/.test(urn));
        deepEqual([...wanted].sort(), [...before].sort());
        for (const [key, urns] of Object.entries(instance.options.inputDependencies)) {
          const others = urns.filter(
            (urn) =>
              /:(Instance|EcsDiskAttachment)::/.test(urn) ||
              (urn.includes(":EcsDisk::") && !urn.includes(`${serverName(instance)}-data`)),
          );
          deepEqual(others, [], `${serverName(instance)}.${key} comes from another server`);
        }
      }
    });
  }

  it("protect machines, disks and the CA key in prod, and not in dev", async () => {
    for (const [environment, wanted] of [
      ["prod", true],
      ["dev", false],
    ] as const) {
      const { resources } = await runFixture(environment, environment === "dev" ? toEcs : undefined);
      const precious = [":Instance", ":EcsDisk"].flatMap((type) => ofType(resources, type));
      equal(precious.length, 6);
      const caKeys = ofType(resources, ":PrivateKey").filter(({ name }) => name.includes("ca-key"));
      for (const resource of [...precious, ...caKeys]) equal(resource.options.protect, wanted, resource.urn);
    }
  });

  it("have no public address, no password, no key pair, tokens for metadata and encrypted disks", async () => {
    const { resources } = await runFixture("prod");
    for (const { inputs, options } of ofType(resources, ":Instance")) {
      // The gate stores user data; the provider would stop the machine for it. A stop keeps the capacity.
      deepEqual(options.ignoreChanges, ["userData", "stoppedMode"]);
      equal(inputs.stoppedMode, "KeepCharging");
      equal(inputs.internetMaxBandwidthOut, 0);
      equal(inputs.httpTokens, "required");
      equal(inputs.systemDiskEncrypted, true);
      for (const key of ["password", "keyName", "dataDisks"]) equal(inputs[key], undefined);
    }
    for (const { inputs } of ofType(resources, ":EcsDisk")) equal(inputs.encrypted, true);
  });

  it("are not moved to another zone or kind of system disk in a preview or an update, unless they are lost", async () => {
    const nodes = (zone: string, category?: string) => {
      const settings = JSON.parse(stackConfig("prod")["consul:servers"] ?? "") as EcsServersSettings;
      const [first, second, ...others] = settings.nodes;
      if (!first || !second) throw new Error("prod has three servers");
      const moved = { ...second, zone, systemDiskCategory: category as "cloud_auto" | undefined };
      return {
        ...settings,
        systemDisk: { category: "cloud_essd" as const, size: 40 },
        nodes: [first, moved, ...others],
      };
    };
    const before = guardMoves("before", nodes("cn-hangzhou-i"), []).tags;
    const update = (hook: pulumi.ResourceHook, tags: object) =>
      hook.callback({ urn: "", id: "", name: "", type: "", oldInputs: { tags } });
    for (const moved of [nodes("cn-hangzhou-k"), nodes("cn-hangzhou-i", "cloud_auto")]) {
      const { beforeUpdate } = guardMoves("now", moved, []);
      equal(beforeUpdate.opts?.onDryRun, true);
      throws(
        () => void update(beforeUpdate, before),
        /^Error: consul-2 cannot be moved .*docs\/operations.md, "Moving a server"/,
      );
      // A stack of an earlier release has no such tag.
      void update(beforeUpdate, {});
      void update(guardMoves("lost", moved, ["consul-2"]).beforeUpdate, before);
    }
    void update(guardMoves("same", nodes("cn-hangzhou-i", "cloud_essd"), []).beforeUpdate, before);
    // The group is changed before any machine is: each of them is in it.
    const { resources } = await runFixture("prod");
    const [group] = ofType(resources, ":SecurityGroup");
    if (!group) throw new Error("there is no security group");
    deepEqual(group.options.hooks, { BeforeUpdate: ["consul-moves"] });
    for (const { options } of ofType(resources, ":Instance")) ok(options.dependsOn.includes(group.urn));
  });

  it("let in RPC and gossip from servers and nodes, HTTPS from the API networks, and no one else", async () => {
    const { resources } = await runFixture("prod", plain);
    const rules = ofType(resources, ":SecurityGroupRule").map(({ inputs }) => inputs);
    const open = rules.map((r) => [r.ipProtocol, r.portRange, r.cidrIp].join(" ")).sort();
    const peers = ["10.16.0.0/16", "10.16.190.28/32", "10.16.190.40/32", "10.16.190.70/32"];
    const wanted = peers.flatMap((cidr) =>
      ["tcp 8300/8300", "tcp 8301/8301", "udp 8301/8301"].map((rule) => `${rule} ${cidr}`),
    );
    deepEqual(open, [...wanted, "tcp 8501/8501 10.16.250.0/24"].sort());
    for (const rule of rules) {
      equal(rule.nicType, "intranet");
      equal(rule.type, "ingress");
    }
  });

  it("let in gRPC from where HTTPS is let in, where it is switched on", async () => {
    const { resources } = await runFixture("prod", (config) =>
      edit(config, "servers", (servers) => (servers.grpc = true)),
    );
    const rules = ofType(resources, ":SecurityGroupRule").map(({ inputs }) => inputs);
    const sources = (port: number) =>
      rules.filter((r) => r.portRange === `${port}/${port}`).map((r) => [r.ipProtocol, r.cidrIp].join(" "));
    deepEqual(sources(8503).sort(), sources(8501).sort());
    // The nodes' network, since prod has applications, and that of the API.
    equal(sources(8503).length, 2);
  });

  it("are spread over distinct hosts where zones are fewer than servers, and only there", async () => {
    equal(ofType((await runFixture("prod")).resources, ":EcsDeploymentSet").length, 0);
    const dev = await runFixture("prod", (config) => {
      edit(config, "servers", (servers) => {
        for (const node of servers.nodes as Record<string, unknown>[]) node.zone = "cn-hangzhou-h";
      });
    });
    equal(ofType(dev.resources, ":EcsDeploymentSet").length, 1);
    for (const { inputs } of ofType(dev.resources, ":Instance")) notEqual(inputs.deploymentSetId, undefined);
  });
});

/** Three ECS servers in a development environment. */
function toEcs(config: Record<string, string>): void {
  for (const key of ["alicloud:region", "consul:backups"]) Reflect.deleteProperty(config, key);
  edit(config, "servers", (servers) => {
    for (const key of Object.keys(servers)) Reflect.deleteProperty(servers, key);
    Object.assign(servers, {
      platform: "ecs",
      vpcId: "vpc-dev",
      imageId: "ubuntu_24_04_x64_20G_alibase_20260615.vhd",
      nodes: [11, 12, 13].map((n) => ({
        name: `dev-${n}`,
        zone: "cn-hangzhou-h",
        vswitchId: "vsw-dev",
        address: `10.20.1.${n}`,
      })),
      allowedCidrs: { nodes: ["10.20.0.0/16"] },
    });
  });
}

describe("agents on Kubernetes", () => {
  it("are one per real node, on the host's network, with the least they need", async () => {
    const { resources } = await runFixture("prod");
    const daemonSet = ofType(resources, ":DaemonSet")[0]?.inputs as unknown as Manifest;
    const pod = daemonSet.spec.template.spec;
    equal(pod.hostNetwork, true);
    equal(pod.dnsPolicy, "ClusterFirstWithHostNet");
    equal(pod.automountServiceAccountToken, false);
    const terms = pod.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms;
    ok(
      terms.every((term) =>
        term.matchExpressions.some(
          (e) => e.key === "type" && e.operator === "NotIn" && e.values.includes("virtual-kubelet"),
        ),
      ),
    );
    deepEqual(daemonSet.spec.selector.matchLabels, daemonSet.spec.template.metadata.labels);
    const [container] = pod.containers;
    ok(container);
    deepEqual(container.securityContext.capabilities, { drop: ["ALL"] });
    equal(container.securityContext.readOnlyRootFilesystem, true);
    equal(container.securityContext.runAsNonRoot, true);
    equal(container.livenessProbe, undefined);
    equal(container.lifecycle, undefined);
    deepEqual(container.ports.map((port) => `${port.hostPort}/${port.protocol}`).sort(), [
      "8301/TCP",
      "8301/UDP",
      "8500/TCP",
      "8600/TCP",
      "8600/UDP",
    ]);
    ok(container.command.every((word) => !word.includes("0.0.0.0")));
  });

  it("mount a ConfigMap and a Secret that never change, under names that Pulumi makes up", async () => {
    const { resources } = await runFixture("prod", plain);
    for (const type of [":ConfigMap", ":Secret"]) {
      const found = ofType(resources, type).find(({ name }) => name.startsWith("consul-agent-"));
      ok(found?.inputs.immutable === true, type);
      ok(new RegExp(`^${found.name}-[0-9a-f]{8}$`).test((found.inputs.metadata as { name: string }).name), type);
    }
  });
});

interface Manifest {
  spec: {
    selector: { matchLabels: unknown };
    template: {
      metadata: { labels: unknown };
      spec: {
        hostNetwork: boolean;
        dnsPolicy: string;
        automountServiceAccountToken: boolean;
        affinity: {
          nodeAffinity: {
            requiredDuringSchedulingIgnoredDuringExecution: {
              nodeSelectorTerms: { matchExpressions: { key: string; operator: string; values: string[] }[] }[];
            };
          };
        };
        containers: {
          securityContext: { capabilities: unknown; readOnlyRootFilesystem: boolean; runAsNonRoot: boolean };
          livenessProbe?: unknown;
          lifecycle?: unknown;
          command: string[];
          ports: { hostPort: number; protocol: string }[];
        }[];
      };
    };
  };
}

describe("a stack of agents alone", () => {
  it("takes addresses, CA, gossip key and token from the servers' stack and makes no server", async () => {
    const { resources, outputs } = await runFixture("prod-agents", plain);
    equal(ofType(resources, ":Instance").length, 0);
    equal(ofType(resources, ":RandomPassword").length, 0);
    const config = (ofType(resources, ":ConfigMap")[0]?.inputs.data as Record<string, string>)["consul.json"] ?? "";
    deepEqual((JSON.parse(config) as { retry_join: unknown }).retry_join, prodServersOutputs.retryJoin);
    equal((JSON.parse(config) as { datacenter: unknown }).datacenter, "aly-consul-sh");
    equal(outputs.gossipKey?.secret, true);
    ok(ofType(resources, ":Secret")[0]?.secretInputs.includes("data"));
  });

  it("starts its agents with all gossip keys of that stack, or with the one key of an earlier release", async () => {
    const keyring = async (stackOutputs: Record<string, unknown>) => {
      const run = await runFixture("prod-agents", undefined, new FixtureProviders(stackOutputs));
      const secrets = ofType(run.resources, ":Secret").find(({ name }) => name === "consul-agent-secrets");
      const data = secrets?.inputs.data as Record<string, string>;
      const { value, secret } = run.outputs.gossipKeys ?? {};
      equal(secret, true);
      const text = Buffer.from(data["gossip.keyring"] ?? "", "base64").toString();
      deepEqual(JSON.parse(text), value);
      return value;
    };
    deepEqual(await keyring({ ...prodServersOutputs, gossipKeys: ["a", "b"] }), ["a", "b"]);
    const earlier = { ...prodServersOutputs, gossipKeys: undefined };
    deepEqual(await keyring(earlier), [prodServersOutputs.gossipKey]);
  });

  const broken: [string, Record<string, unknown>, RegExp][] = [
    [
      "is missing altogether",
      {},
      /stack organization\/consul\/prod-servers has no output "outputsVersion": is it a stack of this Consul program/,
    ],
    [
      "has another version",
      { ...prodServersOutputs, outputsVersion: 99 },
      /gives outputs of version 99, this program reads version 1/,
    ],
    [
      "lacks a field",
      { ...prodServersOutputs, gossipKey: undefined },
      /stack organization\/consul\/prod-servers has no output "gossipKey"/,
    ],
  ];
  for (const [what, outputs, message] of broken) {
    it(`says so when the contract ${what}`, async () => {
      await rejects(runFixture("prod-agents", undefined, new FixtureProviders(outputs)), message);
    });
  }
});
