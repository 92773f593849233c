//go:build cgo

package main

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/demo"
)

// goldenTolerance is nats a token against PyTorch in float32.
const goldenTolerance = 1e-3

// TestCacheHoldsTheGoldenLogps goes from text to cache by the command, with
// float32 features, and compares ids and reference log-probs with PyTorch's.
func TestCacheHoldsTheGoldenLogps(t *testing.T) {
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	type side struct {
		Prompt, Completion string
		IDs                []int32
		PromptTokens       int       `json:"prompt_tokens"`
		Logps              []float64 `json:"token_logps"`
	}
	var golden struct{ Cases []side }
	data, err := os.ReadFile(filepath.Join("..", "..", "internal", "demo", "testdata", "golden_logprobs.json"))
	if err == nil {
		err = json.Unmarshal(data, &golden)
	}
	if err != nil {
		t.Fatal(err)
	}
	// Cases come in pairs: the chosen completion of a prompt, then the rejected.
	var rows strings.Builder
	enc := json.NewEncoder(&rows)
	for i := 0; i < len(golden.Cases); i += 2 {
		c, r := golden.Cases[i], golden.Cases[i+1]
		if c.Prompt != r.Prompt {
			t.Fatalf("golden cases %d and %d have other prompts", i, i+1)
		}
		if err := enc.Encode(map[string]string{"prompt": c.Prompt, "chosen": c.Completion, "rejected": r.Completion}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "golden.jsonl"), []byte(rows.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, budget := range []string{"1", "100", "4096"} {
		out := "cache-" + budget
		cmd := command(context.Background(), t, dir, "precompute-ref", "--model", "model", "--data", "golden.jsonl", "--out", out,
			"--features", "f32", "--batch-tokens", budget)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		cache, err := refcache.Open(filepath.Join(dir, out))
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close()
		if cache.Len() != int64(len(golden.Cases)/2) {
			t.Fatalf("the cache has %d pairs, want %d", cache.Len(), len(golden.Cases)/2)
		}
		compare := func(want side, prompt, ids []int32, logps []float32) {
			t.Helper()
			all := append(append([]int32{}, prompt...), ids...)
			if len(prompt) != want.PromptTokens || len(all) != len(want.IDs) {
				t.Fatalf("%q has %d prompt tokens and %d in all, want %d and %d", want.Completion, len(prompt), len(all), want.PromptTokens, len(want.IDs))
			}
			for i, id := range all {
				if id != want.IDs[i] {
					t.Fatalf("%q: token %d is %d, want %d", want.Completion, i, id, want.IDs[i])
				}
			}
			for i, p := range logps {
				if d := math.Abs(float64(p) - want.Logps[i]); !(d <= goldenTolerance) {
					t.Errorf("batches of %s tokens, %q: log-prob of token %d is %.6f, want %.6f", budget, want.Completion, i, p, want.Logps[i])
				}
			}
		}
		var row refcache.Row
		for i := range cache.Len() {
			if err := cache.Row(i, &row); err != nil {
				t.Fatal(err)
			}
			compare(golden.Cases[2*i], row.Prompt, row.Chosen, row.ChosenRefLogps)
			compare(golden.Cases[2*i+1], row.Prompt, row.Rejected, row.RejectedRefLogps)
		}
	}
}
