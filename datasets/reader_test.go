package datasets

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// randomRows makes n rows of messages, now and then with a null.
func randomRows(rng *rand.Rand, n int) []string {
	rows := make([]string, n)
	for i := range rows {
		turns := func(answer string) []Message {
			all := []Message{{"user", strings.Repeat("q", rng.IntN(30)+1)}}
			for range rng.IntN(4) {
				all = append(all, Message{"assistant", "x"}, Message{"user", strings.Repeat("y", rng.IntN(300))})
			}
			return append(all, Message{"assistant", answer})
		}
		lower := func(m []Message) (out []map[string]string) {
			for _, m := range m {
				out = append(out, map[string]string{"role": m.Role, "content": m.Content})
			}
			return out
		}
		chosen := turns(fmt.Sprint("good ", i))
		r := map[string]any{"chosen": lower(chosen), "rejected": lower(append(chosen[:len(chosen)-1:len(chosen)-1], Message{"assistant", "bad"})), "id": fmt.Sprint("row ", i), "score_chosen": rng.Float64()}
		switch rng.IntN(8) {
		case 0:
			r["rejected"] = nil
		case 1:
			r["chosen"] = []map[string]string{}
		case 2:
			delete(r, "score_chosen")
		}
		data, err := json.Marshal(r)
		if err != nil {
			panic(err)
		}
		rows[i] = string(data)
	}
	return rows
}

// TestSizes reads random rows of sizes round the decoded batch and the row
// group, whose pages are tiny, from every format: pairs and refusals are those of JSONL.
func TestSizes(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{1, 2, parquetBatch - 1, parquetBatch, parquetBatch + 1} {
		rows := randomRows(rng, n)
		want, wantTally := readAll(t, DefaultOptions(), writeRows(t, "rows.jsonl", rows...))
		for _, format := range formats {
			for _, size := range []int{n/3 + 1, n - 1, n, n + 1} {
				if size < 1 || size != n && (!isTable(format) || uncompressedName(format) != format) {
					continue
				}
				t.Run(fmt.Sprintf("n=%d,%s,size=%d", n, format, size), func(t *testing.T) {
					var path string
					if isTable(format) && uncompressedName(format) == format {
						var b bytes.Buffer
						writeTable(t, &b, format, rows, size, 1000)
						path = writeFile(t, format, b.Bytes())
					} else {
						path = writeRows(t, format, rows...)
					}
					got, tally := readAll(t, DefaultOptions(), path)
					if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Pair{}, "File")); diff != "" {
						t.Errorf("pairs differ (-JSONL +%s):\n%.1500s", format, diff)
					}
					for i := range tally.Drops {
						if tally.Count(tally.Drops[i].Reason) != wantTally.Count(tally.Drops[i].Reason) {
							t.Errorf("%s: %+v, want %+v", format, tally, wantTally)
						}
					}
					if tally.Rows() != wantTally.Rows() {
						t.Errorf("%d rows refused, want %d", tally.Rows(), wantTally.Rows())
					}
				})
			}
		}
	}
}

// TestRowNumbers reads several files: Row counts on, FileRow starts anew, and
// blank lines are no rows.
func TestRowNumbers(t *testing.T) {
	a := writeFile(t, "a.jsonl", []byte("\xef\xbb\xbf\n{\"prompt\":\"Q\",\"chosen\":\"A\",\"rejected\":\"B\"}\r\n\r\n  \n{\n{\"prompt\":\"Q\",\"chosen\":\"A\",\"rejected\":\"C\"}"))
	b := writeRows(t, "rows.json", `{"prompt":"Q"}`, `{"prompt":"Q","chosen":"A","rejected":"D"}`)
	empty := writeFile(t, "c.jsonl", nil)
	pairs, tally := readAll(t, DefaultOptions(), a, empty, b)
	var got []string
	for _, p := range pairs {
		got = append(got, fmt.Sprintf("%s %d %d", filepath.Base(p.File), p.Row, p.FileRow))
	}
	if diff := cmp.Diff([]string{"a.jsonl 0 0", "a.jsonl 2 2", "rows.json 4 1"}, got); diff != "" {
		t.Error(diff)
	}
	want := Tally{Drops: []Drop{
		{Reason: Malformed, Rows: 1, First: []Position{{File: a, Row: 1, Detail: "line 5: not JSON at byte 2: unexpected end of JSON input"}}},
		{Reason: MissingColumn, Rows: 1, First: []Position{{File: b, Row: 0, Column: "chosen", Detail: "is missing"}}},
	}}
	if diff := cmp.Diff(want, tally); diff != "" {
		t.Error(diff)
	}
}

func TestFatal(t *testing.T) {
	good := `{"prompt":"Q","chosen":"A","rejected":"B"}`
	cases := []struct{ name, file, data, want string }{
		{"truncated array", "a.json", "[" + good + "," + good[:20], "a.json row 1: the file ends inside its array"},
		{"array without end", "a.json", "[" + good, "a.json row 0: the file ends inside its array"},
		{"text behind the array", "a.json", "[" + good + "] x", `a.json row 0: found 'x' behind the closing bracket`},
		{"pretty-printed object", "a.json", "{\n \"data\": []\n}", "a.json: the first line is not a whole object"},
		{"unknown", "a.bin", "\x00\x01", "neither Parquet, Arrow IPC nor JSON"},
		{"UTF-16", "a.json", "\xff\xfe[\x00", "is UTF-16"},
		{"named Parquet", "a.parquet", good, "want a parquet file"},
		{"empty Parquet", "a.parquet", "", "want a parquet file"},
		{"Feather 1", "a.feather", "FEA1....", "Feather version 1"},
		{"truncated Parquet", "a.parquet", "PAR1....", "a.parquet"},
		{"truncated Arrow", "a.arrow", "ARROW1\x00\x00", "a.arrow"},
		{"truncated gzip", "a.jsonl.gz", string(compressed(t, ".gz", []byte(strings.Repeat(good, 99)))[:40]), "unexpected EOF"},
		{"truncated zstd", "a.jsonl.zst", string(compressed(t, ".zst", []byte(strings.Repeat(good, 99)))[:40]), "unexpected EOF"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := writeFile(t, c.file, []byte(c.data))
			_, _, err := read(t.Context(), DefaultOptions(), path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestMisnamed reads files whose names say nothing or the wrong thing.
func TestMisnamed(t *testing.T) {
	good := `{"prompt":"Q","chosen":"A","rejected":"B"}`
	for _, format := range formats {
		data, err := os.ReadFile(writeRows(t, format, good))
		if err != nil {
			t.Fatal(err)
		}
		if pairs, tally := readAll(t, DefaultOptions(), writeFile(t, "data", data)); len(pairs) != 1 {
			t.Errorf("%s without its name: %+v", format, tally)
		}
	}
	if pairs, _ := readAll(t, DefaultOptions(), writeFile(t, "a.jsonl", []byte(" [ "+good+" , "+good+"]\n"))); len(pairs) != 2 {
		t.Errorf("array named .jsonl has %d pairs, want 2", len(pairs))
	}
	for _, empty := range []string{"[]", " [ ] \n"} {
		if pairs, tally := readAll(t, DefaultOptions(), writeFile(t, "a.json", []byte(empty))); len(pairs) != 0 || tally.Rows() != 0 {
			t.Errorf("empty array has %d pairs", len(pairs))
		}
	}
}

func TestLimit(t *testing.T) {
	row := func(n int) string {
		return fmt.Sprintf(`{"prompt":"Q","chosen":"A","rejected":"%s"}`, strings.Repeat("b", n))
	}
	opt := DefaultOptions()
	opt.MaxRowBytes = len(row(1000)) + len("\n")
	pairs, tally := readAll(t, opt, writeRows(t, "rows.jsonl", row(1000), row(1001), row(inputBuffer), row(1)))
	if len(pairs) != 2 || tally.Count(TooLarge) != 2 || tally.Rows() != 2 {
		t.Errorf("%d pairs and %+v, want 2 and 2 too large", len(pairs), tally)
	}
	opt.MaxRowBytes = len(row(1000))
	if pairs, _, err := read(t.Context(), opt, writeRows(t, "rows.json", row(1000), row(1001))); err == nil || len(pairs) != 1 {
		t.Errorf("%d pairs and error %v, want 1 and that the element is too large", len(pairs), err)
	}
}

func TestCancel(t *testing.T) {
	row := `{"prompt":"Q","chosen":"A","rejected":"B"}`
	cause := errors.New("stop here")
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			r, err := Open([]string{writeRows(t, format, row, row, row, row, row)}, DefaultOptions())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := r.Next(ctx); err != nil {
				t.Fatal(err)
			}
			cancel(cause)
			for range 2 {
				if _, err := r.Next(ctx); !errors.Is(err, cause) {
					t.Errorf("got %v, want the cause", err)
				}
			}
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := Fingerprint(ctx, []string{writeRows(t, "rows.jsonl", row)}); !errors.Is(err, cause) {
		t.Errorf("fingerprint: got %v, want the cause", err)
	}
}

// TestRelease counts what Arrow and Parquet allocate, read to the end and not.
func TestRelease(t *testing.T) {
	rows := randomRows(rand.New(rand.NewPCG(5, 6)), 20)
	for _, format := range formats {
		for _, stop := range []int{0, 1, 5, 20} {
			mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
			opt := DefaultOptions()
			opt.alloc = mem
			r, err := Open([]string{writeRows(t, format, rows...)}, opt)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; ; i++ {
				if _, err := r.Next(t.Context()); err == io.EOF || stop > 0 && i == stop {
					break
				}
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			t.Run(fmt.Sprintf("%s,stop=%d", format, stop), func(t *testing.T) { mem.AssertSize(t, 0) })
		}
	}
}

// TestMemory reads data repeated 1, 10 and 100 times. The heap that is live at
// any time must not grow with it.
func TestMemory(t *testing.T) {
	const slack = 2 << 20 // bytes; what the garbage collector's timing moves
	rng := rand.New(rand.NewPCG(7, 8))
	base := randomRows(rng, 50)
	for _, format := range []string{"rows.jsonl", "rows.json", "rows.jsonl.gz", "rows.jsonl.zst", "rows.arrow", "rows.parquet"} {
		t.Run(format, func(t *testing.T) {
			var peaks []uint64
			for _, times := range []int{1, 10, 100} {
				var rows []string
				for range times {
					rows = append(rows, base...)
				}
				var path string
				if isTable(format) {
					var b bytes.Buffer
					writeTable(t, &b, format, rows, 500, 16<<10)
					path = writeFile(t, format, b.Bytes())
				} else {
					path = writeRows(t, format, rows...)
				}
				rows = nil
				peaks = append(peaks, peakHeap(t, path, int64(times*len(base))))
			}
			t.Logf("live heap: %v bytes", peaks)
			if peaks[2] > peaks[0]+slack {
				t.Errorf("the heap grows with the data: %v bytes for 1, 10 and 100 times", peaks)
			}
		})
	}
}

// peakHeap reads path and returns the largest live heap at ten points on the way.
func peakHeap(t *testing.T, path string, rows int64) uint64 {
	r, err := Open([]string{path}, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var peak uint64
	for i := int64(0); ; i++ {
		_, err := r.Next(t.Context())
		if err == io.EOF {
			return peak
		}
		var re *RowError
		if err != nil && !errors.As(err, &re) {
			t.Fatal(err)
		}
		if i%(rows/10) == rows/20 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
	}
}
