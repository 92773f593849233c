//go:build cgo && linux

package main

import (
	"fmt"
	"path/filepath"
	"runtime"
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
	const once = 128
	peaks := map[string][]int64{}
	for _, times := range []int{1, 10, 100} {
		data := fmt.Sprintf("pairs-%d.jsonl", times)
		pairs := func(n int) {
			if err := repeatPairs(filepath.Join(dir, demo.DataFile), filepath.Join(dir, data), once, n); err != nil {
				t.Fatal(err)
			}
		}
		measure := func(stage string, args ...string) {
			peaks[stage] = append(peaks[stage], costOf(t, dir, args...).Peak)
		}
		cache := fmt.Sprint("cache-", times)
		precompute := []string{"precompute-ref", "--model", "model", "--data", data, "--out", cache, "--column-id", "nr", "--part-pairs", "32", "--batch-tokens", "1024"}
		pairs(times * once)
		measure("precompute-ref", precompute...)
		pairs(times*once + once/2)
		measure("update", precompute...)
		measure("train", "train", "--cache", cache, "--out", fmt.Sprint("run-", times), "--batch-pairs", "4")
	}
	for stage, p := range peaks {
		t.Logf("%s: %d, %d, %d kB for 128, 1,280 and 12,800 pairs", stage, p[0]>>10, p[1]>>10, p[2]>>10)
		if float64(p[2]) > memorySlack*float64(p[0]) {
			t.Errorf("%s takes %d kB for 128 pairs and %d kB for 12,800, want at most %.0f %% more", stage, p[0]>>10, p[2]>>10, 100*(memorySlack-1))
		}
	}
}

// TestMeasuringAddsNothing: what a small command costs does not depend on what the test has
// in memory.
func TestMeasuringAddsNothing(t *testing.T) {
	ballast := make([]byte, 1<<28)
	for i := 0; i < len(ballast); i += 1 << 12 {
		ballast[i] = 1
	}
	if c := costOf(t, t.TempDir(), "objectives"); c.Peak > int64(len(ballast))/2 || c.Peak == 0 || c.CPU == 0 {
		t.Errorf("objectives takes %d kB and %g s, with %d kB in the test", c.Peak>>10, c.CPU, len(ballast)>>10)
	}
	runtime.KeepAlive(ballast)
}
