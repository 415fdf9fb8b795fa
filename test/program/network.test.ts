import { deepEqual, equal, match, ok, rejects } from "assert/strict";
import { execFileSync } from "child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { parse } from "yaml";
import { FixtureProviders } from "../../local/fixtures";
import { programDir, ProgramRun, runProgram, stackConfig } from "../../local/program";
import { parseSettings } from "../../settings";

const example = join(programDir, "examples/network");
const zones = ["cn-hangzhou-h", "cn-hangzhou-i", "cn-hangzhou-j"];

/** What the cloud answers besides what it was given. */
class NetworkProviders extends FixtureProviders {
  override resource(args: Parameters<FixtureProviders["resource"]>[0]) {
    const { id, state } = super.resource(args);
    const more: Record<string, Record<string, string>> = {
      "alicloud:vpc/natGateway:NatGateway": { snatTableIds: "stb-1" },
      "alicloud:ecs/eipAddress:EipAddress": { ipAddress: "203.0.113.7" },
      "alicloud:cs/managedKubernetes:ManagedKubernetes": { securityGroupId: "sg-bp1example00000000sn" },
    };
    const ids: Record<string, string> = {
      Network: "vpc-bp1made00000000000",
      Switch: `vsw-bp1made000000000${args.name.at(-1)}`,
    };
    return { id: ids[args.type.split(":").at(-1) ?? ""] ?? id, state: { ...state, ...more[args.type] } };
  }
}

async function run(given: Record<string, unknown> = {}): Promise<ProgramRun> {
  const { config } = parse(readFileSync(join(example, "Pulumi.yaml"), "utf8")) as {
    config: Record<string, { default?: unknown }>;
  };
  const values: Record<string, unknown> = { zones, ...given };
  for (const [key, entry] of Object.entries(config)) values[key] ??= entry.default;
  const text = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));
  // The monitor of these tests calls every project "consul".
  const entries = Object.entries(values).map(([key, value]) => [`consul:${key}`, text(value)]);
  return runProgram("network", Object.fromEntries(entries) as Record<string, string>, new NetworkProviders(), () => {
    const index = join(example, "index.ts");
    Reflect.deleteProperty(require.cache, index);
    return require(index) as unknown;
  });
}
const of = ({ resources }: ProgramRun, kind: string) => resources.filter(({ type }) => type.endsWith(`:${kind}`));

/** First and last address of a network. */
function range(cidr: string): [number, number] {
  const [address = "", bits = "32"] = cidr.split("/");
  const first = address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  return [first, first + 2 ** (32 - Number(bits)) - 1];
}

describe("the example that makes a network and an ACK cluster", () => {
  it("makes networks that do not overlap", async () => {
    const made = await run();
    const switches = of(made, "Switch").map(({ inputs }) => String(inputs.cidrBlock));
    equal(switches.length, 6);
    const [cluster] = of(made, "ManagedKubernetes");
    const vpc = range(String(of(made, "Network")[0]?.inputs.cidrBlock));
    for (const cidr of switches) ok(range(cidr)[0] >= vpc[0] && range(cidr)[1] <= vpc[1], cidr);
    const apart = [...switches, String(cluster?.inputs.podCidr), String(cluster?.inputs.serviceCidr)].map(range);
    apart.sort(([a], [b]) => a - b);
    for (const [index, [first]] of apart.entries()) ok(index === 0 || first > (apart[index - 1]?.[1] ?? 0));
  });

  it("lets nodes and machines out before anything is to be downloaded, or has no NAT at all", async () => {
    const made = await run();
    equal(of(made, "SnatEntry").length, 1);
    for (const kind of ["ManagedKubernetes", "NodePool"]) {
      ok(
        of(made, kind)[0]?.options.dependsOn.some((urn) => urn.includes("SnatEntry")),
        kind,
      );
    }
    const without = await run({ nat: false });
    deepEqual(
      ["NatGateway", "EipAddress", "EipAssociation", "SnatEntry"].flatMap((kind) => of(without, kind)),
      [],
    );
  });

  it("hands over settings that the Consul stack accepts, put into its file by a command", async () => {
    const { outputs } = await run();
    const handed = outputs.settings?.value as Record<string, object>;
    const directory = mkdtempSync(join(tmpdir(), "consul-network-"));
    try {
      for (const file of ["Pulumi.yaml", "Pulumi.staging.yaml"]) {
        copyFileSync(join(programDir, file), join(directory, file));
      }
      const file = join(directory, "Pulumi.staging.yaml");
      const before = readFileSync(file, "utf8");
      execFileSync(process.execPath, [join(example, "into.js"), file], { input: JSON.stringify(handed) });
      const after = readFileSync(file, "utf8");
      match(after, /^# The rehearsal of prod/m);
      ok(!/vsw-bp1example|vpc-bp1example/.test(after));
      equal(
        (parse(after) as { config: Record<string, unknown> }).config["consul:apps"]?.toString(),
        String(apps(before)),
      );
      const given: Record<string, unknown> = {};
      for (const [key, value] of Object.entries(stackConfig("staging", directory))) {
        if (key.startsWith("consul:")) given[key.slice(7)] = structured(value);
      }
      const { servers, agents, dns } = parseSettings(given, () => false, "cn-hangzhou");
      ok(servers?.platform === "ecs");
      deepEqual(
        servers.nodes.map(({ address }) => address),
        ["10.17.255.10", "10.17.255.42", "10.17.255.74"],
      );
      equal(servers.instanceType, "ecs.c7.large", "settings of the file stay");
      ok(agents?.platform === "kubernetes");
      equal(agents.nodeSecurityGroupId, "sg-bp1example00000000sn");
      equal(dns.clusterIp, "172.21.10.53");
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });

  it("refuses zones and networks that cannot be, with what to set", async () => {
    await rejects(
      run({ zones: ["cn-hangzhou-h", "cn-hangzhou-h", "cn-hangzhou-i"] }),
      /three different zones .*config set/,
    );
    await rejects(run({ network: "10.300" }), /consul-network:network: 10\.0 to 10\.255 or 192\.168 .*given: 10\.300/);
  });

  it("pins the same packages as this project", () => {
    const packages = (path: string) =>
      (JSON.parse(readFileSync(path, "utf8")) as { dependencies: Record<string, string> }).dependencies;
    const own = packages(join(programDir, "package.json"));
    for (const [name, version] of Object.entries(packages(join(example, "package.json")))) equal(version, own[name]);
  });
});

const apps = (text: string) => (parse(text) as { config: Record<string, unknown> }).config["consul:apps"];

function structured(value: string): unknown {
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return value;
  }
}
