//go:build tools

// Package tools pins promtool, with which the tests check the alert rules.
package tools

import _ "github.com/prometheus/prometheus/cmd/promtool"
