package models

import (
	"context"
	"fmt"
)

// Bias is the head z = W h + c: one trained logit a token of the vocabulary, whatever stands
// before it. It makes words more or less likely everywhere, which is the least that a policy can do.
type Bias struct {
	// C is c, [V].
	C []float32

	grad []float32
}

// NewBias returns a fresh head, which changes nothing yet. It panics where v is below 1.
func NewBias(v int) *Bias {
	if v < 1 {
		panic(fmt.Sprintf("models: bias of a vocabulary of %d, want 1 or more", v))
	}
	return &Bias{C: make([]float32, v), grad: make([]float32, v)}
}

// Kind returns "bias".
func (h *Bias) Kind() string { return "bias" }

// Shape implements [Head].
func (h *Bias) Shape() (v, d int) { return len(h.C), 0 }

// Params returns c.
func (h *Bias) Params() []Param {
	return []Param{{Name: peftPrefix + "logit_bias", Shape: []int{len(h.C)}, Value: h.C, Grad: h.grad}}
}

// ZeroGrad implements [Head].
func (h *Bias) ZeroGrad() { clear(h.grad) }

// Forward implements [Head].
func (h *Bias) Forward(ctx context.Context, e Engine, out *Tokens) error {
	if err := fits(e, h); err != nil {
		return err
	}
	if err := e.Forward(ctx, Addition{C: h.C}, out); err != nil {
		return err
	}
	roundLogps(out)
	return nil
}

// Backward implements [Head].
func (h *Bias) Backward(ctx context.Context, e Engine, coef []float64) error {
	return e.Backward(ctx, coef, AdditionGrad{C: h.grad})
}

// Finish implements [Head]: the gradient is complete already.
func (h *Bias) Finish(context.Context, Engine) error { return nil }
