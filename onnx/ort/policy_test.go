//go:build cgo

package ort

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
)

// TestHeadInsideTheModel: an adapter in front of a head of any form, and a bias behind it, give
// in the library what the head gives in the engine, and the model can be split again.
func TestHeadInsideTheModel(t *testing.T) {
	r := openRuntime(t)
	for _, kind := range []string{"bias", "adapter"} {
		for _, form := range onnxtest.Forms {
			for name, float16 := range map[string]bool{"float32": false, "float16": true} {
				t.Run(kind+"/"+string(form)+"/"+name, func(t *testing.T) {
					opt := onnxtest.Default()
					opt.Form, opt.Float16, opt.Bias, opt.Scale, opt.Softcap = form, float16, true, 0.5, 20
					d, dir := writeDecoder(t, opt)
					base := openSplit(t, r, filepath.Join(dir, "model.onnx"))
					head := randomHead(kind, base.engine.Vocabulary())
					writePolicy(t, dir, head)
					path := filepath.Join(dir, "policy.onnx")
					tolerance := decoderTolerance
					if float16 {
						tolerance = decoderHalfTolerance
					}
					seqs, from := unzip(drawnTexts(opt.V, 3, 9, 17))
					again, lm := openSplit(t, r, path).logps(t, seqs, from), openLM(t, r, path)
					for i, want := range base.headLogps(t, head, seqs, from) {
						got, err := lm.Logps(t.Context(), seqs[i], from[i])
						if err != nil {
							t.Fatal(err)
						}
						if diff := maxDiff(t, got, want); !(diff <= tolerance) {
							t.Errorf("text %d: the model is %g nats a token from the head, want at most %g", i, diff, tolerance)
						}
						if diff := maxDiff(t, again[i], got); !(diff <= tolerance) {
							t.Errorf("text %d: the model is %g nats a token from itself split, want at most %g", i, diff, tolerance)
						}
						if diff := maxDiff(t, got, d.Logps(seqs[i], from[i])); !(diff >= leastMove) {
							t.Errorf("text %d: the head moves the log-probs by %g, want %g or more", i, diff, leastMove)
						}
					}
				})
			}
		}
	}
}

// randomHead is a head far from the reference.
func randomHead(kind string, v *models.Vocabulary) models.Head {
	h := models.NewHead(models.HeadOptions{Kind: kind, V: v.V, D: v.D, R: 3, Alpha: 3})
	rng := rand.New(rand.NewPCG(6, 6))
	for _, p := range h.Params() {
		copy(p.Value, normal(rng, len(p.Value), 0.8))
	}
	return h
}

// writePolicy writes policy.onnx beside model.onnx in dir.
func writePolicy(t *testing.T, dir string, head models.Head) {
	t.Helper()
	m, err := onnx.Load(filepath.Join(dir, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	h, err := m.FindHead()
	if err != nil {
		t.Fatal(err)
	}
	var p *onnx.Model
	switch head := head.(type) {
	case *models.Bias:
		p, err = m.AddBias(h, head.C)
	case *models.Adapter:
		p, err = m.AdaptHidden(h, onnx.AdapterWeights{R: head.R, A: head.A, U: head.U, Scale: head.Scale()})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WriteDir(dir, "policy.onnx"); err != nil {
		t.Fatal(err)
	}
}

// TestAdapterBesideABranch: an adapter would leave an earlier branch on the old hidden state.
func TestAdapterBesideABranch(t *testing.T) {
	openRuntime(t)
	_, dir := writeDecoder(t, onnxtest.Default())
	writeBranches(t, filepath.Join(dir, "model.onnx"), dir)
	m, err := onnx.Load(filepath.Join(dir, "policy.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	h, err := m.FindHead()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.AdaptHidden(h, onnx.AdapterWeights{R: 1, A: make([]float32, h.D), U: make([]float32, h.D)}); err == nil {
		t.Error("an adapter went in front of a head with a branch")
	}
}
