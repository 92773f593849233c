//go:build cgo

package ort

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProfileNamesOperators: each graph leaves a file of its own that names what it ran.
func TestProfileNamesOperators(t *testing.T) {
	r := openRuntime(t)
	prefix := filepath.Join(t.TempDir(), "profile")
	t.Setenv(ProfileVariable, prefix)
	h := headCase{n: 3, d: 8, v: 16, scale: 1}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2 {
		e, err := r.newEngine(h.vocabulary(rng), DefaultOptions(), false)
		if err != nil {
			t.Fatal(err)
		}
		rows, _ := h.rows(rng)
		if err := e.Load(t.Context(), rows); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(prefix + "-*.json")
	if err != nil || len(files) != 2 {
		t.Fatalf("profiles are %q (%v), want 2", files, err)
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), `"op_name" : "Gemm"`) {
			t.Errorf("%s: %v, does not name the operator Gemm: %.300s", file, err, text)
		}
	}
}
