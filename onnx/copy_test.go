package onnx_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
)

// A model written elsewhere has external data of its own: writing to one model's
// file must not change the other's.
func TestExternalDataIsNotShared(t *testing.T) {
	opt := onnxtest.Default()
	opt.External = true
	from, to := t.TempDir(), t.TempDir()
	if err := onnxtest.New(opt).WriteDir(from); err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Load(filepath.Join(from, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.WriteDir(to, "model.onnx"); err != nil {
		t.Fatal(err)
	}
	const data = "model.onnx_data"
	a, errA := os.Stat(filepath.Join(from, data))
	b, errB := os.Stat(filepath.Join(to, data))
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if os.SameFile(a, b) {
		t.Error("both models have the same data file")
	}
	want, errA := os.ReadFile(filepath.Join(from, data))
	got, errB := os.ReadFile(filepath.Join(to, data))
	if errA != nil || errB != nil || string(got) != string(want) {
		t.Errorf("the data file has %d bytes, want the %d of the other", len(got), len(want))
	}
}
