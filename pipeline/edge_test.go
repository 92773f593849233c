package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// A kill between a checkpoint and the links behind it leaves last and best where
// they were: resuming mends them, also when no step is left.
func TestResumeMendsLinks(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(40))
	cfg.EvalEvery = 3
	r, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	want := map[string]string{}
	for _, link := range []string{lastName, bestName} {
		want[link], err = os.Readlink(filepath.Join(cfg.Out, link))
		must(t, err)
		must(t, os.Remove(filepath.Join(cfg.Out, link)))
	}
	must(t, os.Symlink(filepath.Join(checkpointsName, "step-1"), filepath.Join(cfg.Out, lastName)))
	cfg.Resume = true
	again, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	for link, target := range want {
		if got, err := os.Readlink(filepath.Join(cfg.Out, link)); err != nil || got != target {
			t.Errorf("%s leads to %q (%v), want %q", link, got, err, target)
		}
	}
	if again.Steps != r.Steps || again.ResumedAt != r.Steps || fmt.Sprint(again.After) != fmt.Sprint(r.After) {
		t.Errorf("a finished run resumed says %+v, it had said %+v", again, r)
	}
}

func TestAFinishedRunKeepsItsSummary(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(20))
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	want, err := os.ReadFile(filepath.Join(cfg.Out, summaryName))
	must(t, err)
	cfg.Resume = true
	_, err = Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	if got, err := os.ReadFile(filepath.Join(cfg.Out, summaryName)); err != nil || string(got) != string(want) {
		t.Errorf("resuming a finished run rewrote its summary: %v\n%s", err, got)
	}
}

func TestResumeWithoutMetrics(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(20))
	cfg.EvalFrac = 0
	interrupt(t, cfg, 4, false)
	must(t, os.Remove(filepath.Join(cfg.Out, metricsName)))
	cfg.Resume = true
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
}

// A run of one step learns: its step is not the warm-up's first, whose rate is 0.
func TestATinyRunLearns(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(4))
	cfg.BatchPairs, cfg.Epochs, cfg.EvalFrac, cfg.Warmup = 16, 1, 0, 0.1
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	data, err := os.ReadFile(filepath.Join(cfg.Out, metricsName))
	must(t, err)
	if strings.Contains(string(data), `"learning_rate":0,`) {
		t.Errorf("the only step has a learning rate of 0: %s", data)
	}
}

func TestPairsWithoutWeight(t *testing.T) {
	w := newWorld(t)
	var rows strings.Builder
	for i := range 6 {
		fmt.Fprintf(&rows, `{"prompt": "q%d", "chosen": "a", "rejected": "b", "weight": %d}`+"\n", i, i/3)
	}
	w.write("pairs.jsonl", rows.String())
	_, err := Precompute(context.Background(), w.precomputeConfig(w.path("pairs.jsonl")), w.rt, nil)
	must(t, err)
	cfg := w.trainConfig(w.path("cache"))
	cfg.BatchPairs, cfg.EvalFrac = 1, 0
	_, err = Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
}

// Where the split holds nothing out, the export is verified on any pairs, and
// says so; the folder is made with its parents, whatever slash ends its name.
func TestExportWithoutHeldOutPairs(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(8))
	cfg.EvalFrac = 0
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	x := DefaultExportConfig()
	x.Checkpoint, x.Model, x.Out, x.Engine = filepath.Join(cfg.Out, lastName), w.path("model"), w.path("a/b/policy")+"/", "gonum"
	r, err := Export(context.Background(), x, w.rt, nil)
	must(t, err)
	if r.Verified.Pairs != 8 || r.Verified.HeldOut {
		t.Errorf("verified as %+v, want all 8 pairs, not held out", r.Verified)
	}
}

// Paths in a run are those of the files, not of the folder the command was given in.
func TestRunsMoveWithTheShell(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(20))
	t.Chdir(w.dir)
	cfg.Cache, cfg.Out = "cache", "run"
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	t.Chdir(t.TempDir())
	x := DefaultExportConfig()
	x.Checkpoint, x.Model, x.Out, x.Engine = filepath.Join(w.path("run"), lastName), w.path("model"), w.path("policy"), "gonum"
	_, err = Export(context.Background(), x, w.rt, nil)
	must(t, err)
}

func TestOutputsRefuseOtherFolders(t *testing.T) {
	w := newWorld(t)
	cache := w.cache(8)
	w.write("file", "")
	must(t, os.Mkdir(w.path("other"), 0o777))
	w.write("other/thing", "")
	for _, out := range []string{"file", "other", "model"} {
		cfg := w.precomputeConfig(w.path("pairs.jsonl"))
		cfg.Out = w.path(out)
		var field *FieldError
		if _, err := Precompute(context.Background(), cfg, w.rt, nil); !errors.As(err, &field) || field.Field != "--out" {
			t.Errorf("cache into %s: error is %v", out, err)
		}
		train := w.trainConfig(cache)
		train.Out = w.path(out)
		if _, err := Train(context.Background(), train, gonumEngine, nil); !errors.As(err, &field) || field.Field != "--out" {
			t.Errorf("run into %s: error is %v", out, err)
		}
	}
	train := w.trainConfig(cache)
	train.Out = cache
	var field *FieldError
	if _, err := Train(context.Background(), train, gonumEngine, nil); !errors.As(err, &field) {
		t.Errorf("run into its cache: error is %v", err)
	}
}

// What was refused for its share of bad rows is refused again when it is there
// already, and a limit is no way around it.
func TestBadRowsCountForFinishedAndLimitedCaches(t *testing.T) {
	w := newWorld(t)
	w.write("rows.jsonl", strings.Repeat(`{"prompt": "p", "chosen": "a"}`+"\n"+`{"prompt": "q", "chosen": "c", "rejected": "d"}`+"\n", 6))
	cfg := w.precomputeConfig(w.path("rows.jsonl"))
	cfg.Limit = 3
	var bad *BadDataError
	if _, err := Precompute(context.Background(), cfg, w.rt, nil); !errors.As(err, &bad) {
		t.Errorf("with a limit: error is %v", err)
	}
	cfg.MaxBadFrac = 0.5
	_, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	strict, few := cfg, cfg
	strict.Strict, few.MaxBadFrac = true, 0.2
	for name, cfg := range map[string]PrecomputeConfig{"strict": strict, "a smaller share": few} {
		var row *datasets.RowError
		if _, err := Precompute(context.Background(), cfg, w.rt, nil); !errors.As(err, &bad) || !errors.As(err, &row) || row.Row != 0 {
			t.Errorf("a finished cache and %s: error is %v", name, err)
		}
	}
}

// Two trainings of one run don't work at once.
func TestARunIsLocked(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(20))
	var locked *LockedError
	tried := false
	open := func(_ string, v *models.Vocabulary) (models.Engine, error) {
		return &countingEngine{Engine: models.NewGonum(v), at: 2, do: func() error {
			again := cfg
			again.Resume = true
			_, err := Train(context.Background(), again, gonumEngine, nil)
			tried = true
			if !errors.As(err, &locked) {
				t.Errorf("a second training: error is %v, want a *LockedError", err)
			}
			return nil
		}}, nil
	}
	_, err := Train(context.Background(), cfg, Engines{Head: open}, nil)
	must(t, err)
	if !tried {
		t.Error("there was no second training")
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.Out, ".*")); left != nil {
		t.Errorf("a finished run leaves %v", left)
	}
}

// A kill before the settings are written leaves a folder that can be used.
func TestARunFolderWithoutSettings(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(20))
	must(t, os.MkdirAll(filepath.Join(cfg.Out, checkpointsName), 0o777))
	must(t, os.WriteFile(filepath.Join(cfg.Out, ".lock"), nil, 0o666))
	cfg.Resume = true
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
}

func TestNoRows(t *testing.T) {
	w := newWorld(t)
	w.write("empty.jsonl", "")
	cfg := w.precomputeConfig(w.path("empty.jsonl"))
	var none *NoRowsError
	if _, err := Precompute(context.Background(), cfg, w.rt, nil); !errors.As(err, &none) {
		t.Errorf("precompute: error is %v", err)
	}
	if _, err := Estimate(context.Background(), cfg, w.rt, nil); !errors.As(err, &none) {
		t.Errorf("estimate: error is %v", err)
	}
}

func TestInspectTellsWhatAPathIs(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(12))
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	must(t, os.Mkdir(w.path("data"), 0o777))
	must(t, os.Rename(w.path("pairs.jsonl"), w.path("data/pairs.jsonl")))
	for path, kind := range map[string]string{
		"cache": "reference cache", "run": "run", "run/last": "checkpoint", "model": "model", "model/model.onnx": "model",
		"data": "data", "data/pairs.jsonl": "data",
	} {
		in, err := Inspect(context.Background(), w.path(path), datasets.DefaultOptions(), 2)
		if err != nil || in.Kind != kind {
			t.Errorf("%s is %q (%v), want %q", path, in.Kind, err, kind)
		}
	}
	in, err := Inspect(context.Background(), w.path("cache"), datasets.DefaultOptions(), 2)
	must(t, err)
	if len(in.Cache.Sample) != 2 || in.Cache.Rows != 12 || in.Cache.Sample[0].ChosenLogps >= 0 {
		t.Errorf("cache is described as %+v", in.Cache)
	}
	if _, err := Inspect(context.Background(), w.path("run/checkpoints"), datasets.DefaultOptions(), 2); err == nil {
		t.Error("a folder with none of it was described")
	}
}
