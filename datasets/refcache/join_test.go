package refcache

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func join(t testing.TB, dir string) *Join {
	t.Helper()
	j, err := open(t, dir).Join(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

// TestContentIsAllButTheWeight changes one thing of a row at a time.
func TestContentIsAllButTheWeight(t *testing.T) {
	t.Parallel()
	base := func() Row {
		return Row{Prompt: []int32{1, 2}, Chosen: []int32{3}, Rejected: []int32{4, 5}, Weight: 1}
	}
	seen := map[[16]byte]string{}
	for _, c := range []struct {
		name   string
		change func(*Row)
	}{
		{"nothing", func(*Row) {}},
		{"id", func(r *Row) { r.ID[15] = 1 }},
		{"prompt key", func(r *Row) { r.PromptKey[0] = 1 }},
		{"a prompt token", func(r *Row) { r.Prompt[1] = 9 }},
		{"a chosen token", func(r *Row) { r.Chosen[0] = 9 }},
		{"a rejected token", func(r *Row) { r.Rejected[1] = 9 }},
		{"the end of the prompt", func(r *Row) { r.Prompt, r.Chosen = []int32{1}, []int32{2, 3} }},
		{"the end of chosen", func(r *Row) { r.Chosen, r.Rejected = []int32{3, 4}, []int32{5} }},
		{"completions", func(r *Row) { r.Chosen, r.Rejected = r.Rejected, r.Chosen }},
	} {
		r := base()
		c.change(&r)
		if other, ok := seen[r.Content()]; ok {
			t.Errorf("changing %s gives the content of changing %s", c.name, other)
		}
		seen[r.Content()] = c.name
	}
	r := base()
	r.Weight, r.ChosenFeatures, r.ChosenRefLogps = 7, []float32{1}, []float32{2}
	if seen[r.Content()] != "nothing" {
		t.Error("weight, features or log-probs change the content")
	}
}

func TestJoinFindsRows(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 64, 200} {
		rows := testRows(0, n, 2, F16)
		dir := writeCache(t, rows, 50, 2, F16)
		j := join(t, dir)
		if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || runtime.GOOS == "linux" && len(entries) != 1 {
			t.Errorf("beside the cache are %v, %v", entries, err)
		}
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
			left := j.Left()
			for range 2 { // looking again changes nothing
				row, found, err := j.Find(rows[i].Content())
				if err != nil || !found || row != int64(i) || j.Left() != left-1 {
					t.Fatalf("%d rows: row %d is found at %d (%v, %v), %d left of %d", n, i, row, found, err, j.Left(), left)
				}
			}
			stranger := testRow(n+i, 2, F16)
			if row, found, err := j.Find(stranger.Content()); err != nil || found {
				t.Fatalf("%d rows: a strange row is found at %d, %v", n, row, err)
			}
		}
		if j.Left() != 0 {
			t.Errorf("%d rows: %d are left of all", n, j.Left())
		}
	}
}

// TestJoinCountsRowsOfOneContent has rows 0 to 3 twice and row 4 once: the first is found,
// and looking for it leaves neither.
func TestJoinCountsRowsOfOneContent(t *testing.T) {
	t.Parallel()
	rows := append(testRows(0, 5, 2, F16), testRows(0, 4, 2, F16)...)
	rows[7].Weight++ // still the content of row 2
	j := join(t, writeCache(t, rows, 4, 2, F16))
	for i, left := range []int64{7, 5, 3, 1, 0} {
		row, found, err := j.Find(rows[i].Content())
		if err != nil || !found || row != int64(i) || j.Left() != left {
			t.Errorf("row %d is found at %d (%v, %v), %d left, want %d", i, row, found, err, j.Left(), left)
		}
	}
}

// TestJoinGoesRound has contents that all begin at the last slot.
func TestJoinGoesRound(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "table"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	j := &Join{file: f, slots: 6}
	if err := f.Truncate(6 * slotBytes); err != nil {
		t.Fatal(err)
	}
	content := func(i int) (c [16]byte) {
		binary.BigEndian.PutUint64(c[:], 1<<64-1)
		c[15] = byte(i)
		return c
	}
	for i := range 3 {
		at, s, err := j.find(content(i))
		if want := []uint64{5, 0, 1}[i]; err != nil || at != want || s.row >= 0 {
			t.Fatalf("content %d goes to slot %d (%v), want %d", i, at, err, want)
		}
		if err := j.put(at, slot{content: content(i), row: int64(i), rows: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if row, found, err := j.Find(content(i)); err != nil || !found || row != int64(i) {
			t.Errorf("content %d is found at %d, %v, %v", i, row, found, err)
		}
	}
	if _, found, err := j.Find(content(3)); err != nil || found {
		t.Errorf("a content that is not there: %v, %v", found, err)
	}
}

// TestJoinTakesNoMemory compares what tables of 100 and 20,000 rows keep allocated.
func TestJoinTakesNoMemory(t *testing.T) {
	held := func(n int) uint64 {
		dir := writeCache(t, testRows(0, n, 1, F16), 1000, 1, F16)
		r := open(t, dir)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		j, err := r.Join(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		// The reader's own memory has limits of its own.
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r.batches = newRecent[batchKey, *batch](maxBatches)
		runtime.GC()
		runtime.ReadMemStats(&after)
		info, err := j.file.Stat()
		if err != nil || info.Size() != 64*int64(n) {
			t.Errorf("the table of %d rows has %d bytes, %v, want 64 a row", n, info.Size(), err)
		}
		runtime.KeepAlive(r)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		return max(after.HeapAlloc, before.HeapAlloc) - before.HeapAlloc
	}
	held(100)     // what is made once
	const row = 1 // byte: 24 and more would be a table in memory
	if small, large := held(100), held(20_000); large > small+20_000*row {
		t.Errorf("a table of 100 rows holds %d bytes, one of 20,000 %d, want no more than %d a row", small, large, row)
	}
}

func TestJoinStopsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := writeCache(t, testRows(0, 3, 2, F16), 2, 2, F16)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := open(t, dir).Join(ctx, nil); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(entries) != 1 {
		t.Errorf("beside the cache are %v, %v", entries, err)
	}
}
