package onnx

import "strings"

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

	branches []branch // low-rank additions to the product, outermost first
}

// Branched reports whether an earlier export put its trained part beside the
// product: another one goes there too.
func (h *Head) Branched() bool { return len(h.branches) > 0 }

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
	if err := f.checkBranches(); err != nil {
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

// Dense returns the vocabulary matrix, float32 row-major [V,D], and the bias [V] or nil,
// whatever the form they are stored in. Low-rank branches that an earlier export put beside
// the product are part of it.
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
	for _, b := range h.branches {
		if err := b.addTo(weight, h.V, h.D); err != nil {
			return nil, nil, err
		}
	}
	return weight, h.bias, nil
}
