package refcache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// successor starts the next cache of dir, with one part of other data.
func successor(t *testing.T, dir string) *Writer {
	t.Helper()
	m, h := testManifest(2, F16)
	m.Identity["data"] = "next"
	w, err := CreateSuccessor(t.Context(), dir, m, h)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// finish writes the rows from 100 on into a successor and finishes it.
func finish(t *testing.T, w *Writer) {
	t.Helper()
	if err := errors.Join(w.WritePart(testRows(100, 3, 2, F16), position(3)), w.Finish(position(3))); err != nil {
		t.Fatal(err)
	}
}

func acquire(t *testing.T, dir string) *lockfile.Lock {
	t.Helper()
	lock, err := lockfile.Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	return lock
}

// alone wants a folder to hold the cache of 3 rows from number from on, and nothing beside.
func alone(t *testing.T, dir string, from int) {
	t.Helper()
	if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(entries) != 1 {
		t.Errorf("beside the cache are %v, %v", entries, err)
	}
	if _, err := os.Stat(filepath.Join(dir, lockfile.Name)); err == nil {
		t.Error("the lock's file is left")
	}
	r := open(t, dir)
	if err := r.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
	for i := range 3 {
		var row Row
		if err := r.Row(int64(i), &row); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(testRow(from+i, 2, F16), row, sameRow); diff != "" {
			t.Errorf("row %d (-want +got):\n%s", i, diff)
		}
	}
}

// withoutExchange runs a test where folders can be exchanged and where they can't.
func withoutExchange(t *testing.T, test func(t *testing.T)) {
	t.Run("exchange", test)
	t.Run("two renames", func(t *testing.T) {
		exchange = func(string, string) error { return fmt.Errorf("here: %w", errors.ErrUnsupported) }
		defer func() { exchange = atomicfile.Exchange }()
		test(t)
	})
}

func TestReplace(t *testing.T) {
	withoutExchange(t, func(t *testing.T) {
		dir := writeCache(t, testRows(0, 3, 2, F16), 2, 2, F16)
		lock := acquire(t, dir)
		if err := CanReplace(dir); err != nil {
			t.Fatal(err)
		}
		finish(t, successor(t, dir))
		if err := Replace(dir); err != nil {
			t.Fatal(err)
		}
		if err := lock.Release(); err != nil {
			t.Error(err)
		}
		alone(t, dir, 100)
	})
}

// A successor goes on where it was left; one of another identity, one that is damaged
// though finished, and what is no cache at all begin again.
func TestSuccessorsThatWereLeft(t *testing.T) {
	m, h := testManifest(2, F16)
	for _, c := range []struct {
		name  string
		leave func(t *testing.T, dir string)
		parts int
		err   error
	}{
		{"unfinished", func(t *testing.T, dir string) {
			w := successor(t, dir)
			if err := errors.Join(w.WritePart(testRows(100, 1, 2, F16), position(1)), w.Close()); err != nil {
				t.Fatal(err)
			}
		}, 1, nil},
		{"finished", func(t *testing.T, dir string) { finish(t, successor(t, dir)) }, 0, ErrComplete},
		{"of other data", func(t *testing.T, dir string) {
			m.Identity["data"] = "another"
			w, err := CreateSuccessor(t.Context(), dir, m, h)
			if err != nil {
				t.Fatal(err)
			}
			finish(t, w)
		}, 0, nil},
		{"damaged", func(t *testing.T, dir string) {
			finish(t, successor(t, dir))
			if err := os.Remove(filepath.Join(Successor(dir), partName(0))); err != nil {
				t.Fatal(err)
			}
		}, 0, nil},
		{"manifest damaged", func(t *testing.T, dir string) {
			finish(t, successor(t, dir))
			write(t, Successor(dir), manifestName, "{")
		}, 0, nil},
		{"half removed", func(t *testing.T, dir string) {
			finish(t, successor(t, dir))
			if err := os.Remove(filepath.Join(Successor(dir), manifestName)); err != nil {
				t.Fatal(err)
			}
		}, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := writeCache(t, testRows(0, 3, 2, F16), 2, 2, F16)
			c.leave(t, dir)
			m.Identity["data"] = "next"
			w, err := CreateSuccessor(t.Context(), dir, m, h)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("error is %v, want %v", err, c.err)
			}
			if err == nil {
				if w.Parts() != c.parts {
					t.Errorf("%d parts are there, want %d", w.Parts(), c.parts)
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}
			if err := Tidy(dir); err != nil {
				t.Fatal(err)
			}
			alone(t, dir, 0)
		})
	}
}

// TestReplaceKilled has the states in which a kill can leave the folders.
func TestReplaceKilled(t *testing.T) {
	for _, c := range []struct {
		name  string
		moves func(dir string) [][2]string
		from  int // the rows that are there in the end
	}{
		{"behind the exchange", func(dir string) [][2]string {
			return [][2]string{{dir, dir + "x"}, {Successor(dir), dir}, {dir + "x", Successor(dir)}}
		}, 100},
		{"between two renames", func(dir string) [][2]string { return [][2]string{{dir, aside(dir)}} }, 0},
		{"behind two renames", func(dir string) [][2]string {
			return [][2]string{{dir, aside(dir)}, {Successor(dir), dir}}
		}, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := writeCache(t, testRows(0, 3, 2, F16), 2, 2, F16)
			finish(t, successor(t, dir))
			for _, move := range c.moves(dir) {
				if err := os.Rename(move[0], move[1]); err != nil {
					t.Fatal(err)
				}
			}
			if err := Recover(dir); err != nil {
				t.Fatal(err)
			}
			if err := Tidy(dir); err != nil {
				t.Fatal(err)
			}
			alone(t, dir, c.from)
		})
	}
}

// What is beside a cache belongs to the one who holds its lock.
func TestReplaceLeavesWhatIsAnothers(t *testing.T) {
	needsLock(t)
	dir := writeCache(t, testRows(0, 3, 2, F16), 2, 2, F16)
	lock := acquire(t, dir)
	finish(t, successor(t, dir))
	if err := Tidy(dir); err != nil || !IsCache(Successor(dir)) {
		t.Errorf("the successor of a process that is alive was removed, %v", err)
	}
	if err := os.Rename(dir, aside(dir)); err != nil {
		t.Fatal(err)
	}
	if err := Recover(dir); err == nil || IsCache(dir) {
		t.Errorf("the cache that a process that is alive had aside was taken, %v", err)
	}
	if err := os.Rename(aside(dir), dir); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(lock.Release(), Tidy(dir)); err != nil {
		t.Fatal(err)
	}
	alone(t, dir, 0)
}

// TestLinkPart gives a cache of rows 0 to 4 in parts of 2 its parts in another order.
func TestLinkPart(t *testing.T) {
	t.Parallel()
	rows := testRows(0, 5, 2, F16)
	from := open(t, writeCache(t, rows, 2, 2, F16))
	for _, c := range []struct {
		first, n int64
		part     int
		ok       bool
	}{{0, 2, 0, true}, {2, 2, 1, true}, {4, 1, 2, true}, {0, 1, 0, false}, {1, 2, 0, false}, {0, 4, 0, false}, {3, 2, 0, false}, {-1, 3, 0, false}} {
		if part, ok := from.PartOf(c.first, c.n); ok != c.ok || ok && part != c.part {
			t.Errorf("rows from %d on, %d of them, are part %d (%v), want %d (%v)", c.first, c.n, part, ok, c.part, c.ok)
		}
	}
	for i := range rows {
		if w, err := from.Weight(int64(i)); err != nil || w != rows[i].Weight {
			t.Errorf("weight of row %d is %v, %v, want %v", i, w, err, rows[i].Weight)
		}
	}

	order := []int{2, 0, 1}
	linked, written := filepath.Join(t.TempDir(), "cache"), filepath.Join(t.TempDir(), "cache")
	a, b := create(t, linked), create(t, written)
	read := 0
	for _, n := range order {
		part := rows[2*n : min(5, 2*n+2)]
		read += len(part)
		ok, err := a.LinkPart(from, n, position(read))
		if err != nil || !ok {
			t.Fatalf("part %d: %v, %v", n, ok, err)
		}
		if err := b.WritePart(part, position(read)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(a.Finish(position(read)), b.Finish(position(read))); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files(t, written), files(t, linked)); diff != "" {
		t.Errorf("linked parts (-written +linked):\n%s", diff)
	}
}

// A part of another shape, or a file system without links, is for WritePart.
func TestPartsThatCannotBeLinked(t *testing.T) {
	t.Parallel()
	dir := writeCache(t, testRows(0, 2, 2, F32), 2, 2, F32)
	w := create(t, filepath.Join(t.TempDir(), "cache"))
	defer w.Close()
	if ok, err := w.LinkPart(open(t, dir), 0, position(2)); ok || err != nil {
		t.Errorf("f32 in a cache of f16: %v, %v", ok, err)
	}
	dir = writeCache(t, testRows(0, 2, 2, F16), 2, 2, F16)
	write(t, w.dir, partName(0), "in the way")
	if ok, err := w.LinkPart(open(t, dir), 0, position(2)); ok || err != nil || w.Parts() != 0 {
		t.Errorf("a link that fails: %v, %v, %d parts", ok, err, w.Parts())
	}
	if err := w.WritePart(testRows(0, 2, 2, F16), position(2)); err != nil {
		t.Error(err)
	}
}
