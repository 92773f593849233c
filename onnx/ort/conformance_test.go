//go:build cgo

package ort

import (
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/models/enginetest"
)

// TestEngineConforms runs the tests that every engine must pass, with the weight
// in the graph and as an input of it.
func TestEngineConforms(t *testing.T) {
	r := openRuntime(t)
	for name, weightIsInput := range map[string]bool{"initializer": false, "input": true} {
		t.Run(name, func(t *testing.T) {
			open := func(v *models.Vocabulary) (models.Engine, error) {
				return r.newEngine(v, DefaultOptions(), weightIsInput)
			}
			enginetest.Run(t, open)
			enginetest.Pairs(t, open)
			enginetest.Golden(t, open)
		})
	}
}
