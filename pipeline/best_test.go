package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestRanking(t *testing.T) {
	lower := TrainConfig{BestMetric: "loss", BestDirection: "auto"}.better
	var r ranking
	for i, tt := range []struct {
		value       float64
		kept, first bool
		steps       []int64
	}{
		{math.NaN(), false, false, nil},
		{0.5, true, true, []int64{2}},
		{0.6, true, false, []int64{2, 3}},
		{0.6, false, false, []int64{2, 3}}, // the earlier of equals stays
		{0.5, true, false, []int64{2, 5}},
		{0.4, true, true, []int64{6, 2}},
		{math.Inf(-1), false, false, []int64{6, 2}},
		{0.4, true, false, []int64{6, 8}},
	} {
		var kept, first bool
		next := int64(i + 1)
		r, kept, first = r.add(RankedCheckpoint{next, tt.value}, 2, lower)
		var steps []int64
		for _, one := range r {
			steps = append(steps, one.Step)
		}
		if kept != tt.kept || first != tt.first || !slices.Equal(steps, tt.steps) {
			t.Errorf("step %d with %g: kept %v, first %v, best %v; want %v, %v, %v", next, tt.value, kept, first, steps, tt.kept, tt.first, tt.steps)
		}
	}
}

// The ranking is the front of all checkpoints, sorted.
func TestRankingIsTheFrontOfAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.IntRange(1, 4).Draw(t, "k")
		cfg := TrainConfig{BestMetric: "kl", BestDirection: rapid.SampledFrom([]string{"lower", "higher"}).Draw(t, "direction")}
		var r ranking
		var all []RankedCheckpoint
		for step := range rapid.IntRange(1, 12).Draw(t, "steps") {
			one := RankedCheckpoint{int64(step), float64(rapid.IntRange(-3, 3).Draw(t, "value"))}
			all = append(all, one)
			r, _, _ = r.add(one, k, cfg.better)
		}
		sign := map[string]float64{"lower": 1, "higher": -1}[cfg.BestDirection]
		slices.SortStableFunc(all, func(a, b RankedCheckpoint) int { return int(sign * (a.Value - b.Value)) })
		if diff := cmp.Diff([]RankedCheckpoint(r), all[:min(k, len(all))]); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestBestSettings(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*TrainConfig)
		field  string // that is refused; "" none
	}{
		{"defaults", func(*TrainConfig) {}, ""},
		{"another metric", func(c *TrainConfig) { c.BestMetric = "rewards/margins" }, ""},
		{"a name with eval_", func(c *TrainConfig) { c.BestMetric = "eval_loss" }, "--best-metric"},
		{"no side by itself", func(c *TrainConfig) { c.BestMetric = "entropy" }, "--best-direction"},
		{"a side for it", func(c *TrainConfig) { c.BestMetric, c.BestDirection = "entropy", "higher" }, ""},
		{"no such side", func(c *TrainConfig) { c.BestDirection = "up" }, "--best-direction"},
		{"none kept", func(c *TrainConfig) { c.KeepBest = 0 }, "--keep-best"},
		{"no patience", func(c *TrainConfig) { c.EarlyStop = -1 }, "--early-stop"},
		{"nothing to count", func(c *TrainConfig) { c.EarlyStop = 1 }, "--eval-every"},
		{"nothing held out", func(c *TrainConfig) { c.EarlyStop, c.EvalEvery, c.EvalFrac = 1, 5, 0 }, "--eval-frac"},
		{"early stop", func(c *TrainConfig) { c.EarlyStop, c.EvalEvery = 1, 5 }, ""},
	} {
		cfg := DefaultTrainConfig()
		cfg.Cache, cfg.Out = "cache", "run"
		tt.change(&cfg)
		var field *FieldError
		err := cfg.Validate()
		if errors.As(err, &field) != (tt.field != "") || field != nil && field.Field != tt.field {
			t.Errorf("%s: error is %v, want one about %q", tt.name, err, tt.field)
		}
	}
	for name, side := range betterSide {
		if !slices.Contains(metricNames(), name) || side != lower && side != higher {
			t.Errorf("%s is better %q, and no metric", name, side)
		}
	}
}

// stoppingConfig trains until accuracy is 1 and can't become better.
func (w *world) stoppingConfig() TrainConfig {
	cfg := w.trainConfig(w.cache(24))
	cfg.Epochs, cfg.EvalEvery, cfg.LR = 6, 2, 0.02
	cfg.BestMetric, cfg.EarlyStop, cfg.KeepBest, cfg.Keep = "rewards/accuracies", 2, 2, 1
	return cfg
}

// evaluations reads step and value of a held-out metric from metrics.jsonl.
func evaluations(t testing.TB, run, metric string) (all []RankedCheckpoint) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(run, metricsName))
	must(t, err)
	for line := range strings.Lines(string(data)) {
		var m map[string]*float64
		must(t, json.Unmarshal([]byte(line), &m))
		if v := m["eval_"+metric]; v != nil && *m["step"] > 0 {
			all = append(all, RankedCheckpoint{int64(*m["step"]), *v})
		}
	}
	return all
}

func TestEarlyStop(t *testing.T) {
	w := newWorld(t)
	cfg := w.stoppingConfig()
	r, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	all := evaluations(t, cfg.Out, cfg.BestMetric)
	// What the lines of metrics say, counted as a person would.
	best, stale := 0, 0
	for i := 1; i < len(all); i++ {
		if stale++; all[i].Value > all[best].Value {
			best, stale = i, 0
		}
		if stale == cfg.EarlyStop && i != len(all)-1 {
			t.Fatalf("training went on behind step %d: evaluations are %v", all[i].Step, all)
		}
	}
	if stale != cfg.EarlyStop || !r.StoppedEarly || r.Steps != all[len(all)-1].Step {
		t.Fatalf("ended at step %d, stopped early %v, after evaluations %v", r.Steps, r.StoppedEarly, all)
	}
	ranked := slices.Clone(all)
	slices.SortStableFunc(ranked, func(a, b RankedCheckpoint) int { return int(1e9 * (b.Value - a.Value)) })
	if diff := cmp.Diff(r.BestCheckpoints, ranked[:2]); diff != "" || r.BestMetric != cfg.BestMetric {
		t.Errorf("best by %s: %s", r.BestMetric, diff)
	}
	link, err := os.Readlink(filepath.Join(cfg.Out, bestName))
	must(t, err)
	if want := stepName(all[best].Step); filepath.Base(link) != want {
		t.Errorf("best leads to %s, want %s", link, want)
	}
	steps, err := checkpointSteps(cfg.Out)
	must(t, err)
	want := []int64{ranked[0].Step, ranked[1].Step, r.Steps}
	slices.Sort(want)
	if !slices.Equal(steps, slices.Compact(want)) {
		t.Errorf("checkpoints %v are left, want the newest and the best two, %v", steps, want)
	}
	cfg.Resume = true
	again, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	if again.Steps != r.Steps || !again.StoppedEarly || again.ResumedAt != r.Steps {
		t.Errorf("a run that stopped early, resumed, says %+v", again)
	}
}

// Killed or stopped anywhere, a run stops early at the same step with the same best.
func TestEarlyStopResumesTheSame(t *testing.T) {
	w := newWorld(t)
	cfg := w.stoppingConfig()
	whole, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	want, wantState := checkpointFiles(t, cfg.Out), endState(t, cfg.Out)
	for stop := int64(1); stop < whole.Steps; stop++ {
		for _, kill := range []bool{false, true} {
			cfg := cfg
			cfg.Out = w.path(fmt.Sprint("run-", stop, kill))
			interrupt(t, cfg, stop, kill)
			cfg.Resume = true
			r, err := Train(context.Background(), cfg, gonumEngine, nil)
			must(t, err)
			if diff := cmp.Diff(r.BestCheckpoints, whole.BestCheckpoints); diff != "" || r.Steps != whole.Steps {
				t.Errorf("stopped at %d, killed %v: ended at step %d, want %d; best: %s", stop, kill, r.Steps, whole.Steps, diff)
			}
			sameTree(t, checkpointFiles(t, cfg.Out), want)
			if diff := cmp.Diff(endState(t, cfg.Out), wantState); diff != "" {
				t.Errorf("stopped at %d, killed %v: state differs: %s", stop, kill, diff)
			}
			for _, one := range r.BestCheckpoints {
				if !isFile(filepath.Join(cfg.Out, checkpointsName, stepName(one.Step), stateName)) {
					t.Errorf("stopped at %d, killed %v: the checkpoint of step %d is gone", stop, kill, one.Step)
				}
			}
		}
	}
}

// endState is the state of the last checkpoint, less the length of the metrics
// file, whose lines hold timings.
func endState(t testing.TB, run string) string {
	t.Helper()
	s, err := readState(filepath.Join(run, lastName))
	must(t, err)
	s.MetricsBytes, s.MetricsSHA256, s.Config.Out = 0, "", ""
	text, err := json.Marshal(s)
	must(t, err)
	return string(text)
}

func TestEarlyStopNeedsHeldOutPairs(t *testing.T) {
	w := newWorld(t)
	cfg := w.stoppingConfig()
	cfg.EvalFrac = 1e-9
	var field *FieldError
	if _, err := Train(context.Background(), cfg, gonumEngine, nil); !errors.As(err, &field) || field.Field != "--eval-frac" {
		t.Errorf("error is %v, want one about --eval-frac", err)
	}
}

// What a run hands over under RestoreBest is its best checkpoint with its metrics; the
// newest stays for --resume.
func TestRestoreBest(t *testing.T) {
	w := newWorld(t)
	cfg := w.stoppingConfig()
	cfg.RestoreBest = true
	whole, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	best := whole.BestCheckpoints[0]
	if best.Step == whole.Steps {
		t.Fatal("the newest checkpoint is the best: nothing is tested")
	}
	if whole.Checkpoint != filepath.Join(cfg.Out, bestName) || whole.CheckpointStep != best.Step || whole.After.Get(cfg.BestMetric) != best.Value {
		t.Errorf("hands over %s of step %d with %v, want the best, %+v", whole.Checkpoint, whole.CheckpointStep, whole.After, best)
	}
	e, err := Evaluate(context.Background(), EvalConfig{Cache: cfg.Cache, Checkpoint: whole.Checkpoint, Engine: "gonum"}, gonumEngine, nil)
	must(t, err)
	if diff := cmp.Diff(e.Metrics, whole.After); diff != "" {
		t.Errorf("eval of it gives other metrics: %s", diff)
	}
	if link, err := os.Readlink(filepath.Join(cfg.Out, lastName)); err != nil || link != checkpointPath(whole.Steps) {
		t.Errorf("last leads to %q (%v), want the newest", link, err)
	}
	for _, stop := range []int64{1, 5, whole.Steps} {
		again := cfg
		again.Out, again.Resume = w.path(fmt.Sprint("again-", stop)), true
		if stop == whole.Steps {
			again.Out = cfg.Out
		} else {
			interrupt(t, again, stop, stop == 5)
		}
		r, err := Train(context.Background(), again, gonumEngine, nil)
		must(t, err)
		if r.CheckpointStep != whole.CheckpointStep || filepath.Base(r.Checkpoint) != bestName || cmp.Diff(r.After, whole.After) != "" {
			t.Errorf("resumed at %d it hands over %s of step %d", r.ResumedAt, r.Checkpoint, r.CheckpointStep)
		}
	}
}

func TestRestoreBestNeedsEvaluations(t *testing.T) {
	for field, change := range map[string]func(*TrainConfig){
		"--eval-every": func(c *TrainConfig) { c.EvalEvery = 0 },
		"--eval-frac":  func(c *TrainConfig) { c.EvalFrac = 0 },
	} {
		cfg := DefaultTrainConfig()
		cfg.Cache, cfg.Out, cfg.RestoreBest, cfg.EvalEvery = "cache", "run", true, 5
		change(&cfg)
		refusesField(t, cfg.Validate(), field)
	}
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(8))
	cfg.RestoreBest, cfg.EvalEvery, cfg.EvalFrac = true, 1, 1e-9
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	refusesField(t, err, "--eval-frac")
}

// refusesField wants an error about a setting.
func refusesField(t *testing.T, err error, field string) {
	t.Helper()
	var e *FieldError
	if !errors.As(err, &e) || e.Field != field {
		t.Errorf("error is %v, want one about %s", err, field)
	}
}
