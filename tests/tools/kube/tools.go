//go:build tools

// Package tools names the commands that scripts/test-tools builds from this
// module, so that `go mod tidy` keeps what they need. It is never compiled.
package tools

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
