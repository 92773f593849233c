package enginetest

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
)

// Open makes an engine for a frozen head; the test closes it.
type Open = func(*models.Vocabulary) (models.Engine, error)

const (
	// roundoff bounds the error of float32 logits and of the sums over them,
	// relative to the greatest logit; observed errors are ten times smaller.
	roundoff = 4e-6
	// gradRoundoff is the same for a gradient, relative to Σ |coef|, which adds
	// the truncation error of central differences.
	gradRoundoff = 2e-5
)

// Run tests an engine: values, gradients, boundaries of shapes, extremes, errors, and
// that nothing depends on chance.
func Run(t *testing.T, open Open) {
	t.Run("Values", func(t *testing.T) { testValues(t, open) })
	t.Run("Gradients", func(t *testing.T) { testGradients(t, open) })
	t.Run("Accumulates", func(t *testing.T) { testAccumulates(t, open) })
	t.Run("Extremes", func(t *testing.T) { testExtremes(t, open) })
	t.Run("Ties", func(t *testing.T) { testTies(t, open) })
	t.Run("Shared", func(t *testing.T) { testShared(t, open) })
	t.Run("Project", func(t *testing.T) { testProject(t, open) })
	t.Run("Rows", func(t *testing.T) { testRows(t, open) })
	t.Run("NaN", func(t *testing.T) { testNaN(t, open) })
	t.Run("Targets", func(t *testing.T) { testTargets(t, open) })
	t.Run("Determinism", func(t *testing.T) { testDeterminism(t, open) })
	t.Run("Cancel", func(t *testing.T) { testCancel(t, open) })
}

// shapes are the problems that values and gradients are compared on: every part
// alone and together, and every size at 1, 2, 3 and around the multiples engines tile by.
var shapes = map[string]shape{
	"frozen":          {n: 3, v: 50, d: 8},
	"frozen bias":     {n: 3, v: 50, d: 8, bias: true},
	"frozen scale":    {n: 3, v: 50, d: 8, scale: 0.25},
	"frozen affine":   {n: 3, v: 50, d: 8, bias: true, scale: 0.5},
	"frozen softcap":  {n: 3, v: 50, d: 8, limit: 2.5},
	"low rank":        {n: 4, v: 50, d: 8, r: 3},
	"constant":        {n: 4, v: 50, d: 8, c: true},
	"low rank, const": {n: 4, v: 50, d: 8, r: 3, c: true},
	"scale":           {n: 4, v: 50, d: 8, r: 3, c: true, scale: 3},
	"softcap":         {n: 4, v: 50, d: 8, r: 3, c: true, limit: 3},
	"everything":      {n: 4, v: 50, d: 8, r: 3, c: true, bias: true, scale: 0.5, limit: 2},
	"n=1":             {n: 1, v: 33, d: 5, r: 2},
	"n=2":             {n: 2, v: 33, d: 5, r: 2},
	"n=63":            {n: 63, v: 33, d: 5, r: 2},
	"n=64":            {n: 64, v: 33, d: 5, r: 2},
	"n=65":            {n: 65, v: 33, d: 5, r: 2},
	"v=1":             {n: 2, v: 1, d: 3, r: 2},
	"v=2":             {n: 2, v: 2, d: 3, r: 2},
	"v=3":             {n: 2, v: 3, d: 3, r: 2, c: true},
	"v=63":            {n: 2, v: 63, d: 3, r: 2, c: true},
	"v=64":            {n: 2, v: 64, d: 3, r: 2, c: true},
	"v=65":            {n: 2, v: 65, d: 3, r: 2, c: true},
	"v=1023":          {n: 3, v: 1023, d: 4, r: 2, bias: true},
	"v=1025":          {n: 3, v: 1025, d: 4, r: 2, c: true, limit: 4},
	"v=9001":          {n: 2, v: 9001, d: 2, r: 1},
	"d=1":             {n: 3, v: 20, d: 1, r: 1},
	"d=129":           {n: 3, v: 20, d: 129, r: 1, bias: true},
	"r=1":             {n: 3, v: 20, d: 6, r: 1},
	"r=d":             {n: 3, v: 20, d: 6, r: 6},
	"r>d":             {n: 3, v: 20, d: 6, r: 17},
	"r=70":            {n: 66, v: 130, d: 6, r: 70},
	"large":           {n: 70, v: 300, d: 16, r: 8, c: true, bias: true, scale: 0.7, limit: 20},
}

// each runs a sub-test per shape, in the order of the names.
func each(t *testing.T, open Open, test func(t *testing.T, e models.Engine, p *problem)) {
	var names []string
	for name := range shapes {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			p := random(shapes[name], uint64(i))
			test(t, start(t, open, p), p)
		})
	}
}

func start(t *testing.T, open Open, p *problem) models.Engine {
	t.Helper()
	e, err := open(&p.voc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if e.Vocabulary() != &p.voc || e.Name() == "" {
		t.Errorf("engine %q does not return the vocabulary it was opened with", e.Name())
	}
	return e
}

func forward(t *testing.T, e models.Engine, p *problem) models.Tokens {
	t.Helper()
	var out models.Tokens
	if err := models.Forward(context.Background(), e, p.rows, p.add, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// compare checks every result of a forward pass against the float64 computation.
func compare(t *testing.T, got models.Tokens, want truth) {
	t.Helper()
	tol := roundoff * (1 + want.limit)
	near(t, "log-probs", got.Logps, want.Logps, tol)
	near(t, "entropy", got.Entropy, want.Entropy, 2*tol)
	near(t, "KL", got.KL, want.KL, 2*tol)
	near(t, "log Σ π²", got.LogSumSq, want.LogSumSq, 3*tol)
	if !slices.Equal(got.Top, want.Top) {
		t.Errorf("most probable tokens are %v, want %v", got.Top, want.Top)
	}
}

func near(t *testing.T, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range want {
		if !(math.Abs(got[i]-want[i]) <= tol) {
			t.Errorf("%s: row %d is %v, want %v within %.2g", what, i, got[i], want[i], tol)
			return
		}
	}
}

func testValues(t *testing.T, open Open) {
	each(t, open, func(t *testing.T, e models.Engine, p *problem) {
		want := p.solve()
		compare(t, forward(t, e, p), want)
		// The reference itself is scored without reference log-probs: no KL.
		p.rows.RefLogps = nil
		want.KL = nil
		compare(t, forward(t, e, p), want)
	})
	t.Run("n=0", func(t *testing.T) {
		p := random(shape{n: 1, v: 9, d: 2, r: 1}, 1)
		e := start(t, open, p)
		full := p.rows
		p.rows, p.add.U = models.Rows{}, []float32{}
		if out := forward(t, e, p); len(out.Logps) != 0 {
			t.Errorf("no rows have %d log-probs", len(out.Logps))
		}
		if err := e.Backward(context.Background(), nil, p.zeroGrad()); err != nil {
			t.Error(err)
		}
		p.rows, p.add.U = full, []float32{0.5}
		compare(t, forward(t, e, p), p.solve())
	})
}

// zeroGrad returns room for every gradient the problem has.
func (p *problem) zeroGrad() models.AdditionGrad {
	var g models.AdditionGrad
	if p.add.B != nil {
		g.U = make([]float32, len(p.add.U))
		g.B = make([]float32, len(p.add.B))
	}
	if p.add.C != nil {
		g.C = make([]float32, len(p.add.C))
	}
	return g
}

func backward(t *testing.T, e models.Engine, p *problem, g models.AdditionGrad) {
	t.Helper()
	if err := e.Backward(context.Background(), p.coef, g); err != nil {
		t.Fatal(err)
	}
}

func testGradients(t *testing.T, open Open) {
	each(t, open, func(t *testing.T, e models.Engine, p *problem) {
		if p.add.B == nil && p.add.C == nil {
			t.Skip("nothing is added to this head")
		}
		var size float64
		for _, c := range p.coef {
			size += math.Abs(c)
		}
		forward(t, e, p)
		g := p.zeroGrad()
		backward(t, e, p, g)
		p.checkSlopes(t, "∂L/∂U", p.add.U, g.U, size)
		p.checkSlopes(t, "∂L/∂B", p.add.B, g.B, size)
		p.checkSlopes(t, "∂L/∂C", p.add.C, g.C, size)

		// Rows without a coefficient, a whole block of them too, leave the others' gradient.
		for i := range p.coef {
			if i%8 < 4 || i%3 == 0 {
				p.coef[i] = 0
			}
		}
		g = p.zeroGrad()
		backward(t, e, p, g)
		p.checkSlopes(t, "∂L/∂B of some rows", p.add.B, g.B, size)
		p.checkSlopes(t, "∂L/∂C of some rows", p.add.C, g.C, size)
		for i, du := range g.U {
			if p.coef[i/p.add.R] == 0 && du != 0 {
				t.Fatalf("∂L/∂U of row %d is %v, want 0: it has no coefficient", i/p.add.R, du)
			}
		}
	})
}

// checkSlopes compares gradient g with the slope along single coordinates, and
// along a few directions that have all coordinates in them.
func (p *problem) checkSlopes(t *testing.T, what string, x, g []float32, size float64) {
	t.Helper()
	if len(x) == 0 {
		return
	}
	rng := rand.New(rand.NewPCG(3, uint64(len(x))))
	dir := make([]float32, len(x))
	check := func(where string, length float64) {
		t.Helper()
		var got float64
		for i, d := range dir {
			got += float64(d) * float64(g[i])
		}
		want := p.slope(x, dir)
		if tol := gradRoundoff * size * length * float64(p.voc.Scale+1); !(math.Abs(got-want) <= tol) {
			t.Errorf("%s along %s is %v, want %v within %.2g", what, where, got, want, tol)
		}
	}
	for range 6 {
		k := rng.IntN(len(x))
		clear(dir)
		dir[k] = 1
		check("one coordinate", 1)
	}
	for i := range dir {
		dir[i] = float32(rng.IntN(3)-1) / 8
	}
	check("a random direction", 1)
}

func testAccumulates(t *testing.T, open Open) {
	p := random(shape{n: 5, v: 70, d: 4, r: 2, c: true}, 11)
	e := start(t, open, p)
	forward(t, e, p)
	once, twice := p.zeroGrad(), p.zeroGrad()
	backward(t, e, p, once)
	for i := range twice.U {
		twice.U[i] = 99 // overwritten, whatever was there
	}
	backward(t, e, p, twice)
	backward(t, e, p, twice)
	for i, x := range once.U {
		if twice.U[i] != x {
			t.Errorf("∂L/∂U[%d] is %v after a second backward, want %v: it is not a sum", i, twice.U[i], x)
		}
	}
	doubled := func(name string, one, two []float32) {
		for i, x := range one {
			if two[i] != 2*x {
				t.Errorf("%s[%d] is %v after a second backward, want twice %v", name, i, two[i], x)
			}
		}
	}
	doubled("∂L/∂B", once.B, twice.B)
	doubled("∂L/∂C", once.C, twice.C)

	// Each gradient alone is the same as beside the others.
	for name, g := range map[string]models.AdditionGrad{
		"U": {U: make([]float32, len(once.U))},
		"B": {B: make([]float32, len(once.B))},
		"C": {C: make([]float32, len(once.C))},
		"":  {},
	} {
		backward(t, e, p, g)
		if g.U != nil && !slices.Equal(g.U, once.U) || g.B != nil && !slices.Equal(g.B, once.B) ||
			g.C != nil && !slices.Equal(g.C, once.C) {
			t.Errorf("gradient %s alone differs from the same gradient beside the others", name)
		}
	}

	// Rows with coefficient 0 do not count.
	clear(p.coef)
	none := p.zeroGrad()
	backward(t, e, p, none)
	for _, x := range slices.Concat(none.U, none.B, none.C) {
		if x != 0 {
			t.Fatalf("zero coefficients give gradient %v", x)
		}
	}
}
