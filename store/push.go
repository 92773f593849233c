package store

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"
	"golang.org/x/sync/errgroup"
)

// hiddenPrefix begins the names of what a push in progress has in a store.
const hiddenPrefix = ".dpo-pipe-"

// signName says that a push is in progress, or was killed; staging is where objects wait
// that will take the place of others.
const (
	signName = hiddenPrefix + "push"
	staging  = hiddenPrefix + "new"
)

// Aside is the URL of a place, below the one that url names, for unfinished work: no reader of
// that one sees it, and the next Push there removes it.
func Aside(url, name string) string { return Join(url, hiddenPrefix+"work/"+name) }

// PushOptions say how to push. The zero value is useful.
type PushOptions struct {
	// Last are the files that make the folder whole, such as a manifest, by names with
	// slashes. They are written behind all others, in their order.
	Last []string
	// Apart, unless empty, is a folder in the place that is not the push's business: what is
	// below it here is not written, what is below it there stays.
	Apart string
	// Report, unless nil, is called from time to time, by one goroutine.
	Report func(Transfer)
}

// Push makes the place that a URL names hold what a folder of this machine holds; hidden
// files are left out. Objects that are the same already are not written again, and those
// of an earlier push that the folder no longer has are removed. The first of opt.Last is
// in the store only while everything else is as it was when that was written: new objects
// wait under a hidden name until all are there, and in the moment in which they take
// their places the place has no marker. A push that was killed is gone on with by the
// next; what it leaves is no whole folder to anyone.
//
// Without opt.Last objects are written one by one, and nothing is removed. The error is
// of kind [Exists] where the place holds something that no push left there.
func Push(ctx context.Context, folder, url string, opt PushOptions) error {
	b, err := Open(ctx, url)
	if err != nil {
		return err
	}
	defer b.Close()
	p := &push{bucket: b, opt: opt}
	err = p.compare(ctx, folder)
	for attempt := 1; KindOf(err) == Changed && attempt < changes; attempt++ {
		p = &push{bucket: b, opt: opt}
		err = p.compare(ctx, folder)
	}
	if err != nil {
		return err
	}
	stop := reporting(opt.Report, b.at.String(), p.total, &p.moved)
	defer stop()
	return p.run(ctx)
}

// push is the state of one.
type push struct {
	bucket *Bucket
	opt    PushOptions
	total  int64
	moved  atomic.Int64
	// marked: the place holds the first marker, and so a whole folder.
	marked bool
	// fresh files are new, changed ones take the place of others, stale objects go.
	fresh, changed []localFile
	stale          []string
	markers        []localFile // those to be written; markersSame of them are there already
	markersSame    int
}

// localFile is one to be written.
type localFile struct {
	name, path string
	size       int64
	link       string // what is written instead, for a link
}

// A State is what a place holds. Its zero value is an empty place.
type State struct {
	// Marker is the one that makes it whole, "" where there is none; Version is the marker's.
	Marker, Version string
	// Unfinished: a Push is in progress, or was killed.
	Unfinished bool
	// Foreign names an object that no Push left, where there is no marker.
	Foreign string
}

// Look tells what is at the place that a URL names, and which of the markers that may make
// it whole is there.
func Look(ctx context.Context, url string, markers ...string) (s State, err error) {
	b, err := Open(ctx, url)
	if err != nil {
		return s, err
	}
	defer b.Close()
	s, err = b.look(ctx, markers)
	if err == nil && s.Foreign != "" { // unless a push ended between two requests
		s, err = b.look(ctx, markers)
	}
	return s, err
}

func (b *Bucket) look(ctx context.Context, markers []string) (s State, err error) {
	for _, marker := range markers {
		o, there, err := b.stat(ctx, b.at.join(marker))
		if err != nil {
			return s, err
		}
		if there {
			s.Marker, s.Version = marker, o.Version
			return s, nil
		}
	}
	if s.Unfinished, err = b.Exists(ctx, signName); err != nil || s.Unfinished {
		return s, err
	}
	err = b.List(ctx, func(o Object) error { s.Foreign = o.Name; return errEnough })
	if errors.Is(err, errEnough) {
		err = nil
	}
	return s, err
}

// errEnough ends a listing.
var errEnough = errors.New("enough")

// compare finds out what is to be written and removed.
func (p *push) compare(ctx context.Context, folder string) error {
	files, err := localFiles(folder)
	if err != nil {
		return err
	}
	remote := map[string]Object{}
	err = p.bucket.List(ctx, func(o Object) error {
		if !p.apart(o.Name) {
			remote[o.Name] = o
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := p.checkPlace(ctx, remote); err != nil {
		return err
	}
	for _, f := range files {
		if p.apart(f.name) {
			continue
		}
		have, there := remote[f.name]
		delete(remote, f.name)
		same, err := f.is(have, there)
		if err != nil {
			return err
		}
		p.total += f.size
		switch {
		case slices.Contains(p.opt.Last, f.name):
			p.markers = append(p.markers, f)
			if same {
				p.markersSame++
			}
		case same:
			p.moved.Add(f.size)
		case there && p.marked:
			p.changed = append(p.changed, f)
		default:
			p.fresh = append(p.fresh, f)
		}
	}
	if len(p.opt.Last) > 0 {
		for name := range remote {
			p.stale = append(p.stale, name)
		}
		slices.Sort(p.stale)
	}
	slices.SortFunc(p.markers, func(a, b localFile) int {
		return slices.Index(p.opt.Last, a.name) - slices.Index(p.opt.Last, b.name)
	})
	return nil
}

// apart reports whether a name is not the push's business.
func (p *push) apart(name string) bool {
	return p.opt.Apart != "" && strings.HasPrefix(name, p.opt.Apart+"/")
}

// checkPlace refuses a place with objects that are not of a push.
func (p *push) checkPlace(ctx context.Context, remote map[string]Object) error {
	if len(p.opt.Last) == 0 || len(remote) == 0 {
		return nil
	}
	if _, p.marked = remote[p.opt.Last[0]]; p.marked {
		return nil
	}
	if unfinished, err := p.bucket.Exists(ctx, signName); err != nil || unfinished {
		return err
	}
	// Another process may have ended the same push since the objects were listed.
	marked, err := p.bucket.Exists(ctx, p.opt.Last[0])
	if err != nil {
		return err
	}
	if marked {
		return &Error{Op: "write", URL: p.bucket.at.String(), Kind: Changed, Err: errors.New("another process writes there")}
	}
	for name := range remote {
		return &Error{
			Op: "write", URL: p.bucket.at.String(), Kind: Exists,
			Err: fmt.Errorf("it holds %q and no %s, want an empty place or one that this program wrote", name, p.opt.Last[0]),
		}
	}
	return nil
}

// localFiles lists what is to be written of a folder, sorted.
func localFiles(folder string) (files []localFile, err error) {
	err = filepath.WalkDir(folder, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == folder {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		name, err := filepath.Rel(folder, file)
		if err != nil || d.IsDir() {
			return err
		}
		f := localFile{name: filepath.ToSlash(name), path: file}
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if f.size = info.Size(); info.IsDir() { // a link to a folder
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			f.link = linkObject(target)
			if _, err := parseLink(f.name, f.link); err != nil {
				return err
			}
			f.size = int64(len(f.link))
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return files, nil
}

// open gives the bytes to be written.
func (f localFile) open() (io.ReadCloser, error) {
	if f.link != "" {
		return io.NopCloser(strings.NewReader(f.link)), nil
	}
	return os.Open(f.path)
}

// is reports whether an object has the file's bytes. It is false where the store gives no
// checksum that can be compared.
func (f localFile) is(o Object, there bool) (bool, error) {
	if !there || o.Size != f.size || o.MD5 == nil && !strings.Contains(o.etag, "-") {
		return false, nil
	}
	r, err := f.open()
	if err != nil {
		return false, fmt.Errorf("store: %w", err)
	}
	defer r.Close()
	if o.MD5 != nil {
		sum := md5.New()
		_, err = io.Copy(sum, r)
		return bytes.Equal(sum.Sum(nil), o.MD5), err
	}
	tag, err := multipartTag(r, partSize(f.size))
	return tag == strings.Trim(o.etag, `"`), err
}

// multipartTag is the ETag that S3 gives an object written in parts: the MD5 of the
// parts' MD5s, and their number.
func multipartTag(r io.Reader, part int64) (string, error) {
	var sum hash.Hash = md5.New()
	all, parts := md5.New(), 0
	for {
		sum.Reset()
		n, err := io.CopyN(sum, r, part)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("store: %w", err)
		}
		if n > 0 {
			all.Write(sum.Sum(nil))
			parts++
		}
		if n < part {
			return fmt.Sprintf("%s-%d", hex.EncodeToString(all.Sum(nil)), parts), nil
		}
	}
}

// partSize is the size of the parts in which an object is written: stores take at most
// 10,000 of them.
func partSize(size int64) int64 {
	const mb = 1 << 20
	return max(8*mb, (size/9000/mb+1)*mb)
}

// run writes what compare found.
func (p *push) run(ctx context.Context) error {
	replacing := len(p.changed)+len(p.stale) > 0 && p.marked
	if len(p.fresh)+len(p.changed)+len(p.stale) == 0 && p.markersSame == len(p.markers) {
		return p.tidy(ctx)
	}
	if len(p.opt.Last) > 0 {
		if err := p.sign(ctx); err != nil {
			return err
		}
	}
	if err := p.uploadAll(ctx); err != nil {
		return err
	}
	if replacing {
		// From here to the marker's return there is no whole folder.
		if err := p.bucket.Delete(ctx, p.opt.Last[0]); err != nil {
			return err
		}
	}
	if err := p.exchange(ctx); err != nil {
		return err
	}
	for _, f := range p.markers {
		if err := p.upload(ctx, f, f.name); err != nil {
			return err
		}
	}
	return p.tidy(ctx)
}

// sign says that a push is in progress.
func (p *push) sign(ctx context.Context) error {
	host, _ := os.Hostname() // says who; unknown is no reason to stop
	text := fmt.Sprintf("process %d on %s writes here since %s\n", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339))
	return p.bucket.WritePointer(ctx, signName, []byte(text), Condition{})
}

// uploadAll writes what stands in nothing's way, and beside the others what is to
// replace them.
func (p *push) uploadAll(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, f := range p.fresh {
		group.Go(func() error { return p.upload(ctx, f, f.name) })
	}
	for _, f := range p.changed {
		group.Go(func() error { return p.upload(ctx, f, path.Join(staging, f.name)) })
	}
	return group.Wait()
}

// exchange moves what was written beside others into their places, inside the store, and
// removes what is of no use any more.
func (p *push) exchange(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, f := range p.changed {
		group.Go(func() error {
			from, to := p.bucket.at.join(path.Join(staging, f.name)), p.bucket.at.join(f.name)
			err := retry(ctx, func() error { return p.bucket.blob.Copy(ctx, to, from, nil) })
			return p.bucket.fail("copy", to, err)
		})
	}
	for _, name := range p.stale {
		group.Go(func() error { return p.bucket.Delete(ctx, name) })
	}
	return group.Wait()
}

// tidy removes what pushes, this one and killed ones, have under hidden names, and work for the
// place that is finished now.
func (p *push) tidy(ctx context.Context) error {
	if len(p.opt.Last) == 0 {
		return nil
	}
	var keys []string
	err := p.bucket.list(ctx, p.bucket.at.join(hiddenPrefix), func(o Object) error {
		if o.Name != LockName {
			keys = append(keys, o.key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Reverse(keys) // the sign behind what it is about
	for _, key := range keys {
		if err := p.bucket.remove(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// upload writes a file under a name and looks whether it arrived.
func (p *push) upload(ctx context.Context, f localFile, name string) error {
	key := p.bucket.at.join(name)
	err := retry(ctx, func() error {
		u := &uploading{sum: md5.New(), moved: &p.moved}
		err := p.send(ctx, f, key, u)
		if err == nil {
			err = p.arrived(ctx, f, key, u)
		}
		if err != nil {
			p.moved.Add(-u.size)
		}
		return err
	})
	return p.bucket.fail("write", key, err)
}

// uploading counts and sums what is sent.
type uploading struct {
	sum   hash.Hash
	size  int64
	moved *atomic.Int64
}

// Write implements io.Writer.
func (u *uploading) Write(data []byte) (int, error) {
	u.sum.Write(data)
	u.size += int64(len(data))
	u.moved.Add(int64(len(data)))
	return len(data), nil
}

// send writes the object, large ones in parts. It is there when all of it is.
func (p *push) send(ctx context.Context, f localFile, key string, u *uploading) error {
	in, err := f.open()
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer in.Close()
	watching, r, stop := watch(ctx, io.TeeReader(in, u))
	defer stop()
	err = p.bucket.blob.Upload(watching, key, r, &blob.WriterOptions{
		ContentType: "application/octet-stream", BufferSize: int(partSize(f.size)), MaxConcurrency: 2,
	})
	return stalled(watching, err)
}

// arrived compares the object that the store has with the file that was sent.
func (p *push) arrived(ctx context.Context, f localFile, key string, u *uploading) error {
	if u.size != f.size {
		return fmt.Errorf("%s changed while it was read: %d bytes, had %d", f.path, u.size, f.size)
	}
	o, there, err := p.bucket.stat(ctx, key)
	if err != nil {
		return err
	}
	if sum := u.sum.Sum(nil); !there || o.Size != f.size || o.MD5 != nil && !bytes.Equal(o.MD5, sum) {
		return &Error{
			Op: "write", URL: p.bucket.at.at(key), Kind: Corrupt,
			Err: fmt.Errorf("the store has %d bytes with MD5 %x, sent were %d with %x", o.Size, o.MD5, f.size, sum),
		}
	}
	return nil
}
