//go:build tools

// Package tools pins the Compose Specification's own checker, which the tests put our Compose project to.
package tools

import _ "github.com/compose-spec/compose-go/v2/cmd"
