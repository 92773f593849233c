package onnx

import "fmt"

// A branch is what [Model.BranchLoRA] puts beside a product: (h Aᵀ) Bᵀ in float32,
// with A and B transposed and the scale inside B.
type branch struct {
	hidden string  // what feeds it, before a widening Cast
	a, b   *Tensor // [D,R] and [R,V]
	inside int     // how many steps had been seen outside it
}

// branch notes the low-rank branch that n adds to its first input, and reports whether there
// is one. What it may be added to is known only at the product: see checkBranches.
func (f *finder) branch(n *Node) bool {
	high := f.ix.producer[n.Input(1)]
	if n.Op != "Add" || high == nil || high.Op != "MatMul" {
		return false
	}
	low := f.ix.producer[high.Input(0)]
	if low == nil || low.Op != "MatMul" {
		return false
	}
	a, b := f.ix.constant(low.Input(1)), f.ix.constant(high.Input(1))
	if a == nil || b == nil || a.DType != Float32 || b.DType != Float32 {
		return false
	}
	f.h.branches = append(f.h.branches, branch{low.Input(0), a, b, len(f.h.outer)})
	return true
}

// checkBranches makes sure that every branch takes what the product takes and is
// added to it before anything else is done, so that it is part of the matrix.
func (f *finder) checkBranches() error {
	h := f.h
	for _, b := range h.branches {
		if in := h.product.Input(0); b.hidden != in && f.ix.uncast(b.hidden) != in {
			return f.refuse("no LM head: a branch beside %s %q is fed by %q, want %q", h.product.Op, h.product.Name, b.hidden, in)
		}
		if b.inside != len(h.outer) {
			return f.refuse("no LM head: a branch is added to what is no longer the product of %s %q", h.product.Op, h.product.Name)
		}
		if len(b.a.Dims) != 2 || len(b.b.Dims) != 2 || b.a.Dims[1] != b.b.Dims[0] ||
			b.a.Dims[0] != int64(h.D) || b.b.Dims[1] != int64(h.V) {
			return f.refuse("no LM head: a branch has matrices %v and %v, want [%d,R] and [R,%d]", b.a.Dims, b.b.Dims, h.D, h.V)
		}
	}
	return nil
}

// addTo adds the branch to w [V,D]. The sum over the rank is taken in float64.
func (b branch) addTo(w []float32, v, d int) error {
	a, err := b.a.floats()
	if err != nil {
		return fmt.Errorf("onnx: branch: %w", err)
	}
	up, err := b.b.floats()
	if err != nil {
		return fmt.Errorf("onnx: branch: %w", err)
	}
	r := int(b.a.Dims[1])
	LoRAWeights{R: r, A: transpose(a, d, r), B: transpose(up, r, v), Scale: 1}.addTo(w, v, d)
	return nil
}
