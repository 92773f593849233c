//go:build cgo

package ort

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/x448/float16"
)

// floats is memory for a tensor of a declared floating type, read as float32.
type floats struct {
	dtype onnx.DType
	data  []byte
}

// resize makes room for n elements, of unspecified content, and returns the bytes.
func (f *floats) resize(n int64) []byte {
	f.data = grow(f.data, int(n*f.dtype.Bits()/8))
	return f.data
}

// read converts the elements from offset on into dst.
func (f *floats) read(dst []float32, offset int) {
	switch f.dtype {
	case onnx.Float16:
		for i, x := range viewAs[uint16](f.data)[offset : offset+len(dst)] {
			dst[i] = float16.Frombits(x).Float32()
		}
	case onnx.BFloat16:
		for i, x := range viewAs[uint16](f.data)[offset : offset+len(dst)] {
			dst[i] = math.Float32frombits(uint32(x) << 16)
		}
	case onnx.Float64:
		for i, x := range viewAs[float64](f.data)[offset : offset+len(dst)] {
			dst[i] = float32(x)
		}
	default:
		copy(dst, viewAs[float32](f.data)[offset:])
	}
}

// viewAs views bytes as numbers. Go aligns byte slices of 8 and more to 8.
func viewAs[T any](b []byte) []T {
	var zero T
	n := len(b) / int(unsafe.Sizeof(zero))
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n)
}

// NonFiniteError is a hidden state or a row of logits that holds NaN or an
// infinity, as a float16 model that overflows gives.
type NonFiniteError struct {
	// What is "hidden state" or "logits".
	What string
	// Sequence and Position say where in the batch, Value what stands there.
	Sequence, Position int
	Value              float32
}

// Error says where the value is.
func (e *NonFiniteError) Error() string {
	return fmt.Sprintf("ort: sequence %d position %d: %s holds %v, want finite numbers", e.Sequence, e.Position, e.What, e.Value)
}

// firstNonFinite returns the first NaN or infinity of row and whether there is one.
func firstNonFinite(row []float32) (float32, bool) {
	for _, x := range row {
		if x-x != 0 {
			return x, true
		}
	}
	return 0, false
}
