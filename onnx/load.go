package onnx

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A mapping is a whole file in memory, read-only.
type mapping struct {
	path     string // as opened
	location string // as tensors refer to it; "" for the model file
	b        []byte
	unmap    func() error
}

// Load reads a model file and finds its external data, which must lie in the
// model's folder or below it, as ONNX Runtime demands. The files are mapped: they must
// not change while the model, or one derived from it, is in use.
func Load(path string) (*Model, error) {
	file, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("onnx: model %q: %w", path, err)
	}
	m, err := Parse(file.b)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("model %q: %w", path, err), file.unmap())
	}
	m.path, m.files = path, []*mapping{file}
	if err := m.openExternal(filepath.Dir(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("onnx: model %q: %w", path, err), m.Close())
	}
	return m, nil
}

// Close releases the files. This model and every model derived from it can't be
// used afterwards, nor can bytes taken from their tensors.
func (m *Model) Close() error {
	var errs []error
	for _, f := range m.files {
		errs = append(errs, f.unmap())
	}
	m.files = nil
	return errors.Join(errs...)
}

// openExternal gives every external tensor its bytes.
func (m *Model) openExternal(dir string) error {
	open := map[string]*mapping{}
	return m.Graph.tensors(func(t *Tensor) error {
		if t.External == nil {
			return nil
		}
		file := open[t.External.Location]
		if file == nil {
			path, err := externalPath(dir, t.External.Location)
			if err != nil {
				return fmt.Errorf("tensor %q: %w", t.Name, err)
			}
			if file, err = mapFile(path); err != nil {
				return fmt.Errorf("tensor %q: external data: %w", t.Name, err)
			}
			file.location = t.External.Location
			open[t.External.Location] = file
			m.files = append(m.files, file)
		}
		return t.slice(file.b)
	})
}

// externalPath resolves a location and refuses one outside the folder.
func externalPath(dir, location string) (string, error) {
	if !filepath.IsLocal(filepath.FromSlash(location)) || strings.Contains(location, `\`) {
		return "", fmt.Errorf("external data at %q, want a path inside the model's folder", location)
	}
	path := filepath.Join(dir, filepath.FromSlash(location))
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("external data: %w", err)
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("external data: %w", err)
	}
	if rel, err := filepath.Rel(root, real); err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("external data at %q links to %q, outside the model's folder; "+
			"ONNX Runtime reads no such file: copy the folder with its links followed (cp -rL)", location, real)
	}
	return path, nil
}

// slice takes the tensor's bytes out of its external file.
func (t *Tensor) slice(file []byte) error {
	x, size := t.External, int64(len(file))
	n := x.Length
	if n < 0 {
		var err error
		if n, err = t.size(); err != nil {
			return err
		}
	}
	if x.Offset > size || n < 0 || n > size-x.Offset {
		return fmt.Errorf("tensor %q takes %d bytes at %d of %q, which has %d", t.Name, n, x.Offset, x.Location, size)
	}
	t.data = file[x.Offset : x.Offset+n : x.Offset+n]
	return nil
}

// tensors calls fn for every tensor of the graph, those in attributes and in
// graphs of attributes too.
func (g *Graph) tensors(fn func(*Tensor) error) error {
	for _, t := range g.Initializers {
		if err := fn(t); err != nil {
			return err
		}
	}
	for _, n := range g.Nodes {
		for _, a := range n.Attrs {
			if err := a.tensors(fn); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *Attr) tensors(fn func(*Tensor) error) error {
	if a.T != nil {
		if err := fn(a.T); err != nil {
			return err
		}
	}
	for _, t := range a.Tensors {
		if err := fn(t); err != nil {
			return err
		}
	}
	for _, g := range a.graphs() {
		if err := g.tensors(fn); err != nil {
			return err
		}
	}
	return nil
}

// graphs are the graphs an attribute holds.
func (a *Attr) graphs() []*Graph {
	if a.G == nil {
		return a.Graphs
	}
	return append([]*Graph{a.G}, a.Graphs...)
}

// readFile is mapFile for systems and files that can't be mapped.
func readFile(path string) (*mapping, error) {
	b, err := os.ReadFile(path)
	return &mapping{path: path, b: b, unmap: func() error { return nil }}, err
}
