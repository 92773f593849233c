package pipeline

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dpo-pipe/dpo-pipe/loss"
)

// What training leaves for the report is what eval says of its last checkpoint.
func TestTrainingLeavesItsEvaluation(t *testing.T) {
	w := newWorld(t)
	cfg := w.trained()
	got, err := readEvaluation(cfg.Out)
	must(t, err)
	want := evaluated(t, EvalConfig{Cache: cfg.Cache, Checkpoint: filepath.Join(cfg.Out, lastName)}).Evaluation
	if d := cmp.Diff(&want, got, cmpopts.EquateNaNs()); d != "" {
		t.Errorf("-eval +evaluation.json:\n%s", d)
	}
}

func TestTrainingWithoutHeldOutPairsLeavesNoEvaluation(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(8))
	cfg.EvalFrac = 0
	_, err := Train(t.Context(), cfg, gonumEngine, nil)
	must(t, err)
	if e, err := readEvaluation(cfg.Out); e != nil || err != nil {
		t.Errorf("evaluation is %v, error %v; want none of both", e, err)
	}
}

// Figures of a head that has diverged are null in JSON, and its pairs in no bin.
func TestEvaluationWithoutNumbers(t *testing.T) {
	counted := newTally()
	counted.window.Merge(marginPair(t, math.NaN()))
	counted.window.Merge(marginPair(t, 0))
	e := counted.evaluation(3)
	run := t.TempDir()
	must(t, e.write(run))
	got, err := readEvaluation(run)
	must(t, err)
	if !math.IsNaN(got.Metrics.Get("rewards/margins")) || !math.IsNaN(got.Intervals.Get("loss").Low) {
		t.Errorf("read margin %g and interval %v, want NaN", got.Metrics.Get("rewards/margins"), got.Intervals.Get("loss"))
	}
	// A margin of 0 is as good as a coin: confidence ½, right by half.
	want := []loss.CalibrationBin{{From: 0.5, To: 0.55, Pairs: 1, Confidence: 0.5, Accuracy: 0.5}}
	if d := cmp.Diff(want, got.Calibration); d != "" {
		t.Errorf("bins, -want +got:\n%s", d)
	}
}

func TestIntervalsKeepTheirOrder(t *testing.T) {
	want := Intervals{{"z", -1, 2.5}, {"a", 0, 0}}
	text, err := json.Marshal(want)
	must(t, err)
	var got Intervals
	must(t, json.Unmarshal(text, &got))
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if err := json.Unmarshal([]byte(`[1,2]`), &got); err == nil || !strings.Contains(err.Error(), "want an object") {
		t.Errorf("of a list: error is %v", err)
	}
}

// Files of a run folder that are damaged or of another version are named.
func TestReadEvaluationRefuses(t *testing.T) {
	run := t.TempDir()
	must(t, (&Evaluation{Step: 1}).write(run))
	path := filepath.Join(run, evaluationName)
	whole, err := os.ReadFile(path)
	must(t, err)
	for name, content := range map[string][]byte{
		"empty": nil, "cut": whole[:len(whole)/2], "another field": bytes.Replace(whole, []byte("step"), []byte("stop"), 1),
	} {
		must(t, os.WriteFile(path, content, 0o666))
		if e, err := readEvaluation(run); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: read %v, error %v", name, e, err)
		}
	}
}
