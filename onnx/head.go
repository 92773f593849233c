package onnx

import (
	"slices"
	"strings"
)

// Head is the LM head of a model: the product behind the output logits and
// what is done to it on the way,
//
//	z = Scale · (W h + bias), then Softcap · tanh(z / Softcap) where Softcap > 0,
//
// with W [V,D] and the hidden state h [D].
type Head struct {
	// Form names the operations that hold the matrix, for example "MatMul",
	// "Transpose+MatMul", "Gemm", "MatMulNBits" or "DequantizeLinear+MatMul".
	Form string
	// Hidden is the value that feeds the head, [B,T,D].
	Hidden string
	// V is the vocabulary, D the width of a hidden state.
	V, D int
	// Scale multiplies the product, 1 for most models; Softcap bounds the logits, 0 is none.
	Scale, Softcap float32
	// DType is the type the matrix is stored in: of a 4-bit one, Uint4.
	DType DType
	// Compute is the type the product is taken in, and so that of Hidden.
	Compute DType
	// Tied says that the stored matrix has another use, as input embedding.
	Tied bool
	// Quantized says that the stored matrix is integers with scales.
	Quantized bool
	// Chain lists the operations from the logits backwards to the product.
	Chain []string

	product *Node
	weight  *weight
	nbits   *nbits    // of a MatMulNBits product, else nil
	bias    []float32 // [V] or nil
	alpha   float64   // the product's own factor, part of W
	feed    []*Node   // between Hidden and the product, in order: casts and flattening
	outer   []step    // outermost first
}

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

// FindHead finds the LM head behind the output logits. Where there is none that this
// package can take out, a [*RefusedError] lists the operations that were seen.
func (m *Model) FindHead() (*Head, error) {
	f := &finder{m: m, ix: newIndex(m.Graph), h: &Head{Scale: 1, alpha: 1}}
	out := m.Graph.Output("logits")
	if out == nil {
		return nil, m.refuse("no output %q; outputs are %s", "logits", names(m.Graph.Outputs))
	}
	if err := f.outward(out.Name); err != nil {
		return nil, err
	}
	if err := f.readProduct(); err != nil {
		return nil, err
	}
	if err := f.fold(); err != nil {
		return nil, err
	}
	if err := f.inward(); err != nil {
		return nil, err
	}
	if n := len(out.Shape); n > 0 && out.Shape[n-1].Size > 0 && out.Shape[n-1].Size != int64(f.h.V) {
		return nil, f.refuse("head has %d rows, want the %d logits that are declared", f.h.V, out.Shape[n-1].Size)
	}
	return f.h, nil
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

// readProduct reads the matrix and the product's own factors and bias.
func (f *finder) readProduct() error {
	h, n := f.h, f.h.product
	if n.Op == "MatMulNBits" {
		return f.readNBits()
	}
	if n.Int("transA", 0) != 0 || n.Int("transBatchA", 0) != 0 || n.Int("transBatchB", 0) != 0 {
		return f.refuse("%s %q transposes the hidden states", n.Op, n.Name)
	}
	w, err := f.findWeight(n.Input(1))
	if err != nil {
		return err
	}
	rows, cols := w.base.Dims[0], w.base.Dims[1]
	// The product wants [D,V]; transB and each Transpose on the way turn it round.
	w.rowsAreV = (n.Int("transB", 0) != 0) != w.flipped
	if !w.rowsAreV {
		rows, cols = cols, rows
	}
	h.weight, h.V, h.D, h.Compute = w, int(rows), int(cols), w.out
	h.DType, h.Tied, h.Quantized = w.base.DType, w.shared, w.quant != nil
	h.alpha = float64(n.Float("alpha", 1))
	h.Form = strings.Join(append(w.ops(), n.Op), "+")
	if n.Op == "Gemm" && n.Input(2) != "" {
		return f.productBias(n.Input(2), float64(n.Float("beta", 1)))
	}
	return nil
}

// productBias adds beta times the constant that the product itself adds.
func (f *finder) productBias(name string, beta float64) error {
	c := f.ix.constant(name)
	if c == nil {
		return f.refuse("the bias %q of %s is computed", name, f.h.product.Op)
	}
	b, err := c.floats()
	if err != nil || beta == 0 {
		return err
	}
	return f.addBias(b, 1/beta)
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

// Dense returns the vocabulary matrix, float32 row-major [V,D], and the bias [V] or nil,
// whatever the form they are stored in.
func (h *Head) Dense() (weight, bias []float32, err error) {
	if h.nbits != nil {
		weight, err = h.nbits.matrix()
	} else {
		weight, err = h.weight.matrix()
	}
	if err != nil {
		return nil, nil, err
	}
	if !h.weight.rowsAreV {
		weight = transpose(weight, h.D, h.V)
	}
	if h.alpha != 1 {
		for i := range weight {
			weight[i] = float32(float64(weight[i]) * h.alpha)
		}
	}
	return weight, h.bias, nil
}
