package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/store"
)

// bucket keeps a place in an object store. A version is there when its version.json is,
// which is written last and removed first; current is an object that is replaced in one step.
type bucket struct{ url string }

func (b bucket) where(version string) string {
	return store.Join(b.url, path.Join(versionsName, version))
}

// with opens the place for one thing to do.
func (b bucket) with(ctx context.Context, do func(at *store.Bucket) error) error {
	at, err := store.Open(ctx, b.url)
	if err != nil {
		return err
	}
	return errors.Join(do(at), at.Close())
}

func (b bucket) lock(ctx context.Context) (unlock func() error, err error) {
	l, err := store.Acquire(ctx, b.url)
	if err != nil {
		return nil, err
	}
	return l.Release, nil
}

func (b bucket) versions(ctx context.Context) (all []Version, err error) {
	err = b.with(ctx, func(at *store.Bucket) error {
		var found []string
		err := at.List(ctx, func(o store.Object) error {
			dir, file := path.Split(o.Name)
			below, version := path.Split(path.Clean(dir))
			if file == versionFile && below == versionsName+"/" && names.MatchString(version) {
				found = append(found, version)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, version := range found {
			text, _, err := at.ReadPointer(ctx, path.Join(versionsName, version, versionFile))
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return err
			}
			v, err := decodeVersion(version, text)
			if err != nil {
				v = damaged(version, err)
			}
			all = append(all, v)
		}
		return nil
	})
	return all, err
}

// add pushes a folder of links to the files, beside the description of them.
func (b bucket) add(ctx context.Context, v Version, from string) error {
	root, err := filepath.EvalSymlinks(from)
	if err == nil {
		root, err = filepath.Abs(root)
	}
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if v.Files, err = hashFolder(ctx, root); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dpo-pipe-publish-")
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	defer os.RemoveAll(dir)
	for _, f := range v.Files {
		name := filepath.FromSlash(f.Path)
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		if err := os.Symlink(filepath.Join(root, name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	if err := writeVersion(dir, v); err != nil {
		return err
	}
	return store.Push(ctx, dir, b.where(v.Name), store.PushOptions{Last: []string{versionFile}})
}

func (b bucket) describe(ctx context.Context, v Version) error {
	text, err := encodeVersion(v)
	if err != nil {
		return fmt.Errorf("publish: describe version %q: %w", v.Name, err)
	}
	return b.with(ctx, func(at *store.Bucket) error {
		return at.WritePointer(ctx, path.Join(versionsName, v.Name, versionFile), text, store.Condition{})
	})
}

// verify fetches the version and hashes its files.
func (b bucket) verify(ctx context.Context, v Version) error {
	paths, err := store.Fetch(ctx, b.where(v.Name), store.FetchOptions{})
	if err != nil {
		return err
	}
	return verifyFiles(ctx, store.Redact(b.url), v, paths[0], v.Files)
}

func (b bucket) remove(ctx context.Context, version string) error {
	return b.with(ctx, func(at *store.Bucket) error {
		below := path.Join(versionsName, version)
		if err := at.Delete(ctx, path.Join(below, versionFile)); err != nil {
			return err
		}
		var rest []string
		err := at.List(ctx, func(o store.Object) error {
			if strings.HasPrefix(o.Name, below+"/") {
				rest = append(rest, o.Name)
			}
			return nil
		})
		for _, name := range rest {
			err = errors.Join(err, at.Delete(ctx, name))
		}
		return err
	})
}

func (b bucket) current(ctx context.Context) (version string, err error) {
	err = b.with(ctx, func(at *store.Bucket) error {
		text, _, err := at.ReadPointer(ctx, currentName)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		target, _ := store.LinkTarget(text)
		var dir string
		if dir, version = path.Split(target); dir != versionsName+"/" || !names.MatchString(version) {
			version = ""
			return &PlaceError{store.Redact(b.url), fmt.Sprintf("has %s hold %.100q, want a link to %s/VERSION", currentName, text, versionsName)}
		}
		return nil
	})
	return version, err
}

// point replaces the pointer that is there, and no other.
func (b bucket) point(ctx context.Context, version string) error {
	return b.with(ctx, func(at *store.Bucket) error {
		_, have, err := at.ReadPointer(ctx, currentName)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return at.WritePointer(ctx, currentName, store.Link(versionsName+"/"+version), store.Condition{Absent: have == "", Version: have})
	})
}
