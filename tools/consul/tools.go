//go:build tools

// Package tools pins the Consul that `npm start` and the tests build where no release can be downloaded.
//
// Consul's own go.mod takes its sub-modules from its source tree, which does not count here. The released one that
// belongs to it is api v1.34.1; v1.33.7, which its go.mod names, lacks fields that Consul prints.
package tools

import _ "github.com/hashicorp/consul"
