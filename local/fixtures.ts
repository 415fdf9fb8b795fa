import { createHash } from "crypto";
import { tokenUuid } from "../consul/secrets";
import { secretOutputs } from "../stacks/outputs";
import { pinnedVersion, ProgramRun, Providers, runProgram, stackConfig } from "./program";

// The program without any provider: for `npm run preview`, `npm run expected` and the tests.

/**
 * Providers that answer with made-up values, the same at each run. `secrets` has every secret that was handed out. A
 * resource or function that is not listed here is an error, so that nothing new goes unnoticed.
 */
export class FixtureProviders implements Providers {
  /** Every secret handed out, raw and in the forms the program makes of it. */
  readonly secrets = new Set<string>();

  /** @param stackOutputs the outputs of every stack that the program refers to */
  constructor(private readonly stackOutputs: Readonly<Record<string, unknown>> = {}) {}

  resource({ type, name, inputs }: Parameters<Providers["resource"]>[0]) {
    const given = inputs as Record<string, unknown>;
    switch (type) {
      case "random:index/randomPassword:RandomPassword": {
        const length = Number(given.length);
        const result = createHash("sha512").update(name).digest("hex").slice(0, length);
        this.secrets.add(result).add(Buffer.from(result, "hex").toString("base64")).add(tokenUuid(result));
        return { id: "none", state: { ...given, result } };
      }
      case "random:index/randomUuid7:RandomUuid7":
        return { id: `${name}-id`, state: { ...given, result: "01e4ee13-1800-7000-8000-000000000000" } };
      case "tls:index/privateKey:PrivateKey": {
        const privateKeyPem = `-----BEGIN FIXTURE KEY-----\n${name}\n-----END FIXTURE KEY-----\n`;
        this.secrets.add(privateKeyPem);
        return { id: `${name}-id`, state: { ...given, privateKeyPem } };
      }
      case "tls:index/certRequest:CertRequest":
        return { id: `${name}-id`, state: { ...given, certRequestPem: pem("REQUEST", name) } };
      case "tls:index/selfSignedCert:SelfSignedCert":
      case "tls:index/locallySignedCert:LocallySignedCert": {
        const dates = { validityStartTime: "2026-11-21T00:00:00Z", validityEndTime: "2036-11-19T00:00:00Z" };
        return { id: `${name}-id`, state: { ...given, certPem: pem("CERTIFICATE", name), ...dates } };
      }
      case "pulumi:pulumi:StackReference": {
        const secretOutputNames = [...secretOutputs];
        return { id: name, state: { name, outputs: this.stackOutputs, secretOutputNames } };
      }
      case "alicloud:ecs/ecsDisk:EcsDisk":
        return { id: `d-${createHash("sha256").update(name).digest("hex").slice(0, 20)}`, state: given };
      case "alicloud:ram/role:Role":
        return {
          id: `${name}-id`,
          state: { ...given, arn: `acs:ram::1234567890123456:role/${String(given.roleName)}` },
        };
      case "kubernetes:core/v1:Service": {
        const spec = { clusterIP: "10.96.0.53", ...(given.spec as object) };
        return { id: `${name}-id`, state: { ...given, spec } };
      }
      case "kubernetes:core/v1:Secret": {
        if (given.type !== "kubernetes.io/service-account-token") break;
        const token = `fixture token of ${name}`;
        this.secrets.add(token);
        return { id: `${name}-id`, state: { ...given, data: serviceAccountToken(token) } };
      }
    }
    if (/^(alicloud|kubernetes|pulumi:providers):/.test(type)) return { id: `${name}-id`, state: given };
    throw new Error(`the fixtures have no answer for a ${type} (${name})`);
  }

  call({ token }: Parameters<Providers["call"]>[0]): Record<string, unknown> {
    if (token === "alicloud:cs/getClusterCredential:getClusterCredential") {
      this.secrets.add("fixture kubeconfig");
      return { kubeConfig: "fixture kubeconfig" };
    }
    throw new Error(`the fixtures have no answer for the function ${token}`);
  }
}

/** What Kubernetes fills in. */
export function serviceAccountToken(token: string): Record<string, string> {
  return {
    token: Buffer.from(token).toString("base64"),
    "ca.crt": Buffer.from(pem("CERTIFICATE", "cluster")).toString("base64"),
  };
}

function pem(what: string, name: string): string {
  return `-----BEGIN ${what}-----\n${name}\n-----END ${what}-----\n`;
}

/** Made-up outputs of the stack prod. */
export const prodOutputs: Readonly<Record<string, unknown>> = {
  outputsVersion: 1,
  environment: "prod",
  datacenter: "aly-consul",
  consulVersion: pinnedVersion,
  consulImage: `hashicorp/consul:${pinnedVersion}`,
  retryJoin: ["10.16.190.28", "10.16.190.40", "10.16.190.70"],
  serverNames: ["consul-1", "consul-2", "consul-3"],
  serverUrls: ["https://10.16.190.28:8501", "https://10.16.190.40:8501", "https://10.16.190.70:8501"],
  caCertificate: pem("CERTIFICATE", "ca"),
  gossipKey: "Zml4dHVyZSBnb3NzaXAga2V5IG9mIHRoZSBwcm9kIHM=",
  gossipKeys: ["Zml4dHVyZSBnb3NzaXAga2V5IG9mIHRoZSBwcm9kIHM="],
  agentToken: "f1c70e5a-0000-4000-8000-00000000a9e7",
  managementToken: "f1c70e5a-0000-4000-8000-000000003a9a",
  machineUserData: "",
  appEnvironment: [],
  dnsSnippet: "",
  expiry: { ca: "2036-11-19T00:00:00Z", serverCertificate: "2036-11-21T00:00:00Z", gossipKey: "2036-11-21T00:00:00Z" },
  daysLeft: { ca: 3650, serverCertificate: 3650, gossipKey: 3650 },
};

/** Made-up outputs of the stack prod-servers, for prod-agents. */
export const prodServersOutputs: Readonly<Record<string, unknown>> = {
  ...prodOutputs,
  datacenter: "aly-consul-sh",
  retryJoin: ["10.18.190.28", "10.18.190.40", "10.18.190.70"],
  serverUrls: ["https://10.18.190.28:8501", "https://10.18.190.40:8501", "https://10.18.190.70:8501"],
};

/** A run with its configuration and every secret in it. */
export interface FixtureRun extends ProgramRun {
  readonly config: Readonly<Record<string, string>>;
  readonly secrets: ReadonlySet<string>;
}

/** The environments whose resources are committed in test/expected. */
export const environments = ["dev", "staging", "prod", "prod-servers", "prod-agents", "local"] as const;

/**
 * Runs the program for a committed stack file with made-up providers.
 * @param change edits the configuration first
 */
export async function runFixture(
  environment: string,
  change: (config: Record<string, string>) => void = () => undefined,
  providers = new FixtureProviders(prodServersOutputs),
): Promise<FixtureRun> {
  const config = stackConfig(environment);
  change(config);
  const run = await runProgram(environment, config, providers);
  return { ...run, config, secrets: providers.secrets };
}
