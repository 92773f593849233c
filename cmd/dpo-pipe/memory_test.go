//go:build cgo && linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
)

// memorySlack is how much more the largest data set may take: ten per cent, for
// the garbage collector's moments.
const memorySlack = 1.10

// TestMemoryDoesNotGrowWithTheData runs both stages on pairs repeated 1, 10 and
// 100 times, and an update of the cache to some pairs more, and compares the peaks of
// resident memory. Ids tell the repeated pairs apart.
func TestMemoryDoesNotGrowWithTheData(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("takes minutes, and measures nothing under the race detector")
	}
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	once := filepath.Join(dir, "once.jsonl")
	if err := fewPairs(filepath.Join(dir, demo.DataFile), once, "128"); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(once)
	if err != nil {
		t.Fatal(err)
	}
	rows := bytes.SplitAfter(bytes.TrimSpace(data), []byte("\n"))
	// pairs writes the first rows of the repeated data, with ids.
	pairs := func(name string, to int) {
		var all bytes.Buffer
		for i := range to {
			fmt.Fprintf(&all, "{\"nr\": \"%d\", %s\n", i, bytes.TrimSpace(rows[i%len(rows)])[1:])
		}
		if err := os.WriteFile(filepath.Join(dir, name), all.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	peaks := map[string][]int64{}
	for _, times := range []int{1, 10, 100} {
		name := fmt.Sprintf("pairs-%d.jsonl", times)
		pairs(name, times*len(rows))
		cache := fmt.Sprint("cache-", times)
		precompute := []string{"precompute-ref", "--model", "model", "--data", name, "--out", cache, "--column-id", "nr", "--part-pairs", "32", "--batch-tokens", "1024"}
		peaks["precompute-ref"] = append(peaks["precompute-ref"], peakMemory(t, dir, precompute...))
		pairs(name, times*len(rows)+len(rows)/2)
		peaks["update"] = append(peaks["update"], peakMemory(t, dir, precompute...))
		peaks["train"] = append(peaks["train"], peakMemory(t, dir, "train", "--cache", cache, "--out", fmt.Sprint("run-", times), "--batch-pairs", "4"))
	}
	for stage, p := range peaks {
		t.Logf("%s: %d, %d, %d kB for 128, 1,280 and 12,800 pairs", stage, p[0], p[1], p[2])
		if float64(p[2]) > memorySlack*float64(p[0]) {
			t.Errorf("%s takes %d kB for 128 pairs and %d kB for 12,800, want at most %.0f %% more", stage, p[0], p[2], 100*(memorySlack-1))
		}
	}
}

// peakMemory runs the program and returns its largest resident set in kB.
func peakMemory(t *testing.T, dir string, args ...string) int64 {
	t.Helper()
	cmd := command(context.Background(), t, dir, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
}
