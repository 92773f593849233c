package refcache

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/float16"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/google/go-cmp/cmp"
)

// smallPart returns the bytes of a part of n rows.
func smallPart(t testing.TB, n int, s shape) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := newEncoder(s).write(&out, testRows(0, n, s.d, s.dtype), 2); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// readAll reads every row of a part held in memory.
func readAll(data []byte, rows int64, batchRows int, s shape) ([]Row, error) {
	p, err := openPart(bytes.NewReader(data), "part", int64(len(data)), rows, batchRows, s)
	if err != nil {
		return nil, err
	}
	var r Reader
	var out []Row
	for i := range p.blocks {
		b, err := p.batch(i)
		if err != nil {
			return nil, err
		}
		for k := range b.rows {
			var row Row
			if err := errors.Join(r.ids(p, b, k, &row), r.values(p, b, k, &row)); err != nil {
				return nil, err
			}
			out = append(out, row)
		}
	}
	return out, nil
}

func TestTruncatedPartIsCorrupt(t *testing.T) {
	t.Parallel()
	s := shape{d: 3, dtype: F16}
	data := smallPart(t, 3, s)
	want, err := readAll(data, 3, 2, s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testRows(0, 3, s.d, s.dtype), want, sameRow); diff != "" {
		t.Fatalf("whole part (-want +got):\n%s", diff)
	}
	for n := range data {
		if _, err := readAll(data[:n], 3, 2, s); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d of %d bytes: got %v, want ErrCorrupt", n, len(data), err)
		}
	}
}

func TestDamagedPartNeverPanics(t *testing.T) {
	t.Parallel()
	s := shape{d: 3, dtype: F32}
	data := smallPart(t, 3, s)
	for i := range data {
		for _, flip := range []byte{1, 0x80, 0xff} {
			data[i] ^= flip
			if _, err := readAll(data, 3, 2, s); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d ^ %#x: got %v, want ErrCorrupt or a row", i, flip, err)
			}
			data[i] ^= flip
		}
	}
}

func TestShortPartIsRefusedOnRead(t *testing.T) {
	t.Parallel()
	dir := writeCache(t, testRows(0, 2, 2, F16), 2, 2, F16)
	path := filepath.Join(dir, partName(0))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-1); err != nil {
		t.Fatal(err)
	}
	var row Row
	if err := open(t, dir).Row(0, &row); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}

func TestOtherSchemaIsCorrupt(t *testing.T) {
	t.Parallel()
	data := smallPart(t, 2, shape{d: 3, dtype: F16})
	for _, c := range []struct {
		shape shape
		want  string
	}{
		{shape{d: 4, dtype: F16}, "list<float16[3]>, want"},
		{shape{d: 3, dtype: F32}, `want "chosen_features" of list<float32[3]>`},
		{shape{d: 3, dtype: None}, "10 columns, want 8"},
		{shape{d: 3, dtype: BF16}, `want "chosen_features" of list<uint16[3]>`},
	} {
		if _, err := readAll(data, 2, 2, c.shape); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want ErrCorrupt with %q", err, c.want)
		}
	}
	if _, err := readAll(data, 5, 2, shape{d: 3, dtype: F16}); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "1 record batches, want 3 for 5 rows") {
		t.Errorf("another number of rows gives %v", err)
	}
}

func FuzzPart(f *testing.F) {
	s := shape{d: 2, dtype: F16}
	data := smallPart(f, 3, s)
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add(data[len(data)/2:])
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := readAll(data, 3, 2, s)
		if err != nil && (!errors.Is(err, ErrCorrupt) || rows != nil) {
			t.Errorf("got %d rows and %v, want none and ErrCorrupt", len(rows), err)
		}
	})
}

// TestArrowReadsTheSame reads the parts with Arrow's own reader.
func TestArrowReadsTheSame(t *testing.T) {
	t.Parallel()
	for _, dt := range []DType{F16, BF16, F32, None} {
		const d, n = 3, maxBatchRows + 5
		rows := testRows(0, n, d, dt)
		dir := writeCache(t, rows, n, d, dt)
		f, err := os.Open(filepath.Join(dir, partName(0)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := ipc.NewFileReader(f)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var got []Row
		for i := range r.NumRecords() {
			rec, err := r.Record(i)
			if err != nil {
				t.Fatal(err)
			}
			for k := range int(rec.NumRows()) {
				got = append(got, arrowRow(rec, k))
			}
		}
		if diff := cmp.Diff(rows, got, sameRow); diff != "" {
			t.Errorf("%s (-want +got):\n%.2000s", dt, diff)
		}
	}
}

// arrowRow takes row k out of a record batch by column name.
func arrowRow(rec arrow.Record, k int) Row {
	column := func(name string) arrow.Array { return rec.Column(rec.Schema().FieldIndices(name)[0]) }
	list := func(name string) (values arrow.Array, from, to int64) {
		l := column(name).(*array.List)
		from, to = l.ValueOffsets(k)
		return l.ListValues(), from, to
	}
	ids := func(name string) []int32 {
		values, from, to := list(name)
		return values.(*array.Int32).Int32Values()[from:to]
	}
	floats := func(name string) []float32 {
		values, from, to := list(name)
		if fixed, ok := values.(*array.FixedSizeList); ok {
			width := int64(fixed.DataType().(*arrow.FixedSizeListType).Len())
			values, from, to = fixed.ListValues(), from*width, to*width
		}
		if v, ok := values.(*array.Float32); ok {
			return v.Float32Values()[from:to]
		}
		if v, ok := values.(*array.Uint16); ok {
			return widenBfloat16(v.Uint16Values()[from:to])
		}
		return widen(values.(*array.Float16).Values()[from:to])
	}
	r := Row{
		Prompt: ids("prompt_ids"), Chosen: ids("chosen_ids"), Rejected: ids("rejected_ids"),
		ChosenRefLogps: floats("chosen_ref_logps"), RejectedRefLogps: floats("rejected_ref_logps"),
		Weight: column("weight").(*array.Float32).Value(k),
	}
	if rec.Schema().HasField("chosen_features") {
		r.ChosenFeatures, r.RejectedFeatures = floats("chosen_features"), floats("rejected_features")
	}
	copy(r.ID[:], column("pair_id").(*array.FixedSizeBinary).Value(k))
	copy(r.PromptKey[:], column("prompt_key").(*array.FixedSizeBinary).Value(k))
	return r
}

func widen(bits []float16.Num) []float32 {
	out := make([]float32, len(bits))
	for i, b := range bits {
		out[i] = halves()[b.Uint16()]
	}
	return out
}

// widenBfloat16 takes values apart by what bfloat16 is: a sign, eight bits of exponent,
// seven of fraction.
func widenBfloat16(bits []uint16) []float32 {
	out := make([]float32, len(bits))
	for i, b := range bits {
		out[i] = float32(bfloat16Value(b))
	}
	return out
}
