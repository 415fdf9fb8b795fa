//go:build tools

// Package tools pins the Consul of one minor version earlier, from which the tests of operations roll to ours.
//
// As in ../consul the released sub-modules stand for those of the source tree. 1.21.5 compiles with the later ones, but
// for sdk and consul-awsauth: these two are what its own go.mod names.
package tools

import _ "github.com/hashicorp/consul"
