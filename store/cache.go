package store

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// The local cache holds
//
//	objects/ID/data       one version of an object, whole and checked; never written again
//	trees/ID/NAME/…       a folder of a store as it was once; its files are links to objects
//	work/ID/NAME/…        what is built here for a URL (see WorkFolder)
//
// A process that works in objects/ID or trees/ID holds the lock there.

// CacheVariable names the folder of the local cache in the environment.
const CacheVariable = "DPO_PIPE_STORE_CACHE"

// DefaultCache is the cache that the environment names or, else, the one in the user's
// cache folder.
func DefaultCache() (string, error) {
	if dir := os.Getenv(CacheVariable); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("store: no cache folder: %w", err)
	}
	return filepath.Join(dir, "dpo-pipe", "store"), nil
}

// WorkFolder is where in a cache that is built which a URL will hold: always the same
// folder for the same URL, so that interrupted work is found again.
func WorkFolder(cache, url string) (string, error) {
	at, err := parse(url)
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "work", address(at.origin(), at.key), Base(url)), nil
}

// address is a name for what the texts say.
func address(texts ...string) string {
	h := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(h, "%d %s\n", len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// dataName and partialName are an object in its folder, whole and not yet.
const (
	dataName    = "data"
	partialName = ".partial"
)

// hold waits for the lock of a folder, which is made where it is missing. It is nil where
// done reports that there is nothing left to do.
func hold(ctx context.Context, dir string, done func() bool) (*lockfile.Lock, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("store: cache: %w", err)
	}
	for !done() {
		lock, err := lockfile.Acquire(dir)
		if _, held := errors.AsType[*lockfile.LockedError](err); !held {
			return lock, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, nil
}

// fetcher brings objects of a bucket into a cache.
type fetcher struct {
	cache  string
	bucket *Bucket
	moved  *atomic.Int64 // bytes so far
}

// object returns the path of an object in the cache, where it is downloaded unless it is
// there already, by this process or another.
func (f *fetcher) object(ctx context.Context, o Object) (string, error) {
	id := address(f.bucket.at.origin(), o.Version, fmt.Sprint(o.Size))
	if o.MD5 == nil {
		id = address(f.bucket.at.origin(), o.key, o.Version, fmt.Sprint(o.Size))
	}
	dir := filepath.Join(f.cache, "objects", id[:2], id)
	path := filepath.Join(dir, dataName)
	there := func() bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() == o.Size
	}
	lock, err := hold(ctx, dir, there)
	if err != nil {
		return "", err
	}
	if lock == nil {
		f.moved.Add(o.Size)
		used(dir)
		return path, nil
	}
	defer lock.Release()
	if there() {
		f.moved.Add(o.Size)
		return path, nil
	}
	return path, f.download(ctx, o, dir)
}

// used notes that something in the cache was of use today.
func used(dir string) {
	now := time.Now()
	_ = os.Chtimes(dir, now, now) // of no consequence but for the age
}

// download writes the object into its folder, whose lock is held. What a killed process
// left is gone on with.
func (f *fetcher) download(ctx context.Context, o Object, dir string) (err error) {
	partial := filepath.Join(dir, partialName)
	file, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return fmt.Errorf("store: cache: %w", err)
	}
	defer file.Close()
	d := &download{fetcher: f, object: o, file: file, sum: md5.New()}
	for fresh := false; ; fresh = true {
		if err := d.begin(fresh); err != nil {
			return fmt.Errorf("store: cache: %w", err)
		}
		if err := d.run(ctx); err != nil {
			return f.bucket.fail("read", o.key, err)
		}
		if d.whole() {
			break
		}
		if fresh || d.resumed == 0 {
			return errors.Join(f.bucket.damaged(ctx, o, d), os.Remove(partial))
		}
	}
	if err := errors.Join(file.Chmod(0o444), file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("store: cache: %w", err)
	}
	return atomicfile.Rename(partial, filepath.Join(dir, dataName))
}

// damaged says why the bytes are not the object's: another object is there meanwhile, on a
// server that knows no conditions, or they are wrong.
func (b *Bucket) damaged(ctx context.Context, o Object, d *download) error {
	now, there, err := b.stat(ctx, o.key)
	if err != nil {
		return err
	}
	if !there || now.Version != o.Version {
		return &Error{Op: "read", URL: b.at.at(o.key), Kind: Changed, Err: errors.New("it was replaced while it was read")}
	}
	return &Error{Op: "read", URL: b.at.at(o.key), Kind: Corrupt, Err: fmt.Errorf("%d bytes with MD5 %x came, the store says %d bytes with %x",
		d.size, d.sum.Sum(nil), o.Size, o.MD5)}
}

// download is one object on its way into a file.
type download struct {
	*fetcher
	object  Object
	file    *os.File
	sum     hash.Hash
	size    int64 // of the file so far
	resumed int64 // bytes of an earlier process
}

// begin takes up what is in the file, or empties it.
func (d *download) begin(fresh bool) error {
	d.moved.Add(-d.size)
	d.sum.Reset()
	d.size, d.resumed = 0, 0
	info, err := d.file.Stat()
	// Without a condition on its version, the rest may be another object's.
	conditional := d.object.etag != "" || d.object.generation != 0
	if err != nil || fresh || !conditional || info.Size() > d.object.Size {
		return errors.Join(err, d.file.Truncate(0), rewind(d.file))
	}
	if err := rewind(d.file); err != nil {
		return err
	}
	d.size, err = io.Copy(d.sum, d.file)
	d.resumed = d.size
	d.moved.Add(d.size)
	return err
}

func rewind(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// run reads the rest of the object. Attempts that bring it further do not count.
func (d *download) run(ctx context.Context) error {
	for {
		before := d.size
		err := retry(ctx, func() error { return d.more(ctx) })
		if err == nil || d.size == before || !transient(err) {
			return err
		}
	}
}

// more reads as much as one request gives.
func (d *download) more(ctx context.Context) error {
	if d.size == d.object.Size {
		return nil
	}
	watching, w, stop := watch(ctx, nil)
	defer stop()
	r, err := d.bucket.read(watching, d.object, d.size)
	if err != nil {
		return stalled(watching, err)
	}
	defer r.Close()
	w.Reader = r
	if _, err := io.Copy(d, w); err != nil {
		return stalled(watching, err)
	}
	if d.size < d.object.Size {
		return errShort
	}
	return nil
}

// Write implements io.Writer.
func (d *download) Write(p []byte) (int, error) {
	n, err := d.file.Write(p)
	d.sum.Write(p[:n])
	d.size += int64(n)
	d.moved.Add(int64(n))
	return n, err
}

// whole reports whether the bytes are those that the store says.
func (d *download) whole() bool {
	return d.size == d.object.Size && (d.object.MD5 == nil || bytes.Equal(d.sum.Sum(nil), d.object.MD5))
}

// keepFor is how long what nobody uses stays in the cache.
const keepFor = 30 * 24 * time.Hour

// Prune removes from a cache what was of no use for 30 days, and what killed processes
// left there as long ago. Work that is not finished stays.
func Prune(cache string) error {
	var all error
	for _, pattern := range []string{"objects/??/*", "trees/??/*"} {
		dirs, err := filepath.Glob(filepath.Join(cache, filepath.FromSlash(pattern)))
		all = errors.Join(all, err)
		for _, dir := range dirs {
			info, err := os.Stat(dir)
			if err != nil || time.Since(info.ModTime()) < keepFor {
				continue
			}
			if err := atomicfile.RemoveDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				all = errors.Join(all, err)
			}
		}
	}
	return all
}
