//go:build cgo

package ort

import (
	"fmt"
	"strings"
	"testing"
)

// lmModels are the models with what separates their own logits from the head's
// float32 arithmetic.
var lmModels = []struct {
	file      string
	tolerance float64
}{
	{"stories260K/model.onnx", sameTolerance},
	{"stories260K/variants/external.onnx", sameTolerance},
	{"stories260K/variants/lmhead_gemm.onnx", sameTolerance},
	{"stories260K/variants/lmhead_matmul.onnx", sameTolerance},
	{"stories260K/variants/lmhead_nbits.onnx", 1e-3}, // the product dequantises in blocks
	{"stories260K/variants/nocache.onnx", sameTolerance},
	{"stories260K/variants/torch_export.onnx", sameTolerance},
	{"stories260K/variants/fp16.onnx", sameTolerance}, // widens the hidden state before its head
	{"stories260K-hub/onnx/model_fp16.onnx", sameTolerance},
	{"tinystories-ple/model.onnx", sameTolerance},
	{"third-party/genai-tiny-random-llama-fp16/model.onnx", 1e-3}, // float16 logits to 1
}

func TestLMLogpsEqualBackboneAndHead(t *testing.T) {
	for _, c := range lmModels {
		t.Run(c.file, func(t *testing.T) {
			r := openRuntime(t)
			path := sharedModel(t, c.file)
			lm := openLM(t, r, path)
			s := openSplit(t, r, path)
			worst := 0.0
			for _, g := range drawnTexts(lm.V(), 2, 3, 17, 64) {
				got, err := lm.Logps(t.Context(), g.IDs, g.PromptLen)
				if err != nil {
					t.Fatal(err)
				}
				want := s.logps(t, [][]int32{g.IDs}, []int{g.PromptLen})[0]
				worst = max(worst, maxDiff(t, got, want))
			}
			t.Logf("largest difference: %.2g nats a token", worst)
			if !(worst <= c.tolerance) {
				t.Errorf("largest difference is %g nats a token, want at most %g", worst, c.tolerance)
			}
		})
	}
}

func openLM(t *testing.T, r *Runtime, path string) *LM {
	t.Helper()
	lm, err := r.NewLM(path, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lm.Close() })
	return lm
}

// TestGenerationWithCacheEqualsWithout compares each greedy text with one made by
// reading the whole text again for every token.
func TestGenerationWithCacheEqualsWithout(t *testing.T) {
	for _, c := range lmModels {
		t.Run(c.file, func(t *testing.T) {
			lm := openLM(t, openRuntime(t), sharedModel(t, c.file))
			if want := !strings.Contains(c.file, "nocache"); lm.cached() != want {
				t.Fatalf("cached = %t, want %t", lm.cached(), want)
			}
			prompt := drawnTexts(lm.V(), 7)[0].IDs
			got, err := lm.Generate(t.Context(), prompt, GenerateOptions{MaxTokens: 20})
			if err != nil {
				t.Fatal(err)
			}
			all := prompt
			for i := range got {
				logits, err := lm.Next(t.Context(), new(Prefix), all, nil)
				if err != nil {
					t.Fatal(err)
				}
				// Rounding may turn over a near tie, above all in float16.
				if lead := logits[Greedy(logits)] - logits[got[i]]; float64(lead) > c.tolerance {
					t.Fatalf("token %d with cache is %d, whose logit without is %g below that of %d", i, got[i], lead, Greedy(logits))
				}
				all = append(all[:len(all):len(all)], got[i])
			}
		})
	}
}

func TestGenerateStops(t *testing.T) {
	lm := openLM(t, openRuntime(t), sharedModel(t, "stories260K/model.onnx"))
	prompt := []int32{1, 403, 407, 261}
	all, err := lm.Generate(t.Context(), prompt, GenerateOptions{MaxTokens: 8})
	if err != nil || len(all) != 8 {
		t.Fatalf("Generate = %v, %v, want 8 tokens", all, err)
	}
	first := 0
	for all[first] != all[5] {
		first++
	}
	got, err := lm.Generate(t.Context(), prompt, GenerateOptions{MaxTokens: 8, Stop: []int32{all[5]}})
	if err != nil || fmt.Sprint(got) != fmt.Sprint(all[:first+1]) {
		t.Errorf("with a stop token: %v, %v, want %v", got, err, all[:first+1])
	}
	last := func(logits []float32) int32 { return int32(len(logits) - 1) }
	got, err = lm.Generate(t.Context(), prompt, GenerateOptions{MaxTokens: 2, Choose: last})
	if err != nil || fmt.Sprint(got) != "[511 511]" {
		t.Errorf("with a choice of its own: %v, %v, want [511 511]", got, err)
	}
}

func TestLMGoldenLogps(t *testing.T) {
	for _, model := range []string{"stories260K", "tinystories-ple"} {
		t.Run(model, func(t *testing.T) {
			lm := openLM(t, openRuntime(t), sharedModel(t, model))
			for i, g := range goldenTexts(t, model) {
				got, err := lm.Logps(t.Context(), g.IDs, g.PromptLen)
				if err != nil {
					t.Fatal(err)
				}
				if d := maxDiff(t, got, g.Logprobs); !(d <= goldenTolerance) {
					t.Errorf("text %d is off by %g nats a token, want at most %g", i, d, goldenTolerance)
				}
			}
		})
	}
}
