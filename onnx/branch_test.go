package onnx_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
)

// TestSecondRound: a model exported with a branch is a reference again. Its matrix is
// that of the first model with both additions, whatever the form, and its backbone the same.
func TestSecondRound(t *testing.T) {
	const r = 3
	eachForm(t, func(t *testing.T, d *onnxtest.Decoder, m *onnx.Model) {
		rng := rand.New(rand.NewPCG(8, 8))
		h, want, _ := head(t, m)
		for round := range 3 {
			delta := onnx.LoRAWeights{R: r + round, A: normal(rng, (r+round)*d.D), B: normal(rng, d.V*(r+round)), Scale: 0.5}
			edit := m.BranchLoRA
			if round > 0 { // what an export asks for; beside a branch it must not replace the matrix
				edit = m.MergeLoRA
			}
			p, err := edit(h, delta)
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				for k := range delta.R {
					want[i] += 0.5 * delta.B[i/d.D*delta.R+k] * delta.A[k*d.D+i%d.D]
				}
			}
			before := h
			var got []float32
			h, got, _ = head(t, p)
			if h.Hidden != before.Hidden || h.Scale != before.Scale || h.Softcap != before.Softcap || h.Quantized != before.Quantized {
				t.Fatalf("round %d: head is %+v, was %+v", round, h, before)
			}
			for i := range want {
				if math.Abs(float64(got[i]-want[i])) > 1e-5*(1+math.Abs(float64(want[i]))) {
					t.Fatalf("round %d: value %d is %g, want %g", round, i, got[i], want[i])
				}
			}
			b, err := p.Backbone(h)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range b.Graph.Initializers {
				if strings.Contains(w.Name, "lora") {
					t.Fatalf("round %d: the backbone keeps %q", round, w.Name)
				}
			}
			m = p
		}
		if _, err := m.EditHead(h, onnx.Edit{Weight: want}); err == nil {
			t.Error("the matrix under a branch was replaced by one that holds the branch")
		}
	})
}
