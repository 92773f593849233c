//go:build cgo && unix

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// sweepShapes are the heads that BenchmarkSweep trains on: the first is what a small model
// has, the second that of the smallest models people use.
var sweepShapes = []struct{ d, v, pairs, tokens int }{
	{d: 128, v: 4096, pairs: 128, tokens: 40},
	{d: 576, v: 49152, pairs: 64, tokens: 40},
}

// BenchmarkSweep trains one head of rank 16 and then eight, of other β and learning rates, on
// one cache. wall(8)/wall(1) and cpu(8)/cpu(1) are medians over the iterations; product(n) is
// the share of the bare product with the frozen matrix in the wall time, kernel(n) that of
// the head's forward and backward passes.
func BenchmarkSweep(b *testing.B) {
	rt, err := newRuntime(runtimeOptions{provider: "cpu"})
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range sweepShapes {
		b.Run(fmt.Sprintf("D=%d/V=%d/pairs=%d/tokens=%d", s.d, s.v, s.pairs, 2*s.tokens), func(b *testing.B) {
			dir := b.TempDir()
			cache := filepath.Join(dir, "cache")
			writeRandomCache(b, rt, cache, s.d, s.v, s.pairs, s.tokens)
			var ones, eights []sweepCost
			for b.Loop() {
				out := filepath.Join(dir, fmt.Sprint(len(ones)))
				ones = append(ones, sweepOnce(b, rt, cache, out+"-1", "beta=0.1"))
				eights = append(eights, sweepOnce(b, rt, cache, out+"-8", "beta=0.05,0.1,0.2,0.5", "lr=1e-4,1e-3"))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(medianOf(ones, func(i int) float64 { return eights[i].wall / ones[i].wall }), "wall(8)/wall(1)")
			b.ReportMetric(medianOf(ones, func(i int) float64 { return eights[i].cpu / ones[i].cpu }), "cpu(8)/cpu(1)")
			for n, costs := range map[int][]sweepCost{1: ones, 8: eights} {
				b.ReportMetric(medianOf(costs, func(i int) float64 { return costs[i].wall }), fmt.Sprintf("s(%d)", n))
				b.ReportMetric(medianOf(costs, func(i int) float64 { return costs[i].product / costs[i].wall }), fmt.Sprintf("product(%d)", n))
				b.ReportMetric(medianOf(costs, func(i int) float64 { return costs[i].kernel / costs[i].wall }), fmt.Sprintf("kernel(%d)", n))
			}
		})
	}
}

// medianOf is the middle of a figure of each cost.
func medianOf(costs []sweepCost, figure func(i int) float64) float64 {
	x := make([]float64, len(costs))
	for i := range x {
		x[i] = figure(i)
	}
	slices.Sort(x)
	return x[len(x)/2]
}

// sweepCost is what a sweep took, seconds.
type sweepCost struct {
	wall, cpu float64
	// product and kernel are wall time inside the engine.
	product, kernel float64
}

// sweepOnce trains a sweep in this process. Opening the engine, which copies the vocabulary,
// counts as it does for the command.
func sweepOnce(b *testing.B, rt pipeline.Runtime, cache, out string, texts ...string) (c sweepCost) {
	axes, err := pipeline.ParseSweep(texts)
	if err != nil {
		b.Fatal(err)
	}
	cfg := pipeline.DefaultTrainConfig()
	cfg.Cache, cfg.Out = cache, out
	open := func(_ string, v *models.Vocabulary) (models.Engine, error) {
		e, err := rt.OpenEngine(v)
		return timedEngine{e, &c}, err
	}
	start, before := time.Now(), cpuSeconds(b)
	if _, err := pipeline.Sweep(b.Context(), cfg, axes, pipeline.Engines{Head: open}, nil); err != nil {
		b.Fatal(err)
	}
	c.wall, c.cpu = time.Since(start).Seconds(), cpuSeconds(b)-before
	return c
}

// timedEngine counts the time inside an engine.
type timedEngine struct {
	models.Engine
	c *sweepCost
}

func (e timedEngine) Load(ctx context.Context, rows models.Rows) error {
	defer addSince(&e.c.product, time.Now())
	return e.Engine.Load(ctx, rows)
}

func (e timedEngine) Forward(ctx context.Context, add models.Addition, out *models.Tokens) error {
	defer addSince(&e.c.kernel, time.Now())
	return e.Engine.Forward(ctx, add, out)
}

func (e timedEngine) Backward(ctx context.Context, coef []float64, grad models.AdditionGrad) error {
	defer addSince(&e.c.kernel, time.Now())
	return e.Engine.Backward(ctx, coef, grad)
}

func addSince(sum *float64, start time.Time) { *sum += time.Since(start).Seconds() }

// cpuSeconds is the processor time of this process so far.
func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// writeRandomCache writes a cache of random hidden states under a random head: pairs whose
// sides have so many tokens, drawn from all the vocabulary, one prompt each.
func writeRandomCache(b *testing.B, rt pipeline.Runtime, path string, d, v, pairs, tokens int) {
	rng := rand.New(rand.NewPCG(1, 2))
	vocab := &models.Vocabulary{V: v, D: d, Weight: normals(rng, v*d, 0.1), Scale: 1}
	engine, err := rt.OpenEngine(vocab)
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	rows := make([]refcache.Row, pairs)
	for i := range rows {
		r := &rows[i]
		r.ID, r.Prompt, r.Weight = digest(2*i), []int32{0}, 1
		r.PromptKey = digest(2*i + 1)
		r.Chosen, r.ChosenFeatures, r.ChosenRefLogps = randomCompletion(b, rng, engine, tokens)
		r.Rejected, r.RejectedFeatures, r.RejectedRefLogps = randomCompletion(b, rng, engine, tokens)
	}
	m := refcache.Manifest{Identity: map[string]string{"model": strings.Repeat("0", 64)}, D: d, V: v, FeatureDType: refcache.F32}
	w, err := refcache.Create(path, m, refcache.Head{V: v, D: d, Weight: vocab.Weight, Scale: vocab.Scale})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	end := refcache.Position{Rows: int64(pairs)}
	if err := w.WritePart(rows, end); err != nil {
		b.Fatal(err)
	}
	if err := w.Finish(end); err != nil {
		b.Fatal(err)
	}
}

// randomCompletion draws tokens and their hidden states; what the reference makes of them is
// the engine's own.
func randomCompletion(b *testing.B, rng *rand.Rand, e models.Engine, tokens int) (ids []int32, features, logps []float32) {
	v := e.Vocabulary()
	for range tokens {
		ids = append(ids, rng.Int32N(int32(v.V)))
	}
	features = normals(rng, tokens*v.D, 1)
	var out models.Tokens
	err := e.Load(b.Context(), models.Rows{N: tokens, Hidden: features, Targets: ids})
	if err == nil {
		err = e.Forward(b.Context(), models.Addition{}, &out)
	}
	if err != nil {
		b.Fatal(err)
	}
	for _, lp := range out.Logps {
		logps = append(logps, float32(lp))
	}
	return ids, features, logps
}

func normals(rng *rand.Rand, n int, scale float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(scale * rng.NormFloat64())
	}
	return x
}

// digest is a name as spread as a hash.
func digest(n int) (key [16]byte) {
	r := rand.NewPCG(uint64(n), 0)
	binary.LittleEndian.PutUint64(key[:8], r.Uint64())
	binary.LittleEndian.PutUint64(key[8:], r.Uint64())
	return key
}
