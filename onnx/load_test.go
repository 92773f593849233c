package onnx

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// withExternal writes a model whose tensor w, two floats, lies at a place.
func withExternal(t *testing.T, dir string, x External) string {
	t.Helper()
	m := NewModel("external", Opset{Version: 17})
	w := Float32Tensor("w", []float32{3, 4}, 2)
	w.External = &x
	m.Graph.AddInitializer(w)
	path := filepath.Join(dir, "model.onnx")
	if err := os.WriteFile(path, marshal(t, m), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExternal(t *testing.T) {
	out := t.TempDir()
	data := narrow([]float32{1, 2, 3, 4}, Float32)
	for _, c := range []struct {
		name string
		at   External
		err  string // "" is accepted
	}{
		{"whole length", External{Location: "d.bin", Offset: 8, Length: 8}, ""},
		{"no length", External{Location: "long.bin", Offset: 8, Length: -1}, ""},
		{"in a sub-folder", External{Location: "sub/d.bin", Offset: 8, Length: 8}, ""},
		{"link inside the folder", External{Location: "inner", Offset: 8, Length: 8}, ""},
		{"parent", External{Location: "../d.bin", Length: 8}, "inside the model's folder"},
		{"parent within", External{Location: "sub/../../d.bin", Length: 8}, "inside the model's folder"},
		{"absolute", External{Location: filepath.Join(out, "d.bin"), Length: 8}, "inside the model's folder"},
		{"link outside", External{Location: "outer", Length: 8}, "outside the model's folder; ONNX Runtime reads no such file: copy the folder with its links followed (cp -rL)"},
		{"missing", External{Location: "none.bin", Length: 8}, "no such file"},
		{"folder", External{Location: "sub", Length: 8}, "not a regular file"},
		{"beyond the end", External{Location: "d.bin", Offset: 9, Length: 8}, "takes 8 bytes at 9"},
		{"far beyond", External{Location: "d.bin", Offset: math.MaxInt64, Length: 8}, "of \"d.bin\", which has 16"},
		{"offset beyond, no length", External{Location: "d.bin", Offset: 17, Length: -1}, "which has 16"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range []string{dir + "/d.bin", dir + "/sub/d.bin", out + "/d.bin"} {
				if err := os.MkdirAll(filepath.Dir(f), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(f, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(dir+"/long.bin", append(data, 0), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(out+"/d.bin", dir+"/outer"); err != nil {
				t.Skip(err)
			}
			if err := os.Symlink("d.bin", dir+"/inner"); err != nil {
				t.Skip(err)
			}
			m, err := Load(withExternal(t, dir, c.at))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if v, err := m.Graph.Initializer("w").floats(); err != nil || v[0] != 3 || v[1] != 4 {
				t.Errorf("got %v, %v", v, err)
			}
		})
	}
}

// TestTensorBytes reads the typed fields of the format, which exporters use for small
// tensors, and refuses bytes that don't fit the dimensions.
func TestTensorBytes(t *testing.T) {
	typed := func(num int32, packed []byte) []byte {
		e := &encoder{}
		e.data(protowire.Number(num), packed)
		return e.bytes()
	}
	half := &Tensor{DType: Float16, Dims: []int64{2}, extra: typed(tensorInt32s, []byte{0x80, 0x78, 0x80, 0x80, 0x03})} // 0x3c00, 0xc000
	if v, err := half.floats(); err != nil || v[0] != 1 || v[1] != -2 {
		t.Errorf("float16 in int32_data: %v, %v", v, err)
	}
	floats := &Tensor{DType: Float32, Dims: []int64{1}, extra: typed(tensorFloats, []byte{0, 0, 0x80, 0x3f})}
	if v, err := floats.floats(); err != nil || v[0] != 1 {
		t.Errorf("float_data: %v, %v", v, err)
	}
	ints := &Tensor{DType: Int64, Dims: []int64{2}, extra: typed(tensorInt64s, []byte{1, 0x80, 1})}
	if v, err := ints.ints(); err != nil || v[0] != 1 || v[1] != 128 {
		t.Errorf("int64_data: %v, %v", v, err)
	}
	for name, bad := range map[string]*Tensor{
		"short":    NewTensor("x", Float32, []int64{2}, make([]byte, 4)),
		"negative": NewTensor("x", Float32, []int64{-1}, nil),
		"overflow": NewTensor("x", Float32, []int64{1 << 40, 1 << 40}, nil),
		"string":   NewTensor("x", String, []int64{1}, nil),
		"absent":   {Name: "x", DType: Float32, Dims: []int64{1}},
	} {
		if b, err := bad.Bytes(); err == nil || b != nil {
			t.Errorf("%s: got %v, %v", name, b, err)
		}
	}
}
