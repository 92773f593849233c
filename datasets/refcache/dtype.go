package refcache

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/x448/float16"
)

// A DType is how features are stored. Its text is part of the format and never changes.
type DType string

const (
	// F16 is IEEE half precision: 2 bytes, 11 significant bits, at most 65504.
	F16 DType = "f16"
	// BF16 is the upper half of F32: 2 bytes, 8 significant bits, at most 3.39e38.
	BF16 DType = "bf16"
	// F32 is IEEE single precision.
	F32 DType = "f32"
	// None stores no features: who needs them runs the model again. Reference log-probs are
	// of those that it gives, as under F32.
	None DType = "none"
)

// DTypeNames lists the dtypes, for messages and help.
const DTypeNames = "f16, bf16, f32 or none"

// ParseDType reads one of DTypeNames.
func ParseDType(name string) (DType, error) {
	switch dt := DType(name); dt {
	case F16, BF16, F32, None:
		return dt, nil
	}
	return "", fmt.Errorf("refcache: feature dtype is %q, want %s", name, DTypeNames)
}

// Size returns the bytes of one value, 0 where none are stored.
func (dt DType) Size() int {
	switch dt {
	case F16, BF16:
		return 2
	case F32:
		return 4
	}
	return 0
}

// arrow returns the Arrow type of one value. Arrow has none for bfloat16: its bits are
// stored, and the metadata of the column says what they are.
func (dt DType) arrow() arrow.DataType {
	switch dt {
	case F16:
		return arrow.FixedWidthTypes.Float16
	case BF16:
		return arrow.PrimitiveTypes.Uint16
	}
	return arrow.PrimitiveTypes.Float32
}

// metadata names values that the Arrow type does not.
func (dt DType) metadata() arrow.Metadata {
	if dt == BF16 {
		return arrow.NewMetadata([]string{"dtype"}, []string{"bfloat16"})
	}
	return arrow.Metadata{}
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

// bfloat16 returns the bits of the bfloat16 nearest to x, ties to even.
func bfloat16(x float32) uint16 {
	bits := math.Float32bits(x)
	if x != x {
		return uint16(bits>>16) | 1<<6 // the sum below could carry into the exponent
	}
	return uint16((bits + 1<<15 - 1 + bits>>16&1) >> 16)
}

func fromBfloat16(bits uint16) float32 { return math.Float32frombits(uint32(bits) << 16) }

// nearest returns what is stored of x: the nearest value, ties to even, infinite where x is
// too large.
func (dt DType) nearest(x float32) float32 {
	switch dt {
	case F16:
		return halves()[float16.Fromfloat32(x)]
	case BF16:
		return fromBfloat16(bfloat16(x))
	}
	return x
}

// Round rounds every value of dst, in place, to the nearest the dtype can hold, ties to
// even. It returns the index of the first value that the dtype can't hold, or -1; those
// stay as they are.
//
// The reference's log-probs must be taken from rounded features, so that training, which
// sees only those, starts at a log-ratio of 0.
func Round(dst []float32, dt DType) (overflow int) {
	overflow = -1
	for i, x := range dst {
		if y := dt.nearest(x); finite(y) {
			dst[i] = y
		} else if overflow < 0 {
			overflow = i
		}
	}
	return overflow
}

// overflow returns the index of the first value that is not finite once stored, or -1.
func overflow(src []float32, dt DType) int {
	return slices.IndexFunc(src, func(x float32) bool { return !finite(dt.nearest(x)) })
}

// appendValues appends the stored bytes of src, little-endian, to dst.
func (dt DType) appendValues(dst []byte, src []float32) []byte {
	for _, x := range src {
		switch dt {
		case F16:
			dst = binary.LittleEndian.AppendUint16(dst, uint16(float16.Fromfloat32(x)))
		case BF16:
			dst = binary.LittleEndian.AppendUint16(dst, bfloat16(x))
		default:
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(x))
		}
	}
	return dst
}

// values decodes stored bytes into dst, which it resizes.
func (dt DType) values(dst []float32, raw []byte) []float32 {
	dst = resize(dst, len(raw)/dt.Size())
	switch dt {
	case F16:
		table := halves()
		for i := range dst {
			dst[i] = table[binary.LittleEndian.Uint16(raw[2*i:])]
		}
	case BF16:
		for i := range dst {
			dst[i] = fromBfloat16(binary.LittleEndian.Uint16(raw[2*i:]))
		}
	default:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	}
	return dst
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
