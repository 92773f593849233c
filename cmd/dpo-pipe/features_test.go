//go:build cgo

package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// A model run on other batches gives float32 states that differ in their last bits. Training
// carries that on, and AdamW makes steps of equal size of gradients that are next to nothing.
const (
	// rerunMetrics is how far metrics of the same training may differ, of 1 or of their size.
	rerunMetrics = 1e-5
	// rerunWeights is how far the trained tensors may, by their root mean square.
	rerunWeights = 1e-3
)

// Training on a cache without features is training on one of float32 up to rounding, here in
// ONNX Runtime; with a runtime that does not round by batches it is the same to the bit
// (pipeline).
func TestTrainingWithoutFeaturesIsCloseToThatWithThem(t *testing.T) {
	dir := demoWith(t, "400")
	results := map[string]pipeline.TrainResult{}
	for _, features := range []string{"f32", "none"} {
		for _, args := range [][]string{
			{"precompute-ref", "--model", "model", "--data", "pairs.jsonl", "--out", features, "--features", features},
			{"train", "--cache", features, "--model", "model", "--out", "run-" + features, "--epochs", "3", "--eval-frac", "0.2", "--json"},
		} {
			out, err := command(t.Context(), t, dir, args...).Output()
			if err != nil {
				t.Fatalf("%v: %v", args, err)
			}
			if args[0] == "train" {
				var r pipeline.TrainResult
				if err := json.Unmarshal(out, &r); err != nil {
					t.Fatal(err)
				}
				results[features] = r
			}
		}
	}
	worst := 0.0
	for _, m := range results["f32"].After {
		d := math.Abs(m.Value-results["none"].After.Get(m.Name)) / max(1, math.Abs(m.Value))
		if worst = max(worst, d); !(d <= rerunMetrics) {
			t.Errorf("%s is %v, %v with stored features", m.Name, results["none"].After.Get(m.Name), m.Value)
		}
	}
	t.Logf("%d metrics within %.1e", len(results["f32"].After), worst)
	want, got := readParams(t, filepath.Join(dir, "run-f32", "last")), readParams(t, filepath.Join(dir, "run-none", "last"))
	for i := range want {
		d := rms(got[i].Value, want[i].Value) / rms(want[i].Value, make([]float32, len(want[i].Value)))
		t.Logf("%s differs by %.1e of its size", want[i].Name, d)
		if !(d <= rerunWeights) {
			t.Errorf("%s differs by %g of its size, want at most %g", want[i].Name, d, rerunWeights)
		}
	}
	if size := folderBytes(t, filepath.Join(dir, "none")); size > folderBytes(t, filepath.Join(dir, "f32"))/2 {
		t.Errorf("the cache without features has %d bytes", size)
	}
}

func readParams(t *testing.T, checkpoint string) []models.Param {
	t.Helper()
	head, _, err := models.ReadAdapter(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	return head.Params()
}

// rms is the root mean square of a - b.
func rms(a, b []float32) float64 {
	sum := 0.0
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sum += d * d
	}
	return math.Sqrt(sum / float64(len(a)))
}

// folderBytes is the size of the files in a folder.
func folderBytes(t testing.TB, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}
