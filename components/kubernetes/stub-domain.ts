/** Where the stub domain goes and what it needs to know. */
export interface StubDomain {
  /** IPv4 address of the consul-dns Service, with `:port` where that is not 53. CoreDNS takes no name here. */
  readonly address: string;
  /** Port that the cluster's CoreDNS listens on, as its Corefile has it: 53 nearly everywhere. */
  readonly port: number;
}

/**
 * A server block for CoreDNS: names below `.consul` are asked of the agents, everything else goes on as before.
 * An answer is kept as long as the agents' own TTL allows, 5 s at most; "no such name" and "failed" for 1 s, so that a
 * service that has just started is found. While no agent answers, CoreDNS gives what it last knew, for half a minute.
 */
export function stubDomain({ address, port }: StubDomain): string {
  return `consul:${port} {
    errors
    cache {
        success 9984 5 0
        denial 9984 1 0
        servfail 1s
        serve_stale 30s verify
    }
    forward . ${address}
    loadbalance
}
`;
}

/** The stub domain for a person who puts it into place, with where that is. */
export function stubDomainSnippet(domain: StubDomain): string {
  return `# <name>.service.consul for pods. Where it goes depends on who runs the cluster's CoreDNS:
# - unmanaged, as on ACK by default: at the end of Corefile in the ConfigMap kube-system/coredns; it is read again by itself
# - managed by ACK: as a zone of the CustomDNSConfig "default", name: consul, forward.upstreams: [${domain.address}]
# - with \`import custom/*.server\` in its Corefile: consul:dns.coredns: patch lets \`pulumi up\` put it into coredns-custom
${stubDomain(domain)}`;
}
