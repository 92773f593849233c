package pipeline

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFindModel(t *testing.T) {
	for _, tt := range []struct {
		name, files, path, file string
		want, refused           string
	}{
		{name: "at the root", files: "model.onnx", want: "model.onnx"},
		{name: "under onnx", files: "onnx/model.onnx onnx/model_fp16.onnx", want: "onnx/model.onnx"},
		{name: "root wins", files: "model.onnx onnx/model.onnx", want: "model.onnx"},
		{name: "the only one", files: "decoder.onnx", want: "decoder.onnx"},
		{name: "named", files: "model.onnx onnx/model_fp16.onnx", file: "model_fp16.onnx", want: "onnx/model_fp16.onnx"},
		{name: "a file", files: "a.onnx b.onnx", path: "b.onnx", want: "b.onnx"},
		{name: "several", files: "a.onnx b.onnx", refused: "holds 2 .onnx files (a.onnx, b.onnx)"},
		{name: "none", files: "config.json", refused: "holds no .onnx file"},
		{name: "named but absent", files: "model.onnx", file: "x.onnx", refused: `has no file "x.onnx"`},
		{name: "outside", files: "model.onnx", file: "../m/model.onnx", refused: `has no file "../m/model.onnx"`},
		{name: "no folder", path: "absent", refused: "no such file or folder"},
		{name: "another kind of file", files: "model.bin", path: "model.bin", refused: "want a folder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "m")
			touch(t, root, strings.Fields(tt.files)...)
			got, err := FindModel(filepath.Join(root, tt.path), tt.file)
			if tt.refused != "" {
				var model *ModelError
				if !errors.As(err, &model) || !strings.Contains(err.Error(), tt.refused) {
					t.Fatalf("error is %v, want %q", err, tt.refused)
				}
				return
			}
			must(t, err)
			if want := filepath.Join(root, tt.want); got.ONNX != want {
				t.Errorf("found %s, want %s", got.ONNX, want)
			}
		})
	}
}

func TestTextFiles(t *testing.T) {
	for _, tt := range []struct{ name, files, path, want string }{
		{"beside", "model.onnx tokenizer.json config.json model.onnx_data weights.bin golden.json", "", "config.json tokenizer.json"},
		{"above onnx", "onnx/model.onnx tokenizer.json onnx/vocab.json LICENSE", "", "LICENSE tokenizer.json onnx/vocab.json"},
		{"root wins", "onnx/model.onnx tokenizer.json onnx/tokenizer.json", "", "tokenizer.json"},
		{"above the named file", "variants/a.onnx tokenizer.json config.json", "variants/a.onnx", "config.json tokenizer.json"},
		{"nothing from above when beside", "variants/a.onnx variants/tokenizer.json tokenizer.json config.json", "variants/a.onnx", "variants/tokenizer.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "m")
			touch(t, root, strings.Fields(tt.files)...)
			m, err := FindModel(filepath.Join(root, tt.path), "")
			must(t, err)
			got, err := m.TextFiles()
			must(t, err)
			var want []string
			for _, name := range strings.Fields(tt.want) {
				want = append(want, filepath.Join(root, name))
			}
			if !slices.Equal(got, want) {
				t.Errorf("text files are %v, want %v", got, want)
			}
		})
	}
}

func touch(t *testing.T, root string, names ...string) {
	t.Helper()
	must(t, os.MkdirAll(root, 0o777))
	for _, name := range names {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o777))
		must(t, os.WriteFile(filepath.Join(root, name), nil, 0o666))
	}
}
