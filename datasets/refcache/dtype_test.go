package refcache

import (
	"math"
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

// TestRoundIsToNearestEven walks the midpoints between neighbouring halves.
func TestRoundIsToNearestEven(t *testing.T) {
	t.Parallel()
	table := halves()
	for bits := 0; bits < 0x7bff; bits++ {
		low, high := table[bits], table[bits+1]
		middle := (low + high) / 2 // exact in float32
		even := low
		if bits%2 == 1 {
			even = high
		}
		x := []float32{low, math.Nextafter32(middle, 0), middle, math.Nextafter32(middle, 1e9), -middle}
		want := []float32{low, low, even, high, -even}
		if at := Round(x, F16); at >= 0 {
			t.Fatalf("%v overflows", x[at])
		}
		for i := range x {
			if x[i] != want[i] {
				t.Fatalf("between %v and %v: case %d rounds to %v, want %v", low, high, i, x[i], want[i])
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
		{float32(math.Inf(1)), F32, true},
		{float32(math.NaN()), F32, true},
		{float32(math.NaN()), F16, true},
	} {
		x := []float32{1, c.x, 1e9}
		want := map[bool]int{true: 1, false: -1}[c.over]
		if got := overflow(x[:2], c.dt); got != want {
			t.Errorf("overflow of %v as %s is %d, want %d", c.x, c.dt, got, want)
		}
		if got := Round(x[:2], c.dt); got != want {
			t.Errorf("rounding %v to %s gives %d, want %d", c.x, c.dt, got, want)
		}
	}
}

func TestParseDType(t *testing.T) {
	t.Parallel()
	for _, dt := range []DType{F16, F32} {
		if got, err := ParseDType(string(dt)); err != nil || got != dt {
			t.Errorf("%s reads as %v, %v", dt, got, err)
		}
	}
	if _, err := ParseDType("bf16"); err == nil {
		t.Error("bf16 is taken")
	}
}
