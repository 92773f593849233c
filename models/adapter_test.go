package models

import (
	"math"
	"testing"
)

// TestGelu has values of x Φ(x) from tables of the normal distribution: Φ(1) = 0.8413447461,
// Φ(2) = 0.9772498681, Φ(-3) = 0.0013498980.
func TestGelu(t *testing.T) {
	for x, want := range map[float64]float64{0: 0, 1: 0.8413447461, 2: 1.9544997361, -1: -0.1586552539, -3: -0.0040496941} {
		if got := gelu(x); math.Abs(got-want) > 1e-9 {
			t.Errorf("gelu(%v) is %v, want %v", x, got, want)
		}
	}
	for _, x := range []float64{-40, -3, -0.5, 0, 0.1, 2, 40} {
		const h = 1e-5
		if got, want := geluSlope(x), (gelu(x+h)-gelu(x-h))/(2*h); math.Abs(got-want) > 1e-8 {
			t.Errorf("slope of gelu at %v is %v, want %v", x, got, want)
		}
	}
}

// TestAdapterOnAnotherEngine: one head scored on two frozen heads in turn multiplies each
// time with the one it is on.
func TestAdapterOnAnotherEngine(t *testing.T) {
	one := &Vocabulary{V: 2, D: 1, Scale: 1, Weight: []float32{1, -1}}
	two := &Vocabulary{V: 2, D: 1, Scale: 1, Weight: []float32{3, -3}}
	h := NewAdapter(1, 1, 1, 1)
	h.A[0], h.U[0] = 1, 1
	rows := Rows{N: 1, Hidden: []float32{1}, Targets: []int32{0}}
	for _, v := range []*Vocabulary{one, two, one} {
		var out Tokens
		if err := Score(t.Context(), NewGonum(v), h, rows, &out); err != nil {
			t.Fatal(err)
		}
		// h' = 1 + gelu(1); the two logits are ±w h'.
		want := -math.Log1p(math.Exp(-2 * float64(v.Weight[0]) * 1.8413447461))
		if math.Abs(out.Logps[0]-want) > 1e-6 {
			t.Errorf("W = ±%v: log-prob is %v, want %v", v.Weight[0], out.Logps[0], want)
		}
	}
}
