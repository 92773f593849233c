//go:build cgo

package main

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/demo"
)

// batchTolerance is how far a pair's numbers may move with the pairs that it shares batches
// with: sums in another order in float32, about 1e-6 of values around 20, through a
// few layers. Log-probs are in nats; features are relative to 1 and more.
const batchTolerance = 1e-4

// TestUpdateIsAFreshPassOfAModel brings caches of models to data in which pairs came at all
// places and some left. Pairs that stayed keep their bits; the others are those of a fresh
// pass, whose batches are different ones.
func TestUpdateIsAFreshPassOfAModel(t *testing.T) {
	built := t.TempDir()
	if err := demo.WriteTo(built); err != nil {
		t.Fatal(err)
	}
	shared := filepath.Join("..", "..", "..", "shared")
	for name, from := range map[string][2]string{
		"built-in":    {filepath.Join(built, "model"), filepath.Join(built, demo.DataFile)},
		"stories260K": {filepath.Join(shared, "models/stories260K"), filepath.Join(shared, "data/stories-sentiment/test.jsonl")},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(from[1])
			if err != nil {
				t.Skip(err)
			}
			rows := bytes.SplitAfter(data, []byte("\n"))
			model, err := filepath.Abs(from[0])
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			run := func(out string, rows [][]byte) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(dir, "pairs.jsonl"), bytes.Join(rows, nil), 0o666); err != nil {
					t.Fatal(err)
				}
				cmd := command(context.Background(), t, dir, "precompute-ref", "--model", model, "--data", "pairs.jsonl", "--out", out,
					"--part-pairs", "16", "--features", "f32", "--prune")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			edited := slices.Concat(rows[70:75], rows[:20], rows[25:35], rows[75:85], rows[35:60], rows[85:95])
			run("old", rows[:60])
			run("cache", rows[:60])
			run("cache", edited)
			run("fresh", edited)
			old, cache, fresh := openCache(t, dir, "old"), openCache(t, dir, "cache"), openCache(t, dir, "fresh")
			if a, b := cache.Manifest().Counts, fresh.Manifest().Counts; !cmp.Equal(a, b) {
				t.Errorf("counts are %+v, want %+v", a, b)
			}
			compareRows(t, old, cache, fresh)
		})
	}
}

func openCache(t *testing.T, dir, name string) *refcache.Reader {
	t.Helper()
	r, err := refcache.Open(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// compareRows wants the rows of fresh in cache, those of old among them with old's bits.
func compareRows(t *testing.T, old, cache, fresh *refcache.Reader) {
	t.Helper()
	kept := map[[16]byte]refcache.Row{}
	for i := range old.Len() {
		var row refcache.Row
		if err := old.Row(i, &row); err != nil {
			t.Fatal(err)
		}
		kept[row.Content()] = row
	}
	reused, farthest := 0, 0.0
	for i := range cache.Len() {
		var got, want refcache.Row
		if err := cache.Row(i, &got); err != nil {
			t.Fatal(err)
		}
		if err := fresh.Row(i, &want); err != nil {
			t.Fatal(err)
		}
		if got.Content() != want.Content() {
			t.Fatalf("row %d is another pair", i)
		}
		if row, ok := kept[got.Content()]; ok {
			reused++
			if !cmp.Equal(row, got) {
				t.Errorf("row %d is not that of the old cache", i)
			}
		}
		farthest = max(farthest, distance(got.ChosenRefLogps, want.ChosenRefLogps), distance(got.RejectedRefLogps, want.RejectedRefLogps),
			distance(got.ChosenFeatures, want.ChosenFeatures), distance(got.RejectedFeatures, want.RejectedFeatures))
	}
	t.Logf("%d of %d pairs reused; numbers are at most %.1e from those of a fresh pass", reused, cache.Len(), farthest)
	if reused != 55 || !(farthest <= batchTolerance) {
		t.Errorf("%d pairs reused, want 55; numbers are up to %g from those of a fresh pass, allowed %g", reused, farthest, batchTolerance)
	}
}

// distance is the largest difference of two lists, relative to values above 1; NaN and
// lists of different lengths are infinitely far.
func distance(a, b []float32) (far float64) {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	for i := range a {
		d := math.Abs(float64(a[i])-float64(b[i])) / max(1, math.Abs(float64(b[i])))
		if far = max(far, d); math.IsNaN(d) {
			return math.Inf(1)
		}
	}
	return far
}
