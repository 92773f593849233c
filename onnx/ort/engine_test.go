//go:build cgo

package ort

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
)

// Tolerances against float64 arithmetic: the engine multiplies in float32, and
// logits of the tests stay under 30.
const (
	logpTolerance = 5e-5 // nats
	gradTolerance = 5e-5 // relative to the largest gradient
)

// headCase is one random head, micro-batch and addition.
type headCase struct {
	name           string
	n, d, v, r     int
	bias, c        bool
	scale, softcap float32
}

func (h headCase) vocabulary(rng *rand.Rand) *models.Vocabulary {
	v := &models.Vocabulary{V: h.v, D: h.d, Scale: h.scale, Softcap: h.softcap}
	v.Weight = normal(rng, h.v*h.d, 1/math.Sqrt(float64(h.d)))
	if h.bias {
		v.Bias = normal(rng, h.v, 0.5)
	}
	return v
}

func (h headCase) rows(rng *rand.Rand) (models.Rows, models.Addition) {
	rows := models.Rows{N: h.n, Hidden: normal(rng, h.n*h.d, 2), Targets: make([]int32, h.n)}
	for i := range rows.Targets {
		rows.Targets[i] = rng.Int32N(int32(h.v))
	}
	add := models.Addition{R: h.r}
	if h.r > 0 {
		add.U, add.B = normal(rng, h.n*h.r, 1), normal(rng, h.v*h.r, 0.3)
	}
	if h.c {
		add.C = normal(rng, h.v, 0.3)
	}
	return rows, add
}

func normal(rng *rand.Rand, n int, sd float64) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(sd * rng.NormFloat64())
	}
	return s
}

// headCases cover every branch of the engine and sizes around boundaries.
func headCases() []headCase {
	cases := []headCase{
		{name: "frozen head", n: 5, d: 8, v: 33, scale: 1},
		{name: "low rank", n: 7, d: 16, v: 65, r: 4, scale: 1},
		{name: "bias of the addition alone", n: 6, d: 8, v: 40, c: true, scale: 1},
		{name: "low rank and bias", n: 9, d: 12, v: 50, r: 3, c: true, scale: 1},
		{name: "frozen bias", n: 4, d: 8, v: 31, r: 2, bias: true, scale: 1},
		{name: "scale", n: 6, d: 8, v: 31, r: 2, bias: true, c: true, scale: 0.25},
		{name: "frozen bias and scale alone", n: 6, d: 8, v: 31, bias: true, scale: 0.25},
		{name: "frozen bias, scale and softcap alone", n: 6, d: 8, v: 31, bias: true, scale: 0.5, softcap: 3},
		{name: "softcap", n: 6, d: 8, v: 31, r: 2, c: true, scale: 1, softcap: 2},
		{name: "scale, softcap and bias", n: 6, d: 8, v: 31, r: 2, bias: true, c: true, scale: 1.5, softcap: 3},
		{name: "softcap without addition", n: 3, d: 8, v: 31, scale: 1, softcap: 3},
		{name: "one token", n: 3, d: 4, v: 1, r: 1, scale: 1},
	}
	for _, n := range []int{1, 2, 3, 15, 16, 17} {
		cases = append(cases, headCase{name: fmt.Sprintf("rows=%d", n), n: n, d: 24, v: 257, r: 4, scale: 1})
	}
	return cases
}

// exactHead is the head in float64, written from its definition.
type exactHead struct {
	z, z0, logp, logp0 [][]float64
}

func exact(v *models.Vocabulary, rows models.Rows, add models.Addition) exactHead {
	var h exactHead
	for i := range rows.N {
		z, z0 := make([]float64, v.V), make([]float64, v.V)
		for t := range v.V {
			for k := range v.D {
				z0[t] += float64(v.Weight[t*v.D+k]) * float64(rows.Hidden[i*v.D+k])
			}
			if v.Bias != nil {
				z0[t] += float64(v.Bias[t])
			}
			z[t] = z0[t]
			for k := range add.R {
				z[t] += float64(add.B[t*add.R+k]) * float64(add.U[i*add.R+k])
			}
			if add.C != nil {
				z[t] += float64(add.C[t])
			}
			z[t], z0[t] = cap64(v, z[t]), cap64(v, z0[t])
		}
		h.z, h.z0 = append(h.z, z), append(h.z0, z0)
		h.logp, h.logp0 = append(h.logp, logSoftmax(z)), append(h.logp0, logSoftmax(z0))
	}
	return h
}

func cap64(v *models.Vocabulary, s float64) float64 {
	s *= float64(v.Scale)
	if c := float64(v.Softcap); c > 0 {
		return c * math.Tanh(s/c)
	}
	return s
}

func logSoftmax(z []float64) []float64 {
	top := math.Inf(-1)
	for _, x := range z {
		top = math.Max(top, x)
	}
	sum := 0.0
	for _, x := range z {
		sum += math.Exp(x - top)
	}
	out := make([]float64, len(z))
	for i, x := range z {
		out[i] = x - top - math.Log(sum)
	}
	return out
}

// tokens are the results that row-wise definitions give.
func (h exactHead) tokens(rows models.Rows) models.Tokens {
	var out models.Tokens
	for i, lp := range h.logp {
		entropy, kl, sq, top := 0.0, 0.0, 0.0, 0
		for t, l := range lp {
			p := math.Exp(l)
			entropy -= p * l
			kl += p * (l - h.logp0[i][t])
			sq += p * p
			if h.z[i][t] > h.z[i][top] {
				top = t
			}
		}
		out.Logps = append(out.Logps, lp[rows.Targets[i]])
		out.Entropy, out.KL = append(out.Entropy, entropy), append(out.KL, kl)
		out.LogSumSq, out.Top = append(out.LogSumSq, math.Log(sq)), append(out.Top, int32(top))
	}
	return out
}

func TestEngineForwardIsTheDefinition(t *testing.T) {
	r := openRuntime(t)
	for _, h := range headCases() {
		for _, weightIsInput := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/input=%t", h.name, weightIsInput), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(1, 2))
				v := h.vocabulary(rng)
				rows, add := h.rows(rng)
				want := exact(v, rows, add)
				rows.RefLogps = make([]float32, rows.N)
				for i, target := range rows.Targets {
					rows.RefLogps[i] = float32(want.logp0[i][target])
				}
				e, err := r.newEngine(v, DefaultOptions(), weightIsInput)
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				var got models.Tokens
				if err := models.Forward(t.Context(), e, rows, add, &got); err != nil {
					t.Fatal(err)
				}
				compareTokens(t, got, want.tokens(rows))
			})
		}
	}
}

func compareTokens(t *testing.T, got, want models.Tokens) {
	t.Helper()
	for _, c := range []struct {
		name      string
		got, want []float64
	}{
		{"Logps", got.Logps, want.Logps},
		{"Entropy", got.Entropy, want.Entropy},
		{"KL", got.KL, want.KL},
		{"LogSumSq", got.LogSumSq, want.LogSumSq},
	} {
		if d := maxDiff(t, c.got, c.want); d > logpTolerance {
			t.Errorf("%s is off by %g, want at most %g\ngot  %v\nwant %v", c.name, d, logpTolerance, c.got, c.want)
		}
	}
	if fmt.Sprint(got.Top) != fmt.Sprint(want.Top) {
		t.Errorf("Top = %v, want %v", got.Top, want.Top)
	}
}

func maxDiff(t *testing.T, got, want []float64) float64 {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	worst := 0.0
	for i := range got {
		if d := math.Abs(got[i] - want[i]); d > worst || math.IsNaN(d) {
			worst = d
		}
	}
	return worst
}

// TestEngineBackwardIsTheDefinition holds the gradient against the derivative written out in
// float64, and that one against central differences of the exact log-probs.
func TestEngineBackwardIsTheDefinition(t *testing.T) {
	r := openRuntime(t)
	for _, h := range headCases() {
		t.Run(h.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 4))
			v := h.vocabulary(rng)
			rows, add := h.rows(rng)
			coef := make([]float64, h.n)
			for i := range coef {
				coef[i] = rng.NormFloat64()
			}
			e, err := r.newEngine(v, DefaultOptions(), false)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if err := models.Forward(t.Context(), e, rows, add, &models.Tokens{}); err != nil {
				t.Fatal(err)
			}
			got := newGrad(h)
			if err := e.Backward(t.Context(), coef, got); err != nil {
				t.Fatal(err)
			}
			want := exactGrad(v, rows, add, coef)
			compareGrad(t, "U", got.U, want.U)
			compareGrad(t, "B", got.B, want.B)
			compareGrad(t, "C", got.C, want.C)
			checkDifferences(t, rng, v, rows, add, coef, want)

			again := newGrad(h)
			copy(again.B, got.B)
			if err := e.Backward(t.Context(), coef, again); err != nil {
				t.Fatal(err)
			}
			for i := range want.B {
				want.B[i] *= 2
			}
			compareGrad(t, "B added to", again.B, want.B)
		})
	}
}

func newGrad(h headCase) models.AdditionGrad {
	grad := models.AdditionGrad{C: make([]float32, h.v)}
	if h.r > 0 {
		grad.U, grad.B = make([]float32, h.n*h.r), make([]float32, h.v*h.r)
	}
	return grad
}

type grad64 struct{ U, B, C []float64 }

// exactGrad is ∂/∂(U,B,C) of Σ_i coef_i log π_i(y_i), by the chain rule through
// every logit.
func exactGrad(v *models.Vocabulary, rows models.Rows, add models.Addition, coef []float64) grad64 {
	h := exact(v, rows, add)
	g := grad64{make([]float64, len(add.U)), make([]float64, len(add.B)), make([]float64, v.V)}
	for i := range rows.N {
		for t := range v.V {
			dz := -math.Exp(h.logp[i][t])
			if int(rows.Targets[i]) == t {
				dz++
			}
			dz *= coef[i] * float64(v.Scale)
			if c := float64(v.Softcap); c > 0 {
				dz *= 1 - math.Pow(h.z[i][t]/c, 2)
			}
			g.C[t] += dz
			for k := range add.R {
				g.U[i*add.R+k] += dz * float64(add.B[t*add.R+k])
				g.B[t*add.R+k] += dz * float64(add.U[i*add.R+k])
			}
		}
	}
	return g
}

func compareGrad(t *testing.T, name string, got []float32, want []float64) {
	t.Helper()
	wide, largest := make([]float64, len(got)), 1e-3
	for i, x := range got {
		wide[i] = float64(x)
	}
	for _, x := range want {
		largest = math.Max(largest, math.Abs(x))
	}
	if d := maxDiff(t, wide, want); d > gradTolerance*largest {
		t.Errorf("∂L/∂%s is off by %g, want at most %g of %g", name, d, gradTolerance, largest)
	}
}

// checkDifferences compares a few elements of g with central differences of L.
func checkDifferences(t *testing.T, rng *rand.Rand, v *models.Vocabulary, rows models.Rows, add models.Addition, coef []float64, g grad64) {
	t.Helper()
	// Parameters are float32, so the step is one they hold well; the error of the
	// difference is then about step² and the loss's own curvature.
	const step, tolerance = 1.0 / 128, 2e-3
	loss := func() float64 {
		sum := 0.0
		for i, lp := range exact(v, rows, add).logp {
			sum += coef[i] * lp[rows.Targets[i]]
		}
		return sum
	}
	for _, p := range []struct {
		name   string
		values []float32
		grad   []float64
	}{{"U", add.U, g.U}, {"B", add.B, g.B}, {"C", add.C, g.C}} {
		for range min(len(p.values), 3) {
			i := rng.IntN(len(p.values))
			old := p.values[i]
			p.values[i] = old + step
			up, high := loss(), float64(p.values[i])
			p.values[i] = old - step
			down, low := loss(), float64(p.values[i])
			p.values[i] = old
			if diff := (up - down) / (high - low); math.Abs(diff-p.grad[i]) > tolerance*math.Max(1, math.Abs(diff)) {
				t.Errorf("∂L/∂%s[%d] = %g, central difference %g", p.name, i, p.grad[i], diff)
			}
		}
	}
}

// TestRowHasTheSameBitsInAnyBatch scores stretches of the rows of one micro-batch, wherever the kernel's groups of rows begin.
// The product with the frozen matrix, which may round otherwise for other numbers of rows, is the same for all.
func TestRowHasTheSameBitsInAnyBatch(t *testing.T) {
	for _, h := range []headCase{
		{name: "half a panel of ranks", n: 67, d: 8, v: 1037, r: 5, scale: 0.7},
		{name: "whole panels of ranks", n: 67, d: 8, v: 1037, r: 32, scale: 1},
		{name: "softcap", n: 67, d: 8, v: 1037, r: 5, c: true, scale: 0.7, softcap: 5},
	} {
		t.Run(h.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(5, 6))
			v := h.vocabulary(rng)
			rows, add := h.rows(rng)
			e, err := openRuntime(t).newEngine(v, DefaultOptions(), false)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			coef := make([]float64, h.n)
			for i := range coef {
				coef[i] = rng.NormFloat64()
			}
			base := normal(rng, h.n*h.v, 3)
			score := func(lo, hi int) ([]float64, []float32) {
				part := models.Rows{N: hi - lo, Hidden: rows.Hidden[lo*h.d : hi*h.d], Targets: rows.Targets[lo:hi]}
				if err := e.Load(t.Context(), part); err != nil {
					t.Fatal(err)
				}
				copy(e.base, base[lo*h.v:hi*h.v])
				a := add
				a.U = add.U[lo*h.r : hi*h.r]
				var out models.Tokens
				if err := e.Forward(t.Context(), a, &out); err != nil {
					t.Fatal(err)
				}
				grad := models.AdditionGrad{U: make([]float32, len(a.U))}
				if err := e.Backward(t.Context(), coef[lo:hi], grad); err != nil {
					t.Fatal(err)
				}
				return out.Logps, grad.U
			}
			logps, grad := score(0, h.n)
			for _, s := range [][2]int{{0, 1}, {3, 4}, {66, 67}, {2, 7}, {1, 62}, {5, 67}} {
				lo, hi := s[0], s[1]
				l, g := score(lo, hi)
				if !slices.Equal(l, logps[lo:hi]) || !slices.Equal(g, grad[lo*h.r:hi*h.r]) {
					t.Errorf("rows [%d,%d) have other bits alone than in a batch of %d", lo, hi, h.n)
				}
			}
		})
	}
}
