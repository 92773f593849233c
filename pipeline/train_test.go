package pipeline

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/loss"
	"github.com/dpo-pipe/dpo-pipe/models"
)

func TestTrainLearnsThePreference(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(40))
	cfg.Epochs = 6
	r, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	if got := r.Before.Get("loss"); math.Abs(got-math.Ln2) > 1e-6 {
		t.Errorf("held-out loss before is %.9f, want ln 2", got)
	}
	if got := r.Before.Get("rewards/accuracies"); got != 0 {
		t.Errorf("held-out accuracy before is %g, want 0: no reward is strictly higher", got)
	}
	if got := r.After.Get("rewards/accuracies"); got < 0.9 {
		t.Errorf("held-out accuracy after is %g: the letter that tells the sides apart was not learnt", got)
	}
	if r.TrainPairs+r.HeldOutPairs != 40 || r.HeldOutPairs == 0 {
		t.Errorf("%d pairs trained on and %d held out, want 40 together", r.TrainPairs, r.HeldOutPairs)
	}
	e, err := Evaluate(context.Background(), EvalConfig{Cache: cfg.Cache, Checkpoint: r.Checkpoint, Engine: "gonum"}, gonumEngine, nil)
	must(t, err)
	for _, m := range r.After {
		if got := e.Metrics.Get(m.Name); got != m.Value {
			t.Errorf("eval gives %s %v, training ended with %v", m.Name, got, m.Value)
		}
	}
}

// checkpointFiles is what must not depend on interruptions: the newest evaluation, and
// all of a checkpoint but the length of the metrics file, whose lines hold timings.
func checkpointFiles(t *testing.T, run string) map[string]string {
	t.Helper()
	target, err := filepath.EvalSymlinks(filepath.Join(run, lastName))
	must(t, err)
	files := tree(t, target)
	delete(files, stateName)
	evaluation, err := os.ReadFile(filepath.Join(run, evaluationName))
	must(t, err)
	files[evaluationName] = string(evaluation)
	return files
}

// A run that is stopped after any step, or that dies between checkpoints, ends
// in the bytes of one that was not.
func TestTrainResumesInTheSameBytes(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(20))
	whole, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	want := checkpointFiles(t, cfg.Out)
	for stop := int64(1); stop < whole.Steps; stop++ {
		for _, kill := range []bool{false, true} {
			t.Run(fmt.Sprintf("stop=%d/kill=%v", stop, kill), func(t *testing.T) {
				cfg := cfg
				cfg.Out = w.path(fmt.Sprint("run-", stop, kill))
				interrupt(t, cfg, stop, kill)
				cfg.Resume = true
				r, err := Train(context.Background(), cfg, gonumEngine, nil)
				must(t, err)
				if r.Steps != whole.Steps {
					t.Fatalf("ended at step %d, want %d", r.Steps, whole.Steps)
				}
				if !kill && r.ResumedAt != stop {
					t.Errorf("resumed at step %d, want %d: stopping writes a checkpoint", r.ResumedAt, stop)
				}
				sameTree(t, checkpointFiles(t, cfg.Out), want)
				if a, b := metricLines(t, cfg.Out), metricLines(t, w.path("run")); kill && a != b {
					t.Errorf("metrics have steps %s, want %s", a, b)
				}
			})
		}
	}
}

// interrupt runs a training until it is cancelled while it takes a step, or dies in
// the step behind it.
func interrupt(t *testing.T, cfg TrainConfig, step int64, kill bool) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	at := step
	if kill {
		at++
	}
	open := func(_ string, v *models.Vocabulary) (models.Engine, error) {
		return &countingEngine{Engine: models.NewGonum(v), at: at, do: func() error {
			if kill {
				return errKilled
			}
			cancel(errKilled)
			return nil
		}}, nil
	}
	if _, err := Train(ctx, cfg, Engines{Head: open}, nil); !errors.Is(err, errKilled) {
		t.Fatalf("error is %v, want that of the interruption", err)
	}
}

// countingEngine calls do in the backward pass of a step; there is one a step.
type countingEngine struct {
	models.Engine
	at, calls int64
	do        func() error
}

func (e *countingEngine) Backward(ctx context.Context, coef []float64, grad models.AdditionGrad) error {
	e.calls++
	if e.calls == e.at {
		if err := e.do(); err != nil {
			return err
		}
	}
	return e.Engine.Backward(ctx, coef, grad)
}

// metricLines lists the steps of a run's metrics.
func metricLines(t *testing.T, run string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(run, metricsName))
	must(t, err)
	var steps []string
	for line := range strings.Lines(string(data)) {
		steps = append(steps, line[:strings.Index(line, ",")])
	}
	return strings.Join(steps, "")
}

func TestTrainRefuses(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(8))
	cfg.EvalFrac = 0
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)

	var there *RunExistsError
	if _, err := Train(context.Background(), cfg, gonumEngine, nil); !errors.As(err, &there) {
		t.Errorf("over an earlier run: error is %v", err)
	}
	other := cfg
	other.Resume, other.Beta = true, 0.2
	if _, err := Train(context.Background(), other, gonumEngine, nil); err == nil || !strings.Contains(err.Error(), "beta: 0.2") {
		t.Errorf("resumed with another beta: error is %v", err)
	}
	stale := cfg
	stale.Out, stale.Data = w.path("run2"), []string{w.pairs("other.jsonl", 9)}
	var staleErr *refcache.StaleError
	if _, err := Train(context.Background(), stale, gonumEngine, nil); !errors.As(err, &staleErr) || staleErr.Key != "data" {
		t.Errorf("cache of other data: error is %v", err)
	}
	if exists(stale.Out) {
		t.Error("a refused run left a folder")
	}
	bad := cfg
	bad.Out, bad.Rank, bad.LR, bad.Beta = w.path("run3"), 0, math.NaN(), -1
	err = bad.Validate()
	for _, field := range []string{"--rank", "--lr", "--beta"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("settings %+v: error %v does not name %s", bad, err, field)
		}
	}
}

// shiftedEngine scores with a head that is not the cache's.
type shiftedEngine struct{ models.Engine }

func (e shiftedEngine) Forward(ctx context.Context, add models.Addition, out *models.Tokens) error {
	err := e.Engine.Forward(ctx, add, out)
	for i := range out.Logps {
		out.Logps[i] -= 0.01
	}
	return err
}

func TestTrainRefusesAHeadThatIsNotTheReference(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(8))
	open := func(_ string, v *models.Vocabulary) (models.Engine, error) {
		return shiftedEngine{models.NewGonum(v)}, nil
	}
	var fresh *FreshHeadError
	if _, err := Train(context.Background(), cfg, Engines{Head: open}, nil); !errors.As(err, &fresh) {
		t.Errorf("error is %v, want a *FreshHeadError", err)
	}
}

// float32Grad is the share by which sums of float32 products in another order may differ.
const float32Grad = 1e-4

// The gradient is that of the optimizer batch whatever the micro-batches, also
// where a completion is cut and where the objective needs the whole batch.
func TestGradientDoesNotDependOnMicroBatches(t *testing.T) {
	w := newWorld(t)
	cache, err := refcache.Open(w.cache(9))
	must(t, err)
	defer cache.Close()
	batch := make([]refcache.Row, cache.Len())
	for i := range batch {
		must(t, cache.Row(int64(i), &batch[i]))
		batch[i].Weight = float32(1 + i%3)
	}
	v, err := vocabulary(cache)
	must(t, err)
	for _, spec := range []string{"sigmoid", "ipo", "sigmoid:0.5,sft:2", "aot"} {
		var want []models.Param
		for _, limit := range []int{1 << 20, 64, 20, 7, 1} {
			objective, err := loss.Parse(spec, loss.DefaultOptions())
			must(t, err)
			head := models.NewLoRA(v.D, v.V, 3, 6, 1)
			for i := range head.B {
				head.B[i] = float32(i%7-3) / 50
			}
			p := newProduct(models.NewGonum(v), limit)
			must(t, p.score(context.Background(), batch, []*scorer{newScorer(head, objective)}, true))
			if want == nil {
				want = head.Params()
				continue
			}
			for k, p := range head.Params() {
				scale := maxAbs(want[k].Grad)
				for i := range p.Grad {
					if d := math.Abs(float64(p.Grad[i] - want[k].Grad[i])); !(d <= float32Grad*scale) {
						t.Fatalf("%s, %d tokens: gradient of %s[%d] is %g, want %g", spec, limit, p.Name, i, p.Grad[i], want[k].Grad[i])
					}
				}
			}
		}
	}
}

func maxAbs(x []float32) (m float64) {
	for _, v := range x {
		m = max(m, math.Abs(float64(v)))
	}
	return m
}

// Every training pair comes once an epoch, held-out ones never, whatever the
// batch size and the step the feed starts at.
func TestFeed(t *testing.T) {
	w := newWorld(t)
	cache, err := refcache.Open(w.cache(21))
	must(t, err)
	defer cache.Close()
	rapid.Check(t, func(t *rapid.T) {
		cfg := TrainConfig{BatchPairs: rapid.IntRange(1, 25).Draw(t, "batch"), Seed: rapid.Uint64().Draw(t, "seed")}
		frac := rapid.SampledFrom([]float64{0, 0.3}).Draw(t, "eval-frac")
		part, err := newPartition(context.Background(), cache, frac)
		if err != nil {
			t.Fatal(err)
		}
		perEpoch := stepsPerEpoch(part.train, cfg.BatchPairs)
		var all [][]string
		pairs := cachedPairs{cache, stored{}}
		feed := openFeed(context.Background(), pairs, cfg.BatchPairs, trainingBatches(cache, part, cfg, 0, 2*perEpoch))
		for range 2 * perEpoch {
			rows, err := feed.next()
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for i := range rows {
				ids = append(ids, rows[i].ID.String())
				if part.split.heldOut(rows[i].PromptKey) {
					t.Fatalf("pair %s is held out", rows[i].ID)
				}
			}
			all = append(all, ids)
			feed.giveBack(rows)
		}
		feed.close()
		for epoch := range 2 {
			seen := map[string]bool{}
			for _, ids := range all[int64(epoch)*perEpoch : int64(epoch+1)*perEpoch] {
				for _, id := range ids {
					seen[id] = true
				}
			}
			if int64(len(seen)) != part.train {
				t.Fatalf("epoch %d has %d pairs, want %d", epoch, len(seen), part.train)
			}
		}
		step := rapid.Int64Range(0, 2*perEpoch-1).Draw(t, "step")
		feed = openFeed(context.Background(), pairs, cfg.BatchPairs, trainingBatches(cache, part, cfg, step, 2*perEpoch))
		defer feed.close()
		rows, err := feed.next()
		if err != nil {
			t.Fatal(err)
		}
		for i := range rows {
			if got, want := rows[i].ID.String(), all[step][i]; got != want {
				t.Fatalf("started at step %d, pair %d is %s, want %s", step, i, got, want)
			}
		}
	})
}

// keep_end cuts a prompt by what its completions need; pairs of one prompt stay
// on one side all the same.
func TestSplitHoldsForCutPrompts(t *testing.T) {
	w := newWorld(t)
	var rows strings.Builder
	for i := range 40 {
		fmt.Fprintf(&rows, `{"prompt": "one and the same prompt of many letters:", "chosen": "%s", "rejected": "b%d"}`+"\n", strings.Repeat("a", 1+i), i)
	}
	w.write("pairs.jsonl", rows.String())
	cfg := w.precomputeConfig(w.path("pairs.jsonl"))
	cfg.Encode.MaxLength, cfg.Encode.Truncation = 46, encode.KeepEnd
	r, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	if r.Counts.Truncated < 30 {
		t.Fatalf("%d pairs were truncated, too few for this test", r.Counts.Truncated)
	}
	cache, err := refcache.Open(cfg.Out)
	must(t, err)
	defer cache.Close()
	for frac := 0.05; frac < 1; frac += 0.05 {
		part := partition{split: newSplit(frac)}
		for i := range cache.Len() {
			key, err := cache.Key(i)
			must(t, err)
			if part.split.heldOut(key) {
				part.held++
			}
		}
		if part.held != 0 && part.held != cache.Len() {
			t.Errorf("at %.2f, %d of %d pairs of one prompt are held out", frac, part.held, cache.Len())
		}
	}
}

func TestSplitIsByPromptAlone(t *testing.T) {
	const n, frac = 20000, 0.2
	s, held := newSplit(frac), 0
	for i := range n {
		var prompt [16]byte
		sum := sha256.Sum256([]byte(fmt.Sprint(i)))
		copy(prompt[:], sum[:])
		out := s.heldOut(prompt)
		if out {
			held++
		}
		// A smaller share holds out a part of what a larger one does.
		if !out && newSplit(frac/2).heldOut(prompt) {
			t.Fatalf("prompt %d is held out at a share of %g and not at %g", i, frac/2, frac)
		}
	}
	// Five standard deviations of a binomial share.
	if got, slack := float64(held)/n, 5*math.Sqrt(frac*(1-frac)/n); math.Abs(got-frac) > slack {
		t.Errorf("%.4f of the prompts are held out, want %g ± %.4f", got, frac, slack)
	}
	if newSplit(0).heldOut([16]byte{}) {
		t.Error("a share of 0 holds out a prompt")
	}
}
