package onnx

import "fmt"

// nbits is the layout of com.microsoft MatMulNBits: each of V rows is cut into
// blocks of block_size levels of bits bits each, low bits first, with a scale
// and a zero point for each block.
type nbits struct {
	v, d, bits, block    int
	levels, scales, zero *Tensor // zero is nil where it is 2^(bits-1)
}

// readNBits reads a quantised product's attributes and checks its tensors.
func (f *finder) readNBits() error {
	h, n := f.h, f.h.product
	q, err := f.nbits(n)
	if err != nil {
		return err
	}
	h.nbits = q
	h.V, h.D, h.Compute, h.Quantized = q.v, q.d, q.scales.DType, true
	h.DType = map[int]DType{2: Uint2, 4: Uint4, 8: Uint8}[q.bits]
	h.Form = n.Op
	h.weight = &weight{base: q.levels, shared: f.ix.uses[n.Input(1)] > 1, out: q.scales.DType, ix: f.ix, rowsAreV: true}
	h.Tied = h.weight.shared
	if n.Input(4) != "" {
		return f.refuse("MatMulNBits %q orders its groups by %q, which is not supported", n.Name, n.Input(4))
	}
	if n.Input(5) != "" {
		return f.productBias(n.Input(5), 1)
	}
	return nil
}

func (f *finder) nbits(n *Node) (*nbits, error) {
	q := &nbits{
		v: int(n.Int("N", 0)), d: int(n.Int("K", 0)), bits: int(n.Int("bits", 4)), block: int(n.Int("block_size", 0)),
		levels: f.ix.constant(n.Input(1)), scales: f.ix.constant(n.Input(2)), zero: f.ix.constant(n.Input(3)),
	}
	const most = 1 << 24 // so that products of sizes don't overflow
	sane := q.v > 0 && q.v < most && q.d > 0 && q.d < most && q.block >= 16 && q.block < most && q.block&(q.block-1) == 0 &&
		(q.bits == 2 || q.bits == 4 || q.bits == 8)
	switch {
	case !sane:
		return nil, f.refuse("MatMulNBits %q has N %d, K %d, bits %d, block_size %d", n.Name, q.v, q.d, q.bits, q.block)
	case q.levels == nil || q.scales == nil || n.Input(3) != "" && q.zero == nil:
		return nil, f.refuse("no LM head: the matrix, scales or zero points of MatMulNBits %q are computed", n.Name)
	}
	return q, q.check()
}

// check compares the tensors' sizes with the attributes.
func (q *nbits) check() error {
	levels, err := q.levels.Bytes()
	if err != nil {
		return err
	}
	scales, err := q.scales.Elements()
	if err != nil {
		return err
	}
	rows := int64(q.v * q.blocks())
	if bytes := rows * int64(q.block*q.bits/8); int64(len(levels)) != bytes || scales != rows {
		return fmt.Errorf("onnx: MatMulNBits has %d bytes of levels and %d scales, want %d and %d",
			len(levels), scales, bytes, rows)
	}
	return nil
}

// blocks is the number of blocks in a row.
func (q *nbits) blocks() int { return (q.d + q.block - 1) / q.block }

// matrix returns (level - zero)·scale, [V,D].
func (q *nbits) matrix() ([]float32, error) {
	levels, err := q.levels.Bytes()
	if err != nil {
		return nil, err
	}
	scales, err := q.scales.floats()
	if err != nil {
		return nil, err
	}
	blocks, size := q.blocks(), q.block*q.bits/8
	zero, err := q.zeros()
	if err != nil {
		return nil, err
	}
	w := make([]float32, q.v*q.d)
	for v := range q.v {
		for d := range q.d {
			b := v*blocks + d/q.block
			level := unpack(levels[b*size:], d%q.block, q.bits)
			w[v*q.d+d] = (float32(level) - zero[b]) * scales[b]
		}
	}
	return w, nil
}

// zeros returns the zero point of each block: packed like the levels with each row
// starting at a byte, or of the type of the scales.
func (q *nbits) zeros() ([]float32, error) {
	blocks := q.blocks()
	zero := make([]float32, q.v*blocks)
	if q.zero == nil {
		for i := range zero {
			zero[i] = float32(int(1) << (q.bits - 1))
		}
		return zero, nil
	}
	if q.zero.DType.IsFloat() {
		z, err := q.zero.floats()
		if err == nil && len(z) != len(zero) {
			err = fmt.Errorf("onnx: MatMulNBits has %d zero points, want %d", len(z), len(zero))
		}
		return z, err
	}
	b, err := q.zero.Bytes()
	if err != nil {
		return nil, err
	}
	row := (blocks*q.bits + 7) / 8
	if len(b) != q.v*row {
		return nil, fmt.Errorf("onnx: MatMulNBits has %d bytes of zero points, want %d", len(b), q.v*row)
	}
	for i := range zero {
		zero[i] = float32(unpack(b[i/blocks*row:], i%blocks, q.bits))
	}
	return zero, nil
}

// unpack returns element i of levels packed low bits first.
func unpack(b []byte, i, bits int) byte {
	per := 8 / bits
	return b[i/per] >> (i % per * bits) & byte(1<<bits-1)
}
