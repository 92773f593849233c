package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
)

// float32Logps is the rounding of a log-prob between -10 and 0 that was computed in
// float32 from float32 features, over a few hundred terms.
const float32Logps = 1e-4

// halfLogps is what features rounded to 11 bits do to it on top.
const halfLogps = 2e-2

// bfloatLogps is the same for 8 bits.
const bfloatLogps = 8 * halfLogps

func TestPrecomputeGivesTheModelsLogProbsWhateverTheBatches(t *testing.T) {
	for _, batchTokens := range []int{1, 17, 40, 1000} {
		for features, tolerance := range map[refcache.DType]float64{refcache.F16: halfLogps, refcache.BF16: bfloatLogps, refcache.F32: float32Logps} {
			t.Run(fmt.Sprintf("batch-tokens=%d/features=%s", batchTokens, features), func(t *testing.T) {
				w := newWorld(t)
				cfg := w.precomputeConfig(w.pairs("pairs.jsonl", 11))
				cfg.BatchTokens, cfg.Features = batchTokens, features
				result, err := Precompute(context.Background(), cfg, w.rt, nil)
				must(t, err)
				if result.Counts.Kept != 11 || result.Parts != 3 {
					t.Fatalf("kept %d pairs in %d parts, want 11 in 3", result.Counts.Kept, result.Parts)
				}
				cache, err := refcache.Open(cfg.Out)
				must(t, err)
				defer cache.Close()
				var row refcache.Row
				for i := range cache.Len() {
					must(t, cache.Row(i, &row))
					// Rows are in input order: the number behind the letters is the row's.
					if text := decodeBytes(row.Chosen); !strings.HasSuffix(text, fmt.Sprint("a", i)) {
						t.Fatalf("row %d has chosen %q", i, text)
					}
					if row.Chosen[len(row.Chosen)-1] != 256 || row.Rejected[len(row.Rejected)-1] != 256 {
						t.Errorf("row %d: a completion does not end in <end>", i)
					}
					for _, chosen := range []bool{true, false} {
						ids, logps, _ := completionRow(&row, chosen)
						want := w.decoder.Logps(slices.Concat(row.Prompt, ids), len(row.Prompt))
						for k := range ids {
							if d := math.Abs(float64(logps[k]) - want[k]); !(d <= tolerance) {
								t.Errorf("row %d token %d: log-prob %.6f, want %.6f ± %g", i, k, logps[k], want[k], tolerance)
							}
						}
					}
				}
			})
		}
	}
}

// decodeBytes undoes byteTokenizer, leaving out <end>.
func decodeBytes(ids []int32) string {
	var b []byte
	for _, id := range ids {
		if id < 256 {
			b = append(b, byte(id))
		}
	}
	return string(b)
}

var errKilled = errors.New("killed")

// A pass that dies at any batch and is run again leaves the bytes of a pass that
// did not.
func TestPrecomputeResumesInTheSameBytes(t *testing.T) {
	w := newWorld(t)
	w.killAtEveryBatch(w.precomputeConfig(w.pairs("pairs.jsonl", 23)), 10)
}

// killAtEveryBatch runs a pass that takes at least so many batches, then one for each batch that
// dies there and is run again, and wants the same bytes. It returns what the last one found.
func (w *world) killAtEveryBatch(cfg PrecomputeConfig, atLeast int) (result PrecomputeResult) {
	w.t.Helper()
	_, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(w.t, err)
	want, calls := tree(w.t, cfg.Out), w.rt.calls
	if calls < atLeast {
		w.t.Fatalf("the pass has %d batches, too few for this test", calls)
	}
	for kill := 1; kill <= calls; kill++ {
		cfg.Out = w.path(fmt.Sprint("cache-", kill))
		w.rt.calls = 0
		w.rt.stop = func(call int) error {
			if call == kill {
				return errKilled
			}
			return nil
		}
		if _, err := Precompute(context.Background(), cfg, w.rt, nil); !errors.Is(err, errKilled) {
			w.t.Fatalf("killed at batch %d: error is %v", kill, err)
		}
		w.rt.stop = nil
		result, err = Precompute(context.Background(), cfg, w.rt, nil)
		must(w.t, err)
		sameTree(w.t, tree(w.t, cfg.Out), want)
	}
	return result
}

// A hidden state that the dtype can't hold ends the pass, and its estimate, with the place
// and the value; one that is wider takes it, and training starts at the reference.
func TestPrecomputeRefusesFeaturesOutOfRange(t *testing.T) {
	w := newWorld(t)
	w.rt.scale = 1e6
	cfg := w.precomputeConfig(w.pairs("pairs.jsonl", 6))
	for name, run := range map[string]func() error{
		"pass":     func() error { _, err := Precompute(context.Background(), cfg, w.rt, nil); return err },
		"estimate": func() error { _, err := Estimate(context.Background(), cfg, w.rt, nil); return err },
	} {
		feature, ok := errors.AsType[*refcache.FeatureError](run())
		if !ok || feature.DType != refcache.F16 || math.Abs(float64(feature.Value)) < 65520 || math.IsInf(float64(feature.Value), 0) {
			t.Errorf("%s: error is %v, want a value that f16 can't hold", name, feature)
		}
	}
	if exists(cfg.Out) {
		t.Error("a refused pass left a cache folder")
	}
	for _, features := range []refcache.DType{refcache.BF16, refcache.F32} {
		cfg.Features, cfg.Out = features, w.path("cache-"+string(features))
		_, err := Precompute(context.Background(), cfg, w.rt, nil)
		must(t, err)
		train := w.trainConfig(cfg.Out)
		train.Out, train.MaxSteps, train.LR = w.path("run-"+string(features)), 1, 1e-12
		_, err = Train(context.Background(), train, gonumEngine, nil)
		must(t, err)
	}
}

func TestPrecomputeLeavesAFinishedCacheAlone(t *testing.T) {
	w := newWorld(t)
	cfg := w.precomputeConfig(w.pairs("pairs.jsonl", 6))
	_, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	w.rt.calls = 0
	result, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	if w.rt.calls != 0 || result.Counts.Kept != 6 || result.Resumed != 2 {
		t.Errorf("%d batches were run, kept %d, %d parts from before; want 0, 6 and 2", w.rt.calls, result.Counts.Kept, result.Resumed)
	}
	cfg.Encode.MaxLength = 512
	var stale *refcache.StaleError
	if _, err := Precompute(context.Background(), cfg, w.rt, nil); !errors.As(err, &stale) || stale.Key != "max_length" {
		t.Errorf("other settings: error is %v, want a stale max_length", err)
	}
}

func TestPrecomputeCountsUnusableRows(t *testing.T) {
	const rows = `{"prompt": "p", "chosen": "a", "rejected": "b"}
{"prompt": "p", "chosen": "a"}
{"prompt": "p", "chosen": "a", "rejected": "a"}
{"prompt": "pppppppppp", "chosen": "a", "rejected": "b"}
{"prompt": "q", "chosen": "c", "rejected": "d"}
`
	w := newWorld(t)
	w.write("rows.jsonl", rows)
	cfg := w.precomputeConfig(w.path("rows.jsonl"))
	cfg.Encode.MaxLength = 9

	var bad *BadDataError
	if _, err := Precompute(context.Background(), cfg, w.rt, nil); !errors.As(err, &bad) || bad.Bad != 3 || bad.Read != 5 {
		t.Fatalf("error is %v, want 3 of 5 rows refused", err)
	}
	if exists(cfg.Out) {
		t.Error("a refused pass left a cache folder")
	}
	cfg.Strict = true
	var row *datasets.RowError
	if _, err := Precompute(context.Background(), cfg, w.rt, nil); !errors.As(err, &row) || row.Row != 1 {
		t.Errorf("strict: error is %v, want row 1", err)
	}
	cfg.Strict, cfg.MaxBadFrac = false, 0.6
	result, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	d := result.Counts.Dropped
	if result.Counts.Read != 5 || result.Counts.Kept != 2 || d.Count(datasets.MissingColumn) != 1 ||
		d.Count(datasets.IdenticalCompletions) != 1 || d.Count(datasets.PromptTooLong) != 1 {
		t.Errorf("counts are %+v", result.Counts)
	}
}

func TestPrecomputeLimit(t *testing.T) {
	for _, limit := range []int64{1, 4, 5, 6, 9, 10} {
		w := newWorld(t)
		cfg := w.precomputeConfig(w.pairs("pairs.jsonl", 9))
		cfg.Limit = limit
		result, err := Precompute(context.Background(), cfg, w.rt, nil)
		must(t, err)
		if want := min(limit, 9); result.Counts.Kept != want {
			t.Errorf("limit %d keeps %d pairs, want %d", limit, result.Counts.Kept, want)
		}
	}
}

func TestEstimateCountsWhatThePassWrites(t *testing.T) {
	w := newWorld(t)
	cfg := w.precomputeConfig(w.pairs("pairs.jsonl", 23))
	e, err := Estimate(context.Background(), cfg, w.rt, nil)
	must(t, err)
	if exists(cfg.Out) {
		t.Error("an estimate wrote the cache folder")
	}
	result, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	if e.Counts.Kept != result.Counts.Kept || e.Counts.ChosenTokens != result.Counts.ChosenTokens ||
		e.Counts.PromptTokens != result.Counts.PromptTokens || e.Work != result.Work {
		t.Errorf("estimated %+v and %+v, the pass had %+v and %+v", e.Counts, e.Work, result.Counts, result.Work)
	}
	var size int64
	for name, content := range tree(t, cfg.Out) {
		if name != "manifest.json" {
			size += int64(len(content))
		}
	}
	// Arrow's own framing of five small parts is left out of the estimate.
	if e.CacheBytes > size || e.CacheBytes < size*2/3 {
		t.Errorf("estimated %d bytes, the cache has %d", e.CacheBytes, size)
	}
}

func TestPrecomputeStopsWhenCancelled(t *testing.T) {
	w := newWorld(t)
	cfg := w.precomputeConfig(w.pairs("pairs.jsonl", 23))
	ctx, cancel := context.WithCancelCause(context.Background())
	w.rt.stop = func(call int) error {
		if call == 5 {
			cancel(errKilled)
		}
		return nil
	}
	if _, err := Precompute(ctx, cfg, w.rt, nil); err == nil {
		t.Fatal("a cancelled pass succeeded")
	}
	w.rt.stop = nil
	_, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	if entries, err := os.ReadDir(w.dir); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }) {
		t.Errorf("temporary files are left: %v, %v", entries, err)
	}
}

// Another process may start the cache while this one scores its first window.
func TestPrecomputeMeetsAnotherProcess(t *testing.T) {
	w := newWorld(t)
	cfg := w.precomputeConfig(w.pairs("pairs.jsonl", 23))
	w.rt.stop = func(call int) error {
		if call != 2 {
			return nil
		}
		w.rt.stop = func(call int) error {
			if call == 10 {
				return errKilled
			}
			return nil
		}
		if _, err := Precompute(context.Background(), cfg, w.rt, nil); !errors.Is(err, errKilled) {
			t.Errorf("the other process: %v", err)
		}
		w.rt.stop = nil
		return nil
	}
	if _, err := Precompute(context.Background(), cfg, w.rt, nil); err == nil || !strings.Contains(err.Error(), "from another process") {
		t.Fatalf("error is %v", err)
	}
	result, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	if result.Counts.Kept != 23 || result.Resumed == 0 {
		t.Errorf("kept %d pairs, %d parts from before", result.Counts.Kept, result.Resumed)
	}
}
