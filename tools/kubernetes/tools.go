//go:build tools

// Package tools pins the control plane of the system tests' cluster.
//
// Kubernetes takes its staging modules from its source tree, which does not count here: each is replaced by the
// released one, v0.N.P for Kubernetes v1.N.P.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
)
