package refcache

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

func create(t *testing.T, dir string) *Writer {
	t.Helper()
	m, h := testManifest(2, F16)
	w, err := Create(dir, m, h)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestOneWriterAtATime(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cache")
	m, h := testManifest(2, F16)
	w := create(t, dir)
	if err := w.WritePart(testRows(0, 2, 2, F16), position(2)); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	_, err := Create(dir, m, h)
	if held, ok := errors.AsType[*lockfile.LockedError](err); !ok || held.Path != dir {
		t.Errorf("a second writer gets %v, want a LockedError of %q", err, dir)
	}
	if diff := cmp.Diff(before, files(t, dir)); diff != "" {
		t.Errorf("a refused writer changed the folder (-want +got):\n%s", diff)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	next := create(t, dir)
	// Closing again must not take the lock of the next writer.
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Create(dir, m, h); err == nil {
		t.Error("a writer that is done gave the lock of the next one free")
	}
	if err := errors.Join(next.WritePart(testRows(2, 1, 2, F16), position(3)), next.Finish(position(3))); err != nil {
		t.Fatal(err)
	}
	if names := files(t, dir); len(names) != 4 {
		t.Errorf("a finished cache of two parts has %d files, want 4", len(names))
	}
}

// TestFinishedCacheNeedsNoLock reads one whose lock is taken, as it can't be made in a folder
// that is read-only.
func TestFinishedCacheNeedsNoLock(t *testing.T) {
	t.Parallel()
	dir := writeCache(t, testRows(0, 3, 2, F16), 2, 2, F16)
	lock, err := lockfile.Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	m, h := testManifest(2, F16)
	if _, err := Create(dir, m, h); !errors.Is(err, ErrComplete) {
		t.Errorf("got %v, want ErrComplete", err)
	}
	m.Identity["model"] = "other"
	_, err = Create(dir, m, h)
	if _, ok := errors.AsType[*StaleError](err); !ok {
		t.Errorf("another identity gives %v, want a StaleError", err)
	}
}

// TestRefusedCreateLeavesNoLock fails behind the lock, in a cache and beside other files.
func TestRefusedCreateLeavesNoLock(t *testing.T) {
	t.Parallel()
	cache, other := t.TempDir(), t.TempDir()
	if err := create(t, cache).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "notes.txt"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{cache, other} {
		before := files(t, dir)
		m, h := testManifest(2, F16)
		m.Identity["model"] = "other"
		if _, err := Create(dir, m, h); err == nil {
			t.Fatalf("%s was taken", dir)
		}
		if diff := cmp.Diff(before, files(t, dir)); diff != "" {
			t.Errorf("a refused Create changed the folder (-want +got):\n%s", diff)
		}
	}
	if err := create(t, cache).Close(); err != nil {
		t.Error(err)
	}
}

// needsLock skips a test where locks keep nobody out.
func needsLock(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	lock := acquire(t, dir)
	defer lock.Release()
	if _, err := lockfile.Acquire(dir); err == nil {
		t.Skip("this system has no locks")
	}
}
