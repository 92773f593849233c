package enginetest

import (
	"math"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/loss"
	"github.com/dpo-pipe/dpo-pipe/models"
)

const (
	// headGradTol bounds the error of a head's gradient for weights near 1:
	// float32 logits through a loss whose slope is at most β.
	headGradTol = 3e-6
	// packingTol bounds how far micro-batching moves a gradient: float32 sums in another order.
	packingTol = 1e-6
)

// Pairs tests heads of every kind that train on preference pairs through the engine:
// gradients against central differences of a float64 computation, and what the theory says of
// the loss at the start, after one step, and at its minimum.
func Pairs(t *testing.T, open Open) {
	t.Run("Gradients", func(t *testing.T) { testHeadGradients(t, open) })
	t.Run("Packing", func(t *testing.T) { testPacking(t, open) })
	t.Run("Fresh", func(t *testing.T) { testFresh(t, open) })
	t.Run("OneStep", func(t *testing.T) { testOneStep(t, open) })
	t.Run("Minimum", func(t *testing.T) { testMinimum(t, open) })
}

func openToy(t *testing.T, open Open, y *toy) models.Engine {
	return start(t, open, &problem{voc: y.voc})
}

func testHeadGradients(t *testing.T, open Open) {
	y := randomToy(3, 11, 5, 1)
	e := openToy(t, open, y)
	ref := y.reference(t, e)
	for _, c := range headCases() {
		for _, spec := range []string{"sigmoid", "ipo", "hinge", "sigmoid,sft"} {
			t.Run(c.name+"/"+spec, func(t *testing.T) {
				o := mustParse(t, spec, loss.DefaultOptions())
				h := c.trained(y)
				_, got := y.pass(t, e, h, o, ref, 3)
				var params [][]float64
				for _, p := range h.Params() {
					params = append(params, widen(p.Value))
				}
				at := func() float64 {
					return y.naiveLoss(o, func(h []float32) []float64 { return c.naive(y, c.opts, params, widen(h)) })
				}
				want := at()
				if math.Abs(got-want) > 1e-5*(1+want) {
					t.Errorf("loss is %v, want %v", got, want)
				}
				for k, p := range h.Params() {
					checkPartials(t, p.Name, p.Grad, params[k], at, headGradTol*(1+want))
				}
			})
		}
	}
}

// checkPartials compares every entry of grad with a central difference.
func checkPartials(t *testing.T, name string, grad []float32, x []float64, at func() float64, tol float64) {
	t.Helper()
	const h = 1e-5
	for i := range x {
		was := x[i]
		x[i] = was + h
		up := at()
		x[i] = was - h
		want := (up - at()) / (2 * h)
		x[i] = was
		if !(math.Abs(float64(grad[i])-want) <= tol) {
			t.Errorf("%s: gradient %d is %v, want %v within %.2g", name, i, grad[i], want, tol)
		}
	}
}

func widen(x []float32) []float64 {
	wide := make([]float64, len(x))
	for i, v := range x {
		wide[i] = float64(v)
	}
	return wide
}

// testPacking checks that the gradient is that of the optimizer batch, whatever the micro-batches.
func testPacking(t *testing.T, open Open) {
	y := randomToy(7, 90, 12, 3)
	e := openToy(t, open, y)
	ref := y.reference(t, e)
	o := mustParse(t, "sigmoid", loss.DefaultOptions())
	for _, c := range headCases() {
		h := c.trained(y)
		var want [][]float32
		for _, micro := range []int{7, 1, 2, 3, 6} {
			_, _ = y.pass(t, e, h, o, ref, micro)
			for k, p := range h.Params() {
				if len(want) == k {
					want = append(want, append([]float32(nil), p.Grad...))
				}
				for i, g := range p.Grad {
					if d := float64(g) - float64(want[k][i]); math.Abs(d) > packingTol {
						t.Fatalf("%s, micro-batches of %d pairs: %s gradient %d is %v, want %v", c.name, micro, p.Name, i, g, want[k][i])
					}
				}
			}
		}
	}
}

// testFresh: a fresh head is the reference, so its log-ratios are 0 and its loss is ln 2.
func testFresh(t *testing.T, open Open) {
	for seed, c := range headCases() {
		y := randomToy(4, 200, 16, uint64(seed))
		e := openToy(t, open, y)
		h := c.fresh(y)
		got, batch := y.pass(t, e, h, mustParse(t, "sigmoid", loss.DefaultOptions()), y.reference(t, e), 4)
		for i := range y.pairs {
			c := got.pairs.PolicyChosen[i] - got.pairs.RefChosen[i]
			r := got.pairs.PolicyRejected[i] - got.pairs.RefRejected[i]
			if c != 0 || r != 0 {
				t.Errorf("pair %d: log-ratios of a fresh head are %v and %v, want 0", i, c, r)
			}
		}
		if batch != math.Ln2 {
			t.Errorf("loss of a fresh head is %v, want ln 2", batch)
		}
		if got.means.RewardsAccuracies != 0 {
			t.Errorf("accuracy of a fresh head is %v, want 0: a tie is no preference", got.means.RewardsAccuracies)
		}
		if got.means.KL > roundoff {
			t.Errorf("KL of a fresh head is %v, want 0", got.means.KL)
		}
	}
}

// testOneStep: one step on a pair raises the chosen and lowers the rejected
// log-prob relative to the reference.
func testOneStep(t *testing.T, open Open) {
	o := mustParse(t, "sigmoid", loss.DefaultOptions())
	for seed := range uint64(12) {
		y := randomToy(1, 50, 32, seed)
		e := openToy(t, open, y)
		ref := y.reference(t, e)
		cases := headCases()
		h := cases[int(seed)%len(cases)].fresh(y)
		_, _ = y.pass(t, e, h, o, ref, 1)
		models.NewAdamW(h.Params()).Step(1e-3)
		after, batch := y.pass(t, e, h, o, ref, 1)
		c := after.pairs.PolicyChosen[0] - after.pairs.RefChosen[0]
		r := after.pairs.PolicyRejected[0] - after.pairs.RefRejected[0]
		if !(c > 0 && r < 0 && batch < math.Ln2) {
			t.Errorf("seed %d: after one step log-ratios are %v and %v, loss %v; want above 0, below 0, below ln 2", seed, c, r, batch)
		}
	}
}

// testMinimum: on random logits the loss is least where the policy favours the
// chosen. Down the gradient it falls and the margin grows, up the gradient the opposite, and
// training ends with every pair ordered.
func testMinimum(t *testing.T, open Open) {
	y := randomToy(6, 40, 24, 2)
	e := openToy(t, open, y)
	ref := y.reference(t, e)
	o := mustParse(t, "sigmoid", loss.DefaultOptions())
	h := models.NewLoRA(24, 40, 8, 16, 1)
	_, _ = y.pass(t, e, h, o, ref, 6)
	down := append([]float32(nil), h.Params()[1].Grad...)
	lastLoss, lastMargin := math.Inf(1), math.Inf(-1)
	for _, step := range []float32{-4, -2, -1, 0, 1, 2, 4} {
		for i, g := range down {
			h.B[i] = -step * g
		}
		got, batch := y.pass(t, e, h, o, ref, 6)
		if batch >= lastLoss || got.means.RewardsMargins <= lastMargin {
			t.Errorf("step %v: loss %v, margin %v, after %v and %v", step, batch, got.means.RewardsMargins, lastLoss, lastMargin)
		}
		lastLoss, lastMargin = batch, got.means.RewardsMargins
	}
	clear(h.B)
	opt := models.NewAdamW(h.Params())
	opt.WeightDecay = 0
	for range 60 {
		_, _ = y.pass(t, e, h, o, ref, 6)
		opt.Step(0.05)
	}
	got, batch := y.pass(t, e, h, o, ref, 6)
	if batch > 0.1 || got.means.RewardsAccuracies != 1 {
		t.Errorf("after 60 steps the loss is %v and the accuracy %v, want below 0.1 and 1", batch, got.means.RewardsAccuracies)
	}
}
