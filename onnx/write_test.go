package onnx

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// large is a model with two tensors that spill and one that stays.
func large() *Model {
	m := NewModel("large", Opset{Version: 17})
	for i, name := range []string{"a", "b"} {
		v := make([]float32, 1000+i)
		for j := range v {
			v[j] = float32(i*1000 + j)
		}
		m.Graph.AddInitializer(Float32Tensor(name, v, int64(len(v))))
	}
	m.Graph.AddInitializer(Float32Tensor("small", []float32{1}, 1))
	return m
}

func contents(t *testing.T, m *Model) (names []string, values [][]float32) {
	t.Helper()
	for _, x := range m.Graph.Initializers {
		v, err := x.floats()
		if err != nil {
			t.Fatal(err)
		}
		names, values = append(names, x.Name), append(values, v)
	}
	return names, values
}

// TestSpill: a model over the limit gets a data file and holds the same values; written
// again it takes the data file along as a link.
func TestSpill(t *testing.T) {
	dir, next := t.TempDir(), t.TempDir()
	if err := large().write(dir, "m.onnx", 2000); err != nil {
		t.Fatal(err)
	}
	m, err := Load(filepath.Join(dir, "m.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	gotNames, got := contents(t, m)
	wantNames, want := contents(t, large())
	if !slices.Equal(gotNames, wantNames) || !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("read back %v", gotNames)
	}
	for _, x := range m.Graph.Initializers {
		if (x.External == nil) != (x.Name == "small") || x.External != nil && x.External.Offset%dataAlign != 0 {
			t.Errorf("%s lies at %+v", x.Name, x.External)
		}
	}
	for range 2 { // the second time the file is there
		if err := m.WriteDir(next, "n.onnx"); err != nil {
			t.Fatal(err)
		}
	}
	n, err := Load(filepath.Join(next, "n.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, again := contents(t, n); !slices.EqualFunc(again, want, slices.Equal) {
		t.Error("the linked model holds other values")
	}
	if entries, _ := os.ReadDir(next); len(entries) != 2 {
		t.Errorf("folder holds %v, want the model and its data", entries)
	}
}

// TestSpillBesideExternal: new tensors of a model with a data file of the same name go to another.
func TestSpillBesideExternal(t *testing.T) {
	dir, next := t.TempDir(), t.TempDir()
	if err := large().write(dir, "m.onnx", 2000); err != nil {
		t.Fatal(err)
	}
	m, err := Load(filepath.Join(dir, "m.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	c := m.clone()
	c.Graph.AddInitializer(Float32Tensor("c", make([]float32, 2000), 2000))
	if err := c.write(next, "m.onnx", 2000); err != nil {
		t.Fatal(err)
	}
	n, err := Load(filepath.Join(next, "m.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if names, _ := contents(t, n); len(names) != 4 {
		t.Errorf("tensors are %v", names)
	}
}

func TestSHA256(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	if err := large().WriteFile(path); err != nil {
		t.Fatal(err)
	}
	digest := func(path string) string {
		m, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		sum, err := m.SHA256()
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(b); digest(path) != hex.EncodeToString(sum[:]) {
		t.Error("a single file's digest is not that of the file")
	}
	if err := large().write(dir, "x.onnx", 2000); err != nil {
		t.Fatal(err)
	}
	before := digest(filepath.Join(dir, "x.onnx"))
	data := filepath.Join(dir, "x.onnx_data")
	if b, err = os.ReadFile(data); err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(data, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if digest(filepath.Join(dir, "x.onnx")) == before {
		t.Error("a changed data file leaves the digest as it was")
	}
}
