package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/demo"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// invoke runs the program in this process.
func invoke(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), append([]string{"dpo-pipe"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

// smallCache writes a cache of n pairs under an LM head of 5 tokens and width 3.
func smallCache(t *testing.T, n int) string {
	t.Helper()
	v := &models.Vocabulary{V: 5, D: 3, Scale: 1, Weight: []float32{1, 0, 0, 0, 1, 0, 0, 0, 1, -1, 0, 1, 0, -1, 1}}
	dir := filepath.Join(t.TempDir(), "cache")
	w, err := refcache.Create(dir, refcache.Manifest{Identity: map[string]string{"model": "small"}, D: v.D, V: v.V, FeatureDType: refcache.F32},
		refcache.Head{V: v.V, D: v.D, Weight: v.Weight, Scale: v.Scale})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	rows := make([]refcache.Row, n)
	for i := range rows {
		x := float32(i%7) / 7
		r := &rows[i]
		*r = refcache.Row{
			ID: datasets.ID{byte(i)}, PromptKey: [16]byte{0: byte(i * 37), 7: byte(i * 91)}, Prompt: []int32{int32(i), 1}, Chosen: []int32{2, 0}, Rejected: []int32{3}, Weight: 1,
			ChosenFeatures: []float32{x, 1, -x, 0.5, x, 1}, RejectedFeatures: []float32{-1, x, 0.25},
		}
		r.ChosenRefLogps = headLogps(t, v, r.Chosen, r.ChosenFeatures)
		r.RejectedRefLogps = headLogps(t, v, r.Rejected, r.RejectedFeatures)
	}
	at := refcache.Position{Rows: int64(n)}
	if err := w.WritePart(rows, at); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(at); err != nil {
		t.Fatal(err)
	}
	return dir
}

// headLogps are the log-probs of ids under the frozen head.
func headLogps(t *testing.T, v *models.Vocabulary, ids []int32, features []float32) []float32 {
	t.Helper()
	engine := models.NewGonum(v)
	defer engine.Close()
	var out models.Tokens
	rows := models.Rows{N: len(ids), Hidden: features, Targets: ids}
	if err := models.Forward(context.Background(), engine, rows, models.Addition{}, &out); err != nil {
		t.Fatal(err)
	}
	logps := make([]float32, len(ids))
	for i, p := range out.Logps {
		logps[i] = float32(p)
	}
	return logps
}

// TestWithoutARuntime trains, scores and inspects on the gonum engine: neither cgo
// nor a library is needed for that.
func TestWithoutARuntime(t *testing.T) {
	t.Setenv("DPO_PIPE_ORT_LIB", filepath.Join(t.TempDir(), "nowhere"))
	cache := smallCache(t, 24)
	out := filepath.Join(t.TempDir(), "run")
	for _, args := range [][]string{
		{"train", "--cache", cache, "--out", out, "--engine", "gonum", "--eval-frac", "0.3", "--rank", "2", "--json"},
		{"eval", "--cache", cache, "--checkpoint", filepath.Join(out, "last"), "--engine", "gonum", "--all", "--json"},
		{"inspect", "--json", cache},
		{"inspect", "--json", out},
		{"inspect", "--json", filepath.Join(out, "last")},
	} {
		code, stdout, stderr := invoke(args...)
		if code != exitDone {
			t.Fatalf("%v exits with %d: %s", args, code, stderr)
		}
		if !json.Valid([]byte(stdout)) {
			t.Errorf("%v prints %q, want JSON", args, stdout)
		}
	}
	code, _, stderr := invoke("doctor")
	if code != exitEnvironment || !strings.Contains(stderr, "ONNX Runtime") {
		t.Errorf("a command that needs ONNX Runtime exits with %d and says %q, want %d", code, stderr, exitEnvironment)
	}
}

// TestCacheWithoutFeaturesNeedsARuntime says so, whatever the engine.
func TestCacheWithoutFeaturesNeedsARuntime(t *testing.T) {
	t.Setenv("DPO_PIPE_ORT_LIB", filepath.Join(t.TempDir(), "nowhere"))
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Load(filepath.Join(dir, "model", "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	model, err := m.SHA256()
	if err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(dir, "cache")
	w, err := refcache.Create(cache, refcache.Manifest{
		Identity: map[string]string{"model": model, "batch_tokens": "64", "memory": "1000"}, D: 1, V: 2, FeatureDType: refcache.None,
	}, refcache.Head{V: 2, D: 1, Weight: []float32{1, 2}, Scale: 1})
	if err != nil {
		t.Fatal(err)
	}
	row := refcache.Row{Chosen: []int32{0}, Rejected: []int32{1}, ChosenRefLogps: []float32{-1}, RejectedRefLogps: []float32{-2}, Weight: 1}
	if err := errors.Join(w.WritePart([]refcache.Row{row}, refcache.Position{Rows: 1}), w.Finish(refcache.Position{Rows: 1})); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := invoke("train", "--cache", cache, "--out", filepath.Join(dir, "run"), "--engine", "gonum", "--eval-frac", "0", "--model", filepath.Join(dir, "model"))
	if code != exitEnvironment || !strings.Contains(stderr, "the cache keeps no features, the model has to be run") || !strings.Contains(stderr, "ONNX Runtime") {
		t.Errorf("exits with %d and says %q, want %d", code, stderr, exitEnvironment)
	}
}

// TestFolderInUse resumes a run that another process works in.
func TestFolderInUse(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	args := []string{"train", "--cache", smallCache(t, 8), "--out", out, "--engine", "gonum", "--eval-frac", "0", "--resume"}
	if code, _, stderr := invoke(args...); code != exitDone {
		t.Fatalf("exits with %d: %s", code, stderr)
	}
	lock, err := lockfile.Acquire(out)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if code, _, stderr := invoke(args...); code != exitFailed || !strings.Contains(stderr, "hint: wait for the other process") {
		t.Errorf("a run in use exits with %d and says %q, want %d and to wait", code, stderr, exitFailed)
	}
}
