package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"gocloud.dev/blob"
	"golang.org/x/sync/errgroup"
)

// An Object is one that a store holds.
type Object struct {
	// Name is its key below the place the bucket was opened with, with slashes.
	Name string
	// Size is in bytes.
	Size int64
	// MD5 is of its bytes, nil where the store does not give it.
	MD5 []byte
	// Version changes whenever the bytes do: the store's ETag or generation.
	Version string

	key string
	// etag and generation are conditions of a read, by store.
	etag       string
	generation int64
	modified   time.Time
}

// List calls visit for every object below the bucket's place, in the order of names.
// Objects whose name ends with a slash stand for folders and are left out, and so is
// what a [Push] in progress left.
func (b *Bucket) List(ctx context.Context, visit func(Object) error) error {
	return b.list(ctx, b.below(), func(o Object) error {
		if strings.HasSuffix(o.key, "/") || strings.HasPrefix(o.Name, hiddenPrefix) {
			return nil
		}
		return visit(o)
	})
}

// below is what the keys of the place's objects begin with.
func (b *Bucket) below() string {
	if b.at.key == "" {
		return ""
	}
	return b.at.key + "/"
}

// list visits every object whose key begins with prefix. A page that fails is asked for
// again.
func (b *Bucket) list(ctx context.Context, prefix string, visit func(Object) error) error {
	for token := blob.FirstPageToken; len(token) > 0; {
		var page []*blob.ListObject
		var next []byte
		err := retry(ctx, func() (err error) {
			page, next, err = b.blob.ListPage(ctx, token, 1000, &blob.ListOptions{Prefix: prefix})
			return err
		})
		if err != nil {
			return b.fail("list", prefix, err)
		}
		for _, listed := range page {
			if err := visit(b.listed(listed)); err != nil {
				return err
			}
		}
		token = next
	}
	return nil
}

func (b *Bucket) listed(o *blob.ListObject) Object {
	object := Object{Name: b.name(o.Key), key: o.Key, Size: o.Size, MD5: o.MD5, modified: o.ModTime}
	var s3Object types.Object
	var gsObject storage.ObjectAttrs
	switch {
	case o.As(&s3Object):
		object.etag = aws.ToString(s3Object.ETag)
	case o.As(&gsObject):
		object.generation = gsObject.Generation
	}
	return object.versioned()
}

// stat describes one object; false where it is not there.
func (b *Bucket) stat(ctx context.Context, key string) (Object, bool, error) {
	var a *blob.Attributes
	err := retry(ctx, func() (err error) { a, err = b.blob.Attributes(ctx, key); return err })
	if kindOf(err) == NotFound {
		return Object{}, false, nil
	}
	if err != nil {
		return Object{}, false, b.fail("look at", key, err)
	}
	object := Object{Name: b.name(key), key: key, Size: a.Size, MD5: a.MD5, modified: a.ModTime}
	var gsObject storage.ObjectAttrs
	if object.etag = a.ETag; a.As(&gsObject) {
		object.generation, object.etag = gsObject.Generation, ""
	}
	return object.versioned(), true, nil
}

// versioned fills in Version, alike for objects that were listed and looked at.
func (o Object) versioned() Object {
	switch {
	case o.generation != 0:
		o.Version = "generation " + strconv.FormatInt(o.generation, 10)
	case len(o.MD5) > 0:
		o.Version = "md5 " + hex.EncodeToString(o.MD5)
	case o.etag != "":
		o.Version = "etag " + o.etag
	default:
		o.Version = "modified " + o.modified.UTC().Format(time.RFC3339Nano)
	}
	return o
}

// name is a key as seen from the bucket's place.
func (b *Bucket) name(key string) string {
	if b.at.key == "" {
		return key
	}
	return strings.TrimPrefix(strings.TrimPrefix(key, b.at.key), "/")
}

// Exists reports whether there is an object name below the bucket's place; name may be
// empty for the place itself.
func (b *Bucket) Exists(ctx context.Context, name string) (bool, error) {
	_, there, err := b.stat(ctx, b.at.join(name))
	return there, err
}

// Delete removes an object; one that is not there is no error.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	return b.remove(ctx, b.at.join(name))
}

func (b *Bucket) remove(ctx context.Context, key string) error {
	err := retry(ctx, func() error { return b.blob.Delete(ctx, key) })
	if kindOf(err) == NotFound {
		return nil
	}
	return b.fail("remove", key, err)
}

// Clear removes every object below the bucket's place, what a killed [Push] left included.
// Those in first go before all others: a marker, so that nobody takes the rest for a whole.
// Until all is gone the place is that of an unfinished push.
func (b *Bucket) Clear(ctx context.Context, first ...string) error {
	if err := b.WritePointer(ctx, signName, []byte("is being removed\n"), Condition{}); err != nil {
		return err
	}
	for _, name := range first {
		if err := b.Delete(ctx, name); err != nil {
			return err
		}
	}
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	err := b.list(ctx, b.below(), func(o Object) error {
		if o.Name != signName && o.Name != LockName {
			group.Go(func() error { return b.remove(limited, o.key) })
		}
		return limited.Err()
	})
	if err := errors.Join(group.Wait(), err); err != nil {
		return err
	}
	return b.Delete(ctx, signName)
}

// pointerSize bounds what ReadPointer reads.
const pointerSize = 1 << 20

// ReadPointer reads a small object, for example one that names another, with its version.
// The error is fs.ErrNotExist where it is not there.
func (b *Bucket) ReadPointer(ctx context.Context, name string) (data []byte, version string, err error) {
	key := b.at.join(name)
	err = retry(ctx, func() error {
		object, there, err := b.stat(ctx, key)
		if err != nil {
			return err
		}
		if !there {
			return &Error{Op: "read", URL: b.at.at(key), Kind: NotFound, Err: errors.New("there is no such object")}
		}
		if object.Size > pointerSize {
			return &Error{Op: "read", URL: b.at.at(key), Err: fmt.Errorf("it has %d bytes, want a pointer of at most %d", object.Size, pointerSize)}
		}
		version = object.Version
		r, err := b.read(ctx, object, 0)
		if err != nil {
			return err
		}
		defer r.Close()
		data, err = io.ReadAll(r)
		if err == nil && int64(len(data)) != object.Size {
			err = errShort
		}
		return err
	})
	return data, version, b.fail("read", key, err)
}

// read opens an object from offset on, in the version that o is of where the store can
// tell: a read of another one fails.
func (b *Bucket) read(ctx context.Context, o Object, offset int64) (*blob.Reader, error) {
	return b.blob.NewRangeReader(ctx, o.key, offset, -1, &blob.ReaderOptions{BeforeRead: func(as func(any) bool) error {
		var get *s3.GetObjectInput
		var handle **storage.ObjectHandle
		switch {
		case o.etag != "" && as(&get):
			get.IfMatch = aws.String(o.etag)
		case o.generation != 0 && as(&handle):
			*handle = (*handle).Generation(o.generation)
		}
		return nil
	}})
}

// A Condition of a write is what must be there before it.
type Condition struct {
	// Absent: nothing may be there. Version, unless empty: that version of the object must.
	Absent  bool
	Version string
}

// WritePointer writes a small object at once. Where the condition does not hold, the
// error is of kind [Exists] for Absent and [Changed] for Version, and nothing was
// written; stores that know no conditions on versions (azblob, file) are asked before,
// which leaves a moment between.
func (b *Bucket) WritePointer(ctx context.Context, name string, data []byte, c Condition) error {
	key := b.at.join(name)
	var etag string
	var generation int64
	if c.Version != "" {
		have, there, err := b.stat(ctx, key)
		if err != nil {
			return err
		}
		if !there || have.Version != c.Version {
			return &Error{Op: "write", URL: b.at.at(key), Kind: Changed, Err: errors.New("it was changed by another process meanwhile")}
		}
		etag, generation = have.etag, have.generation
	}
	err := retry(ctx, func() error {
		// Not WriteAll: that of Azure panics where the store refuses.
		return b.blob.Upload(ctx, key, bytes.NewReader(data), &blob.WriterOptions{ContentType: "text/plain; charset=utf-8", IfNotExist: c.Absent, BeforeWrite: func(as func(any) bool) error {
			var put *transfermanager.UploadObjectInput
			var handle **storage.ObjectHandle
			switch {
			case etag != "" && as(&put):
				put.IfMatch = aws.String(etag)
			case generation != 0 && as(&handle):
				*handle = (*handle).If(storage.Conditions{GenerationMatch: generation})
			}
			return nil
		}})
	})
	err = b.fail("write", key, err)
	if e, ok := errors.AsType[*Error](err); ok && c.Absent && e.Kind == Changed {
		e.Kind = Exists
	}
	return err
}
