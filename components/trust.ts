import * as pulumi from "@pulumi/pulumi";
import { RandomUuid7 } from "@pulumi/random/randomUuid7";
import { CertRequest } from "@pulumi/tls/certRequest";
import { LocallySignedCert } from "@pulumi/tls/locallySignedCert";
import { PrivateKey } from "@pulumi/tls/privateKey";
import { SelfSignedCert } from "@pulumi/tls/selfSignedCert";
import { AclObject, serverAclObjects } from "../consul/acl";
import { serverNode, ServerConfig, Placement } from "../consul/config";
import { GossipGenerations } from "../consul/gossip";
import { ConsulNode, NodeLayout } from "../consul/node";
import { gossipKey, uuid7Time } from "../consul/secrets";
import { randomHex, randomToken } from "./random";

const hoursPerDay = 24;

export interface TrustServer {
  /** Consul node name. */
  readonly name: string;
  /** Addresses for the server's certificate, besides 127.0.0.1. */
  readonly addresses: readonly string[];
  /** Names for the server's certificate, besides its Consul names and localhost. */
  readonly dnsNames: readonly string[];
}

export interface TrustArgs {
  readonly datacenter: string;
  /** Version of Consul: what agents may do depends on it. */
  readonly version: string;
  readonly servers: readonly TrustServer[];
  readonly gossip: GossipGenerations & { readonly lifetimeDays: number };
  readonly certificates: {
    /** The generation that signs, and those that are trusted besides. */
    readonly caGeneration: number;
    readonly caAlsoTrusted: readonly number[];
    readonly caDays: number;
    readonly serverDays: number;
    readonly renewDays: number;
  };
  readonly tokens: { readonly agentGeneration: number };
  /** Refuse to delete the key and the certificate of the CA that signs. */
  readonly protect: boolean;
}

/** What one server presents and proves itself with. */
export interface ServerTrust {
  readonly name: string;
  readonly cert: pulumi.Output<string>;
  /** Secret. */
  readonly key: pulumi.Output<string>;
  /** Secret: the token with which the server registers itself. */
  readonly agentToken: pulumi.Output<string>;
  readonly certFrom: pulumi.Output<string>;
  readonly certExpires: pulumi.Output<string>;
}

/** Gossip key, certificate authority, server certificates and tokens of one datacenter. */
export class Trust extends pulumi.ComponentResource {
  /** Secret: the key that encrypts gossip, 32 bytes, base64. */
  readonly gossipKey: pulumi.Output<string>;
  /** Secret: all that nodes know, the one that encrypts first. */
  readonly gossipKeys: pulumi.Output<string[]>;
  /** When the gossip key is due to be replaced, RFC 3339. */
  readonly gossipDue: pulumi.Output<string>;
  /** Certificates of all CAs that are trusted, by generation, PEM. Public. */
  readonly caCertificate: pulumi.Output<string>;
  /** When the one that signs runs out, RFC 3339. */
  readonly caExpires: pulumi.Output<string>;
  readonly servers: readonly ServerTrust[];
  /** From when on the certificates of all servers are valid, and the authority that signs them: RFC 3339. */
  readonly certificatesFrom: pulumi.Output<string>;
  /** Secret: may do everything. */
  readonly managementToken: pulumi.Output<string>;
  /** Secret: the one token that agents share. */
  readonly agentToken: pulumi.Output<string>;

  /** Secret: policies and tokens that the servers keep in place. */
  readonly acl: pulumi.Output<AclObject[]>;

  constructor(name: string, args: TrustArgs, opts?: pulumi.ComponentResourceOptions) {
    super("consul:index:Trust", name, {}, opts);
    const parent = { parent: this };
    const { certificates, gossip } = args;

    const key = gossipKeyOf(name, gossip, gossip.generation, parent);
    const accepted = gossip.alsoAccepted.map((generation) => gossipKeyOf(name, gossip, generation, parent));
    this.gossipKey = key.key;
    this.gossipKeys = pulumi.all([key, ...accepted].map(({ key }) => key));
    this.gossipDue = key.due;
    const ca = certificateAuthority(name, args, certificates.caGeneration, parent);
    const others = certificates.caAlsoTrusted.map((generation) => certificateAuthority(name, args, generation, parent));
    const trusted = [ca, ...others].sort((a, b) => a.generation - b.generation);
    this.caCertificate = pulumi.all(trusted.map(({ cert }) => cert.certPem)).apply((pems) => pems.join(""));
    this.caExpires = ca.cert.validityEndTime;
    this.servers = args.servers.map((server) => serverTrust(name, args, server, ca, parent));
    const starts = [ca.cert.validityStartTime, ...this.servers.map(({ certFrom }) => certFrom)];
    this.certificatesFrom = pulumi.all(starts).apply(latest);
    this.managementToken = randomToken(`${name}-management-token`, parent);
    this.agentToken = randomToken(`${name}-agent-token-${args.tokens.agentGeneration}`, parent);
    this.acl = this.aclObjects(args);
    this.registerOutputs({});
  }

  /** When the first of the servers' certificates runs out, RFC 3339. */
  get serverCertificateExpires(): pulumi.Output<string> {
    const expiries = pulumi.all(this.servers.map(({ certExpires }) => certExpires));
    return expiries.apply((times) => [...times].sort()[0] ?? "");
  }

  /**
   * A server as a node, with the keys and certificates that it needs.
   * @param server the name it has here; `placement` may have what its platform expands instead
   */
  serverNode(
    server: string,
    config: ServerConfig,
    placement: Placement,
    layout: NodeLayout,
  ): pulumi.Output<ConsulNode> {
    const own = this.servers.find(({ name }) => name === server);
    if (!own) throw new Error(`no certificate was made for server ${server}`);
    const { caCertificate, gossipKeys, managementToken } = this;
    const { cert, key, agentToken } = own;
    return pulumi
      .output({ caCertificate, gossipKeys, cert, key, managementToken, agentToken })
      .apply(({ caCertificate, ...secrets }) => serverNode(config, caCertificate, secrets, placement, layout));
  }

  private aclObjects({ datacenter, version }: TrustArgs): pulumi.Output<AclObject[]> {
    const servers = this.servers.map(({ name, agentToken }) => ({ node: name, secret: agentToken }));
    const objects = pulumi
      .output({ servers, agents: [this.agentToken] })
      .apply((tokens) => serverAclObjects({ datacenter, version, ...tokens }));
    return pulumi.secret(objects);
  }
}

/** The last of these times. */
function latest(times: readonly string[]): string {
  return new Date(Math.max(...times.map((time) => Date.parse(time)))).toISOString();
}

type Parent = { readonly parent: Trust };

/** The key of one generation, secret, and when it is due to be replaced. */
function gossipKeyOf(name: string, gossip: TrustArgs["gossip"], generation: number, parent: Parent) {
  const hex = randomHex(`${name}-gossip-key-${generation}`, 64, parent);
  const existing = generation === 1 ? gossip.existingKey : undefined;
  // A version 7 UUID is the one thing the random provider makes that remembers when.
  const since = new RandomUuid7(`${name}-gossip-since-${generation}`, {}, parent);
  const due = since.result.apply((uuid) => {
    const due = uuid7Time(uuid);
    due.setUTCDate(due.getUTCDate() + gossip.lifetimeDays);
    return due.toISOString();
  });
  return { key: pulumi.secret(existing ?? hex.apply(gossipKey)), due };
}

function certificateAuthority(name: string, args: TrustArgs, generation: number, parent: Parent) {
  const { certificates } = args;
  // One that signs no more is about to be dropped, which protection would stop.
  const protect = args.protect && generation === certificates.caGeneration;
  const key = new PrivateKey(
    `${name}-ca-key-${generation}`,
    { algorithm: "ECDSA", ecdsaCurve: "P256" },
    { ...parent, protect },
  );
  const keyPem = pulumi.secret(key.privateKeyPem);
  const cert = new SelfSignedCert(
    `${name}-ca-${generation}`,
    {
      privateKeyPem: keyPem,
      isCaCertificate: true,
      setSubjectKeyId: true,
      subject: { commonName: `Consul CA ${generation} ${args.datacenter}`, organization: "Consul" },
      allowedUses: ["cert_signing", "crl_signing", "digital_signature"],
      validityPeriodHours: certificates.caDays * hoursPerDay,
    },
    { ...parent, protect },
  );
  return { generation, keyPem, cert };
}

function serverTrust(
  name: string,
  { datacenter, certificates }: TrustArgs,
  server: TrustServer,
  ca: ReturnType<typeof certificateAuthority>,
  parent: Parent,
): ServerTrust {
  const key = new PrivateKey(`${name}-${server.name}-key`, { algorithm: "ECDSA", ecdsaCurve: "P256" }, parent);
  const keyPem = pulumi.secret(key.privateKeyPem);
  const domain = `${datacenter}.consul`;
  const request = new CertRequest(
    `${name}-${server.name}-request`,
    {
      privateKeyPem: keyPem,
      subject: { commonName: `server.${domain}` },
      // server.<dc>.consul is what verify_server_hostname asks for.
      dnsNames: [`server.${domain}`, `${server.name}.server.${domain}`, "localhost", ...server.dnsNames],
      ipAddresses: ["127.0.0.1", ...server.addresses.filter((address) => address !== "127.0.0.1")],
    },
    parent,
  );
  const cert = new LocallySignedCert(
    `${name}-${server.name}-cert`,
    {
      certRequestPem: request.certRequestPem,
      caPrivateKeyPem: ca.keyPem,
      caCertPem: ca.cert.certPem,
      allowedUses: ["digital_signature", "key_encipherment", "server_auth", "client_auth"],
      validityPeriodHours: certificates.serverDays * hoursPerDay,
      earlyRenewalHours: certificates.renewDays * hoursPerDay,
    },
    parent,
  );
  return {
    name: server.name,
    cert: cert.certPem,
    key: keyPem,
    agentToken: randomToken(`${name}-${server.name}-token`, parent),
    certFrom: cert.validityStartTime,
    certExpires: cert.validityEndTime,
  };
}
