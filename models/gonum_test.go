package models_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/models/enginetest"
)

func openGonum(v *models.Vocabulary) (models.Engine, error) {
	if err := v.Validate(); err != nil {
		return nil, err
	}
	return models.NewGonum(v), nil
}

func TestGonum(t *testing.T)       { enginetest.Run(t, openGonum) }
func TestGonumPairs(t *testing.T)  { enginetest.Pairs(t, openGonum) }
func TestGonumGolden(t *testing.T) { enginetest.Golden(t, openGonum) }

func TestGonumWithoutVectorUnits(t *testing.T) {
	models.WithoutVectors(func() {
		enginetest.Run(t, openGonum)
		enginetest.Golden(t, openGonum)
	})
}

// work is a random micro-batch with a low-rank addition, and room for its results.
type work struct {
	engine models.Engine
	rows   models.Rows
	add    models.Addition
	coef   []float64
	out    models.Tokens
	grad   models.AdditionGrad
}

func newWork(n, v, d, r int) *work {
	rng := rand.New(rand.NewPCG(1, 2))
	draw := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = rng.Float32() - 0.5
		}
		return x
	}
	w := &work{
		engine: models.NewGonum(&models.Vocabulary{V: v, D: d, Weight: draw(v * d), Scale: 1}),
		rows:   models.Rows{N: n, Hidden: draw(n * d), Targets: make([]int32, n), RefLogps: draw(n)},
		add:    models.Addition{R: r, U: draw(n * r), B: draw(v * r)},
		coef:   make([]float64, n),
		grad:   models.AdditionGrad{U: make([]float32, n*r), B: make([]float32, v*r)},
	}
	for i := range n {
		w.rows.Targets[i], w.coef[i] = int32(rng.IntN(v)), rng.NormFloat64()
	}
	return w
}

func (w *work) run(t testing.TB) {
	ctx := context.Background()
	if err := models.Forward(ctx, w.engine, w.rows, w.add, &w.out); err != nil {
		t.Fatal(err)
	}
	clear(w.grad.B)
	if err := w.engine.Backward(ctx, w.coef, w.grad); err != nil {
		t.Fatal(err)
	}
}

func TestGonumSameBitsOnAnyNumberOfCores(t *testing.T) {
	w := newWork(150, 2000, 20, 4)
	var logps []float64
	var gradU, gradB []float32
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, cores := range []int{1, 2, 3, 7} {
		runtime.GOMAXPROCS(cores)
		w.run(t)
		if cores > 1 && !(slices.Equal(logps, w.out.Logps) && slices.Equal(gradU, w.grad.U) && slices.Equal(gradB, w.grad.B)) {
			t.Errorf("%d cores and 1 core differ", cores)
		}
		logps, gradU, gradB = slices.Clone(w.out.Logps), slices.Clone(w.grad.U), slices.Clone(w.grad.B)
	}
}

// TestGonumSameBitsInAnyBatch is what makes the log-ratios of a fresh head
// exactly 0 however the reference pass and the training pack their rows.
func TestGonumSameBitsInAnyBatch(t *testing.T) {
	w := newWork(130, 700, 33, 3)
	w.run(t)
	for _, i := range []int{0, 1, 63, 64, 65, 129} {
		var out models.Tokens
		rows := models.Rows{N: 1, Hidden: w.rows.Hidden[i*33 : (i+1)*33], Targets: w.rows.Targets[i : i+1]}
		add := w.add
		add.U = add.U[i*3 : (i+1)*3]
		if err := models.Forward(t.Context(), w.engine, rows, add, &out); err != nil {
			t.Fatal(err)
		}
		if out.Logps[0] != w.out.Logps[i] {
			t.Errorf("row %d: log-prob is %v alone and %v among 130", i, out.Logps[0], w.out.Logps[i])
		}
	}
}

func TestGonumAllocatesNothingThatGrowsWithV(t *testing.T) {
	const warm = 64 << 10 // goroutines and closures, whatever the vocabulary
	for _, v := range []int{500, 30000} {
		w := newWork(8, v, 8, 2)
		w.run(t)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 5 {
			w.run(t)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > warm {
			t.Errorf("V=%d: 5 warm steps allocate %d bytes, want at most %d", v, got, warm)
		}
	}
}

func TestNewGonumPanicsOnBadVocabulary(t *testing.T) {
	ok := models.Vocabulary{V: 2, D: 3, Weight: make([]float32, 6), Scale: 1}
	for name, spoil := range map[string]func(*models.Vocabulary){
		"no tokens":    func(v *models.Vocabulary) { v.V = 0 },
		"short weight": func(v *models.Vocabulary) { v.Weight = v.Weight[1:] },
		"long bias":    func(v *models.Vocabulary) { v.Bias = make([]float32, 3) },
		"scale 0":      func(v *models.Vocabulary) { v.Scale = 0 },
		"softcap -1":   func(v *models.Vocabulary) { v.Softcap = -1 },
	} {
		v := ok
		spoil(&v)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			models.NewGonum(&v)
		}()
	}
}

// BenchmarkGonum takes the bare product [N,D]x[D,V] of blas32 in turn with the passes of the engine. load-x, forward-x and
// backward-x are their times in units of it and step-x that of all three, medians of the rounds.
func BenchmarkGonum(b *testing.B) {
	for _, s := range []struct{ n, v, d, r int }{
		{256, 512, 64, 16}, {256, 4096, 128, 16}, {128, 8000, 1024, 16}, {128, 8000, 1024, 64},
	} {
		b.Run(fmt.Sprintf("N=%d/V=%d/D=%d/R=%d", s.n, s.v, s.d, s.r), func(b *testing.B) {
			w, ctx := newWork(s.n, s.v, s.d, s.r), b.Context()
			h := blas32.General{Rows: s.n, Cols: s.d, Stride: s.d, Data: w.rows.Hidden}
			m := blas32.General{Rows: s.v, Cols: s.d, Stride: s.d, Data: w.engine.Vocabulary().Weight}
			z := blas32.General{Rows: s.n, Cols: s.v, Stride: s.v, Data: make([]float32, s.n*s.v)}
			passes := []func() error{
				func() error { blas32.Gemm(blas.NoTrans, blas.Trans, 1, h, m, 0, z); return nil },
				func() error { return w.engine.Load(ctx, w.rows) },
				func() error { return w.engine.Forward(ctx, w.add, &w.out) },
				func() error { return w.engine.Backward(ctx, w.coef, w.grad) },
			}
			ratios := make([][]float64, len(passes)) // to the product; the first is of all passes
			b.ReportAllocs()
			for b.Loop() {
				var took [4]float64
				for i, pass := range passes {
					start := time.Now()
					if err := pass(); err != nil {
						b.Fatal(err)
					}
					took[i] = time.Since(start).Seconds()
					ratios[i] = append(ratios[i], took[i]/took[0])
				}
				ratios[0][len(ratios[0])-1] = (took[1] + took[2] + took[3]) / took[0]
			}
			for i, name := range []string{"step-x", "load-x", "forward-x", "backward-x"} {
				slices.Sort(ratios[i])
				b.ReportMetric(ratios[i][len(ratios[i])/2], name)
			}
		})
	}
}
