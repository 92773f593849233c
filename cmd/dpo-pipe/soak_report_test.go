//go:build cgo && linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dpo-pipe/dpo-pipe/job"
)

// soakGrowth is how much more the last third of the runs may take than the first, of memory
// and of what lies in the job's folder: data and faults differ from day to day.
const soakGrowth = 1.15

// soakReport is what was seen.
type soakReport struct {
	faults    []string
	codes     map[string]map[int]int
	of        map[int]int
	peaks     []int64 // bytes resident of runs that came to their end
	fds       []int
	files     []int64 // behind every run
	bytes     []int64
	records   int64
	leftovers int // at most, behind a run that did not end
	published int
	compared  int
	equal     int     // of those compared, to a fresh job byte for byte
	farthest  float64 // of their caches from fresh ones
	rollbacks int
	mended    int
	busy      int
}

func newSoakReport() soakReport {
	return soakReport{codes: map[string]map[int]int{}, of: map[int]int{}}
}

func (r *soakReport) count(f soakFault, result soakResult) {
	if r.codes[f.name] == nil {
		r.faults = append(r.faults, f.name)
		r.codes[f.name] = map[int]int{}
	}
	r.codes[f.name][result.code]++
	r.of[result.code]++
}

func (r *soakReport) times(f soakFault) (n int) {
	for _, times := range r.codes[f.name] {
		n += times
	}
	return n
}

func (r *soakReport) measure(s *soak, result soakResult, finished bool) {
	files, bytes, records := s.size()
	r.files, r.bytes, r.records = append(r.files, files), append(r.bytes, bytes), records
	if finished {
		r.peaks, r.fds = append(r.peaks, result.peak), append(r.fds, result.descriptors)
	}
}

// check compares the last third of the runs with the first.
func (r *soakReport) check(s *soak) {
	if len(r.peaks) < 30 {
		return
	}
	grew := func(what string, first, last float64) {
		if last > soakGrowth*first {
			s.fail("%s grew from %.0f to %.0f", what, first, last)
		}
	}
	first, last := thirds(r.peaks)
	grew("peak memory", mean(first), mean(last))
	files, more := thirds(r.files)
	grew("the number of files", float64(slices.Max(files)), float64(slices.Max(more)))
	size, larger := thirds(r.bytes)
	grew("the size of the job's folder", float64(slices.Max(size)), float64(slices.Max(larger)))
	// What is open for a moment is seen by chance, so the most of a third says little.
	few, many := thirds(r.fds)
	grew("descriptors", mean(few), mean(many))
}

func thirds[T any](all []T) (first, last []T) { return all[:len(all)/3], all[len(all)-len(all)/3:] }

func mean[T int | int64](all []T) float64 {
	sum := 0.0
	for _, x := range all {
		sum += float64(x)
	}
	return sum / float64(max(1, len(all)))
}

// table is what a soak prints.
func (r *soakReport) table(all []job.Result, took time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| fault | runs | exit codes |\n| --- | --- | --- |\n")
	for _, name := range slices.Sorted(slices.Values(r.faults)) {
		codes := r.codes[name]
		n := 0
		var text []string
		for _, code := range slices.Sorted(maps.Keys(codes)) {
			n += codes[code]
			if code < 0 {
				text = append(text, fmt.Sprintf("killed × %d", codes[code]))
				continue
			}
			text = append(text, fmt.Sprintf("%d × %d", code, codes[code]))
		}
		fmt.Fprintf(&b, "| %s | %d | %s |\n", name, n, strings.Join(text, ", "))
	}
	resumed := 0
	for _, one := range all {
		resumed += one.Attempts - 1
	}
	runs := len(r.files)
	fmt.Fprintf(&b, "\n%d runs in %.1f minutes: %d published, %d refused by a gate, %d interrupted or killed, %d resumed, %d second starts turned away\n",
		runs, took.Minutes(), r.published, r.of[exitGate], r.of[exitInterrupted]+r.of[exitTimeUp]+r.of[-1], resumed, r.busy)
	fmt.Fprintf(&b, "%d policies compared with those of jobs without faults: all equal over the same cache, %d over a fresh one, from which numbers are at most %.1e\n",
		r.compared, r.equal, r.farthest)
	fmt.Fprintf(&b, "%d rollbacks, %d damaged files mended by hand\n", r.rollbacks, r.mended)
	if len(r.peaks) < 3 {
		return b.String()
	}
	firstPeak, lastPeak := thirds(r.peaks)
	firstFDs, lastFDs := thirds(r.fds)
	fmt.Fprintf(&b, "peak memory, mean of the first and last third: %.1f and %.1f MB; at most %.1f MB; descriptors %.1f and %.1f, at most %d and %d\n",
		mean(firstPeak)/1e6, mean(lastPeak)/1e6, float64(slices.Max(r.peaks))/1e6, mean(firstFDs), mean(lastFDs), slices.Max(firstFDs), slices.Max(lastFDs))
	firstFiles, lastFiles := thirds(r.files)
	firstBytes, lastBytes := thirds(r.bytes)
	fmt.Fprintf(&b, "files beside records, at most in the first and last third: %d and %d, %.1f and %.1f MB; records %.1f kB a run; left over by a killed run at most %d\n",
		slices.Max(firstFiles), slices.Max(lastFiles), float64(slices.Max(firstBytes))/1e6, float64(slices.Max(lastBytes))/1e6,
		float64(r.records)/1e3/float64(max(1, len(all))), r.leftovers)
	return b.String()
}
