package enginetest

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
)

// testShared scores two heads on rows that were loaded once, in turn: each gets the bits
// that it gets alone, forward and backward.
func testShared(t *testing.T, open Open) {
	p := random(shape{n: 66, v: 700, d: 12, r: 4, bias: true, scale: 0.5}, 31)
	q := *p
	other := random(shape{n: 66, v: 700, d: 12, r: 2, c: true}, 32)
	q.add, q.coef = other.add, other.coef
	e := start(t, open, p)
	type answer struct {
		out  models.Tokens
		grad models.AdditionGrad
	}
	// again says that the rows are loaded already.
	run := func(p *problem, again bool) (a answer) {
		if !again {
			if err := e.Load(context.Background(), p.rows); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Forward(context.Background(), p.add, &a.out); err != nil {
			t.Fatal(err)
		}
		a.grad = p.zeroGrad()
		backward(t, e, p, a.grad)
		return a
	}
	alone := []answer{run(p, false), run(&q, false)}
	shared := []answer{run(p, false), run(&q, true)}
	again := run(p, true)
	for i, pair := range [][2]answer{{alone[0], shared[0]}, {alone[1], shared[1]}, {alone[0], again}} {
		for name, same := range map[string]bool{
			"log-probs": slices.Equal(pair[0].out.Logps, pair[1].out.Logps),
			"KL":        slices.Equal(pair[0].out.KL, pair[1].out.KL),
			"∂L/∂U":     slices.Equal(pair[0].grad.U, pair[1].grad.U),
			"∂L/∂B":     slices.Equal(pair[0].grad.B, pair[1].grad.B),
			"∂L/∂C":     slices.Equal(pair[0].grad.C, pair[1].grad.C),
		} {
			if !same {
				t.Errorf("case %d: %s on shared rows differ from those on rows of its own", i, name)
			}
		}
	}
	compare(t, shared[1].out, q.solve())
	if got := e.Rows(); got.N != p.rows.N || &got.Hidden[0] != &p.rows.Hidden[0] {
		t.Errorf("engine has %d rows loaded, want the %d of the last Load", got.N, p.rows.N)
	}
}

// projectTol bounds the error of a float32 sum of n products of size 1, which grows with √n.
func projectTol(n int) float64 { return 1e-6 * math.Sqrt(float64(n)) }

// testProject compares W xᵀ and gᵀ W with sums in float64.
func testProject(t *testing.T, open Open) {
	for _, s := range []shape{
		{n: 1, v: 1, d: 1, r: 1},
		{n: 1, v: 63, d: 5, r: 2},
		{n: 1, v: 65, d: 8, r: 3},
		{n: 1, v: 1025, d: 16, r: 17},
		{n: 1, v: 9001, d: 3, r: 4},
	} {
		p := random(s, 41)
		e := start(t, open, p)
		rng := rand.New(rand.NewPCG(41, uint64(s.v)))
		draw := func(n int) []float32 {
			x := make([]float32, n)
			for i := range x {
				x[i] = float32(rng.NormFloat64())
			}
			return x
		}
		weight := func(v, d int) float64 { return float64(p.voc.Weight[v*s.d+d]) }
		x, g := draw(s.r*s.d), draw(s.v*s.r)
		up, down := draw(s.v*s.r), draw(s.r*s.d) // overwritten, whatever was there
		if err := e.Project(context.Background(), x, s.r, up); err != nil {
			t.Fatal(err)
		}
		if err := e.Gather(context.Background(), g, s.r, down); err != nil {
			t.Fatal(err)
		}
		for k := range s.r {
			for v := range s.v {
				var want float64
				for d := range s.d {
					want += weight(v, d) * float64(x[k*s.d+d])
				}
				if got := float64(up[v*s.r+k]); !(math.Abs(got-want) <= projectTol(s.d)*(1+math.Abs(want))) {
					t.Fatalf("V=%d D=%d R=%d: W xᵀ [%d,%d] is %v, want %v", s.v, s.d, s.r, v, k, got, want)
				}
			}
			for d := range s.d {
				var want float64
				for v := range s.v {
					want += weight(v, d) * float64(g[v*s.r+k])
				}
				if got := float64(down[k*s.d+d]); !(math.Abs(got-want) <= projectTol(s.v)*(1+math.Abs(want))) {
					t.Fatalf("V=%d D=%d R=%d: gᵀ W [%d,%d] is %v, want %v", s.v, s.d, s.r, k, d, got, want)
				}
			}
		}
	}
}
