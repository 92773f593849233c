//go:build cgo

package ort

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/models"
)

const (
	// goldenTolerance is nats a token against PyTorch in float32.
	goldenTolerance = 1e-3
	// sameTolerance is nats a token between two float32 graphs of one model, or
	// two batches of one graph: sums of other order, depth 6, logits to 30.
	sameTolerance = 1e-4
	// halfTolerance is nats a token between float32 arithmetic and a graph that
	// rounds every value to float16 (2^-11 relative; logits to 30).
	halfTolerance = 0.1
)

func TestBackboneAndHeadGiveTheGoldenLogps(t *testing.T) {
	for _, model := range []string{"stories260K", "tinystories-ple"} {
		t.Run(model, func(t *testing.T) {
			texts := goldenTexts(t, model)
			s := openSplit(t, openRuntime(t), sharedModel(t, model+"/model.onnx"))
			worst := s.worstGolden(t, texts)
			t.Logf("largest difference: %.2g nats a token", worst)
			if !(worst <= goldenTolerance) {
				t.Errorf("largest difference is %g nats a token, want at most %g", worst, goldenTolerance)
			}
		})
	}
}

// worstGolden returns the largest difference, nats a token, from the golden
// log-probs, over all texts in every batching.
func (s split) worstGolden(t *testing.T, texts []goldenText) (worst float64) {
	t.Helper()
	for _, order := range batchings(len(texts)) {
		for _, batch := range order {
			var chosen []goldenText
			for _, i := range batch {
				chosen = append(chosen, texts[i])
			}
			seqs, from := unzip(chosen)
			for i, got := range s.logps(t, seqs, from) {
				worst = max(worst, maxDiff(t, got, chosen[i].Logprobs))
			}
		}
	}
	return worst
}

// batchings are ways to cut n sequences into batches: sizes around the
// boundaries, in order and reversed. A batch of n+1 holds one sequence twice.
func batchings(n int) [][][]int {
	var all []int
	for i := range n {
		all = append(all, i)
	}
	reversed := slices.Clone(all)
	slices.Reverse(reversed)
	var out [][][]int
	for _, size := range []int{1, 2, 3, n - 1, n} {
		for _, order := range [][]int{all, reversed} {
			out = append(out, slices.Collect(slices.Chunk(order, size)))
		}
	}
	return append(out, [][]int{append(all, 0)})
}

func TestBatchesNeverMoveARow(t *testing.T) {
	for _, model := range []string{
		"stories260K/model.onnx", "stories260K/variants/torch_export.onnx",
		"stories260K/variants/nocache.onnx", "third-party/genai-tiny-random-llama-fp16/model.onnx",
	} {
		t.Run(model, func(t *testing.T) {
			s := openSplit(t, openRuntime(t), sharedModel(t, model))
			texts := drawnTexts(s.engine.Vocabulary().V, 2, 3, 31, 32, 33, 64, 17)
			var alone [][]float64
			for _, g := range texts {
				alone = append(alone, s.logps(t, [][]int32{g.IDs}, []int{g.PromptLen})[0])
			}
			worst := 0.0
			for _, order := range batchings(len(texts)) {
				for _, batch := range order {
					var chosen []goldenText
					for _, i := range batch {
						chosen = append(chosen, texts[i])
					}
					seqs, from := unzip(chosen)
					for i, got := range s.logps(t, seqs, from) {
						worst = max(worst, maxDiff(t, got, alone[batch[i]]))
					}
				}
			}
			tolerance := sameTolerance
			if strings.Contains(model, "fp16") {
				tolerance = halfTolerance
			}
			t.Logf("largest difference: %.2g nats a token", worst)
			if !(worst <= tolerance) {
				t.Errorf("largest difference is %g nats a token, want at most %g", worst, tolerance)
			}
		})
	}
}

// TestHiddenIsDeterministic runs one batch twice in one session and once in another.
func TestHiddenIsDeterministic(t *testing.T) {
	r := openRuntime(t)
	path := sharedModel(t, "tinystories-ple/model.onnx")
	seqs, _ := unzip(drawnTexts(4096, 40, 33, 65))
	run := func(s split) [][]float32 {
		hidden, err := s.hidden(t, seqs, []int{0, 3, 9})
		if err != nil {
			t.Fatal(err)
		}
		return hidden
	}
	first := openSplit(t, r, path)
	want := run(first)
	for name, got := range map[string][][]float32{"again": run(first), "in another session": run(openSplit(t, r, path))} {
		for i := range want {
			if !slices.Equal(got[i], want[i]) {
				t.Errorf("%s: hidden states of sequence %d differ", name, i)
			}
		}
	}
}

func TestVariantsAgree(t *testing.T) {
	r := openRuntime(t)
	texts := goldenTexts(t, "stories260K")
	seqs, from := unzip(texts)
	want := openSplit(t, r, sharedModel(t, "stories260K/model.onnx")).logps(t, seqs, from)
	for _, v := range []struct {
		file      string
		tolerance float64
	}{
		{"stories260K/variants/external.onnx", sameTolerance},
		{"stories260K/variants/lmhead_gemm.onnx", sameTolerance},
		{"stories260K/variants/lmhead_matmul.onnx", sameTolerance},
		{"stories260K/variants/nocache.onnx", sameTolerance},
		{"stories260K/variants/torch_export.onnx", sameTolerance},
		{"stories260K-hub/onnx/model.onnx", sameTolerance},
		{"stories260K/variants/fp16.onnx", halfTolerance},
		{"stories260K-hub/onnx/model_fp16.onnx", halfTolerance},
		// Its head is rounded to 4 bits, so it only has to be near.
		{"stories260K/variants/lmhead_nbits.onnx", 2},
	} {
		t.Run(v.file, func(t *testing.T) {
			worst := 0.0
			for i, got := range openSplit(t, r, sharedModel(t, v.file)).logps(t, seqs, from) {
				worst = max(worst, maxDiff(t, got, want[i]))
			}
			t.Logf("largest difference to model.onnx: %.2g nats a token", worst)
			if !(worst <= v.tolerance) {
				t.Errorf("largest difference is %g nats a token, want at most %g", worst, v.tolerance)
			}
		})
	}
}

func TestRunRefuses(t *testing.T) {
	s := openSplit(t, openRuntime(t), sharedModel(t, "stories260K/model.onnx"))
	for _, c := range []struct {
		name string
		seq  []int32
		from int
		want string
	}{
		{"token too large", []int32{1, 512, 3}, 0, "sequence 0 position 1: token id 512 is outside the vocabulary [0, 512)"},
		{"token negative", []int32{1, 2, -1}, 0, "sequence 0 position 2: token id -1"},
		{"no token", nil, 0, "run 0 of 0 tokens"},
		{"start past the end", []int32{1, 2}, 3, "states from 3"},
		{"start negative", []int32{1, 2}, -1, "states from -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := s.backbone.Run(t.Context(), []*models.Run{{IDs: c.seq, From: c.from}})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want one with %q", err, c.want)
			}
		})
	}
	if err := s.backbone.Run(t.Context(), nil); err != nil {
		t.Errorf("an empty batch gives %v", err)
	}
}

// TestCancelledRunLeavesNothing ends a context before and during runs. What is left is
// checked by openRuntime.
func TestCancelledRunLeavesNothing(t *testing.T) {
	s := openSplit(t, openRuntime(t), sharedModel(t, "tinystories-ple/model.onnx"))
	runs := []*models.Run{{IDs: make([]int32, 512)}, {IDs: make([]int32, 512)}}
	why := errors.New("enough")
	ended := 0
	for _, after := range []time.Duration{-1, 0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond} {
		ctx, cancel := context.WithCancelCause(t.Context())
		if after < 0 {
			cancel(why)
		} else {
			time.AfterFunc(after, func() { cancel(why) })
		}
		err := s.backbone.Run(ctx, runs)
		if err != nil {
			ended++
			if !errors.Is(err, why) {
				t.Errorf("cancelled after %v: error is %v, want the context's cause", after, err)
			}
		}
		if n := liveValues.Load(); n != 0 {
			t.Errorf("cancelled after %v: %d values are left, want 0", after, n)
		}
		cancel(nil)
	}
	if ended < 2 {
		t.Errorf("%d of 5 runs were ended, want 2 or more", ended)
	}
	if err := s.backbone.Run(t.Context(), runs); err != nil {
		t.Errorf("after cancelled runs: %v", err)
	}
	if math.IsNaN(float64(runs[0].Hidden[0])) {
		t.Error("hidden state is NaN after cancelled runs")
	}
}
