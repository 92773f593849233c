package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// A Transfer is how far a Fetch or Push is.
type Transfer struct {
	// URL is what is brought or written, Done and Total count its bytes. What needs no
	// transfer counts as done.
	URL         string
	Done, Total int64
}

// FetchOptions say how to fetch. The zero value is useful.
type FetchOptions struct {
	// Cache is the folder of the local cache; DefaultCache where empty.
	Cache string
	// Keep, unless nil, picks the objects of a folder, by names with slashes, given all of
	// them.
	Keep func(names []string) []string
	// Into, unless empty, is a new folder to make instead of one in the cache: its files
	// are copies, which may be changed.
	Into string
	// Shared lets the files of Into be those of the cache under second names: no copies, and
	// they must not be written to.
	Shared bool
	// Report, unless nil, is called from time to time, by one goroutine.
	Report func(Transfer)
}

// parallel is how many objects are on their way at once.
const parallel = 4

// changes bounds how often a folder is looked at again because it changed while it was
// fetched.
const changes = 5

// Fetch brings what a URL names to this machine and returns where it is: the path of a
// file, or of a folder with everything below the URL; for a pattern (* ? [ in the key; a
// * matches no slash) the paths of all that match, in the order of filepath.Glob. They
// must not be written to. An object that is in the cache in the same version is not
// transferred again. The error is fs.ErrNotExist where the URL names nothing.
func Fetch(ctx context.Context, url string, opt FetchOptions) ([]string, error) {
	b, err := Open(ctx, url)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if opt.Cache == "" {
		if opt.Cache, err = DefaultCache(); err != nil {
			return nil, err
		}
	}
	for attempt := 1; ; attempt++ {
		found, err := b.find(ctx, opt)
		if err == nil {
			var paths []string
			if paths, err = found.fetch(ctx, opt); err == nil {
				return paths, nil
			}
		}
		// Something was replaced or removed between being listed and being read.
		again := KindOf(err) == Changed || found != nil && KindOf(err) == NotFound
		if !again || attempt == changes {
			return nil, err
		}
		if err := pause(ctx, firstWait); err != nil {
			return nil, err
		}
	}
}

// found is what a URL names.
type found struct {
	bucket *Bucket
	// base is the name of the folder to make; objects are named below it.
	base    string
	objects []Object
	// single: the URL names one object; pattern: several by a pattern.
	single, pattern bool
}

func (b *Bucket) missing(op string) error {
	return &Error{Op: op, URL: b.at.String(), Kind: NotFound, Err: errors.New("nothing is there")}
}

// find looks up what the bucket's place names.
func (b *Bucket) find(ctx context.Context, opt FetchOptions) (*found, error) {
	if strings.ContainsAny(b.at.key, wildcards) {
		return b.match(ctx)
	}
	if !b.at.folder {
		object, there, err := b.stat(ctx, b.at.key)
		if err != nil {
			return nil, err
		}
		if there {
			if target, err := b.linked(ctx, object); err != nil || target != nil {
				if err != nil {
					return nil, err
				}
				return target.find(ctx, opt)
			}
			object.Name = path.Base(b.at.key)
			return &found{bucket: b, base: object.Name, objects: []Object{object}, single: true}, nil
		}
	}
	f := &found{bucket: b, base: path.Base(b.at.key)}
	if b.at.key == "" {
		f.base = b.at.bucket
	}
	err := b.List(ctx, func(o Object) error {
		if !filepath.IsLocal(filepath.FromSlash(o.Name)) || strings.ContainsRune(o.Name, '\\') {
			return &Error{Op: "read", URL: b.at.at(o.key), Err: errors.New("its name leads out of the folder")}
		}
		f.objects = append(f.objects, o)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if opt.Keep != nil {
		f.keep(opt.Keep)
	}
	if len(f.objects) == 0 {
		return nil, b.missing("find")
	}
	return f, nil
}

func (f *found) keep(pick func([]string) []string) {
	names := make([]string, len(f.objects))
	for i, o := range f.objects {
		names[i] = o.Name
	}
	kept := pick(names)
	f.objects = slices.DeleteFunc(f.objects, func(o Object) bool { return !slices.Contains(kept, o.Name) })
}

// match looks up what a pattern matches.
func (b *Bucket) match(ctx context.Context) (*found, error) {
	pattern := b.at.key
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, &Error{Op: "find", URL: b.at.String(), Err: err}
	}
	prefix := pattern[:strings.IndexAny(pattern, wildcards)]
	folder := prefix[:strings.LastIndex(prefix, "/")+1]
	f := &found{bucket: b, base: path.Base("/" + folder), pattern: true}
	if folder == "" {
		f.base = b.at.bucket
	}
	err := b.list(ctx, prefix, func(o Object) error {
		o.Name = strings.TrimPrefix(o.key, folder)
		hidden := strings.HasPrefix(path.Base(o.key), ".")
		if matches, _ := path.Match(pattern, o.key); matches && !hidden && filepath.IsLocal(o.Name) {
			f.objects = append(f.objects, o)
		}
		return nil
	})
	if err == nil && len(f.objects) == 0 {
		err = b.missing("find")
	}
	slices.SortFunc(f.objects, func(x, y Object) int {
		return slices.Compare(strings.Split(x.Name, "/"), strings.Split(y.Name, "/"))
	})
	return f, err
}

// fetch brings the objects into the cache and makes a folder of them.
func (f *found) fetch(ctx context.Context, opt FetchOptions) ([]string, error) {
	files, err := f.download(ctx, opt)
	if err != nil {
		return nil, err
	}
	folder, err := f.folder(ctx, opt, files)
	if err != nil {
		return nil, err
	}
	if !f.single && !f.pattern {
		return []string{folder}, nil
	}
	paths := make([]string, len(f.objects))
	for i, o := range f.objects {
		paths[i] = filepath.Join(folder, filepath.FromSlash(o.Name))
	}
	return paths, nil
}

// download returns where in the cache each object is.
func (f *found) download(ctx context.Context, opt FetchOptions) ([]string, error) {
	var moved atomic.Int64
	var total int64
	for _, o := range f.objects {
		total += o.Size
	}
	stop := reporting(opt.Report, f.bucket.at.String(), total, &moved)
	defer stop()
	from := &fetcher{cache: opt.Cache, bucket: f.bucket, moved: &moved}
	files := make([]string, len(f.objects))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, o := range f.objects {
		group.Go(func() (err error) {
			files[i], err = from.object(ctx, o)
			return err
		})
	}
	return files, group.Wait()
}

// folder makes a folder of the objects, or finds the one that was made of them before.
func (f *found) folder(ctx context.Context, opt FetchOptions, files []string) (string, error) {
	if opt.Into != "" && opt.Shared {
		return opt.Into, f.build(opt.Into, files, linkFile)
	}
	if opt.Into != "" {
		return opt.Into, f.build(opt.Into, files, atomicfile.CopyFile)
	}
	texts := []string{f.bucket.at.origin(), f.base}
	for _, o := range f.objects {
		texts = append(texts, o.Name, o.Version, fmt.Sprint(o.Size))
	}
	id := address(texts...)
	dir := filepath.Join(opt.Cache, "trees", id[:2], id)
	tree := filepath.Join(dir, f.base)
	if f.single {
		tree = dir // which holds the file itself
	}
	there := func() bool {
		_, err := os.Lstat(filepath.Join(tree, filepath.FromSlash(f.objects[0].Name)))
		return err == nil
	}
	lock, err := hold(ctx, dir, there)
	if err != nil {
		return "", err
	}
	if lock == nil || there() {
		used(dir)
		return tree, errors.Join(lock.Release())
	}
	defer lock.Release()
	if f.single {
		return tree, linkFile(filepath.Join(tree, f.objects[0].Name), files[0])
	}
	return tree, f.build(tree, files, linkFile)
}

// build makes the folder final, whole or not at all.
func (f *found) build(final string, files []string, place func(path, from string) error) error {
	if err := os.MkdirAll(filepath.Dir(final), 0o777); err != nil {
		return fmt.Errorf("store: cache: %w", err)
	}
	dir, err := atomicfile.CreateDir(final)
	if err != nil {
		return err
	}
	defer dir.Abort()
	for i, o := range f.objects {
		to := filepath.Join(dir.Path, filepath.FromSlash(o.Name))
		if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
			return fmt.Errorf("store: cache: %w", err)
		}
		target, err := linkTarget(files[i], o)
		if err != nil {
			return err
		}
		if target != "" {
			err = os.Symlink(filepath.FromSlash(target), to)
		} else {
			err = place(to, files[i])
		}
		if err != nil {
			return fmt.Errorf("store: cache: %w", err)
		}
	}
	return dir.Commit()
}

// linkFile gives a file of the cache a second name, or copies it where that can't be.
func linkFile(path, from string) error {
	if err := os.Link(from, path); err == nil {
		return nil
	}
	return atomicfile.CopyFile(path, from)
}

// reporting calls report a few times a second until it is stopped.
func reporting(report func(Transfer), url string, total int64, moved *atomic.Int64) (stop func()) {
	if report == nil {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				report(Transfer{URL: url, Done: moved.Load(), Total: total})
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// pause waits, unless the context ends before.
func pause(ctx context.Context, wait time.Duration) error {
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
