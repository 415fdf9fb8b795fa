//go:build tools

// Package tools pins actionlint, which the tests put the workflows of .github to.
package tools

import _ "github.com/rhysd/actionlint/cmd/actionlint"
