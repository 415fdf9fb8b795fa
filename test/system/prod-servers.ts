import { createHash } from "crypto";
import { tmpdir } from "os";
import { join } from "path";
import * as pulumi from "@pulumi/pulumi";
import { Tags } from "../../components/ecs/change";
import { Cloud } from "../../components/ecs/cloud";
import { QuorumGate } from "../../components/ecs/gate";
import { ServerTrust } from "../../components/trust";
import { UserData } from "../../consul/machine/user-data";
import { certificatesFrom } from "../../lab/trust";
import { serviceAccountToken } from "../../local/fixtures";
import { Providers, runProgram } from "../../local/program";
import { LocalProviders } from "../../local/providers";
import { loadSettings, Settings } from "../../settings";

// The servers of Pulumi.prod.yaml as the engine would hand them to the cloud and to the gate, for tests on machines.

/** Twenty digits that stand for a name: ids and serials of made-up disks. */
export const idOf = (name: string) => createHash("sha256").update(name).digest("hex").slice(0, 20);

/**
 * Real random and tls providers, and a cloud that accepts everything. Used for every run of a test, so that secrets stay.
 * @param diskId id of a disk without "d-", by the disk's resource name
 * @param now the clock that certificates are made by; this machine's unless given
 */
export function acceptingProviders(diskId: (name: string) => string = idOf, now?: () => Date): Providers {
  // Nothing is ever saved there.
  const local = new LocalProviders(join(tmpdir(), "consul-machines-no-such-file"), now);
  return {
    resource: (args) => {
      if (/^(random|tls):/.test(args.type)) return local.resource(args);
      const inputs = args.inputs as Record<string, unknown>;
      if (inputs.type === "kubernetes.io/service-account-token") {
        return { id: args.name, state: { ...inputs, data: serviceAccountToken("token") } };
      }
      const id = args.type.endsWith(":EcsDisk") ? `d-${diskId(args.name)}` : `${args.name}-id`;
      return { id, state: args.inputs as Record<string, unknown> };
    },
    call: () => ({ kubeConfig: "none" }),
  };
}

/** One server as the program describes it. */
export interface DescribedServer {
  readonly name: string;
  readonly address: string;
  readonly tags: Tags;
  readonly httpTokens: "required" | "optional";
  /** User data as the machine gets it. Secret. */
  readonly text: string;
  /** Serial of the data disk, where `acceptingProviders` made the disk's id of its name. */
  readonly serial: string;
}

/** Runs the program for prod. @returns its servers in order, and the stack's outputs, as text and as they are */
export async function describeProd(config: Readonly<Record<string, string>>, providers: Providers) {
  const { resources, outputs } = await runProgram("prod", config, providers);
  const servers = resources
    .filter(({ type }) => type === "alicloud:ecs/instance:Instance")
    .map(({ name, inputs }): DescribedServer => ({
      name: String(inputs.hostName),
      address: String(inputs.privateIp),
      tags: inputs.tags as Tags,
      httpTokens: inputs.httpTokens === "optional" ? "optional" : "required",
      text: Buffer.from(String(inputs.userData), "base64").toString(),
      serial: idOf(`${name}-data`),
    }));
  const texts = Object.fromEntries(Object.entries(outputs).map(([name, { value }]) => [name, String(value)]));
  const values = Object.fromEntries(Object.entries(outputs).map(([name, { value }]) => [name, value]));
  return { servers, outputs: texts as Readonly<Record<string, string>>, values };
}

/** What the gate takes of a server. */
export function userDataOf({ text, tags }: DescribedServer): UserData {
  const tag = (name: string) => tags[name] ?? "";
  return { text, config: tag("consul-config"), start: tag("consul-start"), files: tag("consul-files"), paths: [] };
}

/** A file of a server's configuration, as its user data has it. */
function fileIn(text: string, path: string): string {
  return new RegExp(`^put ${path} .*\\n([^]*?)^END_OF_FILE$`, "m").exec(text)?.[1] ?? "";
}
const certificateIn = (text: string) => fileIn(text, "/etc/consul.d/server.pem");

/** The certificate and key that a server's user data has. */
function trustOf({ name, text }: DescribedServer): ServerTrust {
  const key = pulumi.secret(fileIn(text, "/etc/consul.d/server-key.pem"));
  const [cert, none] = [pulumi.output(certificateIn(text)), pulumi.output("")];
  return { name, cert, key, agentToken: pulumi.secret("none"), certFrom: none, certExpires: none };
}

/** `pulumi up` for the servers: the hook of each and then its tags, one after another; the check at the end. */
export async function updateAll(
  gate: QuorumGate,
  servers: readonly DescribedServer[],
  committed: Record<string, Tags>,
): Promise<void> {
  for (const server of servers) {
    const { name, tags } = server;
    await gate.hook(name, pulumi.secret(userDataOf(server))).callback({
      urn: "",
      id: `i-${name}`,
      name,
      type: "",
      oldInputs: { tags: committed[name] },
      newInputs: { tags },
    });
    committed[name] = tags;
  }
  await allReady(gate, servers);
}

/** The gate of the last run of the program. @param gate how long it waits, and whom it skips */
export function gateOf(
  cloud: Cloud,
  { servers, outputs }: Awaited<ReturnType<typeof describeProd>>,
  gate: Settings["gate"],
  pause: number,
): QuorumGate {
  const output = (name: string) => outputs[name] ?? "";
  return new QuorumGate({
    cloud,
    pause,
    servers: servers.map(({ name }) => name),
    vpcId: "vpc",
    tag: { key: "consul-datacenter", value: "aly-consul" },
    settings: { ...loadSettings(), gate },
    trust: {
      servers: servers.map(trustOf),
      certificatesFrom: pulumi.output(certificatesFrom(servers.map(({ text }) => certificateIn(text)))),
      caCertificate: pulumi.output(output("caCertificate")),
      gossipKeys: pulumi.secret([output("gossipKey")]),
      agentToken: pulumi.secret(output("agentToken")),
      managementToken: pulumi.secret(output("managementToken")),
    },
  });
}

/** Waits until the gate finds every server well, as the end of `pulumi up` does. */
export function allReady(gate: QuorumGate, servers: readonly DescribedServer[]): Promise<void> {
  const ready = gate.ready(
    [],
    servers.map((server) => pulumi.secret(userDataOf(server))),
  );
  return (ready as unknown as { promise(): Promise<void> }).promise();
}

/** User data that a test has edited, under the digest by which it is applied. */
export function resigned(edited: string): { readonly digest: string; readonly text: string } {
  const signed = edited
    .split("\n")
    .filter((line) => !line.startsWith("config="))
    .join("\n");
  const digest = createHash("sha256").update(signed).digest("hex").slice(0, 16);
  return { digest, text: edited.replace(/^config=.*$/m, `config=${digest}`) };
}
