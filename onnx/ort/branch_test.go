//go:build cgo

package ort

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
)

// leastMove is nats a token that the branches below move every model's log-probs by, far
// above the tolerances: a branch that is left out is seen.
const leastMove = 0.2

// TestBranchedModel: two branches beside a head of any form, quantised or not, stored half
// wide or not, give in the library what Dense says they are.
func TestBranchedModel(t *testing.T) {
	r := openRuntime(t)
	for _, form := range onnxtest.Forms {
		for name, float16 := range map[string]bool{"float32": false, "float16": true} {
			t.Run(string(form)+"/"+name, func(t *testing.T) {
				opt := onnxtest.Default()
				opt.Form, opt.Float16, opt.Bias, opt.Scale, opt.Softcap = form, float16, true, 0.5, 20
				d, dir := writeDecoder(t, opt)
				writeBranches(t, filepath.Join(dir, "model.onnx"), dir)
				path := filepath.Join(dir, "policy.onnx")
				s, lm := openSplit(t, r, path), openLM(t, r, path)
				tolerance := decoderTolerance
				if float16 {
					tolerance = decoderHalfTolerance
				}
				seqs, from := unzip(drawnTexts(opt.V, 3, 9, 17))
				for i, got := range s.logps(t, seqs, from) {
					own, err := lm.Logps(t.Context(), seqs[i], from[i])
					if err != nil {
						t.Fatal(err)
					}
					if diff := maxDiff(t, got, own); !(diff <= tolerance) {
						t.Errorf("text %d: the model is %g nats a token from its backbone and Dense, want at most %g", i, diff, tolerance)
					}
					if diff := maxDiff(t, own, d.Logps(seqs[i], from[i])); !(diff >= leastMove) {
						t.Errorf("text %d: the branches move the log-probs by %g, want %g or more", i, diff, leastMove)
					}
				}
			})
		}
	}
}

// writeBranches writes policy.onnx to dir: the model at path with two branches.
func writeBranches(t *testing.T, path, dir string) {
	t.Helper()
	m, err := onnx.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	rng := rand.New(rand.NewPCG(5, 5))
	p := m
	for _, rank := range []int{1, 4} {
		h, err := p.FindHead()
		if err != nil {
			t.Fatal(err)
		}
		delta := onnx.LoRAWeights{R: rank, A: normal(rng, rank*h.D, 0.6), B: normal(rng, h.V*rank, 0.6), Scale: 0.5}
		if p, err = p.BranchLoRA(h, delta); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.WriteDir(dir, "policy.onnx"); err != nil {
		t.Fatal(err)
	}
}
