//go:build cgo

package ort

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
)

// demoTexts are the built-in model's golden log-probs, by PyTorch.
func demoTexts(t testing.TB) []goldenText {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "internal", "demo", "testdata", "golden_logprobs.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Cases []struct {
			IDs    []int32
			Prompt int       `json:"prompt_tokens"`
			Logps  []float64 `json:"token_logps"`
		}
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	var texts []goldenText
	for _, c := range golden.Cases {
		texts = append(texts, goldenText{IDs: c.IDs, PromptLen: c.Prompt, Logprobs: c.Logps})
	}
	return texts
}

// TestDemoGivesTheGoldenLogps is the golden test of a fresh clone: the built-in
// model, split and whole, whatever the batches.
func TestDemoGivesTheGoldenLogps(t *testing.T) {
	r := openRuntime(t)
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(dir, demo.ModelDir)
	texts := demoTexts(t)
	if len(texts) < 5 {
		t.Fatalf("%d golden texts, want at least 5", len(texts))
	}
	s := openSplit(t, r, filepath.Join(model, "model.onnx"))
	if worst := s.worstGolden(t, texts); !(worst <= goldenTolerance) {
		t.Errorf("split, the largest difference is %g nats a token, want at most %g", worst, goldenTolerance)
	}
	lm := openLM(t, r, model)
	for i, g := range texts {
		got, err := lm.Logps(t.Context(), g.IDs, g.PromptLen)
		if err != nil {
			t.Fatal(err)
		}
		if d := maxDiff(t, got, g.Logprobs); !(d <= goldenTolerance) {
			t.Errorf("text %d as a whole is off by %g nats a token, want at most %g", i, d, goldenTolerance)
		}
	}
}
