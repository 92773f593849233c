package onnxtest

import (
	"math"
	"testing"
)

// TestHandWorked: with all weights of the layers 0 a state is the normalised embedding.
// Embeddings (3,4,0,0) and (0,0,2,0) have mean squares 25/4 and 1, so the states
// are (1.2,1.6,0,0) and (0,0,2,0), and the tied logits 10, 0 and 0, 4.
func TestHandWorked(t *testing.T) {
	opt := Default()
	opt.V, opt.D, opt.FF, opt.Heads, opt.KVHeads = 2, 4, 4, 1, 1
	d := New(opt)
	copy(d.embed, []float32{3, 4, 0, 0, 0, 0, 2, 0})
	for _, l := range d.layers {
		for _, w := range [][]float32{l.q, l.k, l.v, l.o, l.gate, l.up, l.down} {
			clear(w)
		}
	}
	copy(d.norm, []float32{1, 1, 1, 1})
	const tolerance = 1e-4 // the epsilon of the norm, 1e-5 beside 1
	want := [][]float64{{10, 0}, {0, 4}}
	for i, z := range d.Logits([]int32{0, 1}) {
		for v := range z {
			if math.Abs(z[v]-want[i][v]) > tolerance {
				t.Errorf("logits are %v, want %v", z, want[i])
			}
		}
	}
	// log σ(-10) of the token that follows position 0.
	if got, want := d.Logps([]int32{0, 1}, 1)[0], -10-math.Log1p(math.Exp(-10)); math.Abs(got-want) > tolerance {
		t.Errorf("log-prob is %g, want %g", got, want)
	}
}

// TestCausal: what follows a position does not change it, and positions matter.
func TestCausal(t *testing.T) {
	d := New(Default())
	long, short := d.Logits([]int32{5, 9, 9, 2}), d.Logits([]int32{5, 9})
	for i := range short {
		for v := range short[i] {
			if long[i][v] != short[i][v] {
				t.Fatalf("position %d depends on what follows", i)
			}
		}
	}
	if long[1][0] == long[2][0] {
		t.Error("the same token at two positions has the same logits")
	}
}

// TestSeeded: the same options make the same file, other seeds another.
func TestSeeded(t *testing.T) {
	file := func(seed uint64) string {
		opt := Default()
		opt.Seed = seed
		b, err := New(opt).ONNX().Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first, again, other := file(1), file(1), file(2)
	if first != again || first == other {
		t.Error("the seed does not decide the weights")
	}
}
