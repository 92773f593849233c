package pipeline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
)

// trained is a world with a finished run.
func trained(t *testing.T) (*world, ExportConfig) {
	t.Helper()
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(30))
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	x := DefaultExportConfig()
	x.Checkpoint, x.Model, x.Out, x.Engine = filepath.Join(cfg.Out, lastName), w.path("model"), w.path("policy"), "gonum"
	return w, x
}

func TestExportWritesAVerifiedModelFolder(t *testing.T) {
	w, cfg := trained(t)
	r, err := Export(context.Background(), cfg, w.rt, nil)
	must(t, err)
	if r.Verified.Pairs == 0 || r.Verified.MaxDiff > tolerance32 {
		t.Errorf("verified as %+v", r.Verified)
	}
	if r.Verified.MaxMoved < 100*r.Verified.MaxDiff {
		t.Errorf("the policy is %g from the reference and %g from the head: the check says little", r.Verified.MaxMoved, r.Verified.MaxDiff)
	}
	for _, name := range []string{"model.onnx", "tokenizer.json", "tokenizer_config.json", "adapter/adapter_model.safetensors"} {
		if !isFile(filepath.Join(cfg.Out, name)) {
			t.Errorf("%s is missing", name)
		}
	}
	if _, err := Export(context.Background(), cfg, w.rt, nil); err == nil {
		t.Error("an existing folder was written over")
	}
}

// TestAnExportedAdapterIsACheckpoint holds a checkpoint against the adapter that was exported
// from it: they do not differ.
func TestAnExportedAdapterIsACheckpoint(t *testing.T) {
	w, cfg := trained(t)
	_, err := Export(context.Background(), cfg, w.rt, nil)
	must(t, err)
	r, err := Evaluate(context.Background(), EvalConfig{
		Cache: w.path("cache"), Checkpoint: cfg.Checkpoint, Against: filepath.Join(cfg.Out, AdapterName), Engine: "gonum",
	}, gonumEngine, nil)
	must(t, err)
	if r.Pairs == 0 || len(r.Against.Differences) == 0 {
		t.Fatalf("nothing was compared: %+v", r.Against)
	}
	for _, d := range r.Against.Differences {
		if d.Value != 0 {
			t.Errorf("%s differs by %v", d.Name, d.Value)
		}
	}
}

// Every kind of head is trained, resumed in the same bytes, and exported.
func TestEveryHeadFromTrainingToExport(t *testing.T) {
	for _, kind := range models.Kinds {
		t.Run(kind.Name, func(t *testing.T) {
			w := newWorld(t)
			cfg := w.trainConfig(w.cache(30))
			cfg.Head, cfg.LR = kind.Name, 0.05
			if !kind.Ranked {
				cfg.Rank, cfg.Alpha = DefaultTrainConfig().Rank, DefaultTrainConfig().Alpha
			}
			whole := cfg
			whole.Out = w.path("whole")
			_, err := Train(context.Background(), whole, gonumEngine, nil)
			must(t, err)
			interrupt(t, cfg, 2, false)
			cfg.Resume = true
			r, err := Train(context.Background(), cfg, gonumEngine, nil)
			must(t, err)
			sameTree(t, checkpointFiles(t, cfg.Out), checkpointFiles(t, whole.Out))
			if !(r.After.Get("loss") < r.Before.Get("loss")) {
				t.Errorf("held-out loss went from %v to %v", r.Before.Get("loss"), r.After.Get("loss"))
			}
			x := DefaultExportConfig()
			x.Checkpoint, x.Model, x.Out, x.Engine = filepath.Join(cfg.Out, lastName), w.path("model"), w.path("policy"), "gonum"
			if kind.Name != "adapter" { // the fake runtime runs no graph in front of the head
				exported, err := Export(context.Background(), x, w.rt, nil)
				must(t, err)
				if exported.Verified.MaxMoved < 10*exported.Verified.MaxDiff {
					t.Errorf("verified as %+v: the policy hardly moves", exported.Verified)
				}
			}
			d, err := describeCheckpoint(x.Checkpoint)
			must(t, err)
			if d.Head != kind.Name {
				t.Errorf("the checkpoint holds a head of kind %q, want %q", d.Head, kind.Name)
			}
		})
	}
}

func TestHeadSettingsThatNothingUses(t *testing.T) {
	cfg := DefaultTrainConfig()
	cfg.Cache, cfg.Out, cfg.Head = "c", "o", "bias"
	must(t, cfg.Validate())
	cfg.Rank, cfg.Alpha, cfg.RSLoRA = 4, 1, true
	err := cfg.Validate()
	for _, flag := range []string{"--rank", "--alpha", "--rslora"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("error is %v, want one that names %s", err, flag)
		}
	}
	cfg.Head = "mlp"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "lora, bias or adapter") {
		t.Errorf("error is %v, want one that lists the heads", err)
	}
}

func TestExportLeavesNothingThatFails(t *testing.T) {
	w, cfg := trained(t)
	w.rt.wrong = 2 * tolerance32
	var failed *VerifyError
	if _, err := Export(context.Background(), cfg, w.rt, nil); !errors.As(err, &failed) {
		t.Errorf("error is %v, want a *VerifyError", err)
	}
	if left, _ := filepath.Glob(w.path("*policy*")); left != nil || exists(cfg.Out) {
		t.Errorf("a wrong model was left: %v", left)
	}
	if left, _ := filepath.Glob(w.path(".dpo*")); left != nil {
		t.Errorf("temporary folders are left: %v", left)
	}
}

func TestExportRefusesAnotherModel(t *testing.T) {
	w, cfg := trained(t)
	other := w.decoder.Options
	other.Seed++
	must(t, onnxtest.New(other).WriteDir(cfg.Model))
	var model *ModelError
	if _, err := Export(context.Background(), cfg, w.rt, nil); !errors.As(err, &model) {
		t.Errorf("error is %v, want a *ModelError that names both SHA-256", err)
	}
	other.V++
	must(t, onnxtest.New(other).WriteDir(cfg.Model))
	if _, err := Export(context.Background(), cfg, w.rt, nil); !errors.As(err, &model) {
		t.Errorf("error is %v, want a *ModelError that names both shapes", err)
	}
}

// A model from an odd place in its folder is exported to where models are found.
func TestExportToTheUsualPlace(t *testing.T) {
	for from, to := range map[string]string{"variants/x.onnx": "model.onnx", "onnx/model_fp16.onnx": "onnx/model.onnx", "x.onnx": "model.onnx"} {
		w, cfg := trained(t)
		must(t, os.MkdirAll(filepath.Dir(w.path("model/"+from)), 0o777))
		must(t, os.Rename(w.path("model/model.onnx"), w.path("model/"+from)))
		cfg.ModelFile = from
		r, err := Export(context.Background(), cfg, w.rt, nil)
		must(t, err)
		found, err := FindModel(cfg.Out, "")
		must(t, err)
		if want := filepath.Join(cfg.Out, to); r.ONNX != want || found.ONNX != want {
			t.Errorf("%s is exported to %s and found at %s, want %s", from, r.ONNX, found.ONNX, want)
		}
	}
}
