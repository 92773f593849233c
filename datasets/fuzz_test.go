package datasets

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzJSONRow holds the row parser against encoding/json: both accept the same
// texts, and what is accepted has the same strings.
func FuzzJSONRow(f *testing.F) {
	for _, c := range rowCases {
		f.Add([]byte(c.row))
	}
	x, err := DefaultColumns().index()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r row
		re := parseJSONRow(data, x, &r)
		var want map[string]json.RawMessage
		err := json.Unmarshal(data, &want)
		if err == nil && want == nil {
			err = errors.New("null")
		}
		if re == nil && err != nil {
			t.Fatalf("%q accepted, encoding/json says %v", data, err)
		}
		if re != nil {
			if err == nil && !strings.Contains(re.Detail, "twice") {
				t.Fatalf("%q refused: %v", data, re)
			}
			return
		}
		for name, role := range x {
			got := r.cells[role]
			if raw := want[name]; len(raw) == 0 || raw[0] != '"' {
				continue
			}
			var s string
			if err := json.Unmarshal(want[name], &s); err != nil {
				t.Fatal(err)
			}
			if got.kind == text && utf8.ValidString(got.str) && s != got.str {
				t.Fatalf("%q: column %s is %q, want %q", data, name, got.str, s)
			} else if got.kind != text && got.kind != invalid {
				t.Fatalf("%q: column %s is %v, want text", data, name, got)
			}
		}
		var p Pair
		if re := pairOf(&r, DefaultColumns().names(), &p); re == nil {
			checkPair(t, p)
		}
	})
}

// checkPair holds what is true of every pair.
func checkPair(t *testing.T, p Pair) {
	t.Helper()
	for _, text := range []Text{p.Prompt, p.Chosen, p.Rejected} {
		if text.Empty() || text.blank() || text.IsChat() != p.Prompt.IsChat() {
			t.Fatalf("unusable pair %+v", p)
		}
	}
	if p.Chosen.Equal(p.Rejected) || !(p.Weight >= 0) {
		t.Fatalf("unusable pair %+v", p)
	}
}

// FuzzFile opens corrupted files of every kind: there may be errors, but no
// panic, and no pair that breaks the rules.
func FuzzFile(f *testing.F) {
	rows := randomRows(rand.New(rand.NewPCG(9, 10)), 5)
	for _, format := range formats {
		data, err := os.ReadFile(writeRows(f, format, rows...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { readCorrupted(t, data) })
}

// readCorrupted reads data as a file, within bounds.
func readCorrupted(t *testing.T, data []byte) {
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := Open([]string{path}, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 100 {
		p, err := r.Next(t.Context())
		var re *RowError
		switch {
		case err == nil:
			checkPair(t, p)
		case err == io.EOF:
			return
		case !errors.As(err, &re):
			if !strings.HasPrefix(err.Error(), "datasets: "+path) {
				t.Fatalf("error without its place: %v", err)
			}
			return
		}
	}
}

// TestCorrupted flips bytes of valid tables, half of them near the end, where
// the footers are, and cuts tables short.
func TestCorrupted(t *testing.T) {
	rows := randomRows(rand.New(rand.NewPCG(11, 12)), 4)
	rng := rand.New(rand.NewPCG(13, 14))
	for _, format := range []string{"rows.arrow", "rows.arrows", "rows.lz4.arrow", "rows.parquet", "rows.zstd.parquet", "rows.plain.parquet"} {
		data, err := os.ReadFile(writeRows(t, format, rows...))
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			readCorrupted(t, data[:rng.IntN(len(data))])
		}
		for i := range 100 {
			bad := bytes.Clone(data)
			from := i % 2 * max(0, len(bad)-600)
			for range 1 + rng.IntN(3) {
				bad[from+rng.IntN(len(bad)-from)] ^= byte(1 + rng.IntN(255))
			}
			readCorrupted(t, bad)
		}
	}
}
