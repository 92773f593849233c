//go:build cgo && linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// externalise moves the matrices of a model into a file beside it.
func externalise(dir string) error {
	path := filepath.Join(dir, "model.onnx")
	m, err := onnx.Load(path)
	if err != nil {
		return err
	}
	defer m.Close()
	var data []byte
	for _, t := range m.Graph.Initializers {
		if len(t.Dims) < 2 {
			continue
		}
		b, err := t.Bytes()
		if err != nil {
			return err
		}
		t.External = &onnx.External{Location: "model.onnx_data", Offset: int64(len(data)), Length: int64(len(b))}
		data = append(data, b...)
	}
	text, err := m.Marshal()
	if err != nil {
		return err
	}
	// The old file is mapped: the new one takes its name.
	return errors.Join(os.WriteFile(filepath.Join(dir, "model.onnx_data"), data, 0o666),
		os.WriteFile(path+".new", text, 0o666), os.Rename(path+".new", path))
}

// unfinish copies the first n rows of a cache, as one part, into a cache, or a shard of one, that a
// kill left.
func unfinish(cache, out string, n int, shard *refcache.Shard) error {
	r, err := refcache.Open(cache)
	if err != nil {
		return err
	}
	defer r.Close()
	head, err := r.Head()
	if err != nil {
		return err
	}
	m := r.Manifest()
	w, err := refcache.Create(shard.Dir(out), refcache.Manifest{Identity: m.Identity, D: m.D, V: m.V, FeatureDType: m.FeatureDType, Shard: shard}, *head)
	if err != nil {
		return err
	}
	rows := make([]refcache.Row, n)
	for i := range rows {
		if err := r.Row(int64(i), &rows[i]); err != nil {
			return err
		}
	}
	return errors.Join(w.WritePart(rows, refcache.Position{Rows: int64(n)}), w.Close())
}

// interruptRun makes a run what a kill behind a step's checkpoint leaves of it.
func interruptRun(run string, step int) error {
	checkpoints, err := filepath.Glob(filepath.Join(run, "checkpoints", "step-*"))
	if err != nil {
		return err
	}
	later := 0
	for _, path := range checkpoints {
		at, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(path), "step-"))
		if err != nil {
			return err
		}
		if at > step {
			later++
			err = os.RemoveAll(path)
		}
		if err != nil {
			return err
		}
	}
	if later == 0 {
		return fmt.Errorf("%s has no checkpoint behind step %d", run, step)
	}
	here := fmt.Sprintf("checkpoints/step-%d", step)
	for _, link := range []string{"last", "best"} {
		if err := errors.Join(os.Remove(filepath.Join(run, link)), os.Symlink(here, filepath.Join(run, link))); err != nil {
			return err
		}
	}
	return os.Remove(filepath.Join(run, "summary.json"))
}
