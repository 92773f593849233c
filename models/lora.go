package models

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
)

// initStream separates the numbers drawn for fresh heads from every other use of a seed.
const initStream = 0x6c6f7261 // "lora"

// LoRA is the low-rank head z = W h + s · B (A h), arXiv:2106.09685, with
// s = α/r, or α/√r where RSLoRA is set (arXiv:2312.03732).
type LoRA struct {
	// D is the hidden width, V the size of the vocabulary, R the rank.
	D, V, R int
	// Alpha is α.
	Alpha float64
	// RSLoRA makes the scale α/√r.
	RSLoRA bool
	// A is [R,D] and B [V,R], row-major.
	A, B []float32

	gradA, gradB []float32
	u, du        []float32 // [N,R]
	block        []float32 // [R,D] share of tileRows rows in gradA
}

// NewLoRA returns a fresh head as PEFT makes it: A uniform in ±1/√D, which is
// Kaiming's with a = √5, and B zero, so that it changes nothing yet. It panics
// where a size is below 1.
func NewLoRA(d, v, r int, alpha float64, seed uint64) *LoRA {
	if d < 1 || v < 1 || r < 1 {
		panic(fmt.Sprintf("models: LoRA of rank %d for a [%d,%d] head, want all 1 or more", r, v, d))
	}
	h := &LoRA{
		D: d, V: v, R: r, Alpha: alpha,
		A: make([]float32, r*d), B: make([]float32, v*r),
		gradA: make([]float32, r*d), gradB: make([]float32, v*r),
		block: make([]float32, r*d),
	}
	initDown(h.A, d, seed)
	return h
}

// initDown draws a uniform in ±1/√D.
func initDown(a []float32, d int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, initStream))
	bound := 1 / math.Sqrt(float64(d))
	for i := range a {
		a[i] = float32(bound * (2*rng.Float64() - 1))
	}
}

// Kind returns "lora".
func (h *LoRA) Kind() string { return "lora" }

// Scale returns s.
func (h *LoRA) Scale() float64 { return scale(h.Alpha, h.R, h.RSLoRA) }

// scale is α/r, or α/√r where it is stabilised.
func scale(alpha float64, r int, stabilised bool) float64 {
	if stabilised {
		return alpha / math.Sqrt(float64(r))
	}
	return alpha / float64(r)
}

// Params returns A, then B, under the names PEFT gives them.
func (h *LoRA) Params() []Param {
	return []Param{
		{Name: peftPrefix + "lora_A.weight", Shape: []int{h.R, h.D}, Value: h.A, Grad: h.gradA},
		{Name: peftPrefix + "lora_B.weight", Shape: []int{h.V, h.R}, Value: h.B, Grad: h.gradB},
	}
}

// ZeroGrad implements [Head].
func (h *LoRA) ZeroGrad() {
	clear(h.gradA)
	clear(h.gradB)
}

// Shape implements [Head].
func (h *LoRA) Shape() (v, d int) { return h.V, h.D }

// Forward implements [Head].
func (h *LoRA) Forward(ctx context.Context, e Engine, out *Tokens) error {
	if err := fits(e, h); err != nil {
		return err
	}
	rows := e.Rows()
	h.u = resize(h.u, rows.N*h.R)
	if err := rows.down(ctx, h.u, h.A, h.R, h.D, float32(h.Scale())); err != nil {
		return err
	}
	if err := e.Forward(ctx, Addition{R: h.R, U: h.u, B: h.B}, out); err != nil {
		return err
	}
	roundLogps(out)
	return nil
}

// Backward implements [Head]: ∂L/∂B comes from the engine, ∂L/∂A = s · (∂L/∂U)ᵀ H.
func (h *LoRA) Backward(ctx context.Context, e Engine, coef []float64) error {
	h.du = resize(h.du, len(h.u))
	if err := e.Backward(ctx, coef, AdditionGrad{U: h.du, B: h.gradB}); err != nil {
		return err
	}
	return e.Rows().addDown(ctx, h.gradA, h.block, h.du, h.R, h.D, float32(h.Scale()))
}

// Finish implements [Head]: the gradients are complete already.
func (h *LoRA) Finish(context.Context, Engine) error { return nil }
