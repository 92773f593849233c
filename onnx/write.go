package onnx

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

const (
	// singleFile is what a model file may hold before its tensors move to a data file:
	// protobuf ends at 2 GiB, and tools that add to a model need room.
	singleFile = 3 << 29
	// smallTensor stays in the model file: shapes and axes, which ONNX Runtime
	// reads while it infers types.
	smallTensor = 1024
	// dataAlign is the alignment that lets ONNX Runtime map tensors.
	dataAlign = 4096
)

// WriteDir writes the model to the file name in folder dir, and what it needs beside it:
// external data files are copied, never linked, so that no other model shares them; tensors too large for one
// file go to name + "_data". Each file is written whole or not at all, the model last.
func (m *Model) WriteDir(dir, name string) error { return m.write(dir, name, singleFile) }

// WriteFile is WriteDir of the path's folder and name.
func (m *Model) WriteFile(path string) error {
	return m.WriteDir(filepath.Dir(path), filepath.Base(path))
}

func (m *Model) write(dir, name string, limit int64) error {
	if err := m.copyExternal(dir); err != nil {
		return fmt.Errorf("onnx: write %q: %w", filepath.Join(dir, name), err)
	}
	e := m.encode()
	if e.size > limit {
		spilled, err := m.spill(dir, name)
		if err != nil {
			return fmt.Errorf("onnx: write %q: %w", filepath.Join(dir, name), err)
		}
		e = spilled.encode()
	}
	if e.size > maxFile {
		return fmt.Errorf("onnx: write %q: graph takes %d bytes, want at most %d", filepath.Join(dir, name), e.size, int64(maxFile))
	}
	return atomicfile.WriteFile(filepath.Join(dir, name), e.writeTo)
}

// copyExternal brings the external files the graph uses into dir.
func (m *Model) copyExternal(dir string) error {
	done := map[string]bool{}
	return m.Graph.tensors(func(t *Tensor) error {
		if t.External == nil || done[t.External.Location] {
			return nil
		}
		location := t.External.Location
		done[location] = true
		at := slices.IndexFunc(m.files, func(f *mapping) bool { return f.location == location })
		if at < 0 {
			return fmt.Errorf("tensor %q lies in %q, which is not loaded", t.Name, location)
		}
		return copyFile(m.files[at], filepath.Join(dir, filepath.FromSlash(location)))
	})
}

// copyFile makes dst a copy of the file that is mapped, unless it is that file.
func copyFile(src *mapping, dst string) error {
	if err := os.MkdirAll(filepath.Dir(dst), 0o777); err != nil {
		return err
	}
	from, err := filepath.EvalSymlinks(src.path)
	if err != nil {
		return err
	}
	have, err := os.Stat(from)
	if err != nil {
		return err
	}
	if there, err := os.Lstat(dst); err == nil && os.SameFile(have, there) {
		return nil
	}
	return atomicfile.WriteFile(dst, func(w io.Writer) error {
		_, err := w.Write(src.b)
		return err
	})
}

// spill writes the larger initializers to a data file and returns the model that
// refers to it.
func (m *Model) spill(dir, name string) (*Model, error) {
	c := m.clone()
	location := name + "_data"
	for slices.ContainsFunc(m.files, func(f *mapping) bool { return f.location == location }) {
		location += "_1"
	}
	err := atomicfile.WriteFile(filepath.Join(dir, location), func(w io.Writer) error {
		var at int64
		for i, t := range c.Graph.Initializers {
			if t.External != nil || len(t.data) < smallTensor {
				continue
			}
			pad := (dataAlign - at%dataAlign) % dataAlign
			if _, err := w.Write(make([]byte, pad)); err != nil {
				return err
			}
			if _, err := w.Write(t.data); err != nil {
				return err
			}
			out := *t
			out.External = &External{Location: location, Offset: at + pad, Length: int64(len(t.data))}
			c.Graph.Initializers[i] = &out
			at += pad + int64(len(t.data))
		}
		return nil
	})
	return c, err
}

// SHA256 returns the hexadecimal digest of the model file. Where it has external
// data it is the digest of one line "digest  name" for each file, as sha256sum prints
// them, the model first under the name "model", then the data files by location.
func (m *Model) SHA256() (string, error) {
	model := sha256.New()
	if len(m.files) > 0 && !m.derived {
		model.Write(m.files[0].b)
	} else if err := m.encode().writeTo(model); err != nil {
		return "", err
	}
	used := map[string]bool{}
	if err := m.Graph.tensors(func(t *Tensor) error {
		if t.External != nil {
			used[t.External.Location] = true
		}
		return nil
	}); err != nil {
		return "", err
	}
	if len(used) == 0 {
		return hex.EncodeToString(model.Sum(nil)), nil
	}
	all := sha256.New()
	fmt.Fprintf(all, "%x  model\n", model.Sum(nil))
	for _, location := range slices.Sorted(maps.Keys(used)) {
		at := slices.IndexFunc(m.files, func(f *mapping) bool { return f.location == location })
		if at < 0 {
			return "", fmt.Errorf("onnx: external data %q is not loaded", location)
		}
		fmt.Fprintf(all, "%x  %s\n", sha256.Sum256(m.files[at].b), location)
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}
