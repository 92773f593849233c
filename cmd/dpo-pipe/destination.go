package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
	"github.com/dpo-pipe/dpo-pipe/store"
)

// destinationKind is what an --out holds.
type destinationKind struct {
	noun string
	// markers are the files of which one makes it whole; it is written last.
	markers []string
	// kept: interrupted work and what an earlier command wrote is gone on with. Else --out
	// must be new.
	kept bool
}

var (
	cacheOutput  = destinationKind{"reference cache", []string{"manifest.json"}, true}
	runOutput    = destinationKind{"run", []string{"summary.json", "sweep.json"}, true}
	policyOutput = destinationKind{"policy", []string{"model.onnx", "onnx/model.onnx"}, false}
)

// destination is an --out that is a URL: a folder of this machine, held while the command runs,
// and what is there of it.
type destination struct {
	places *places
	kind   destinationKind
	url    string
	folder string
	lock   *lockfile.Lock
}

// out makes a work folder of the URL in field, and puts it there. For a path of this
// machine it does nothing. Where the URL holds what an earlier command wrote and this
// machine does not have that, or has another, it is fetched.
func (p *places) out(ctx context.Context, field *string, kind destinationKind) (*destination, error) {
	path, local := store.Local(*field)
	if local {
		*field = path
		return nil, nil
	}
	if p.err != nil {
		return nil, p.err
	}
	d := &destination{places: p, kind: kind, url: *field}
	var err error
	if d.folder, err = store.WorkFolder(p.cache, d.url); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(d.folder), 0o777); err != nil {
		return nil, fmt.Errorf("work folder: %w", err)
	}
	if d.lock, err = lockfile.Acquire(filepath.Dir(d.folder)); err != nil {
		return nil, err
	}
	p.shown[d.folder] = store.Parent(d.url) + "/" + store.Base(d.url)
	if err := d.prepare(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	*field = d.folder
	return d, nil
}

// close gives the work folder free.
func (d *destination) close() error {
	if d == nil {
		return nil
	}
	return d.lock.Release()
}

// prepare brings the work folder to what the URL holds. Work that is not pushed yet stays,
// unless someone else has written there since it was begun.
func (d *destination) prepare(ctx context.Context) error {
	state, err := store.Look(ctx, d.url, d.kind.markers...)
	if err != nil {
		return err
	}
	if state.Foreign != "" {
		return &pipeline.FieldError{Field: "--out", Value: store.Redact(d.url), Want: fmt.Sprintf("an empty place or a %s; that one holds %q", d.kind.noun, state.Foreign)}
	}
	if !d.kind.kept {
		if state.Marker != "" {
			return &pipeline.FieldError{Field: "--out", Value: store.Redact(d.url), Want: "a new place; that one holds a " + d.kind.noun}
		}
		return os.RemoveAll(d.folder)
	}
	known, err := os.ReadFile(d.versionFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("work folder: %w", err)
	}
	if string(known) == state.Version || state.Marker == "" && state.Unfinished {
		return nil
	}
	if err := d.empty(); err != nil || state.Marker == "" {
		return err
	}
	_, err = d.places.fetch(ctx, d.url, store.FetchOptions{Into: d.folder})
	return errors.Join(err, d.remember(state.Version))
}

// versionFile holds the version of the marker that the work folder was pushed or fetched
// with.
func (d *destination) versionFile() string { return filepath.Join(filepath.Dir(d.folder), "version") }

func (d *destination) remember(version string) error {
	return atomicfile.WriteFile(d.versionFile(), func(w io.Writer) error {
		_, err := io.WriteString(w, version)
		return err
	})
}

// empty removes the work folder and what is beside it but the lock.
func (d *destination) empty() error {
	entries, err := os.ReadDir(filepath.Dir(d.folder))
	for _, e := range entries {
		if e.Name() != lockfile.Name {
			err = errors.Join(err, os.RemoveAll(filepath.Join(filepath.Dir(d.folder), e.Name())))
		}
	}
	return err
}

// push writes the work folder, which is whole, to its URL.
func (d *destination) push(ctx context.Context) error {
	if d == nil {
		return nil
	}
	progress := newProgress(d.places.app.stderr)
	defer progress.end()
	last := slices.DeleteFunc(slices.Clone(d.kind.markers), func(name string) bool {
		_, err := os.Stat(filepath.Join(d.folder, filepath.FromSlash(name)))
		return err != nil
	})
	if err := store.Push(ctx, d.folder, d.url, store.PushOptions{Last: last, Report: transfer(progress, "push")}); err != nil {
		return err
	}
	if !d.kind.kept {
		return os.RemoveAll(d.folder)
	}
	state, err := store.Look(ctx, d.url, last...)
	return errors.Join(err, d.remember(state.Version))
}
