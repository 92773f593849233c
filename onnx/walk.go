package onnx

import "slices"

// A step is what one operation between product and logits does.
type step struct {
	op    string // "add", "mul" or "tanh"
	value float64
	bias  []float32
}

// A finder walks from the logits backwards.
type finder struct {
	m      *Model
	ix     *index
	h      *Head
	folded bool // a Reshape was passed: the product is of rows [B·T,D]
}

func (f *finder) refuse(format string, args ...any) error {
	err := f.m.refuse(format, args...)
	err.Chain = f.h.Chain
	return err
}

// products are the operations that multiply by the vocabulary matrix.
var products = []string{"MatMul", "Gemm", "FusedMatMul", "MatMulNBits"}

// outward goes from the logits to the product.
func (f *finder) outward(name string) error {
	for range len(f.m.Graph.Nodes) + 1 {
		n := f.ix.producer[name]
		if n == nil {
			return f.refuse("no LM head: value %q is computed by no node", name)
		}
		f.h.Chain = append(f.h.Chain, n.Op)
		if slices.Contains(products, n.Op) {
			f.h.product = n
			return nil
		}
		next, err := f.stepOver(n)
		if err != nil {
			return err
		}
		name = next
	}
	return f.refuse("no LM head: the graph has a cycle at %q", name)
}

// stepOver notes what a node between product and logits does and returns its input.
func (f *finder) stepOver(n *Node) (string, error) {
	switch n.Op {
	case "Identity", "Cast":
		return n.Input(0), nil
	case "Reshape", "Squeeze", "Unsqueeze", "Flatten":
		f.folded = true
		return n.Input(0), nil
	case "Slice", "Gather":
		if f.positions(n) {
			return n.Input(0), nil
		}
		return "", f.refuse("no LM head: %s %q picks from the vocabulary or by what is computed", n.Op, n.Name)
	case "Tanh":
		f.h.outer = append(f.h.outer, step{op: "tanh"})
		return n.Input(0), nil
	case "Add", "Mul", "Div":
		return f.affine(n)
	}
	return "", f.refuse("no LM head: %s %q is neither a product with the vocabulary matrix nor bias, scale, "+
		"softcap or a change of type or shape", n.Op, n.Name)
}

// affine notes an addition, multiplication or division by a constant.
func (f *finder) affine(n *Node) (string, error) {
	value, constant := n.Input(0), f.ix.constant(f.ix.uncast(n.Input(1)))
	if constant == nil && n.Op != "Div" {
		value, constant = n.Input(1), f.ix.constant(f.ix.uncast(n.Input(0)))
	}
	if constant == nil && f.branch(n) {
		return n.Input(0), nil
	}
	if constant == nil {
		return "", f.refuse("no LM head: %s %q combines two computed values", n.Op, n.Name)
	}
	v, err := constant.floats()
	if err != nil {
		return "", err
	}
	s := step{op: "mul"}
	switch {
	case len(v) == 0 || n.Op != "Add" && len(v) != 1:
		return "", f.refuse("no LM head: %s %q by %v values, want one", n.Op, n.Name, len(v))
	case n.Op == "Add":
		s = step{op: "add", bias: v}
	case n.Op == "Div":
		s.value = 1 / float64(v[0])
	default:
		s.value = float64(v[0])
	}
	f.h.outer = append(f.h.outer, s)
	return value, nil
}

// fold turns the steps, taken from the product outwards, into bias, scale and
// softcap. Constants are combined in float64.
func (f *finder) fold() error {
	h := f.h
	scale, outer, capped := 1.0, 1.0, false
	for _, s := range slices.Backward(h.outer) {
		switch {
		case s.op == "tanh" && !capped:
			capped = true
		case s.op == "mul" && capped:
			outer *= s.value
		case s.op == "mul":
			scale *= s.value
		case s.op == "add" && !capped:
			if err := f.addBias(s.bias, scale); err != nil {
				return err
			}
		default:
			return f.refuse("no LM head: %s after the softcap", s.op)
		}
	}
	if capped {
		// outer·tanh(scale·x) = c·tanh(scale·c·x / c) with c = outer.
		h.Softcap, scale = float32(outer), scale*outer
	}
	h.Scale = float32(scale)
	if !(scale != 0) || capped && !(outer > 0) {
		return f.refuse("no LM head: scale %g and softcap %g, want a scale other than 0 and a softcap above 0", scale, outer)
	}
	return nil
}

// addBias adds b, which the graph adds after multiplying by scale, inside the scale.
func (f *finder) addBias(b []float32, scale float64) error {
	if len(b) != f.h.V && len(b) != 1 {
		return f.refuse("bias has %d values, want %d", len(b), f.h.V)
	}
	if f.h.bias == nil {
		f.h.bias = make([]float32, f.h.V)
	}
	for i := range f.h.bias {
		f.h.bias[i] += float32(float64(b[i%len(b)]) / scale)
	}
	return nil
}

// inward goes from the product towards the layers, past what only picks or
// flattens positions, so that the backbone gives a state for every position.
func (f *finder) inward() error {
	h := f.h
	h.Hidden = h.product.Input(0)
	var passed []*Node
	name := h.Hidden
	for range len(f.m.Graph.Nodes) {
		n := f.ix.producer[name]
		if n == nil {
			break
		}
		trivial := f.positions(n) || f.flattens(n)
		if !trivial && n.Op != "Cast" && n.Op != "Identity" {
			break
		}
		passed = append(passed, n)
		name = n.Input(0)
		if trivial { // casts further back stay with the backbone
			h.Hidden, h.feed = name, slices.Clone(passed)
		}
	}
	slices.Reverse(h.feed)
	if f.ix.producer[h.Hidden] == nil {
		return f.refuse("no LM head: its input %q is computed by no node", h.Hidden)
	}
	return nil
}

// flattens reports whether a node makes rows [B·T,D] of [B,T,D] for a product whose
// result is given back its shape.
func (f *finder) flattens(n *Node) bool {
	if !f.folded || n.Op != "Reshape" && n.Op != "Flatten" && n.Op != "Squeeze" {
		return false
	}
	shape, known := f.constInts(n, 1, "shape")
	return f.h.product.Op == "Gemm" || n.Op == "Reshape" && known && len(shape) == 2
}

// positions reports whether a Slice or Gather picks along the positions [B,T,·] or
// keeps all of an axis, and so leaves the last axis whole.
func (f *finder) positions(n *Node) bool {
	switch n.Op {
	case "Gather":
		axis := n.Int("axis", 0)
		return axis == 1 || axis == -2
	case "Slice":
		return f.slicesPositions(n)
	}
	return false
}

func (f *finder) slicesPositions(n *Node) bool {
	axes, ok := f.constInts(n, 3, "axes")
	if !ok {
		return false
	}
	starts, _ := f.constInts(n, 1, "starts")
	ends, _ := f.constInts(n, 2, "ends")
	for i, axis := range axes {
		whole := i < len(starts) && i < len(ends) && starts[i] == 0 && ends[i] >= 1<<31-1
		if axis != 1 && axis != -2 && !whole {
			return false
		}
	}
	return true
}

// constInts reads an integer list given as an input or, before opset 10, as
// an attribute.
func (f *finder) constInts(n *Node, input int, attr string) ([]int64, bool) {
	if a := n.Attr(attr); a != nil {
		return a.Ints, true
	}
	t := f.ix.constant(n.Input(input))
	if t == nil {
		return nil, false
	}
	v, err := t.ints()
	return v, err == nil
}
