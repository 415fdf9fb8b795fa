//go:build tools

// Package tools pins CoreDNS, with which the tests show that the cluster's DNS can forward Consul's domain.
package tools

import _ "github.com/coredns/coredns"
