package refcache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// A cache is replaced by a successor that is built in a folder beside it. The one who
// holds the lock of the cache owns all of these folders. Whatever is killed and whenever:
// the cache is whole under its name, or, where folders can't be exchanged, under that of
// the old one, from where Recover takes it back.

// Successor returns the folder in which the cache that replaces the one in dir is built.
func Successor(dir string) string { return beside(dir, "next-") }

// aside is where the old cache is for the moment between two renames.
func aside(dir string) string { return beside(dir, "old-") }

// besides lists all that may be beside the cache in dir.
func besides(dir string) []string {
	return []string{Successor(dir), aside(dir), beside(dir, "probe-")}
}

func beside(dir, prefix string) string {
	dir = filepath.Clean(dir)
	return filepath.Join(filepath.Dir(dir), atomicfile.TempPrefix+prefix+filepath.Base(dir))
}

// CreateSuccessor is Create of the successor of the cache in dir, whose lock the caller
// holds. What is there of another identity, or damaged, is removed.
func CreateSuccessor(ctx context.Context, dir string, m Manifest, head Head) (*Writer, error) {
	next := Successor(dir)
	w, err := Create(next, m, head)
	if errors.Is(err, ErrComplete) {
		if damaged := verifyAll(ctx, next); damaged != nil {
			err = damaged
		}
	}
	_, stale := errors.AsType[*StaleError](err)
	if !stale && !errors.Is(err, ErrNotCache) && !errors.Is(err, ErrCorrupt) {
		return w, err
	}
	if err := removeBeside(dir); err != nil {
		return nil, err
	}
	return Create(next, m, head)
}

// verifyAll checks every file of the cache in dir.
func verifyAll(ctx context.Context, dir string) error {
	r, err := Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(r.Verify(ctx, nil), r.Close())
}

// CanReplace returns a *[MountError] where Replace could not rename the folder.
func CanReplace(dir string) error {
	probe := beside(dir, "probe-")
	err := os.Link(filepath.Join(dir, manifestName), probe)
	if errors.Is(err, syscall.EXDEV) {
		return &MountError{dir}
	}
	if err != nil {
		return nil // no links here, which says nothing
	}
	return os.Remove(probe)
}

// A MountError is a cache that can't be replaced because its folder is a mount point.
type MountError struct {
	// Path is the folder.
	Path string
}

// Error implements error.
func (e *MountError) Error() string {
	return fmt.Sprintf("refcache: folder %q is a mount point, which can't be replaced, want a cache in a folder below it", e.Path)
}

// exchange is atomicfile.Exchange, but for tests of systems that have none.
var exchange = atomicfile.Exchange

// Replace puts the finished successor in the place of the cache in dir, whose lock the
// caller holds, and removes that.
func Replace(dir string) error {
	next := Successor(dir)
	err := exchange(next, dir)
	if errors.Is(err, errors.ErrUnsupported) {
		if err = atomicfile.Rename(dir, aside(dir)); err != nil {
			return fmt.Errorf("refcache: replace %q: %w", dir, err)
		}
		if err = atomicfile.Rename(next, dir); err != nil {
			err = errors.Join(err, atomicfile.Rename(aside(dir), dir))
		}
	}
	if err != nil {
		return fmt.Errorf("refcache: replace %q: %w", dir, err)
	}
	return Tidy(dir)
}

// Recover gives the cache that a process killed in Replace left aside its name back.
func Recover(dir string) error {
	old := aside(dir)
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) || !IsCache(old) {
		return nil
	}
	lock, err := lockfile.Acquire(old) // a process that is alive holds it
	if err != nil {
		return err
	}
	return errors.Join(atomicfile.Rename(old, dir), lock.Release())
}

// Tidy removes what Replace, killed, or a successor that was given up left beside the
// cache in dir; what is another process's stays.
func Tidy(dir string) error {
	if !slices.ContainsFunc(besides(dir), exists) {
		return nil
	}
	lock, err := lockfile.Acquire(dir)
	if _, held := errors.AsType[*lockfile.LockedError](err); held {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(removeBeside(dir), lock.Release())
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// removeBeside removes the folders beside dir. A manifest goes first: what is half
// removed must not pass for a cache.
func removeBeside(dir string) error {
	for _, path := range besides(dir) {
		if err := os.Remove(filepath.Join(path, manifestName)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("refcache: %w", err)
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("refcache: %w", err)
		}
	}
	return nil
}
