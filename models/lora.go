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
	rng := rand.New(rand.NewPCG(seed, initStream))
	bound := 1 / math.Sqrt(float64(d))
	for i := range h.A {
		h.A[i] = float32(bound * (2*rng.Float64() - 1))
	}
	return h
}

// Kind returns "lora".
func (h *LoRA) Kind() string { return "lora" }

// Scale returns s.
func (h *LoRA) Scale() float64 {
	if h.RSLoRA {
		return h.Alpha / math.Sqrt(float64(h.R))
	}
	return h.Alpha / float64(h.R)
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

// Forward implements [Head].
func (h *LoRA) Forward(ctx context.Context, e Engine, out *Tokens) error {
	if v := e.Vocabulary(); v.D != h.D || v.V != h.V {
		return fmt.Errorf("models: the adapter is for a [%d,%d] head, the engine has [%d,%d]", h.V, h.D, v.V, v.D)
	}
	rows := e.Rows()
	h.u = resize(h.u, rows.N*h.R)
	s := float32(h.Scale())
	for k := range h.u {
		h.u[k] = s * dot(rows.hidden(k/h.R, h.D), h.A[k%h.R*h.D:][:h.D])
	}
	if err := e.Forward(ctx, Addition{R: h.R, U: h.u, B: h.B}, out); err != nil {
		return err
	}
	for i, lp := range out.Logps {
		out.Logps[i] = float64(float32(lp))
	}
	return nil
}

// Backward implements [Head]: ∂L/∂B comes from the engine, ∂L/∂A = s · (∂L/∂U)ᵀ H.
// Shares of tileRows rows are summed apart, which keeps chains of float32 additions short.
func (h *LoRA) Backward(ctx context.Context, e Engine, coef []float64) error {
	h.du = resize(h.du, len(h.u))
	if err := e.Backward(ctx, coef, AdditionGrad{U: h.du, B: h.gradB}); err != nil {
		return err
	}
	s, rows := float32(h.Scale()), e.Rows()
	for first := 0; first < rows.N; first += tileRows {
		clear(h.block)
		for i := first; i < min(first+tileRows, rows.N); i++ {
			for r, du := range h.du[i*h.R : (i+1)*h.R] {
				axpy(h.block[r*h.D:(r+1)*h.D], du, rows.hidden(i, h.D))
			}
		}
		axpy(h.gradA, s, h.block)
	}
	return nil
}

// hidden returns the hidden state of row i.
func (r Rows) hidden(i, d int) []float32 { return r.Hidden[i*d : (i+1)*d] }
