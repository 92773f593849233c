//go:build !cgo

package main

import (
	"errors"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

type noRuntime struct{ error }

// Environment marks the kind.
func (noRuntime) Environment() {}

// newRuntime explains that this build has no ONNX Runtime. Training and eval with
// --engine gonum, on a cache with features, and inspect work without it.
func newRuntime(runtimeOptions) (pipeline.Runtime, error) {
	return nil, noRuntime{errors.New("this dpo-pipe was built without cgo, which ONNX Runtime needs: " +
		"build it with CGO_ENABLED=1 and a C compiler; train and eval with --engine gonum on a cache with features do without")}
}
