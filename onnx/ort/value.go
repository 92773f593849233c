//go:build cgo

package ort

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// liveValues counts the values that exist; tests assert that it is 0 when they end.
var liveValues atomic.Int64

// values are the ONNX Runtime values of one function, which makes them, looks at
// err once, and destroys them all before it returns:
//
//	var vs values
//	defer vs.destroy()
type values struct {
	list []ortgo.Value
	err  error // the first value that could not be made
}

// tensor makes a value of that shape over data, which is used in place: for an
// input it must not change during a run, for an output it receives the result.
func (vs *values) tensor(dt onnx.DType, data []byte, shape ...int64) ortgo.Value {
	if want := elements(shape) * dt.Bits() / 8; int64(len(data)) < want {
		return vs.keep(nil, fmt.Errorf("ort: %s tensor %v over %d bytes, want %d", dt, shape, len(data), want))
	}
	if len(data) == 0 {
		data = make([]byte, 1) // an empty tensor needs an address all the same
	}
	v, err := ortgo.NewCustomDataTensor(shape, data, ortgo.TensorElementDataType(dt))
	if err != nil {
		err = fmt.Errorf("ort: %s tensor %v: %w", dt, shape, err)
	}
	return vs.keep(v, err)
}

// float32s makes a float32 value over data.
func (vs *values) float32s(data []float32, shape ...int64) ortgo.Value {
	return vs.tensor(onnx.Float32, bytesOf(data), shape...)
}

// scalar makes an integer without dimensions, which the bindings have a type of
// its own for.
func (vs *values) scalar(dt onnx.DType, n int64) ortgo.Value {
	var v ortgo.Value
	var err error
	if dt == onnx.Int32 {
		v, err = ortgo.NewScalar(int32(n))
	} else {
		v, err = ortgo.NewScalar(n)
	}
	if err != nil {
		err = fmt.Errorf("ort: scalar %d: %w", n, err)
	}
	return vs.keep(v, err)
}

// boolean makes a truth value without dimensions.
func (vs *values) boolean(x bool) ortgo.Value {
	v, err := ortgo.NewScalar(x)
	if err != nil {
		err = fmt.Errorf("ort: scalar %t: %w", x, err)
	}
	return vs.keep(v, err)
}

// matrix makes a [rows,cols] matrix of int64 or int32.
func (vs *values) matrix(dt onnx.DType, rows, cols int, at func(row, col int) int64) ortgo.Value {
	if dt == onnx.Int32 {
		return vs.tensor(dt, bytesOf(fill[int32](rows, cols, at)), int64(rows), int64(cols))
	}
	return vs.tensor(dt, bytesOf(fill[int64](rows, cols, at)), int64(rows), int64(cols))
}

func fill[T int32 | int64](rows, cols int, at func(row, col int) int64) []T {
	s := make([]T, 0, rows*cols)
	for r := range rows {
		for c := range cols {
			s = append(s, T(at(r, c)))
		}
	}
	return s
}

func (vs *values) keep(v ortgo.Value, err error) ortgo.Value {
	if err != nil {
		if vs.err == nil {
			vs.err = err
		}
		return nil
	}
	liveValues.Add(1)
	vs.list = append(vs.list, v)
	return v
}

// destroy frees every value made by vs.
func (vs *values) destroy() {
	for _, v := range vs.list {
		v.Destroy()
		liveValues.Add(-1)
	}
	vs.list = nil
}

// bytesOf views the memory of s as bytes. Tensors are little-endian, as every
// platform of ONNX Runtime is.
func bytesOf[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	var zero T
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(zero)))
}

func elements(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}

// grow returns s with length n, reallocated only when it is too small; the contents are
// whatever they were. A second allocation has a quarter to spare: the largest micro-batch
// of a run comes late, after many that were the largest so far, and memory that was grown
// out of is not free before the garbage is next collected.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, max(n, cap(s)+cap(s)/4))
	}
	return s[:n]
}
