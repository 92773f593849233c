package datasets

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// TestCheckLevels counts runs written by hand, as in the format's description of the RLE and
// bit-packed hybrid.
func TestCheckLevels(t *testing.T) {
	for name, c := range map[string]struct {
		runs []byte
		top  int16
		n    int32
		says string
	}{
		"one run of 5":              {[]byte{5 << 1, 1}, 1, 5, ""},
		"two runs":                  {[]byte{3 << 1, 1, 2 << 1, 0}, 1, 5, ""},
		"a group of 8, 5 wanted":    {[]byte{1<<1 | 1, 0x1f}, 1, 5, ""},
		"three bits a level":        {[]byte{1<<1 | 1, 1, 2, 3}, 5, 8, ""},
		"one too few":               {[]byte{4 << 1, 1}, 1, 5, "4 levels, want 5"},
		"none":                      {nil, 1, 5, "0 levels, want 5"},
		"none wanted":               {nil, 1, 0, ""},
		"a run of none, for ever":   {[]byte{0, 1, 0, 1, 0, 1}, 1, 5, "0 levels, want 5"},
		"a group that is cut short": {[]byte{2<<1 | 1, 1}, 1, 9, "0 levels, want 9"},
		"a number without end":      {[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 1, 5, "want 5"},
	} {
		err := checkLevels(c.runs, c.top, c.n)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error is %v, want %q", name, err, c.says)
		}
	}
}

// TestBombs decodes what becomes more, or says so, than the page has room for.
func TestBombs(t *testing.T) {
	const size = 1 << 30
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	mb := make([]byte, 1<<20)
	bombs := map[compress.Compression][]byte{
		compress.Codecs.Snappy: append(binary.AppendUvarint(nil, size), snappy.Encode(nil, mb)[3:]...),
		compress.Codecs.Zstd:   enc.EncodeAll(mb, nil),
	}
	for kind, bomb := range bombs {
		codec, err := compress.GetCodec(kind)
		if err != nil {
			t.Fatal(err)
		}
		dst := make([]byte, 1000)
		err = func() (err error) {
			defer contain(&err)
			codec.Decode(dst, bomb)
			return nil
		}()
		if err == nil {
			t.Errorf("%v: more was decoded than there is room for", kind)
		}
		text := []byte(strings.Repeat("all is well. ", 50))
		if got := codec.Decode(make([]byte, len(text)), codec.Encode(nil, text)); string(got) != string(text) {
			t.Errorf("%v: %q, want %q", kind, got, text)
		}
	}
}

// TestFewLevels reads a file, found by breaking sound ones, a page of which has fewer levels
// than it says: the library would wait for the others without end.
func TestFewLevels(t *testing.T) {
	_, _, err := read(t.Context(), DefaultOptions(), "testdata/few-levels.parquet")
	if err == nil || !strings.Contains(err.Error(), "levels, want") || !strings.Contains(err.Error(), "row group") {
		t.Errorf("error is %v, want one about levels, with the row group", err)
	}
}
