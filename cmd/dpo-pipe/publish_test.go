//go:build cgo

package main

import (
	"path/filepath"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/publish"
)

// TestExternalDataThroughCurrent reads a model with external data through the link of a place:
// ONNX Runtime refuses data that a link leads to outside of the model's folder.
func TestExternalDataThroughCurrent(t *testing.T) {
	library(t)
	model := sharedFolder(t, "models", "third-party", "genai-tiny-random-llama-fp16")
	place := filepath.Join(t.TempDir(), "place")
	p, err := publish.Open(place)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), "v1", model, nil); err != nil {
		t.Fatal(err)
	}
	line := []string{"compare", "--model", model, "--policy", filepath.Join(place, "current"), "--prompt", "a b c", "--chat-template", "none", "--max-tokens", "4", "--json"}
	output(t, command(t.Context(), t, place, line...))
}
