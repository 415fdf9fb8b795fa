//go:build tools

// Package tools pins consul-template, which the example with nginx runs.
package tools

import _ "github.com/hashicorp/consul-template"
