package onnx

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"
)

// widen returns float elements as float32; float64 is rounded.
func widen(b []byte, dt DType) ([]float32, error) {
	le := binary.LittleEndian
	size := int(dt.Bits() / 8)
	if !dt.IsFloat() {
		return nil, fmt.Errorf("onnx: a %s tensor, want float32, float16, bfloat16 or float64", dt)
	}
	v := make([]float32, len(b)/size)
	for i := range v {
		switch e := b[i*size:]; dt {
		case Float32:
			v[i] = math.Float32frombits(le.Uint32(e))
		case Float16:
			v[i] = float16.Frombits(le.Uint16(e)).Float32()
		case BFloat16:
			v[i] = math.Float32frombits(uint32(le.Uint16(e)) << 16)
		case Float64:
			v[i] = float32(math.Float64frombits(le.Uint64(e)))
		}
	}
	return v, nil
}

// narrow returns v as little-endian elements of a float type, rounded to nearest even.
func narrow(v []float32, dt DType) []byte {
	le := binary.LittleEndian
	size := int(dt.Bits() / 8)
	b := make([]byte, size*len(v))
	for i, x := range v {
		switch e := b[i*size:]; dt {
		case Float32:
			le.PutUint32(e, math.Float32bits(x))
		case Float16:
			le.PutUint16(e, float16.Fromfloat32(x).Bits())
		case BFloat16:
			le.PutUint16(e, bfloat16(x))
		case Float64:
			le.PutUint64(e, math.Float64bits(float64(x)))
		}
	}
	return b
}

// bfloat16 rounds to nearest even; a NaN stays one.
func bfloat16(x float32) uint16 {
	bits := math.Float32bits(x)
	if x != x {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// round rounds v in place to the precision of dt.
func round(v []float32, dt DType) {
	for i, x := range v {
		switch dt {
		case Float16:
			v[i] = float16.Fromfloat32(x).Float32()
		case BFloat16:
			v[i] = math.Float32frombits(uint32(bfloat16(x)) << 16)
		}
	}
}

// floats returns the elements of a float tensor as float32.
func (t *Tensor) floats() ([]float32, error) {
	b, err := t.Bytes()
	if err != nil {
		return nil, err
	}
	v, err := widen(b, t.DType)
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	return v, nil
}

// transpose returns the [cols,rows] transpose of a row-major [rows,cols] matrix.
// It goes by blocks, so that both sides stay in the cache.
func transpose(m []float32, rows, cols int) []float32 {
	const block = 32
	out := make([]float32, len(m))
	for r0 := 0; r0 < rows; r0 += block {
		for c0 := 0; c0 < cols; c0 += block {
			for r := r0; r < min(r0+block, rows); r++ {
				for c := c0; c < min(c0+block, cols); c++ {
					out[c*rows+r] = m[r*cols+c]
				}
			}
		}
	}
	return out
}
