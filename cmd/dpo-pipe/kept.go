package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
	"github.com/dpo-pipe/dpo-pipe/job"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
	"github.com/dpo-pipe/dpo-pipe/store"
)

// kept implements job.Kept: caches and runs of a job that are at URLs. Each is worked on in the
// work folder of its URL, as a single command's --out is, and held there on this machine; at the
// URL a lock keeps other machines out.
type kept struct {
	places *places
	writes bool
	runs   *keptRuns             // nil: the runs are folders of this machine
	caches map[string]*keptCache // by folder
	held   []*destination
}

// open holds what the config names by URL, and writes work folders for it.
func (k *kept) open(ctx context.Context, cfg *job.Config) error {
	runs, err := k.hold(ctx, "runs.path", &cfg.Runs.Path, jobRuns)
	if err != nil {
		return err
	}
	pairs := ""
	if store.IsURL(cfg.Cache.Out) && len(cfg.Evaluation.Pairs) > 0 {
		if pairs, err = store.Beside(cfg.Cache.Out, job.PairsCache("")); err != nil {
			return &usageErr{err}
		}
	}
	if err := k.cache(ctx, &cfg.Cache.Out); err != nil {
		return err
	}
	if pairs != "" {
		if err := k.cache(ctx, &pairs); err != nil {
			return err
		}
		cfg.LocatePairsCache(pairs)
	}
	if runs == nil {
		return nil
	}
	k.runs = &keptRuns{destination: runs, written: map[string][]byte{}}
	return k.runs.open(ctx)
}

// hold puts the work folder of a URL in its place, and keeps others from both. It is nil for a
// path of this machine.
func (k *kept) hold(ctx context.Context, key string, field *string, kind destinationKind) (*destination, error) {
	url := *field
	where, local := store.Local(url)
	if local && strings.Contains(where, "://") {
		return nil, &pipeline.FieldError{Field: key, Value: where, Want: "a path of this machine or the URL of a store"}
	}
	if *field = where; local {
		return nil, nil
	}
	d, err := k.places.hold(key, url, kind)
	if err != nil {
		return nil, busy(url, err)
	}
	k.held = append(k.held, d)
	k.places.shown[d.folder], *field = shownURL(url), d.folder
	if k.writes {
		d.guard, err = store.Acquire(ctx, url)
	}
	return d, busy(url, err)
}

// busy says of a place that is held that the job is at work.
func busy(url string, err error) error {
	if locked, ok := errors.AsType[*lockfile.LockedError](err); ok {
		return &job.BusyError{Runs: shownURL(url), Holder: locked.Holder}
	}
	return err
}

func (k *kept) cache(ctx context.Context, field *string) error {
	d, err := k.hold(ctx, "cache.out", field, cacheOutput)
	if d == nil || err != nil {
		return err
	}
	c := &keptCache{destination: d}
	k.caches[d.folder] = c
	return c.open(ctx)
}

// Guard implements job.Kept.
func (k *kept) Guard(ctx context.Context) (context.Context, context.CancelFunc) {
	var stops []context.CancelFunc
	for _, d := range k.held {
		var stop context.CancelFunc
		ctx, stop = d.guard.Guard(ctx)
		stops = append(stops, stop)
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// name is that of a path below the folder of the runs; false for one that is not kept elsewhere.
func (k *kept) name(file string) (string, bool) {
	if k.runs == nil {
		return "", false
	}
	name, err := filepath.Rel(k.runs.folder, file)
	return filepath.ToSlash(name), err == nil && filepath.IsLocal(name)
}

// Has implements job.Kept.
func (k *kept) Has(file string) bool {
	name, elsewhere := k.name(file)
	return isThere(file) || elsewhere && k.runs.has(name)
}

// Bring implements job.Kept.
func (k *kept) Bring(ctx context.Context, file string) error {
	if c := k.caches[file]; c != nil {
		return c.bring(ctx)
	}
	name, elsewhere := k.name(file)
	if !elsewhere || isThere(file) || !k.runs.has(name) {
		return nil
	}
	return k.runs.bring(ctx, name)
}

// Save implements job.Kept. Nothing is written under a lock that is lost.
func (k *kept) Save(ctx context.Context, file string) error {
	if c := k.caches[file]; c != nil {
		if err := c.guard.Renew(ctx); err != nil {
			return err
		}
		return c.save(ctx)
	}
	name, elsewhere := k.name(file)
	if !elsewhere || !isThere(file) {
		return nil
	}
	if err := k.runs.guard.Renew(ctx); err != nil {
		return err
	}
	if strings.Contains(name, "/") {
		return k.runs.saveOutcome(ctx, name)
	}
	return k.runs.saveRecord(ctx, name)
}

// Remove implements job.Kept.
func (k *kept) Remove(ctx context.Context, file string) error {
	name, elsewhere := k.name(file)
	if !elsewhere {
		return nil
	}
	return k.runs.remove(ctx, name)
}

// Named implements job.Kept.
func (k *kept) Named(text string) string { return k.places.name(text) }

// Close implements job.Kept.
func (k *kept) Close() (err error) {
	for _, d := range k.held {
		err = errors.Join(err, d.close())
	}
	return err
}

func isThere(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

// keptCache is a cache of a job at a URL. A job that finds nothing to do reads its manifest
// alone, so the rest is brought when it is asked for. A pass that was stopped leaves what is
// whole aside at the URL.
type keptCache struct {
	*destination
	manifest []byte // of the cache at the URL, nil where there is none
	version  string // of that manifest
	whole    bool   // all that is at the URL is here, or more
}

// open brings the manifest, or work on a first cache that is not finished. What this machine has,
// and nobody else has written to since, stays.
func (c *keptCache) open(ctx context.Context) error {
	state, err := store.Look(ctx, c.url, c.kind.markers...)
	if err != nil {
		return err
	}
	if state.Foreign != "" {
		return c.foreign(state)
	}
	known, err := c.known()
	if err != nil {
		return err
	}
	c.version = state.Version
	if state.Marker != "" {
		paths, err := c.places.fetch(ctx, store.Join(c.url, state.Marker), store.FetchOptions{})
		if err != nil {
			return err
		}
		if c.manifest, err = os.ReadFile(paths[0]); err != nil {
			return fmt.Errorf("work folder: %w", err)
		}
	}
	if len(c.here()) > 0 && (known == state.Version || state.Marker == "" && state.Unfinished) {
		c.whole = true
		return nil
	}
	if err := c.empty(); err != nil {
		return err
	}
	if c.manifest == nil {
		return c.bring(ctx)
	}
	if err := os.Mkdir(c.folder, 0o777); err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	return os.WriteFile(filepath.Join(c.folder, state.Marker), c.manifest, 0o666)
}

// here lists the caches in the work folder: the one that the URL will hold, and what takes its
// place when it is whole.
func (c *keptCache) here() (dirs []string) {
	for _, dir := range []string{c.folder, refcache.Successor(c.folder), job.Rebuilt(c.folder)} {
		if refcache.IsCache(dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func (c *keptCache) bring(ctx context.Context) error {
	if c.whole {
		return nil
	}
	if c.manifest != nil {
		if _, err := c.places.fetch(ctx, c.url, store.FetchOptions{Into: c.folder}); err != nil {
			return err
		}
		now, err := os.ReadFile(filepath.Join(c.folder, c.kind.markers[0]))
		if err == nil && !bytes.Equal(now, c.manifest) {
			err = fmt.Errorf("%s: %w", shownURL(c.url), refcache.ErrReplaced)
		}
		if err == nil {
			err = c.remember(c.version)
		}
		if err != nil {
			return err
		}
	}
	if err := c.bringWork(ctx); err != nil {
		return err
	}
	c.whole = true
	return nil
}

// bringWork brings what another start of the job left aside.
func (c *keptCache) bringWork(ctx context.Context) error {
	for _, dir := range []string{c.folder, refcache.Successor(c.folder), job.Rebuilt(c.folder)} {
		aside := store.Aside(c.url, filepath.Base(dir))
		state, err := store.Look(ctx, aside, c.kind.markers...)
		if err == nil && state.Marker != "" && !refcache.IsCache(dir) {
			_, err = c.places.fetch(ctx, aside, store.FetchOptions{Into: dir})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// save writes the cache where it is not what is at the URL or, of a pass that was stopped, what
// there is of the new one.
func (c *keptCache) save(ctx context.Context) error {
	left := false
	for _, dir := range c.here() {
		if m, err := refcache.ReadManifest(dir); err != nil || m.Complete {
			continue
		}
		left = true
		if err := c.places.push(ctx, dir, store.Aside(c.url, filepath.Base(dir)), store.PushOptions{Last: c.kind.markers}); err != nil {
			return err
		}
	}
	now, err := os.ReadFile(filepath.Join(c.folder, c.kind.markers[0]))
	if left || errors.Is(err, fs.ErrNotExist) || err == nil && bytes.Equal(now, c.manifest) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	if err := c.push(ctx); err != nil {
		return err
	}
	c.manifest = now
	return nil
}

// jobRuns are the runs of a job: a folder for each, which has its marker.
var jobRuns = destinationKind{noun: "runs", kept: true}

// outcomeMarkers are the files of which one makes a folder in a run's folder whole where that is
// kept: of a training, which may be stopped and gone on with, a sweep, a policy.
var outcomeMarkers = []string{"config.yaml", "sweep.json", "model.onnx", "onnx/model.onnx"}

// savedName is the file, in a run's folder, with the result as it was written to the URL last.
const savedName = ".saved"

// keptRuns are the runs of a job at a URL. Their records are brought at the start, what the runs
// made is brought when it is asked for.
type keptRuns struct {
	*destination
	names   map[string]bool   // of the objects at the URL
	written map[string][]byte // record files as they were written there
}

// open brings the records. A run that this machine has, and nobody else has written to since, stays
// with all that it has made here.
func (r *keptRuns) open(ctx context.Context) error {
	from, names, err := r.places.records(ctx, r.url)
	if err != nil {
		return err
	}
	r.names = names
	if err := os.MkdirAll(r.folder, 0o777); err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	here, err := os.ReadDir(r.folder)
	if err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	for _, e := range here {
		if e.IsDir() && !names[path.Join(e.Name(), resultFile)] {
			if err := os.RemoveAll(filepath.Join(r.folder, e.Name())); err != nil {
				return fmt.Errorf("work folder: %w", err)
			}
		}
	}
	for name := range names {
		if run, file := path.Split(name); file == resultFile && path.Dir(name)+"/" == run && !strings.Contains(path.Dir(name), "/") {
			if err := r.take(from, path.Dir(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// resultFile is what makes a folder a run's record.
var resultFile = job.RecordFiles[len(job.RecordFiles)-1]

// take makes the record of a run in folder from that of the run here, unless it is.
func (r *keptRuns) take(from, run string) error {
	folder := filepath.Join(r.folder, run)
	there, err := os.ReadFile(filepath.Join(from, run, resultFile))
	if err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	if saved, err := os.ReadFile(filepath.Join(folder, savedName)); err == nil && bytes.Equal(saved, there) {
		return nil
	}
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o777)); err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	for _, file := range job.RecordFiles {
		text, err := os.ReadFile(filepath.Join(from, run, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, file), text, 0o666)
		}
		if err != nil {
			return fmt.Errorf("work folder: %w", err)
		}
	}
	return r.saved(run, there)
}

func (r *keptRuns) saved(run string, result []byte) error {
	if err := os.WriteFile(filepath.Join(r.folder, run, savedName), result, 0o666); err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	return nil
}

// has reports whether the file or, whole, the folder of that name is at the URL.
func (r *keptRuns) has(name string) bool {
	if r.names[name] {
		return true
	}
	for _, marker := range outcomeMarkers {
		if r.names[path.Join(name, marker)] {
			return true
		}
	}
	return false
}

// bring brings a file of a run, or a folder that it made.
func (r *keptRuns) bring(ctx context.Context, name string) error {
	into := filepath.Join(r.folder, filepath.FromSlash(name))
	if !r.names[name] {
		_, err := r.places.fetch(ctx, store.Join(r.url, name), store.FetchOptions{Into: into})
		return err
	}
	paths, err := r.places.fetch(ctx, store.Join(r.url, name), store.FetchOptions{})
	if err != nil {
		return err
	}
	text, err := os.ReadFile(paths[0])
	if err == nil {
		err = os.WriteFile(into, text, 0o666)
	}
	if err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	return nil
}

// saveRecord writes the files of a run's folder that changed, those that make it a record last.
func (r *keptRuns) saveRecord(ctx context.Context, run string) error {
	b, err := store.Open(ctx, r.url)
	if err != nil {
		return err
	}
	defer b.Close()
	files, err := recordFiles(filepath.Join(r.folder, run))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(r.folder, run, file))
		if err != nil {
			return fmt.Errorf("work folder: %w", err)
		}
		name := path.Join(run, file)
		if had, ok := r.written[name]; ok && bytes.Equal(had, text) {
			continue
		}
		if err := b.WritePointer(ctx, name, text, store.Condition{}); err != nil {
			return err
		}
		r.written[name], r.names[name] = text, true
	}
	return r.saved(run, r.written[path.Join(run, resultFile)])
}

// recordFiles lists the files in a run's folder in the order in which they are written.
func recordFiles(folder string) (files []string, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("work folder: %w", err)
	}
	last := map[string]bool{}
	for _, name := range job.RecordFiles {
		last[name] = true
	}
	for _, e := range entries {
		if e.Type().IsRegular() && !last[e.Name()] && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, e.Name())
		}
	}
	return append(files, job.RecordFiles...), nil
}

// saveOutcome writes a folder that a run made, whole.
func (r *keptRuns) saveOutcome(ctx context.Context, name string) error {
	folder := filepath.Join(r.folder, filepath.FromSlash(name))
	for _, marker := range outcomeMarkers {
		if !isThere(filepath.Join(folder, filepath.FromSlash(marker))) {
			continue
		}
		err := r.places.push(ctx, folder, store.Join(r.url, name), store.PushOptions{Last: []string{marker}})
		if err == nil {
			r.names[path.Join(name, marker)] = true
		}
		return err
	}
	return nil // it has not come to anything
}

// remove removes a folder that a run made.
func (r *keptRuns) remove(ctx context.Context, name string) error {
	there := false
	for object := range r.names {
		if strings.HasPrefix(object, name+"/") {
			there = true
			delete(r.names, object)
		}
	}
	if !there {
		return nil
	}
	b, err := store.Open(ctx, store.Join(r.url, name))
	if err != nil {
		return err
	}
	defer b.Close()
	return b.Clear(ctx, outcomeMarkers...)
}

// records brings the records of the runs at a URL, and lists all objects there. The folder is ""
// where there are none.
func (p *places) records(ctx context.Context, url string) (folder string, names map[string]bool, err error) {
	paths, err := p.fetch(ctx, url, store.FetchOptions{Keep: func(all []string) (records []string) {
		names = map[string]bool{}
		for _, name := range all {
			names[name] = true
			run, file := path.Split(name)
			for _, want := range job.RecordFiles {
				if file == want && strings.Count(run, "/") == 1 {
					records = append(records, name)
				}
			}
		}
		return records
	}})
	if errors.Is(err, fs.ErrNotExist) {
		return "", names, nil
	}
	if err != nil {
		return "", nil, err
	}
	return paths[0], names, nil
}

// runsHere is where on this machine the runs of a job are, as the last command here left them.
func (p *places) runsHere(where string) string {
	if folder, local := store.Local(where); local {
		return folder
	}
	folder, err := store.WorkFolder(p.cache, where)
	if err != nil {
		return "" // which holds none
	}
	return folder
}

// history lists the runs of a job.
func (p *places) history(ctx context.Context, where string) ([]*job.Result, error) {
	folder, local := store.Local(where)
	if local {
		return job.History(folder, func() (bool, error) { return lockfile.Held(folder) })
	}
	folder, _, err := p.records(ctx, where)
	if err != nil || folder == "" {
		return nil, err
	}
	return job.History(folder, func() (bool, error) {
		holder, err := store.Holder(ctx, where)
		return holder != "", err
	})
}
