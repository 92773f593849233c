package models

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// Adapter is a residual bottleneck in front of the frozen head, h' = h + s · U gelu(A h) with
// s = α/r, or α/√r where Stabilised is set (Houlsby et al., arXiv:1902.00751, with LoRA's scale and
// without biases). gelu is exact: x Φ(x).
//
// The frozen head is linear up to its softcap, so W h' = W h + (W U) (s · gelu(A h)): a
// low-rank addition whose B is W U. The product with W is thus shared with every other head on the
// same rows, and an optimizer batch costs 2 R rows of it more, for W U and for its gradient.
type Adapter struct {
	// D is the hidden width, R the width of the bottleneck.
	D, R int
	// Alpha is α.
	Alpha float64
	// Stabilised makes the scale α/√r.
	Stabilised bool
	// A is [R,D] and U [D,R], row-major.
	A, U []float32

	gradA, gradU []float32
	down, u, du  []float32 // [N,R]: A h, s · gelu(A h) and its gradient
	b, gradB     []float32 // [V,R]: W U and its gradient
	projected    []float32 // the U that b was made from, with which W
	by           *Vocabulary
	transposed   []float32 // [R,D], scratch
	block        []float32 // [R,D], scratch
}

// NewAdapter returns a fresh head: A uniform in ±1/√D and U zero, so that it changes nothing
// yet. It panics where a size is below 1.
func NewAdapter(d, r int, alpha float64, seed uint64) *Adapter {
	if d < 1 || r < 1 {
		panic(fmt.Sprintf("models: adapter of width %d for hidden states of %d, want both 1 or more", r, d))
	}
	h := &Adapter{
		D: d, R: r, Alpha: alpha,
		A: make([]float32, r*d), U: make([]float32, d*r),
		gradA: make([]float32, r*d), gradU: make([]float32, d*r),
		transposed: make([]float32, r*d), block: make([]float32, r*d),
	}
	initDown(h.A, d, seed)
	return h
}

// Kind returns "adapter".
func (h *Adapter) Kind() string { return "adapter" }

// Shape implements [Head].
func (h *Adapter) Shape() (v, d int) { return 0, h.D }

// Scale returns s.
func (h *Adapter) Scale() float64 { return scale(h.Alpha, h.R, h.Stabilised) }

// Params returns A, then U.
func (h *Adapter) Params() []Param {
	return []Param{
		{Name: peftPrefix + "adapter_A.weight", Shape: []int{h.R, h.D}, Value: h.A, Grad: h.gradA},
		{Name: peftPrefix + "adapter_U.weight", Shape: []int{h.D, h.R}, Value: h.U, Grad: h.gradU},
	}
}

// ZeroGrad implements [Head].
func (h *Adapter) ZeroGrad() {
	clear(h.gradA)
	clear(h.gradU)
	clear(h.gradB)
}

// Forward implements [Head].
func (h *Adapter) Forward(ctx context.Context, e Engine, out *Tokens) error {
	if err := fits(e, h); err != nil {
		return err
	}
	if err := h.project(ctx, e); err != nil {
		return err
	}
	rows, s := e.Rows(), h.Scale()
	h.down, h.u = resize(h.down, rows.N*h.R), resize(h.u, rows.N*h.R)
	if err := rows.down(ctx, h.down, h.A, h.R, h.D, 1); err != nil {
		return err
	}
	for k, x := range h.down {
		h.u[k] = float32(s * gelu(float64(x)))
	}
	if err := e.Forward(ctx, Addition{R: h.R, U: h.u, B: h.b}, out); err != nil {
		return err
	}
	roundLogps(out)
	return nil
}

// project makes b the product of W and U, unless both are what they were.
func (h *Adapter) project(ctx context.Context, e Engine) error {
	v := e.Vocabulary()
	if h.by == v && slices.Equal(h.projected, h.U) {
		return nil
	}
	if h.by != v {
		h.by, h.b, h.gradB = v, make([]float32, v.V*h.R), make([]float32, v.V*h.R)
	}
	transpose(h.transposed, h.D, h.U, h.D, h.R)
	h.projected = h.projected[:0]
	if err := e.Project(ctx, h.transposed, h.R, h.b); err != nil {
		return err
	}
	h.projected = append(h.projected, h.U...)
	return nil
}

// Backward implements [Head]. ∂L/∂A = (∂L/∂u · s · gelu'(A h))ᵀ H; ∂L/∂(W U) adds up until Finish.
func (h *Adapter) Backward(ctx context.Context, e Engine, coef []float64) error {
	h.du = resize(h.du, len(h.u))
	if err := e.Backward(ctx, coef, AdditionGrad{U: h.du, B: h.gradB}); err != nil {
		return err
	}
	s := h.Scale()
	for k, x := range h.down {
		h.du[k] = float32(float64(h.du[k]) * s * geluSlope(float64(x)))
	}
	return e.Rows().addDown(ctx, h.gradA, h.block, h.du, h.R, h.D, 1)
}

// Finish implements [Head]: ∂L/∂U = Wᵀ ∂L/∂(W U).
func (h *Adapter) Finish(ctx context.Context, e Engine) error {
	if h.by == nil { // nothing went forward
		return nil
	}
	if err := e.Gather(ctx, h.gradB, h.R, h.transposed); err != nil {
		return err
	}
	transpose(h.gradU, h.R, h.transposed, h.R, h.D)
	return nil
}

// gelu is x Φ(x), with Φ the normal distribution (arXiv:1606.08415).
func gelu(x float64) float64 { return x * normalCDF(x) }

// geluSlope is its derivative, Φ(x) + x φ(x).
func geluSlope(x float64) float64 {
	return normalCDF(x) + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
}

func normalCDF(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }
