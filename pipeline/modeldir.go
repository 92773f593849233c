package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
)

// ModelDir is a published model: an ONNX file and, beside or above it, tokenizer
// and configuration.
type ModelDir struct {
	// Root is the folder that was named.
	Root string
	// ONNX is the path of the model file.
	ONNX string
}

// A ModelError says why a folder can't serve as a model.
type ModelError struct {
	Path   string
	Reason string
}

func (e *ModelError) Error() string {
	return fmt.Sprintf("pipeline: model %q: %s", e.Path, e.Reason)
}

// FindModel resolves a model folder, or a path to an .onnx file. file picks an
// .onnx file by its path below the folder; empty means model.onnx at the root or under onnx/,
// or the only .onnx file there is.
func FindModel(path, file string) (ModelDir, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ModelDir{}, &ModelError{path, "no such file or folder"}
	}
	if err != nil {
		return ModelDir{}, fmt.Errorf("pipeline: model: %w", err)
	}
	if !info.IsDir() {
		if filepath.Ext(path) != ".onnx" || file != "" {
			return ModelDir{}, &ModelError{path, "is a file, want a folder that holds model.onnx, or an .onnx file"}
		}
		return ModelDir{Root: filepath.Dir(path), ONNX: path}, nil
	}
	if file != "" {
		return pickFile(path, file)
	}
	for _, name := range []string{"model.onnx", filepath.Join("onnx", "model.onnx")} {
		if isFile(filepath.Join(path, name)) {
			return ModelDir{Root: path, ONNX: filepath.Join(path, name)}, nil
		}
	}
	return onlyFile(path)
}

func pickFile(root, file string) (ModelDir, error) {
	for _, name := range []string{file, filepath.Join("onnx", file)} {
		if filepath.IsLocal(name) && isFile(filepath.Join(root, name)) {
			return ModelDir{Root: root, ONNX: filepath.Join(root, name)}, nil
		}
	}
	return ModelDir{}, &ModelError{root, fmt.Sprintf("has no file %q, at the root or under onnx/", file)}
}

// onlyFile accepts a folder whose one .onnx file has another name.
func onlyFile(root string) (ModelDir, error) {
	var found []string
	for _, pattern := range []string{"*.onnx", "onnx/*.onnx"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return ModelDir{}, &ModelError{root, err.Error()}
		}
		found = append(found, names...)
	}
	switch len(found) {
	case 0:
		return ModelDir{}, &ModelError{root, "holds no .onnx file, at its root or under onnx/"}
	case 1:
		return ModelDir{Root: root, ONNX: found[0]}, nil
	}
	return ModelDir{}, &ModelError{root, fmt.Sprintf("holds %d .onnx files (%s) and none is model.onnx: choose one with --model-file",
		len(found), strings.Join(baseNames(found), ", "))}
}

// verify checks a policy that export wrote against the list of its files; of other models
// nothing is known.
func (m ModelDir) verify() error {
	if !exists(filepath.Join(m.Root, AdapterName)) {
		return nil
	}
	return checksum.VerifySums(m.Root)
}

// TextFiles lists the files that a model's tokenizer and configuration consist
// of: those of its folders that have one of the usual names, sorted by name. Of a name that several folders have, the root's file is taken.
func (m ModelDir) TextFiles() ([]string, error) {
	byName := map[string]string{}
	for _, dir := range m.folders() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("pipeline: list model folder: %w", err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if isTextFile(e.Name()) && isFile(path) {
				byName[e.Name()] = path
			}
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b string) int {
		return strings.Compare(filepath.Base(a), filepath.Base(b))
	}), nil
}

// folders are where the model's files lie, the root last. The folder above the
// root is one of them where it alone has the tokenizer.
func (m ModelDir) folders() []string {
	dirs := []string{filepath.Dir(m.ONNX), m.Root}
	for _, dir := range dirs {
		if isFile(filepath.Join(dir, tokenizerName)) {
			return dirs
		}
	}
	if above := filepath.Join(m.Root, ".."); isFile(filepath.Join(above, tokenizerName)) {
		return append([]string{above}, dirs...)
	}
	return dirs
}

// tokenizerName is the file that every model folder has.
const tokenizerName = "tokenizer.json"

// textFiles are the names that published models give to tokenizer and configuration.
var textFiles = []string{
	"config.json", "generation_config.json", "genai_config.json", "preprocessor_config.json", "processor_config.json",
	tokenizerName, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
	"vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model",
	"chat_template.jinja", "chat_template.json",
}

func isTextFile(name string) bool {
	return slices.Contains(textFiles, name) || strings.HasPrefix(name, "LICENSE")
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func baseNames(paths []string) []string {
	names := make([]string, len(paths))
	for i, p := range paths {
		names[i] = filepath.Base(p)
	}
	return names
}
