package refcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/dpo-pipe/dpo-pipe/datasets"
)

// testRow makes row i of d-wide features; its lengths vary and the prompt may be empty.
func testRow(i, d int, dt DType) Row {
	rng := rand.New(rand.NewPCG(7, uint64(i)))
	floats := func(n int, scale float32) []float32 {
		x := make([]float32, n)
		for k := range x {
			x[k] = scale * float32(rng.NormFloat64())
		}
		return x
	}
	ids := func(n int) []int32 {
		x := make([]int32, n)
		for k := range x {
			x[k] = rng.Int32N(1 << 17)
		}
		return x
	}
	nc, nr := 1+rng.IntN(5), 1+rng.IntN(5)
	r := Row{
		Prompt: ids(rng.IntN(4)), Chosen: ids(nc), Rejected: ids(nr), ChosenRefLogps: floats(nc, 3), RejectedRefLogps: floats(nr, 3),
		ChosenFeatures: floats(nc*d, 10), RejectedFeatures: floats(nr*d, 1e-4), Weight: 1 + float32(i)/8,
	}
	binary.BigEndian.PutUint64(r.ID[:], uint64(i))
	binary.LittleEndian.PutUint64(r.PromptKey[len(r.PromptKey)-8:], rng.Uint64())
	if dt == None {
		r.ChosenFeatures, r.RejectedFeatures = nil, nil
	}
	Round(r.ChosenFeatures, dt)
	Round(r.RejectedFeatures, dt)
	return r
}

func testRows(from, n, d int, dt DType) []Row {
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = testRow(from+i, d, dt)
	}
	return rows
}

func testManifest(d int, dt DType) (Manifest, Head) {
	h := Head{V: 3, D: d, Weight: make([]float32, 3*d), Bias: []float32{1, -2, 0.5}, Scale: 0.25, Softcap: 30}
	for i := range h.Weight {
		h.Weight[i] = float32(i) - 1.5
	}
	return Manifest{Identity: map[string]string{"model": "ab12", "max_length": "1024"}, D: d, V: 3, FeatureDType: dt}, h
}

// position is where a pass that drops nothing stands after n rows.
func position(n int) Position { return Position{Rows: int64(n)} }

// writeCache writes rows in parts of partRows and returns the folder.
func writeCache(t testing.TB, rows []Row, partRows, d int, dt DType) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	m, h := testManifest(d, dt)
	w, err := Create(dir, m, h)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(rows); {
		end := min(len(rows), at+partRows)
		if err := w.WritePart(rows[at:end], position(end)); err != nil {
			t.Fatal(err)
		}
		at = end
	}
	if err := w.Finish(position(len(rows))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, dir string) *Reader {
	t.Helper()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// sameRow compares bits, so that -0 and 0 differ; an empty list may be nil.
var sameRow = cmp.Options{cmpopts.EquateEmpty()}

func TestRowsReadBackAsWritten(t *testing.T) {
	t.Parallel()
	for _, dt := range []DType{F16, BF16, F32, None} {
		for _, n := range []int{1, 2, 3, maxBatchRows - 1, maxBatchRows, maxBatchRows + 1, 2*maxBatchRows + 1} {
			for _, partRows := range []int{1000, 50} {
				t.Run(fmt.Sprintf("%s/rows=%d/part=%d", dt, n, partRows), func(t *testing.T) {
					const d = 3
					rows := testRows(0, n, d, dt)
					r := open(t, writeCache(t, rows, partRows, d, dt))
					if r.Len() != int64(n) {
						t.Fatalf("cache has %d rows, want %d", r.Len(), n)
					}
					var row Row
					for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
						if err := r.Row(int64(i), &row); err != nil {
							t.Fatal(err)
						}
						if diff := cmp.Diff(rows[i], row, sameRow); diff != "" {
							t.Fatalf("row %d (-want +got):\n%s", i, diff)
						}
						row.ID, row.PromptKey = datasets.ID{}, [16]byte{}
						if err := r.Ids(int64(i), &row); err != nil {
							t.Fatal(err)
						}
						want := Row{
							ID: rows[i].ID, Prompt: rows[i].Prompt, Chosen: rows[i].Chosen, Rejected: rows[i].Rejected,
							Weight: rows[i].Weight, PromptKey: rows[i].PromptKey,
						}
						if diff := cmp.Diff(want, row, sameRow); diff != "" {
							t.Fatalf("ids of row %d (-want +got):\n%s", i, diff)
						}
						if key, err := r.Key(int64(i)); err != nil || key != rows[i].PromptKey {
							t.Fatalf("key of row %d is %x, %v, want %x", i, key, err, rows[i].PromptKey)
						}
					}
					if err := r.Verify(t.Context(), nil); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

func TestAnyRowsReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := shape{d: rapid.IntRange(1, 4).Draw(t, "D"), dtype: rapid.SampledFrom([]DType{F16, BF16, F32, None}).Draw(t, "dtype")}
		batchRows := rapid.IntRange(1, 9).Draw(t, "batch rows")
		n := max(1, rapid.IntRange(0, 4).Draw(t, "batches")*batchRows+rapid.IntRange(-1, 1).Draw(t, "off by"))
		rows := testRows(rapid.IntRange(0, 1<<20).Draw(t, "seed"), n, s.d, s.dtype)
		var file bytes.Buffer
		if err := newEncoder(s).write(&file, rows, batchRows); err != nil {
			t.Fatal(err)
		}
		got, err := readAll(file.Bytes(), int64(n), batchRows, s)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(rows, got, sameRow); diff != "" {
			t.Fatalf("rows (-want +got):\n%s", diff)
		}
	})
}

func TestHeadReadsBack(t *testing.T) {
	t.Parallel()
	for _, bias := range []bool{true, false} {
		m, h := testManifest(20000, F32) // more than one chunk
		if !bias {
			h.Bias = nil
		}
		dir := t.TempDir()
		w, err := Create(dir, m, h)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.WritePart(testRows(0, 1, m.D, F32), position(1)), w.Finish(position(1))); err != nil {
			t.Fatal(err)
		}
		r := open(t, dir)
		got, err := r.Head()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&h, got); diff != "" {
			t.Errorf("head (-want +got):\n%.500s", diff)
		}
		data, err := os.ReadFile(filepath.Join(r.dir, headName))
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)-1] ^= 1
		if err := os.WriteFile(filepath.Join(r.dir, headName), data, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Head(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("flipped bit in the head gives %v, want ErrCorrupt", err)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	const d = 2
	dir := writeCache(t, testRows(0, 3, d, F16), 2, d, F16)
	m, h := testManifest(d, F16)
	if _, err := Create(dir, m, h); !errors.Is(err, ErrComplete) {
		t.Errorf("a finished cache gives %v, want ErrComplete", err)
	}
	stale := func(name string, change func(*Manifest, *Head), want StaleError) {
		m, h := testManifest(d, F16)
		change(&m, &h)
		_, err := Create(dir, m, h)
		var got *StaleError
		if !errors.As(err, &got) || (*got != want && want.Want != "*") || got.Key != want.Key {
			t.Errorf("%s: got %v, want %+v", name, err, want)
		}
	}
	stale("identity", func(m *Manifest, _ *Head) { m.Identity["max_length"] = "512" }, StaleError{"max_length", "1024", "512"})
	stale("key only wanted", func(m *Manifest, _ *Head) { m.Identity["provider"] = "cpu" }, StaleError{"provider", "", "cpu"})
	stale("key only there", func(m *Manifest, _ *Head) { delete(m.Identity, "model") }, StaleError{"model", "ab12", ""})
	stale("dtype", func(m *Manifest, _ *Head) { m.FeatureDType = F32 }, StaleError{"feature dtype", "f16", "f32"})
	stale("head", func(_ *Manifest, h *Head) { h.Weight[0]++ }, StaleError{Key: "LM head", Want: "*"})

	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "notes.txt"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(other, m, h); !errors.Is(err, ErrNotCache) || !strings.Contains(err.Error(), "notes.txt") {
		t.Errorf("a folder of other files gives %v, want ErrNotCache that names one", err)
	}
	h.Weight = h.Weight[1:]
	if _, err := Create(filepath.Join(other, "x"), m, h); err == nil {
		t.Error("a head of the wrong size is taken")
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrNotCache) {
		t.Errorf("an empty folder gives %v, want ErrNotCache", err)
	}
	dir := t.TempDir()
	m, h := testManifest(2, F16)
	w, err := Create(dir, m, h)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.WritePart(testRows(0, 5, 2, F16), position(7)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrIncomplete) {
		t.Errorf("an unfinished cache gives %v, want ErrIncomplete", err)
	}
	s, err := Describe(dir)
	if err != nil || s.Complete || s.Rows != 5 || s.Parts != 1 || s.Counts.Read != 7 {
		t.Errorf("summary of an unfinished cache is %+v, %v", s, err)
	}
	for name, text := range map[string]string{
		"no JSON": "{", "another format": `{"format": 2}`, "no shape": `{"format": 1}`,
		"path":   `{"format":1,"d":1,"v":1,"batch_rows":1,"feature_dtype":"f16","parts":[{"name":"../x","rows":1,"size":1}],"counts":{"kept":1}}`,
		"counts": `{"format":1,"d":1,"v":1,"batch_rows":1,"feature_dtype":"f16","counts":{"kept":1}}`,
		"dtype":  `{"format":1,"d":1,"v":1,"batch_rows":1,"feature_dtype":"f8"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, manifestName), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || (name != "another format" && !errors.Is(err, ErrCorrupt)) {
			t.Errorf("manifest with %s gives %v", name, err)
		}
	}
}

func TestWritePartRefuses(t *testing.T) {
	t.Parallel()
	const d = 2
	for name, c := range map[string]struct {
		change func(*Row)
		want   string
	}{
		"no tokens":    {func(r *Row) { r.Chosen = nil }, "chosen has no tokens"},
		"log-probs":    {func(r *Row) { r.RejectedRefLogps = nil }, "0 log-probs"},
		"NaN log-prob": {func(r *Row) { r.ChosenRefLogps[0] /= 0; r.ChosenRefLogps[0] *= 0 }, "token 0 is NaN"},
		"features":     {func(r *Row) { r.ChosenFeatures = r.ChosenFeatures[1:] }, "want 2 per token"},
		"overflow":     {func(r *Row) { r.RejectedFeatures[1] = 65520 }, "rejected token 0 is 65520, want at most 65504 in size, the most that f16 holds"},
		"no number":    {func(r *Row) { r.RejectedFeatures[1] = float32(math.Inf(1)) }, "rejected token 0 is +Inf, want a finite number"},
	} {
		dir := t.TempDir()
		m, h := testManifest(d, F16)
		w, err := Create(dir, m, h)
		if err != nil {
			t.Fatal(err)
		}
		row := testRow(0, d, F16)
		c.change(&row)
		err = w.WritePart([]Row{row}, position(1))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), row.ID.String()) {
			t.Errorf("%s: got %v, want %q and the pair's id in it", name, err, c.want)
		}
		if _, err := os.Stat(filepath.Join(dir, partName(0))); err == nil {
			t.Errorf("%s: a refused part is there", name)
		}
		if err := w.Finish(position(1)); err == nil {
			t.Errorf("%s: a cache without rows is complete", name)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCheckNamesTheDifference(t *testing.T) {
	t.Parallel()
	m := Manifest{Identity: map[string]string{"model": "a", "max_length": "512"}}
	if err := m.Check(map[string]string{"model": "a"}); err != nil {
		t.Errorf("got %v for an identity that holds what is wanted", err)
	}
	err := m.Check(map[string]string{"model": "a", "max_length": "1024"})
	if err == nil || err.Error() != `refcache: stale max_length: have "512", want "1024"` {
		t.Errorf("got %v", err)
	}
}

func TestSummaryNamesReasons(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m, h := testManifest(2, F16)
	w, err := Create(dir, m, h)
	if err != nil {
		t.Fatal(err)
	}
	pos := Position{Rows: 9, Truncated: 2, Apart: 1}
	pos.Dropped.Add(&datasets.RowError{File: "a.jsonl", Row: 3, Reason: datasets.EmptyCompletion, Detail: "empty"})
	if err := errors.Join(w.WritePart(testRows(0, 8, 2, F16), pos), w.Finish(pos)); err != nil {
		t.Fatal(err)
	}
	s, err := Describe(dir)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(s.Lines())
	for _, want := range []string{"format 1, complete", "9 read, 8 kept, 1 dropped", "1 empty_completion", "2 truncated, 1 with", "identity model ab12", "3 x 2, scale 0.25, bias, softcap 30"} {
		if !strings.Contains(text, want) {
			t.Errorf("summary lacks %q: %s", want, text)
		}
	}
	if !IsCache(dir) || IsCache(t.TempDir()) {
		t.Error("IsCache is wrong")
	}
}

// TestReadingKeepsMemoryFlat reads caches of 10 and 100 times the rows, the larger in more
// parts than a reader holds open.
func TestReadingKeepsMemoryFlat(t *testing.T) {
	const d, base = 8, 20
	var heap []uint64
	for _, times := range []int{10, 100} {
		rows := testRows(0, base*times, d, F16)
		r := open(t, writeCache(t, rows, 25, d, F16))
		rows = nil
		var row Row
		rng := rand.New(rand.NewPCG(3, 4))
		for range 2000 {
			if err := r.Row(rng.Int64N(r.Len()), &row); err != nil {
				t.Fatal(err)
			}
		}
		if len(r.parts.items) > maxParts || len(r.batches.items) > maxBatches {
			t.Fatalf("reader keeps %d parts and %d batches", len(r.parts.items), len(r.batches.items))
		}
		runtime.GC()
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		heap = append(heap, mem.HeapAlloc)
		runtime.KeepAlive(r)
	}
	// Room for what grows with the number of parts (their manifest entries, some 250 bytes each).
	if slack := uint64(1 << 20); heap[1] > heap[0]+slack {
		t.Errorf("heap grew from %d to %d bytes over ten times the rows", heap[0], heap[1])
	}
}

func TestConcurrentReads(t *testing.T) {
	t.Parallel()
	const d, n = 2, 300
	r := open(t, writeCache(t, testRows(0, n, d, F16), 4, d, F16))
	done := make(chan error)
	for g := range 4 {
		go func() {
			var row Row
			rng := rand.New(rand.NewPCG(5, uint64(g)))
			for range 200 {
				i := rng.Int64N(n)
				if err := r.Row(i, &row); err != nil {
					done <- err
					return
				}
				if got := int64(binary.BigEndian.Uint64(row.ID[:])); got != i {
					done <- fmt.Errorf("row %d is %d", i, got)
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestWideFeaturesMakeSmallBatches(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    shape
		want int
	}{
		{shape{1, F16}, 64}, {shape{128, F16}, 64}, {shape{129, F16}, 63}, {shape{1024, F16}, 8}, {shape{4096, F32}, 1}, {shape{1 << 20, F32}, 1},
	} {
		if got := c.s.batchRows(); got != c.want {
			t.Errorf("%+v has %d rows in a batch, want %d", c.s, got, c.want)
		}
	}
}

func TestPositionIsTheWritersOwn(t *testing.T) {
	t.Parallel()
	m, h := testManifest(2, F16)
	w, err := Create(t.TempDir(), m, h)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	drop := &datasets.RowError{Reason: datasets.NullValue}
	pos := position(2)
	pos.Dropped.Add(drop)
	if err := w.WritePart(testRows(0, 1, 2, F16), pos); err != nil {
		t.Fatal(err)
	}
	pos.Dropped.Add(drop)
	got := w.Position()
	got.Dropped.Add(drop)
	if n := w.Position().Dropped.Rows(); n != 1 {
		t.Errorf("position of the last part counts %d dropped rows, want the 1 it was given with", n)
	}
}

func BenchmarkRow(b *testing.B) {
	const d, n = 128, 200
	for _, dt := range []DType{F16, F32} {
		b.Run("dtype="+string(dt), func(b *testing.B) {
			r := open(b, writeCache(b, testRows(0, n, d, dt), 100, d, dt))
			var row Row
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				if err := r.Row(i*7%n, &row); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
