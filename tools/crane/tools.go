//go:build tools

// Package tools pins crane, which `npm run mirror` copies images with.
package tools

import _ "github.com/google/go-containerregistry/cmd/crane"
