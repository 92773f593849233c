package datasets

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// TestSchemaCounts puts an impossible number in the place of every count of 1, 2
// or 3 in an Arrow file and an Arrow stream, among them the lengths of all lists of the
// schema: the process must live, and some of the numbers must be refused here.
func TestSchemaCounts(t *testing.T) {
	for _, name := range []string{"rows.arrow", "rows.arrows"} {
		data, err := os.ReadFile(writeRows(t, name, `{"prompt":[{"role":"user","content":"Q"}],"chosen":"A","rejected":"B"}`))
		if err != nil {
			t.Fatal(err)
		}
		refused := 0
		for at := 8; at+4 <= len(data); at += 4 {
			if n := binary.LittleEndian.Uint32(data[at:]); n < 1 || n > 3 {
				continue
			}
			bad := bytes.Clone(data)
			binary.LittleEndian.PutUint32(bad[at:], 0xf0000000)
			path := writeFile(t, name, bad)
			if _, _, err := read(t.Context(), DefaultOptions(), path); err != nil && strings.Contains(err.Error(), "fields or metadata entries") {
				refused++
			}
		}
		if refused < 2 { // the columns, and the fields of a message
			t.Errorf("%s: %d of the impossible counts were refused by name, want 2 or more", name, refused)
		}
	}
}

// TestManyItems reads tables whose rows say in a few bytes that they hold a list
// of very many nulls.
func TestManyItems(t *testing.T) {
	typ := arrow.ListOf(arrow.Null)
	b := array.NewListBuilder(memory.DefaultAllocator, arrow.Null)
	defer b.Release()
	nulls := b.ValueBuilder().(*array.NullBuilder)
	for range 3 {
		b.Append(true)
		nulls.AppendNulls(maxItems + 1)
	}
	column := b.NewArray()
	defer column.Release()
	var fields []arrow.Field
	var columns []arrow.Array
	for _, name := range []string{"prompt", "chosen", "rejected"} {
		fields, columns = append(fields, arrow.Field{Name: name, Type: typ, Nullable: true}), append(columns, column)
	}
	rec := array.NewRecord(arrow.NewSchema(fields, nil), columns, 3)
	defer rec.Release()
	for _, name := range []string{"rows.arrow", "rows.arrows"} {
		var out bytes.Buffer
		if err := writeArrow(&out, name, rec, 3); err != nil {
			t.Fatal(err)
		}
		_, _, err := read(t.Context(), DefaultOptions(), writeFile(t, name, out.Bytes()))
		if want := fmt.Sprintf("row 0: corrupted data: the row has more than %d list items", maxItems); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

// TestDecompressed looks at the temporary files of compressed tables: none has a
// name while it is read, and none grows without bounds.
func TestDecompressed(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	path := writeRows(t, "rows.parquet.gz", `{"prompt":"Q","chosen":"A","rejected":"B"}`, `{"prompt":"Q","chosen":"A","rejected":"C"}`)
	r, err := Open([]string{path}, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.in.spool == nil {
		t.Fatal("no temporary file")
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "dpo-pipe-*")); len(names) != 0 && !r.in.spoolNamed {
		t.Errorf("temporary files %q", names)
	}
	bomb := writeFile(t, "bomb.arrow.zst", compressed(t, "bomb.arrow.zst", append([]byte(arrowMagic), make([]byte, spoolFree+64<<20)...)))
	if _, _, err := read(t.Context(), DefaultOptions(), bomb); err == nil || !strings.Contains(err.Error(), "want at most 1000 times") {
		t.Errorf("got %v, want a limit", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "dpo-pipe-*")); len(names) != 0 {
		t.Errorf("temporary files %q are left", names)
	}
}

// TestCutShort reads the first half of compressed files: the error names the
// file, the compression and what happened.
func TestCutShort(t *testing.T) {
	for _, name := range []string{"rows.jsonl.gz", "rows.jsonl.zst", "rows.parquet.gz"} {
		data, err := os.ReadFile(writeRows(t, name, `{"prompt":"Q","chosen":"A","rejected":"B"}`))
		if err != nil {
			t.Fatal(err)
		}
		path := writeFile(t, name, data[:len(data)/2])
		_, _, err = read(t.Context(), DefaultOptions(), path)
		if err == nil || !strings.HasPrefix(err.Error(), "datasets: "+path) || !strings.Contains(err.Error(), "cut short") {
			t.Errorf("%s: got %v, want that it is cut short", name, err)
		}
	}
}

// TestStreamFrames makes messages of an Arrow stream say that they are of gigabytes; the
// second one is that of the first batch.
func TestStreamFrames(t *testing.T) {
	data, err := os.ReadFile(writeRows(t, "rows.arrows", `{"prompt":"Q","chosen":"A","rejected":"B"}`, `{"prompt":"Q","chosen":"A","rejected":"C"}`))
	if err != nil {
		t.Fatal(err)
	}
	second := 8 + int(binary.LittleEndian.Uint32(data[4:]))
	meta := data[second+8:]
	message := root(meta)
	body := second + 8 + int(message.Pos) + int(message.Offset(slotMessageBody))
	for name, c := range map[string]struct {
		at   int
		word uint32
		says string
	}{
		"metadata":        {second + 4, 0x7ffffff0, "its metadata has 2147483632 bytes"},
		"negative":        {second + 4, 0x80000000, "its metadata has 2147483648 bytes"},
		"body":            {body + 4, 1, "it has 42949"},
		"a negative body": {body + 4, 0x80000000, "it has -9223"},
	} {
		bad := bytes.Clone(data)
		binary.LittleEndian.PutUint32(bad[c.at:], c.word)
		if _, _, err := read(t.Context(), DefaultOptions(), writeFile(t, "rows.arrows", bad)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error is %v, want %q", name, err, c.says)
		}
	}
}
