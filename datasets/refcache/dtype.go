package refcache

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/x448/float16"
)

// A DType is how features are stored. Its text is part of the format and never changes.
type DType string

const (
	// F16 is IEEE half precision: 2 bytes, 11 significant bits, at most 65504.
	F16 DType = "f16"
	// F32 is IEEE single precision.
	F32 DType = "f32"
)

// ParseDType reads f16 or f32.
func ParseDType(name string) (DType, error) {
	if dt := DType(name); dt == F16 || dt == F32 {
		return dt, nil
	}
	return "", fmt.Errorf("refcache: feature dtype is %q, want f16 or f32", name)
}

// Size returns the bytes of one value.
func (dt DType) Size() int {
	if dt == F16 {
		return 2
	}
	return 4
}

// arrow returns the Arrow type of one value.
func (dt DType) arrow() arrow.DataType {
	if dt == F16 {
		return arrow.FixedWidthTypes.Float16
	}
	return arrow.PrimitiveTypes.Float32
}

// halves maps the bits of every half to its value. Arrow's own conversions lose
// subnormals, and a table is also the fastest.
var halves = sync.OnceValue(func() *[1 << 16]float32 {
	var table [1 << 16]float32
	for bits := range table {
		table[bits] = float16.Frombits(uint16(bits)).Float32()
	}
	return &table
})

// Round rounds every value of dst, in place, to the nearest the dtype can hold, ties to
// even. It returns the index of the first value that is then not finite, or -1.
//
// The reference's log-probs must be taken from rounded features, so that training, which
// sees only those, starts at a log-ratio of 0.
func Round(dst []float32, dt DType) (overflow int) {
	overflow = -1
	table := halves()
	for i, x := range dst {
		if dt == F16 {
			x = table[float16.Fromfloat32(x)]
			dst[i] = x
		}
		if overflow < 0 && !finite(x) {
			overflow = i
		}
	}
	return overflow
}

// overflow returns the index of the first value that is not finite once stored, or -1.
func overflow(src []float32, dt DType) int {
	for i, x := range src {
		// 65520 is the smallest that rounds to infinity.
		if !finite(x) || (dt == F16 && math.Abs(float64(x)) >= 65520) {
			return i
		}
	}
	return -1
}

// appendValues appends the stored bytes of src, little-endian, to dst.
func (dt DType) appendValues(dst []byte, src []float32) []byte {
	for _, x := range src {
		if dt == F16 {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(float16.Fromfloat32(x)))
		} else {
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(x))
		}
	}
	return dst
}

// values decodes stored bytes into dst, which it resizes.
func (dt DType) values(dst []float32, raw []byte) []float32 {
	n := len(raw) / dt.Size()
	dst = resize(dst, n)
	if dt == F16 {
		table := halves()
		for i := range dst {
			dst[i] = table[binary.LittleEndian.Uint16(raw[2*i:])]
		}
		return dst
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return dst
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
