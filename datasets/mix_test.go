package datasets

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mixRow is a row whose chosen completion is its name; weight may be "".
func mixRow(name, weight string) string {
	row := `{"prompt": "p", "chosen": "` + name + `", "rejected": "r"`
	if weight != "" {
		row += `, "weight": ` + weight
	}
	return row + "}"
}

// TestMix reads two folders, of which the first holds two files, an unusable row among them.
func TestMix(t *testing.T) {
	dir := t.TempDir()
	for name, rows := range map[string][]string{
		"one/a.jsonl": {mixRow("a0", ""), mixRow("a1", "3")},
		"one/b.jsonl": {`{"prompt": "p", "chosen": "same", "rejected": "same"}`, mixRow("b1", ""), mixRow("b2", "")},
		"two/c.jsonl": {mixRow("c0", "0.5"), mixRow("c1", "")},
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, []byte(strings.Join(rows, "\n")+"\n"), 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	paths := []string{filepath.Join(dir, "one"), filepath.Join(dir, "two")}
	for _, tc := range []struct {
		name    string
		mix     []Share
		want    []string
		weights []float32
	}{
		{"none", nil, []string{"a0", "a1", "!", "b1", "b2", "c0", "c1"}, []float32{1, 3, 0, 1, 1, 0.5, 1}},
		{"weights multiply", []Share{{2, 0}, {0.5, 0}}, []string{"a0", "a1", "!", "b1", "b2", "c0", "c1"}, []float32{2, 6, 0, 2, 2, 0.25, 0.5}},
		{"a limit within the first file", []Share{{1, 1}, {1, 0}}, []string{"a0", "c0", "c1"}, []float32{1, 0.5, 1}},
		{"a limit at the end of a file", []Share{{1, 2}, {1, 1}}, []string{"a0", "a1", "c0"}, []float32{1, 3, 0.5}},
		{"a limit counts unusable rows", []Share{{1, 4}, {1, 9}}, []string{"a0", "a1", "!", "b1", "c0", "c1"}, []float32{1, 3, 0, 1, 0.5, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			opt := DefaultOptions()
			opt.Mix = tc.mix
			r, err := Open(paths, opt)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var got []string
			var weights []float32
			for {
				p, err := r.Next(context.Background())
				if errors.Is(err, io.EOF) {
					break
				}
				var bad *RowError
				if errors.As(err, &bad) {
					p.Chosen.Plain = "!"
				} else if err != nil {
					t.Fatal(err)
				}
				got, weights = append(got, p.Chosen.Plain), append(weights, p.Weight)
			}
			if !slices.Equal(got, tc.want) || !slices.Equal(weights, tc.weights) {
				t.Errorf("got %v of weights %v, want %v of %v", got, weights, tc.want, tc.weights)
			}
		})
	}
}

func TestMixRefused(t *testing.T) {
	path := writeRows(t, "rows.jsonl", mixRow("a", ""))
	for name, mix := range map[string][]Share{
		"too few": {}, "too many": {{1, 0}, {1, 0}}, "a weight below 0": {{-1, 0}}, "no number": {{math.NaN(), 0}},
		"infinite": {{math.Inf(1), 0}}, "a limit below 0": {{1, -1}},
	} {
		opt := DefaultOptions()
		opt.Mix = mix
		if _, err := Open([]string{path}, opt); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestMixFingerprint wants a mix to count where it changes what is read, and only there.
func TestMixFingerprint(t *testing.T) {
	paths := []string{writeRows(t, "rows.jsonl", mixRow("a", "")), writeRows(t, "rows.jsonl", mixRow("b", ""))}
	seen := map[string]string{}
	for _, tc := range []struct {
		name string
		mix  []Share
		same string // as that of an earlier case
	}{
		{"none", nil, ""},
		{"all whole", []Share{{1, 0}, {1, 0}}, "none"},
		{"a weight", []Share{{2, 0}, {1, 0}}, ""},
		{"the other's weight", []Share{{1, 0}, {2, 0}}, ""},
		{"a limit", []Share{{1, 0}, {1, 2}}, ""},
	} {
		sum, err := Fingerprint(context.Background(), paths, tc.mix...)
		if err != nil {
			t.Fatal(err)
		}
		if seen[sum] != tc.same {
			t.Errorf("%s: the fingerprint is that of %q, want %q", tc.name, seen[sum], tc.same)
		}
		if tc.same == "" {
			seen[sum] = tc.name
		}
	}
}
