//go:build cgo && linux

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/demo"
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// featuresVariable names a model folder and a data file for BenchmarkFeatures, separated as
// in PATH.
const featuresVariable = "DPO_PIPE_BENCH_FEATURES"

// BenchmarkFeatures runs reference pass and training with each way of storing features, on
// the model and data named, else on the model of BenchmarkReference where that is large, else
// on the built-in ones. Beside held-out metrics after training it reports, against float32,
// how far token log-probs of the reference are (1e-6 nats, at most and on average), the size
// of the cache without its head, and what an epoch took, by the clock and by processor time;
// a training on float32 is timed before each.
func BenchmarkFeatures(b *testing.B) {
	rt, err := newRuntime(runtimeOptions{provider: "cpu"})
	if err != nil {
		b.Skip(err)
	}
	f := &featuresBench{rt: rt, dir: b.TempDir(), epochs: 3, caches: map[refcache.DType]string{}}
	f.choose(b)
	for _, dt := range []refcache.DType{refcache.F32, refcache.F16, refcache.BF16, refcache.None} {
		b.Run("model="+f.name+"/features="+string(dt), func(b *testing.B) {
			base, cache := f.cache(b, refcache.F32), f.cache(b, dt)
			var after pipeline.Values
			var took, baseTook spent
			for b.Loop() {
				_, one := f.train(b, base)
				values, other := f.train(b, cache)
				after, took, baseTook = values, took.plus(other), baseTook.plus(one)
			}
			for _, name := range []string{"loss", "rewards/accuracies", "rewards/margins", "kl"} {
				b.ReportMetric(after.Get(name), name)
			}
			most, mean := logpDistance(b, base, cache)
			b.ReportMetric(1e6*most, "µnats-max")
			b.ReportMetric(1e6*mean, "µnats-mean")
			b.ReportMetric(partBytes(b, cache)/1e6, "MB")
			b.ReportMetric(partBytes(b, cache)/partBytes(b, base), "size-x")
			b.ReportMetric(took.wall/baseTook.wall, "epoch-x")
			b.ReportMetric(took.cpu/baseTook.cpu, "cpu-epoch-x")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// featuresBench is a model with pairs, and the caches made of them so far.
type featuresBench struct {
	rt                     pipeline.Runtime
	dir, name, model, data string
	epochs, runs           int
	limit                  int64
	caches                 map[refcache.DType]string
}

// choose finds the model and the pairs.
func (f *featuresBench) choose(b *testing.B) {
	if named := filepath.SplitList(os.Getenv(featuresVariable)); len(named) == 2 {
		f.model, f.data, f.name = named[0], named[1], filepath.Base(named[0])
		return
	}
	if shape := benchShape(); shape.name != "tiny" {
		bench := &referenceBench{referenceShape: shape, dir: f.dir}
		bench.write(b)
		f.name, f.model, f.data, f.epochs = shape.name, f.dir, filepath.Join(f.dir, "pairs.jsonl"), 1
		writeLines(b, f.data, bench.conversations(0))
		return
	}
	if err := demo.WriteTo(f.dir); err != nil {
		b.Fatal(err)
	}
	f.name, f.model, f.data, f.limit = "demo", filepath.Join(f.dir, "model"), filepath.Join(f.dir, demo.DataFile), 160
}

// cache runs the reference with features stored as dt, once.
func (f *featuresBench) cache(b *testing.B, dt refcache.DType) string {
	if f.caches[dt] != "" {
		return f.caches[dt]
	}
	cfg := pipeline.DefaultPrecomputeConfig()
	cfg.Model, cfg.Data, cfg.Out = f.model, []string{f.data}, filepath.Join(f.dir, "cache-"+string(dt))
	cfg.Features, cfg.Limit = dt, f.limit
	if _, err := pipeline.Precompute(b.Context(), cfg, f.rt, nil); err != nil {
		b.Fatal(err)
	}
	f.caches[dt] = cfg.Out
	return cfg.Out
}

// train returns held-out metrics after training, and what it took behind opening model and head.
func (f *featuresBench) train(b *testing.B, cache string) (pipeline.Values, spent) {
	cfg := pipeline.DefaultTrainConfig()
	f.runs++
	cfg.Cache, cfg.Model, cfg.Out = cache, f.model, filepath.Join(f.dir, fmt.Sprint("run-", f.runs))
	cfg.Epochs, cfg.EvalFrac = f.epochs, 0.2
	var since func() spent
	engines := pipeline.Engines{
		Runtime: func() (pipeline.Runtime, error) { return f.rt, nil },
		Head: func(_ string, v *models.Vocabulary) (models.Engine, error) {
			e, err := f.rt.OpenEngine(v)
			since = clock()
			return e, err
		},
	}
	r, err := pipeline.Train(b.Context(), cfg, engines, nil)
	if err != nil {
		b.Fatal(err)
	}
	return r.After, since()
}

// logpDistance compares the reference log-probs of two caches of the same pairs.
func logpDistance(b *testing.B, base, cache string) (most, mean float64) {
	var readers [2]*refcache.Reader
	for i, path := range []string{base, cache} {
		r, err := refcache.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		defer r.Close()
		readers[i] = r
	}
	var rows [2]refcache.Row
	sum, n := 0.0, 0
	for i := range readers[0].Len() {
		for k, r := range readers {
			if err := r.Row(i, &rows[k]); err != nil {
				b.Fatal(err)
			}
		}
		want := slices.Concat(rows[0].ChosenRefLogps, rows[0].RejectedRefLogps)
		for t, p := range slices.Concat(rows[1].ChosenRefLogps, rows[1].RejectedRefLogps) {
			d := math.Abs(float64(p) - float64(want[t]))
			most, sum, n = max(most, d), sum+d, n+1
		}
	}
	return most, sum / float64(n)
}

// partBytes is the size of a cache without its head.
func partBytes(b *testing.B, cache string) float64 {
	s, err := refcache.Describe(cache)
	if err != nil {
		b.Fatal(err)
	}
	return float64(s.Bytes - s.Head.Size)
}

// writeLines writes rows as JSON lines.
func writeLines[T any](b *testing.B, path string, rows []T) {
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	encoder := json.NewEncoder(f)
	for _, row := range rows {
		if err := encoder.Encode(row); err != nil {
			b.Fatal(err)
		}
	}
}
