package datasets

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/parquet/compress"
)

// TestUnknownCodec rewrites the footer of a Parquet file so that it says LZ4_RAW,
// which is what pyarrow writes for "lz4".
func TestUnknownCodec(t *testing.T) {
	if got := codecName(compress.Compression(7)); got != "LZ4_RAW" {
		t.Errorf("codec 7 is %s, want LZ4_RAW", got)
	}
	data, err := os.ReadFile(writeRows(t, "rows.parquet", `{"prompt":"Q","chosen":"A","rejected":"B"}`))
	if err != nil {
		t.Fatal(err)
	}
	// In the footer's thrift a column's codec is field 4, behind the path: the
	// byte 0x15 and the zigzag number, 2 for snappy and 14 for LZ4_RAW. The path
	// is followed by nothing else, so the name pins it.
	for _, name := range []string{"prompt", "chosen", "rejected"} {
		data = bytes.ReplaceAll(data, []byte(name+"\x15\x02"), []byte(name+"\x15\x0e"))
	}
	_, _, err = read(t.Context(), DefaultOptions(), writeFile(t, "a.parquet", data))
	if err == nil || !strings.Contains(err.Error(), "codec LZ4_RAW is not supported") {
		t.Errorf("got %v, want that LZ4_RAW is not supported", err)
	}
}
