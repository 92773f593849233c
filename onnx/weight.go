package onnx

import (
	"fmt"
	"slices"
)

// A weight is the vocabulary matrix as the file stores it and the operations
// between it and the product.
type weight struct {
	base     *Tensor // [rows,cols] as stored
	name     string  // the value that holds base
	path     []*Node // from base towards the product
	quant    *Node   // the DequantizeLinear that starts path, or nil
	flipped  bool    // path transposes an odd number of times
	rowsAreV bool    // base is [V,D] rather than [D,V]
	shared   bool    // base or a value of path has another use
	out      DType   // type of what the product takes
	ix       *index
}

// findWeight follows the product's second input back to a stored matrix.
func (f *finder) findWeight(name string) (*weight, error) {
	w := &weight{ix: f.ix}
	for len(w.path) < len(f.m.Graph.Nodes) {
		w.shared = w.shared || f.ix.uses[name] > 1
		n := f.ix.producer[name]
		if t := f.ix.inits[name]; t != nil || n != nil && n.Op == "Constant" {
			if t == nil {
				t = n.constant()
			}
			return f.finishWeight(w, name, t)
		}
		if n == nil {
			return nil, f.refuse("no LM head: the matrix %q is not stored in the model", name)
		}
		next, ok := w.through(n)
		if !ok {
			f.h.Chain = append(f.h.Chain, n.Op)
			return nil, f.refuse("no LM head: %s %q is on the way to the matrix of %s %q; want a stored tensor "+
				"behind Transpose, Cast, Identity or DequantizeLinear", n.Op, n.Name, f.h.product.Op, f.h.product.Name)
		}
		w.path = append(w.path, n)
		name = next
	}
	return nil, f.refuse("no LM head: the graph has a cycle at %q", name)
}

// through returns the input of a node that may stand between matrix and product.
func (w *weight) through(n *Node) (string, bool) {
	switch {
	case w.quant != nil: // what is quantised must be stored
		return "", false
	case n.Op == "Cast" || n.Op == "Identity":
	case n.Op == "DequantizeLinear":
		w.quant = n
	case n.Op == "Transpose":
		perm := n.Attr("perm")
		if perm != nil && !slices.Equal(perm.Ints, []int64{1, 0}) {
			return "", slices.Equal(perm.Ints, []int64{0, 1})
		}
		w.flipped = !w.flipped
	default:
		return "", false
	}
	return n.Input(0), true
}

// finishWeight checks the stored matrix and works out the type the product gets.
func (f *finder) finishWeight(w *weight, name string, t *Tensor) (*weight, error) {
	if t == nil || len(t.Dims) != 2 || t.Dims[0] <= 0 || t.Dims[1] <= 0 {
		dims := []int64(nil)
		if t != nil {
			dims = t.Dims
		}
		return nil, f.refuse("no LM head: the matrix %q has dimensions %v, want two", name, dims)
	}
	w.base, w.name, w.out = t, name, t.DType
	slices.Reverse(w.path)
	for _, n := range w.path {
		switch n.Op {
		case "Cast":
			w.out = DType(n.Int("to", 0))
		case "DequantizeLinear":
			scale := f.ix.constant(n.Input(1))
			if scale == nil {
				return nil, f.refuse("the scale of DequantizeLinear %q is computed", n.Name)
			}
			if w.out = DType(n.Int("output_dtype", 0)); w.out == 0 {
				w.out = scale.DType
			}
		}
	}
	if _, err := t.Bytes(); err != nil {
		return nil, err
	}
	if w.quant == nil && !t.DType.IsFloat() || !w.out.IsFloat() {
		return nil, f.refuse("no LM head: the matrix %q has type %s and is multiplied as %s", name, t.DType, w.out)
	}
	return w, nil
}

// ops names the operations on the way, from the matrix on.
func (w *weight) ops() []string {
	var ops []string
	for _, n := range w.path {
		if n.Op != "Identity" {
			ops = append(ops, n.Op)
		}
	}
	return ops
}

// matrix returns the elements as the product sees them, in stored order.
func (w *weight) matrix() ([]float32, error) {
	var v []float32
	var err error
	if w.quant != nil {
		v, err = w.dequantize()
	} else {
		v, err = w.base.floats()
	}
	if err != nil {
		return nil, err
	}
	round(v, w.out)
	return v, nil
}

// dequantize computes (q - zero)·scale of a DequantizeLinear: one scale for all, one for
// each index of an axis, or one for each block along it.
func (w *weight) dequantize() ([]float32, error) {
	n := w.quant
	q, err := w.base.levels()
	if err != nil {
		return nil, err
	}
	scale, err := w.ix.constant(n.Input(1)).floats()
	if err != nil {
		return nil, err
	}
	var zero []int32
	if n.Input(2) != "" {
		t := w.ix.constant(n.Input(2))
		if t == nil {
			return nil, fmt.Errorf("onnx: zero point %q of DequantizeLinear %q is computed", n.Input(2), n.Name)
		}
		if zero, err = t.levels(); err != nil {
			return nil, err
		}
	}
	group, groups := w.groups(len(scale))
	if groups < 1 || len(scale) != groups || zero != nil && len(zero) != groups {
		return nil, fmt.Errorf("onnx: DequantizeLinear %q has %d scales and %d zero points, want %d for %v",
			n.Name, len(scale), len(zero), groups, w.base.Dims)
	}
	v, cols := make([]float32, len(q)), int(w.base.Dims[1])
	for i := range q {
		g := group(i/cols, i%cols)
		level := q[i]
		if zero != nil {
			level -= zero[g]
		}
		v[i] = float32(level) * scale[g]
	}
	return v, nil
}

// groups returns which scale an element has, and how many there must be.
func (w *weight) groups(scales int) (group func(row, col int) int, groups int) {
	axis, block := w.quant.Int("axis", 1), int(w.quant.Int("block_size", 0))
	rows, cols := int(w.base.Dims[0]), int(w.base.Dims[1])
	onRows := axis == 0 || axis == -2
	switch {
	case block > 0 && onRows:
		return func(r, c int) int { return r/block*cols + c }, (rows + block - 1) / block * cols
	case block > 0:
		per := (cols + block - 1) / block
		return func(r, c int) int { return r*per + c/block }, rows * per
	case scales == 1:
		return func(int, int) int { return 0 }, 1
	case onRows:
		return func(r, _ int) int { return r }, rows
	}
	return func(_, c int) int { return c }, cols
}

// levels returns the elements of an integer tensor of up to 32 bits.
func (t *Tensor) levels() ([]int32, error) {
	b, err := t.Bytes()
	if err != nil {
		return nil, err
	}
	n, err := t.Elements()
	if err != nil {
		return nil, err
	}
	v := make([]int32, n)
	for i := range v {
		switch t.DType {
		case Uint8:
			v[i] = int32(b[i])
		case Int8:
			v[i] = int32(int8(b[i]))
		case Uint4:
			v[i] = int32(b[i/2] >> (4 * (i % 2)) & 15)
		case Int4:
			v[i] = int32(int8(b[i/2]>>(4*(i%2))<<4) >> 4)
		case Uint16:
			v[i] = int32(uint16(b[2*i]) | uint16(b[2*i+1])<<8)
		case Int16:
			v[i] = int32(int16(uint16(b[2*i]) | uint16(b[2*i+1])<<8))
		case Int32:
			v[i] = int32(uint32(b[4*i]) | uint32(b[4*i+1])<<8 | uint32(b[4*i+2])<<16 | uint32(b[4*i+3])<<24)
		default:
			return nil, fmt.Errorf("onnx: tensor %q has type %s, want integers of up to 32 bits", t.Name, t.DType)
		}
	}
	return v, nil
}
