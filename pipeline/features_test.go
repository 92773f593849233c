package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
)

// engines run the model in the world's runtime.
func (w *world) engines() Engines {
	return Engines{Head: gonumEngine.Head, Runtime: func() (Runtime, error) { return w.rt, nil }}
}

// cacheOf runs the reference over n pairs and stores features as told.
func (w *world) cacheOf(features refcache.DType, n int) string {
	w.t.Helper()
	cfg := w.precomputeConfig(w.pairs("pairs.jsonl", n))
	cfg.Out, cfg.Features = w.path("cache-"+string(features)), features
	_, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(w.t, err)
	return cfg.Out
}

// withoutFeatures are the settings of a training on a cache that keeps none.
func (w *world) withoutFeatures(n int) TrainConfig {
	cfg := w.trainConfig(w.cacheOf(refcache.None, n))
	cfg.Model = w.path("model")
	return cfg
}

func TestCacheWithoutFeaturesIsOneWithThemLessThem(t *testing.T) {
	w := newWorld(t)
	var caches []*refcache.Reader
	for _, features := range []refcache.DType{refcache.F32, refcache.None} {
		cache, err := refcache.Open(w.cacheOf(features, 11))
		must(t, err)
		defer cache.Close()
		caches = append(caches, cache)
	}
	with, without := caches[0], caches[1]
	if with.Len() != without.Len() || len(with.Manifest().Parts) != len(without.Manifest().Parts) {
		t.Fatalf("%d rows in %d parts, want %d in %d", without.Len(), len(without.Manifest().Parts), with.Len(), len(with.Manifest().Parts))
	}
	var a, b refcache.Row
	for i := range with.Len() {
		must(t, with.Row(i, &a))
		must(t, without.Row(i, &b))
		if a.Content() != b.Content() || !sameBits(a.ChosenRefLogps, b.ChosenRefLogps) || !sameBits(a.RejectedRefLogps, b.RejectedRefLogps) {
			t.Errorf("row %d differs", i)
		}
		if len(b.ChosenFeatures)+len(b.RejectedFeatures) > 0 {
			t.Errorf("row %d has features", i)
		}
	}
}

// The fake backbone gives a text the same states whatever is run beside it, so training
// without stored features has the bytes of one with all their bits.
func TestTrainingWithoutFeaturesIsTrainingWithThem(t *testing.T) {
	w := newWorld(t)
	with := w.trainConfig(w.cacheOf(refcache.F32, 24))
	with.Out, with.EvalEvery = w.path("with"), 2
	without := w.withoutFeatures(24)
	without.EvalEvery = 2
	want, err := Train(context.Background(), with, gonumEngine, nil)
	must(t, err)
	got, err := Train(context.Background(), without, w.engines(), nil)
	must(t, err)
	if !slices.Equal(got.After, want.After) || !slices.Equal(got.Before, want.Before) {
		t.Errorf("metrics are %v, want %v", got.After, want.After)
	}
	sameTree(t, checkpointFiles(t, without.Out), checkpointFiles(t, with.Out))

	// The run names the model: eval and export need not.
	eval := EvalConfig{Cache: without.Cache, Checkpoint: got.Checkpoint, Engine: "gonum"}
	e, err := Evaluate(context.Background(), eval, w.engines(), nil)
	must(t, err)
	for _, m := range got.After {
		if e.Metrics.Get(m.Name) != m.Value {
			t.Errorf("eval gives %s %v, training ended with %v", m.Name, e.Metrics.Get(m.Name), m.Value)
		}
	}
	eval.Checkpoint = want.Checkpoint // its run did not
	if _, ok := errors.AsType[*NoFeaturesError](second(Evaluate(context.Background(), eval, w.engines(), nil))); !ok {
		t.Error("eval without a model is not refused")
	}
	eval.Model = w.path("model")
	again, err := Evaluate(context.Background(), eval, w.engines(), nil)
	must(t, err)
	if !slices.Equal(again.Metrics, e.Metrics) {
		t.Errorf("eval of equal heads gives %v and %v", again.Metrics, e.Metrics)
	}
	x := DefaultExportConfig()
	x.Checkpoint, x.Model, x.Out, x.Engine = got.Checkpoint, w.path("model"), w.path("policy"), "gonum"
	exported, err := Export(context.Background(), x, w.rt, nil)
	must(t, err)
	if v := exported.Verified; v.FeatureDType != refcache.None || v.MaxRounding != 0 || v.MaxMoved < 100*v.MaxDiff {
		t.Errorf("verified as %+v", v)
	}
}

func second[T any](_ T, err error) error { return err }

// A run that is stopped, or that dies in any batch of the model, ends in the bytes of one
// that was not.
func TestTrainingWithoutFeaturesResumesInTheSameBytes(t *testing.T) {
	w := newWorld(t)
	cfg := w.withoutFeatures(20)
	w.rt.calls = 0
	_, err := Train(context.Background(), cfg, w.engines(), nil)
	must(t, err)
	want, calls := checkpointFiles(t, cfg.Out), w.rt.calls
	if calls < 10 {
		t.Fatalf("the training has %d batches of the model, too few for this test", calls)
	}
	resumed := 0
	for kill := 1; kill <= calls; kill++ {
		cfg := cfg
		cfg.Out, cfg.Resume = w.path(fmt.Sprint("run-", kill)), true
		w.rt.calls = 0
		w.rt.stop = func(call int) error {
			if call == kill {
				return errKilled
			}
			return nil
		}
		if _, err := Train(context.Background(), cfg, w.engines(), nil); !errors.Is(err, errKilled) {
			t.Fatalf("killed at batch %d: error is %v", kill, err)
		}
		w.rt.stop = nil
		r, err := Train(context.Background(), cfg, w.engines(), nil)
		must(t, err)
		resumed += int(min(r.ResumedAt, 1))
		sameTree(t, checkpointFiles(t, cfg.Out), want)
	}
	if resumed == 0 {
		t.Error("no run went on from a checkpoint: nothing was tested")
	}
}

func TestCacheWithoutFeaturesNeedsItsModel(t *testing.T) {
	w := newWorld(t)
	cfg := w.withoutFeatures(8)
	missing := cfg
	missing.Model = ""
	if e, ok := errors.AsType[*NoFeaturesError](second(Train(context.Background(), missing, w.engines(), nil))); !ok || len(e.Model) != 64 {
		t.Errorf("without --model: error is %v, want one that names the model's SHA-256", e)
	}
	other := newWorld(t)
	wrong := cfg
	other.write("model/model.onnx", string(w.changedModel()))
	wrong.Model = other.path("model")
	if e, ok := errors.AsType[*refcache.StaleError](second(Train(context.Background(), wrong, w.engines(), nil))); !ok || e.Key != "model" {
		t.Errorf("another model: error is %v, want a stale model", e)
	}
	noRuntime := errors.New("no runtime here")
	engines := Engines{Head: gonumEngine.Head, Runtime: func() (Runtime, error) { return nil, noRuntime }}
	if _, err := Train(context.Background(), cfg, engines, nil); !errors.Is(err, noRuntime) || !strings.Contains(err.Error(), "the model has to be run") {
		t.Errorf("without a runtime: error is %v", err)
	}
	if exists(cfg.Out) {
		t.Error("a refused run left a folder")
	}
}

// changedModel is the world's model file with another weight.
func (w *world) changedModel() []byte {
	data := []byte(tree(w.t, w.path("model"))["model.onnx"])
	data[len(data)/2] ^= 1
	return data
}

// A sweep reads what the model gives once for all its runs.
func TestSweepWithoutFeaturesRunsTheModelOnce(t *testing.T) {
	w := newWorld(t)
	cfg := w.withoutFeatures(24)
	cfg.EvalEvery = 3
	tokens := func(run func() error) int {
		w.rt.tokens = 0
		must(t, run())
		return w.rt.tokens
	}
	one := tokens(func() error { return second(Train(context.Background(), cfg, w.engines(), nil)) })
	sweep := cfg
	sweep.Out = w.path("sweep")
	many := tokens(func() error {
		return second(Sweep(context.Background(), sweep, axesOf(t, "beta=0.1,0.2", "rank=2,4"), w.engines(), nil))
	})
	if one == 0 || many != one {
		t.Errorf("four runs ran %d tokens through the model, one %d, want the same", many, one)
	}
	sameTree(t, checkpointFiles(t, filepath.Join(sweep.Out, "beta=0.1,rank=4")), checkpointFiles(t, cfg.Out))
}

// calledSource says when it was called.
type calledSource chan []refcache.Row

func (c calledSource) complete(_ context.Context, pairs []refcache.Row) error {
	c <- pairs
	return nil
}

func (calledSource) close() error { return nil }

// The features of the next batch are computed while one is in use, and no more than that.
func TestFeaturesAreComputedAhead(t *testing.T) {
	w := newWorld(t)
	cache, err := refcache.Open(w.cacheOf(refcache.None, 16))
	must(t, err)
	defer cache.Close()
	part, err := newPartition(context.Background(), cache, 0)
	must(t, err)
	source := make(calledSource)
	feed := openFeed(context.Background(), cachedPairs{cache, source}, 2, trainingBatches(cache, part, TrainConfig{BatchPairs: 2}, 0, 8))
	// The one in use and the one read ahead are given back only at the end.
	var asked [][]refcache.Row
	for range feedAhead {
		asked = append(asked, <-source)
		rows, err := feed.next()
		must(t, err)
		if &rows[0] != &asked[len(asked)-1][0] {
			t.Error("a batch came without its features")
		}
	}
	select {
	case <-source:
		t.Error("a third batch was read into memory that is in use")
	default:
	}
	feed.giveBack(asked[0])
	if again := <-source; &again[0] != &asked[0][0] {
		t.Error("the third batch is not in the memory of the first")
	}
	feed.close()
}

// What the pairs of a batch have in common is run once.
func TestFeaturesOfABatchShareTheirPrompt(t *testing.T) {
	w := newWorld(t)
	prompt := strings.Repeat("p", 30)
	var rows strings.Builder
	for i := range 4 {
		fmt.Fprintf(&rows, `{"prompt": %q, "chosen": "%c", "rejected": "%c"}`+"\n", prompt, 'a'+i, 'A'+i)
	}
	w.write("pairs.jsonl", rows.String())
	cfg := w.precomputeConfig(w.path("pairs.jsonl"))
	cfg.Features = refcache.None
	must(t, second(Precompute(context.Background(), cfg, w.rt, nil)))
	cache, err := refcache.Open(cfg.Out)
	must(t, err)
	defer cache.Close()
	pairs, err := openPairs(cache, w.path("model"), "", w.engines())
	must(t, err)
	defer pairs.features.close()
	w.rt.tokens = 0
	batch := make([]refcache.Row, 4)
	must(t, pairs.read(context.Background(), []int64{3, 1, 0, 2}, batch))
	// Eight completions of one letter, whose end is not run, behind one prompt.
	if want := len(prompt) + 8; w.rt.tokens != want {
		t.Errorf("%d tokens were run, want %d", w.rt.tokens, want)
	}
	for _, row := range batch {
		for _, chosen := range []bool{true, false} {
			ids, _, features := completionRow(&row, chosen)
			seq := sequence{prompt: len(row.Prompt), ids: slices.Concat(row.Prompt, ids)}
			checkStates(t, w.decoder, seq, features)
		}
	}
}

// An update of a cache without features runs the new pairs alone.
func TestUpdateWithoutFeatures(t *testing.T) {
	w := newWorld(t)
	none := func(c *PrecomputeConfig) { c.Features = refcache.None }
	_, _, err := w.precomputed("cache", prefs("a=1", "b=2", "c=3"), none)
	must(t, err)
	r, _, err := w.precomputed("cache", prefs("a=1", "b=2", "c=3", "d=4"), none)
	must(t, err)
	if r.Update == nil || r.Update.Reused != 3 || r.Update.Computed != 1 {
		t.Errorf("update is %+v, want 3 pairs reused and one computed", r.Update)
	}
	_, _, err = w.precomputed("fresh", prefs("a=1", "b=2", "c=3", "d=4"), none)
	must(t, err)
	sameTree(t, tree(t, w.path("cache")), tree(t, w.path("fresh")))
}
