package refcache

import (
	"math"
	"slices"
	"testing"

	"github.com/x448/float16"
)

func TestHalvesAreTheirDefinition(t *testing.T) {
	t.Parallel()
	table := halves()
	for bits := range 1 << 16 {
		sign, exp, frac := bits>>15, bits>>10&31, bits&1023
		var want float64
		switch {
		case exp == 31 && frac != 0:
			want = math.NaN()
		case exp == 31:
			want = math.Inf(1)
		case exp == 0:
			want = math.Ldexp(float64(frac), -24)
		default:
			want = math.Ldexp(float64(1024+frac), exp-25)
		}
		if sign == 1 {
			want = -want
		}
		got := table[bits]
		if float64(got) != want && !(math.IsNaN(want) && math.IsNaN(float64(got))) {
			t.Fatalf("half %#04x is %v, want %v", bits, got, want)
		}
		if lib := float16.Frombits(uint16(bits)).Float32(); lib != got && got == got {
			t.Fatalf("half %#04x is %v, the library says %v", bits, got, lib)
		}
	}
}

// bfloat16Value is what the bits of a bfloat16 mean, which float64 holds.
func bfloat16Value(bits uint16) float64 {
	exp, frac := int(bits>>7&255), int(bits&127)
	x := math.Ldexp(float64(128+frac), exp-134)
	switch {
	case exp == 255 && frac != 0:
		x = math.NaN()
	case exp == 255:
		x = math.Inf(1)
	case exp == 0:
		x = math.Ldexp(float64(frac), -133)
	}
	if bits>>15 == 1 {
		return -x
	}
	return x
}

func TestBfloat16IsItsDefinition(t *testing.T) {
	t.Parallel()
	for bits := range 1 << 16 {
		got, want := float64(fromBfloat16(uint16(bits))), bfloat16Value(uint16(bits))
		if math.Float64bits(got) != math.Float64bits(want) && !(math.IsNaN(want) && math.IsNaN(got)) {
			t.Fatalf("bfloat16 %#04x is %v, want %v", bits, got, want)
		}
		if back := fromBfloat16(bfloat16(float32(got))); back != float32(want) && !(math.IsNaN(want) && back != back) {
			t.Fatalf("bfloat16 %#04x goes to float32 and back as %v, want %v", bits, back, want)
		}
	}
	// A NaN whose payload lies in the lower half alone stays one.
	if x := fromBfloat16(bfloat16(math.Float32frombits(0x7f800001))); x == x {
		t.Errorf("NaN becomes %v", x)
	}
}

// TestRoundIsToNearestEven walks the midpoints between neighbouring values.
func TestRoundIsToNearestEven(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		dt    DType
		last  int // bits of the largest finite value
		value func(bits int) float32
	}{
		{F16, 0x7bff, func(bits int) float32 { return halves()[bits] }},
		{BF16, 0x7f7f, func(bits int) float32 { return float32(bfloat16Value(uint16(bits))) }},
	} {
		for bits := range c.last {
			low, high := c.value(bits), c.value(bits+1)
			middle := low + (high-low)/2 // exact in float32
			even := low
			if bits%2 == 1 {
				even = high
			}
			x := []float32{low, math.Nextafter32(middle, 0), middle, math.Nextafter32(middle, math.MaxFloat32), -middle}
			want := []float32{low, low, even, high, -even}
			if at := Round(x, c.dt); at >= 0 {
				t.Fatalf("%s: %v overflows", c.dt, x[at])
			}
			for i := range x {
				if x[i] != want[i] {
					t.Fatalf("%s: between %v and %v: case %d rounds to %v, want %v", c.dt, low, high, i, x[i], want[i])
				}
			}
		}
	}
}

func TestRoundReportsOverflow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		x    float32
		dt   DType
		over bool
	}{
		{65504, F16, false},
		{65519, F16, false},
		{65520, F16, true},
		{-1e6, F16, true},
		{1e38, F32, false},
		{1e38, BF16, false},
		{math.Float32frombits(0x7f7f7fff), BF16, false},
		{math.Float32frombits(0x7f7f8000), BF16, true}, // half way from the largest to 2^128
		{-math.MaxFloat32, BF16, true},
		{math.MaxFloat32, F32, false},
		{float32(math.Inf(1)), F32, true},
		{float32(math.NaN()), F32, true},
		{float32(math.NaN()), F16, true},
		{float32(math.NaN()), BF16, true},
	} {
		x := []float32{1, c.x, 1e9}
		want := map[bool]int{true: 1, false: -1}[c.over]
		if got := overflow(x[:2], c.dt); got != want {
			t.Errorf("overflow of %v as %s is %d, want %d", c.x, c.dt, got, want)
		}
		if got := Round(x[:2], c.dt); got != want {
			t.Errorf("rounding %v to %s gives %d, want %d", c.x, c.dt, got, want)
		}
		if c.over && x[1] != c.x && c.x == c.x {
			t.Errorf("%v, which %s can't hold, became %v", c.x, c.dt, x[1])
		}
	}
}

func TestParseDType(t *testing.T) {
	t.Parallel()
	for _, dt := range []DType{F16, BF16, F32, None} {
		if got, err := ParseDType(string(dt)); err != nil || got != dt {
			t.Errorf("%s reads as %v, %v", dt, got, err)
		}
	}
	if _, err := ParseDType("int8"); err == nil {
		t.Error("int8 is taken")
	}
}

func TestWiderHoldsTheValue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		x    float32
		want []DType
	}{
		{70000, []DType{BF16, F32}}, {-math.MaxFloat32, []DType{F32}}, {float32(math.NaN()), nil}, {float32(math.Inf(-1)), nil},
	} {
		if got := (&FeatureError{Value: c.x, DType: F16}).Wider(); !slices.Equal(got, c.want) {
			t.Errorf("%v is held by %v, want %v", c.x, got, c.want)
		}
	}
}
