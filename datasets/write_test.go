package datasets

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// formats are the files that one set of JSON rows is written to.
var formats = []string{
	"rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "rows.json", "rows.json.gz", "lines.json",
	"rows.arrow", "rows.arrows", "rows.arrow.gz", "rows.arrows.zst", "rows.lz4.arrow",
	"rows.parquet", "rows.parquet.gz", "rows.zstd.parquet", "rows.plain.parquet",
}

// isTable reports whether the format needs one type for each column.
func isTable(name string) bool {
	return strings.Contains(name, ".arrow") || strings.Contains(name, ".parquet")
}

// writeRows writes JSON objects to name, in the format and compression that the
// name says, and returns the path.
func writeRows(t testing.TB, name string, rows ...string) string {
	t.Helper()
	var b bytes.Buffer
	base := uncompressedName(name)
	switch {
	case base == "rows.json":
		b.WriteString("[\n " + strings.Join(rows, ",\n ") + "\n]\n")
	case isTable(base):
		writeTable(t, &b, base, rows, 3, 200)
	default:
		b.WriteString(strings.Join(rows, "\n") + "\n")
	}
	return writeFile(t, name, compressed(t, name, b.Bytes()))
}

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// compressed compresses data as name says.
func compressed(t testing.TB, name string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	switch filepath.Ext(name) {
	case ".gz":
		w := gzip.NewWriter(&b)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	case ".zst":
		w, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(64<<10), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	default:
		return data
	}
	return b.Bytes()
}

// writeTable writes rows as Arrow IPC or Parquet, in batches (row groups) of
// size rows; pages have about page bytes.
func writeTable(t testing.TB, b *bytes.Buffer, name string, rows []string, size int, page int64) {
	t.Helper()
	rec := recordOf(t, rows)
	defer rec.Release()
	var err error
	if strings.HasSuffix(name, ".parquet") {
		props := []parquet.WriterProperty{parquet.WithCompression(compress.Codecs.Snappy), parquet.WithMaxRowGroupLength(int64(size)), parquet.WithDataPageSize(page), parquet.WithBatchSize(5)}
		switch name {
		case "rows.zstd.parquet":
			props = append(props, parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(1), parquet.WithDataPageVersion(parquet.DataPageV2))
		case "rows.plain.parquet":
			props = append(props, parquet.WithCompression(compress.Codecs.Uncompressed), parquet.WithDictionaryDefault(false))
		}
		table := array.NewTableFromRecords(rec.Schema(), []arrow.Record{rec})
		defer table.Release()
		err = pqarrow.WriteTable(table, b, int64(size), parquet.NewWriterProperties(props...), pqarrow.DefaultWriterProps())
	} else {
		err = writeArrow(b, name, rec, size)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func writeArrow(b *bytes.Buffer, name string, rec arrow.Record, size int) error {
	opts := []ipc.Option{ipc.WithSchema(rec.Schema())}
	if strings.Contains(name, "lz4") {
		opts = append(opts, ipc.WithLZ4())
	}
	var w interface {
		Write(arrow.Record) error
		Close() error
	}
	if strings.HasSuffix(name, ".arrows") {
		w = ipc.NewWriter(b, opts...)
	} else {
		file, err := ipc.NewFileWriter(&seekBuffer{b}, opts...)
		if err != nil {
			return err
		}
		w = file
	}
	for from := int64(0); from < rec.NumRows(); from += int64(size) {
		part := rec.NewSlice(from, min(from+int64(size), rec.NumRows()))
		err := w.Write(part)
		part.Release()
		if err != nil {
			return err
		}
	}
	return w.Close()
}

// A seekBuffer is a buffer that says where its end is, which is all that the
// writer of IPC files asks.
type seekBuffer struct{ *bytes.Buffer }

func (s *seekBuffer) Seek(int64, int) (int64, error) { return int64(s.Len()), nil }

// recordOf builds a record of the columns that any of the rows has.
func recordOf(t testing.TB, rows []string) arrow.Record {
	t.Helper()
	var all value
	objects := make([]value, len(rows))
	for i, r := range rows {
		if !json.Valid([]byte(r)) {
			t.Fatalf("row %d of the test is no JSON: %s", i, r)
		}
		p := jsonParser{data: []byte(r)}
		objects[i] = p.value()
		all.items = append(all.items, objects[i])
	}
	typ, ok := typeOf(t, all.items).(*arrow.StructType)
	if !ok {
		t.Fatal("the rows of the test are no objects")
	}
	b := array.NewStructBuilder(memory.DefaultAllocator, typ)
	defer b.Release()
	for _, o := range objects {
		appendValue(t, b, o)
	}
	s := b.NewStructArray()
	defer s.Release()
	fields := make([]arrow.Array, s.NumField())
	for i := range fields {
		fields[i] = s.Field(i)
	}
	return array.NewRecord(arrow.NewSchema(typ.Fields(), nil), fields, int64(len(rows)))
}

// typeOf returns the Arrow type that holds all values.
func typeOf(t testing.TB, values []value) arrow.DataType {
	var typ arrow.DataType = arrow.BinaryTypes.String // also of a column of nulls
	var items []value
	fields := map[string][]value{}
	var keys []string
	for _, v := range values {
		switch v.kind {
		case boolean:
			typ = arrow.FixedWidthTypes.Boolean
		case number:
			if _, err := strconv.ParseInt(v.str, 10, 64); err == nil && typ != arrow.PrimitiveTypes.Float64 {
				typ = arrow.PrimitiveTypes.Int64
			} else {
				typ = arrow.PrimitiveTypes.Float64
			}
		case list:
			items = append(items, v.items...)
			typ = nil
		case object:
			for i, key := range v.keys {
				if _, ok := fields[key]; !ok {
					keys = append(keys, key)
				}
				fields[key] = append(fields[key], v.items[i])
			}
		}
	}
	if len(keys) > 0 {
		var s []arrow.Field
		for _, key := range keys {
			s = append(s, arrow.Field{Name: key, Type: typeOf(t, fields[key]), Nullable: true})
		}
		return arrow.StructOf(s...)
	}
	if typ == nil {
		return arrow.ListOf(typeOf(t, items))
	}
	return typ
}

func appendValue(t testing.TB, b array.Builder, v value) {
	if v.kind == null || v.kind == absent {
		b.AppendNull()
		return
	}
	switch b := b.(type) {
	case *array.StringBuilder:
		b.Append(v.str)
	case *array.BooleanBuilder:
		b.Append(true)
	case *array.Int64Builder:
		n, _ := strconv.ParseInt(v.str, 10, 64)
		b.Append(n)
	case *array.Float64Builder:
		f, _ := strconv.ParseFloat(v.str, 64)
		b.Append(f)
	case *array.ListBuilder:
		b.Append(true)
		for _, item := range v.items {
			appendValue(t, b.ValueBuilder(), item)
		}
	case *array.StructBuilder:
		b.Append(true)
		for i, f := range b.Type().(*arrow.StructType).Fields() {
			appendValue(t, b.FieldBuilder(i), v.field(f.Name))
		}
	default:
		t.Fatalf("no builder for %v", v)
	}
}
