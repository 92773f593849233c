package onnx

import "fmt"

// AdapterWeights is a residual bottleneck in front of the LM head, h' = h + Scale · U gelu(A h),
// with the exact gelu.
type AdapterWeights struct {
	// R is the width of the bottleneck.
	R int
	// A is [R,D], U is [D,R], row-major.
	A, U []float32
	// Scale is α/r.
	Scale float64
}

// AdaptHidden returns the model with the adapter's nodes between the hidden state and the LM
// head, in float32, whatever the head's form. A head with an earlier branch beside it, which the
// adapter would leave on the old hidden state, is refused.
func (m *Model) AdaptHidden(h *Head, w AdapterWeights) (*Model, error) {
	if r := w.R; r < 1 || len(w.A) != r*h.D || len(w.U) != h.D*r {
		return nil, fmt.Errorf("onnx: adapter of width %d has A of %d and U of %d values, want %d and %d", r, len(w.A), len(w.U), r*h.D, h.D*r)
	}
	if h.Branched() {
		return nil, m.refuse("an adapter in front of a head of form %s, which has an earlier branch beside it", h.Form)
	}
	return m.EditHead(h, Edit{Before: func(g *Graph, name func(string) string, hidden string) string {
		return w.insert(g, name, hidden, h.D)
	}})
}

// insert adds hidden + (x · ½ (1 + erf(x/√2))) (Scale · Uᵀ) with x = hidden Aᵀ.
func (w AdapterWeights) insert(g *Graph, name func(string) string, hidden string, d int) string {
	up := transpose(w.U, d, w.R)
	for i := range up {
		up[i] = float32(w.Scale * float64(up[i]))
	}
	constant := func(s string, v []float32, dims ...int64) string {
		return g.AddInitializer(Float32Tensor(name("lm_head.adapter_"+s), v, dims...))
	}
	op := func(kind, s string, inputs ...string) string {
		out := name("lm_head/adapter_" + s)
		g.Add(kind, inputs, []string{out})
		return out
	}
	half := constant("half", []float32{0.5})
	x := op("MatMul", "down", hidden, constant("A", transpose(w.A, w.R, d), int64(d), int64(w.R)))
	erf := op("Erf", "erf", op("Mul", "root", x, constant("root", []float32{0.70710678118654752})))
	phi := op("Mul", "phi", op("Add", "one", erf, constant("one", []float32{1})), half)
	moved := op("MatMul", "up", op("Mul", "gelu", x, phi), constant("U", up, int64(w.R), int64(d)))
	return op("Add", "out", hidden, moved)
}

// AddBias returns the model with c [V] added to the product W h of its head, inside its own
// bias, scale and softcap.
func (m *Model) AddBias(h *Head, c []float32) (*Model, error) {
	if len(c) != h.V {
		return nil, fmt.Errorf("onnx: bias has %d values, want %d", len(c), h.V)
	}
	return m.EditHead(h, Edit{Beside: func(g *Graph, name func(string) string, _, product string) string {
		out := name("lm_head/logit_bias")
		g.Add("Add", []string{product, g.AddInitializer(Float32Tensor(name("lm_head.logit_bias"), c, int64(h.V)))}, []string{out})
		return out
	}})
}
