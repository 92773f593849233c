package enginetest

import (
	"math"
	"slices"
	"testing"
)

// testExtremes has logits of ±1e4, whose exponentials don't exist in any float.
func testExtremes(t *testing.T, open Open) {
	for _, v := range []int{2, 65, 700} {
		p := random(shape{n: 4, v: v, d: 1, r: 1, c: true}, 5)
		for i := range p.voc.Weight {
			p.voc.Weight[i] = float32(1 - 2*(i%2))
		}
		copy(p.rows.Hidden, []float32{1e4, -1e4, 5e3, 0})
		copy(p.rows.Targets, []int32{0, 0, 1, 1})
		for i, lp := range p.solve().frozenLSE {
			p.rows.RefLogps[i] = float32(lp)
		}
		e := start(t, open, p)
		compare(t, forward(t, e, p), p.solve())
		g := p.zeroGrad()
		backward(t, e, p, g)
		for _, x := range slices.Concat(g.U, g.B, g.C) {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				t.Fatalf("V=%d: logits of ±1e4 give gradient %v", v, x)
			}
		}
	}

	// Logits that lie 0 to 120 below the greatest: fast exponentials break near -88 and -104.
	p := random(shape{n: 1, v: 3001, d: 1, c: true}, 6)
	for i := range p.voc.Weight {
		p.voc.Weight[i] = float32(-i) / 25
	}
	p.rows.Hidden[0] = 1
	clear(p.add.C)
	e := start(t, open, p)
	want := p.solve()
	for i, lp := range want.frozenLSE {
		p.rows.RefLogps[i] = float32(lp)
	}
	compare(t, forward(t, e, p), want)
	g := p.zeroGrad()
	backward(t, e, p, g)
	for v, x := range g.C {
		softmax := math.Exp(float64(p.voc.Weight[v]) - want.lse[0])
		if v != int(p.rows.Targets[0]) && !(math.Abs(float64(x)+p.coef[0]*softmax) <= gradRoundoff) {
			t.Fatalf("token %d, %v below the greatest logit: ∂L/∂C is %v, want %v", v, p.voc.Weight[v], x, -p.coef[0]*softmax)
		}
	}
}

// testTies has all logits equal, or the greatest one twice: the lowest id wins.
func testTies(t *testing.T, open Open) {
	p := random(shape{n: 2, v: 130, d: 1}, 5)
	clear(p.voc.Weight)
	p.voc.Weight[70], p.voc.Weight[129] = 1, 1
	copy(p.rows.Hidden, []float32{2, 0})
	e := start(t, open, p)
	got := forward(t, e, p)
	if got.Top[0] != 70 || got.Top[1] != 0 {
		t.Errorf("most probable tokens are %v, want [70 0]: the lowest id of a tie", got.Top)
	}
	if want := math.Log(130); math.Abs(got.Entropy[1]-want) > roundoff {
		t.Errorf("entropy of equal logits is %v, want log 130 = %v", got.Entropy[1], want)
	}
}
