package enginetest

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
)

// testRows checks that a row's results do not depend on its neighbours.
func testRows(t *testing.T, open Open) {
	p := random(shape{n: 67, v: 300, d: 16, r: 4, c: true}, 21)
	e := start(t, open, p)
	together := forward(t, e, p)
	tol := roundoff * (1 + p.solve().limit)
	for _, i := range []int{0, 1, 63, 64, 66} {
		alone := *p
		alone.rows = models.Rows{
			N: 1, Hidden: p.rows.Hidden[i*p.voc.D : (i+1)*p.voc.D],
			Targets: p.rows.Targets[i : i+1], RefLogps: p.rows.RefLogps[i : i+1],
		}
		alone.add.U = p.add.U[i*p.add.R : (i+1)*p.add.R]
		got := forward(t, e, &alone)
		near(t, "log-prob alone", got.Logps, together.Logps[i:i+1], tol)
		near(t, "KL alone", got.KL, together.KL[i:i+1], tol)
	}
	// In a batch of the same shape, not a bit may change.
	for d := range p.voc.D {
		p.rows.Hidden[5*p.voc.D+d] += 3
	}
	changed := forward(t, e, p)
	for i := range changed.Logps {
		if same := changed.Logps[i] == together.Logps[i]; same != (i != 5) {
			t.Errorf("row %d: log-prob went from %v to %v as row 5 changed", i, together.Logps[i], changed.Logps[i])
		}
	}
}

// testNaN checks that a hidden state that is not a number is seen, in its own row only.
func testNaN(t *testing.T, open Open) {
	p := random(shape{n: 3, v: 300, d: 4, r: 2}, 9)
	e := start(t, open, p)
	p.rows.Hidden[1*4+2] = float32(math.NaN())
	got := forward(t, e, p)
	for i, lp := range got.Logps {
		if math.IsNaN(lp) != (i == 1) {
			t.Errorf("row %d: log-prob is %v; only row 1 has NaN as hidden state", i, lp)
		}
	}
	// A single NaN among many logits must not drown either.
	p = random(shape{n: 2, v: 300, d: 4}, 9)
	e = start(t, open, p)
	p.rows.Hidden = []float32{1, 1, 1, 1, 0, 0, 0, 0}
	p.add.C = make([]float32, p.voc.V)
	p.add.C[157] = float32(math.NaN())
	for i, lp := range forward(t, e, p).Logps {
		if !math.IsNaN(lp) {
			t.Errorf("row %d: log-prob is %v beside a NaN logit", i, lp)
		}
	}
}

func testTargets(t *testing.T, open Open) {
	p := random(shape{n: 3, v: 10, d: 2, r: 1}, 2)
	e := start(t, open, p)
	want := p.solve()
	for _, bad := range []int32{-1, 10, math.MaxInt32, math.MinInt32} {
		good := p.rows.Targets[2]
		p.rows.Targets[2] = bad
		var out models.Tokens
		err := models.Forward(context.Background(), e, p.rows, p.add, &out)
		var target *models.TargetError
		if !errors.As(err, &target) || target.Row != 2 || target.Target != bad || target.V != 10 {
			t.Errorf("target %d: error is %v, want a TargetError for row 2", bad, err)
		}
		p.rows.Targets[2] = good
	}
	compare(t, forward(t, e, p), want)
}

// testDeterminism runs the same work twice in one engine, with other work
// between, and once in a second engine: not a bit may differ.
func testDeterminism(t *testing.T, open Open) {
	p := random(shape{n: 100, v: 1300, d: 24, r: 5, c: true, bias: true, limit: 9}, 4)
	work := func(e models.Engine) (models.Tokens, models.AdditionGrad) {
		out := forward(t, e, p)
		g := p.zeroGrad()
		backward(t, e, p, g)
		return out, g
	}
	first := start(t, open, p)
	out1, g1 := work(first)
	other := random(shape{n: 9, v: 1300, d: 24, r: 2}, 8)
	other.voc = p.voc
	forward(t, first, other)
	out2, g2 := work(first)
	out3, g3 := work(start(t, open, p))
	for name, same := range map[string]bool{
		"log-probs, again":        slices.Equal(out1.Logps, out2.Logps),
		"log-probs, other engine": slices.Equal(out1.Logps, out3.Logps),
		"KL, again":               slices.Equal(out1.KL, out2.KL),
		"entropy, other engine":   slices.Equal(out1.Entropy, out3.Entropy),
		"∂L/∂U, again":            slices.Equal(g1.U, g2.U),
		"∂L/∂B, again":            slices.Equal(g1.B, g2.B),
		"∂L/∂B, other engine":     slices.Equal(g1.B, g3.B),
		"∂L/∂C, other engine":     slices.Equal(g1.C, g3.C),
	} {
		if !same {
			t.Errorf("%s: two runs differ", name)
		}
	}
}

func testCancel(t *testing.T, open Open) {
	p := random(shape{n: 3, v: 10, d: 2, r: 1}, 2)
	e := start(t, open, p)
	cause := errors.New("stop asked for")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	var out models.Tokens
	if err := models.Forward(ctx, e, p.rows, p.add, &out); !errors.Is(err, cause) {
		t.Errorf("cancelled forward returns %v, want the cause", err)
	}
	forward(t, e, p)
	if err := e.Backward(ctx, p.coef, p.zeroGrad()); !errors.Is(err, cause) {
		t.Errorf("cancelled backward returns %v, want the cause", err)
	}
	compare(t, forward(t, e, p), p.solve())
}
