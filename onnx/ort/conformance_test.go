//go:build cgo

package ort

import (
	"fmt"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/models/enginetest"
)

// TestEngineConforms runs the tests that every engine must pass, with the weight
// in the graph and as an input of it.
func TestEngineConforms(t *testing.T) {
	for name, weightIsInput := range map[string]bool{"initializer": false, "input": true} {
		t.Run(name, func(t *testing.T) { conforms(t, weightIsInput) })
	}
}

// TestKernelBodiesConform runs them on each body of the kernel that this processor has: a
// width that it does not have stands for the next below.
func TestKernelBodiesConform(t *testing.T) {
	const own = 16
	t.Cleanup(func() { widest(own) })
	for _, floats := range []int{4, 8, own} {
		t.Run(fmt.Sprint("floats=", floats), func(t *testing.T) {
			widest(floats)
			conforms(t, false)
		})
	}
}

func conforms(t *testing.T, weightIsInput bool) {
	r := openRuntime(t)
	open := func(v *models.Vocabulary) (models.Engine, error) {
		return r.newEngine(v, DefaultOptions(), weightIsInput)
	}
	enginetest.Run(t, open)
	enginetest.Pairs(t, open)
	enginetest.Golden(t, open)
}
