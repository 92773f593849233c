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

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
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
	// apart, unless empty, is a folder there that is no part of it.
	apart string
	// there, unless empty, is what a place must hold already.
	there string
}

var (
	cacheOutput  = destinationKind{noun: "reference cache", markers: []string{"manifest.json"}, kept: true}
	runOutput    = destinationKind{noun: "run", markers: []string{"summary.json", "sweep.json"}, kept: true}
	policyOutput = destinationKind{noun: "policy", markers: []string{"model.onnx", "onnx/model.onnx"}}
	shardOutput  = destinationKind{noun: "shard of a reference cache", markers: cacheOutput.markers}
	joinOutput   = destinationKind{noun: "reference cache", markers: cacheOutput.markers, apart: refcache.ShardsName}
)

// destination is an --out that is a URL: a folder of this machine, held while the command runs,
// and what is there of it.
type destination struct {
	places *places
	kind   destinationKind
	url    string
	// field is the flag or key that names the URL.
	field string
	// work is the folder that is held, folder the one in it that the URL will hold.
	work, folder string
	lock         *lockfile.Lock
	// guard holds the URL, too; nil where nobody else is kept out of that.
	guard *store.Lock
}

// out makes a work folder of the URL in field, and puts it there. For a path of this
// machine it does nothing. Where the URL holds what an earlier command wrote and this
// machine does not have that, or has another, it is fetched.
func (p *places) out(ctx context.Context, field *string, kind destinationKind) (*destination, error) {
	return p.outAs(ctx, "--out", field, kind)
}

// within is out for a run that is there and written into; name is what the user calls it.
func (p *places) within(ctx context.Context, name string, run *string) (*destination, error) {
	kind := runOutput
	kind.there = "a finished run or sweep"
	return p.outAs(ctx, name, run, kind)
}

func (p *places) outAs(ctx context.Context, name string, field *string, kind destinationKind) (*destination, error) {
	path, local := store.Local(*field)
	if local {
		*field = path
		return nil, nil
	}
	d, err := p.hold(name, *field, kind)
	if err != nil {
		return nil, err
	}
	p.shown[d.folder] = shownURL(d.url)
	if err := d.prepare(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	*field = d.folder
	return d, nil
}

// hold makes the work folder of a URL, and keeps other processes out of it. field is the flag or
// key that names the URL.
func (p *places) hold(field, url string, kind destinationKind) (*destination, error) {
	if p.err != nil {
		return nil, p.err
	}
	d := &destination{places: p, kind: kind, url: url, field: field}
	var err error
	if d.folder, err = store.WorkFolder(p.cache, url); err != nil {
		return nil, err
	}
	d.work = filepath.Dir(d.folder)
	if err := os.MkdirAll(d.work, 0o777); err != nil {
		return nil, fmt.Errorf("work folder: %w", err)
	}
	if d.lock, err = lockfile.Acquire(d.work); err != nil {
		return nil, err
	}
	return d, nil
}

// shownURL is the URL as results and errors name it, without options.
func shownURL(url string) string { return store.Parent(url) + "/" + store.Base(url) }

// close gives the work folder free, and the URL.
func (d *destination) close() error {
	if d == nil {
		return nil
	}
	var err error
	if d.guard != nil {
		err = d.guard.Release()
	}
	return errors.Join(err, d.lock.Release())
}

// prepare brings the work folder to what the URL holds. Work that is not pushed yet stays,
// unless someone else has written there since it was begun.
func (d *destination) prepare(ctx context.Context) error {
	state, err := store.Look(ctx, d.url, d.kind.markers...)
	if err != nil {
		return err
	}
	if state.Marker == "" && d.kind.there != "" {
		return &pipeline.FieldError{Field: d.field, Value: store.Redact(d.url), Want: d.kind.there}
	}
	if state.Foreign != "" {
		return d.foreign(state)
	}
	if !d.kind.kept {
		if state.Marker != "" {
			return &pipeline.FieldError{Field: d.field, Value: store.Redact(d.url), Want: "a new place; that one holds a " + d.kind.noun}
		}
		return d.empty()
	}
	known, err := d.known()
	if err != nil {
		return err
	}
	if known == state.Version || state.Marker == "" && state.Unfinished {
		return nil
	}
	if err := d.empty(); err != nil || state.Marker == "" {
		return err
	}
	_, err = d.places.fetch(ctx, d.url, store.FetchOptions{Into: d.folder})
	return errors.Join(err, d.remember(state.Version))
}

// foreign says that the URL holds something else.
func (d *destination) foreign(s store.State) error {
	return &pipeline.FieldError{Field: d.field, Value: store.Redact(d.url), Want: fmt.Sprintf("an empty place or a %s; that one holds %q", d.kind.noun, s.Foreign)}
}

// versionFile holds the version of the marker that the work folder was pushed or fetched
// with.
func (d *destination) versionFile() string { return filepath.Join(d.work, "version") }

// known is what the version file says; "" where there is none.
func (d *destination) known() (version string, err error) {
	text, err := os.ReadFile(d.versionFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("work folder: %w", err)
	}
	return string(text), nil
}

func (d *destination) remember(version string) error {
	return atomicfile.WriteFile(d.versionFile(), func(w io.Writer) error {
		_, err := io.WriteString(w, version)
		return err
	})
}

// empty removes the work folder and what is beside it but the lock.
func (d *destination) empty() error {
	if d == nil {
		return nil
	}
	entries, err := os.ReadDir(d.work)
	for _, e := range entries {
		if e.Name() != lockfile.Name {
			err = errors.Join(err, os.RemoveAll(filepath.Join(d.work, e.Name())))
		}
	}
	return err
}

// push writes the work folder, which is whole, to its URL.
func (d *destination) push(ctx context.Context) error {
	if d == nil {
		return nil
	}
	last := slices.DeleteFunc(slices.Clone(d.kind.markers), func(name string) bool {
		_, err := os.Stat(filepath.Join(d.folder, filepath.FromSlash(name)))
		return err != nil
	})
	if err := d.places.push(ctx, d.folder, d.url, store.PushOptions{Last: last, Apart: d.kind.apart}); err != nil {
		return err
	}
	if !d.kind.kept {
		return d.empty()
	}
	state, err := store.Look(ctx, d.url, last...)
	return errors.Join(err, d.remember(state.Version))
}

// push writes a folder to a URL, and shows how far that is.
func (p *places) push(ctx context.Context, folder, url string, opt store.PushOptions) error {
	progress := newProgress(p.app.stderr)
	defer progress.end()
	opt.Report = transfer(progress, "push")
	return store.Push(ctx, folder, url, opt)
}
