//go:build cgo && unix

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
)

// scaleVariable holds how many pairs BenchmarkScalePairs runs on, separated by blanks, and
// makes the other scales full; else they are small and show that they run.
const scaleVariable = "DPO_PIPE_SCALE_PAIRS"

// scaled returns full where scales are to be full, else small.
func scaled[T any](small, full T) T {
	if os.Getenv(scaleVariable) == "" {
		return small
	}
	return full
}

// scale sums what commands cost over the rounds of a benchmark.
type scale struct {
	*testing.B
	dir   string
	round int
}

// each runs one round after another, with their outputs under names of their own.
func (s *scale) each(round func(out string)) {
	for s.Loop() {
		s.round++
		round(strconv.Itoa(s.round))
	}
	s.ReportMetric(0, "ns/op") // the measured processes count, not the one that waits
}

// run runs a command and reports its cost: seconds of all processors, and microseconds
// for each of n things, as means of the rounds; and the largest peak of resident memory in MB.
func (s *scale) run(costs *cost, n int, of string, args ...string) {
	c := costOf(s, s.dir, args...)
	costs.CPU += c.CPU
	costs.Peak = max(costs.Peak, c.Peak)
	seconds := costs.CPU / float64(s.round)
	s.ReportMetric(seconds, args[0]+"-cpu-s")
	s.ReportMetric(1e6*seconds/float64(n), args[0]+"-cpu-µs/"+of)
	s.ReportMetric(float64(costs.Peak)/1e6, args[0]+"-peak-MB")
}

// both runs the reference pass and a training on its cache, which cost ref and train things.
func (s *scale) both(model, data string, ref, train int, of string, flags ...string) {
	var pass, training cost
	s.each(func(out string) {
		s.run(&pass, ref, of, append([]string{"precompute-ref", "--model", model, "--data", data, "--out", "cache-" + out}, flags...)...)
		s.run(&training, train, of, "train", "--cache", "cache-"+out, "--out", "run-"+out)
	})
}

// BenchmarkScalePairs is the cost against the number of pairs: those of the built-in data
// again and again under other ids, with the built-in model.
func BenchmarkScalePairs(b *testing.B) {
	dir := b.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		b.Fatal(err)
	}
	for _, size := range strings.Fields(scaled("100", os.Getenv(scaleVariable))) {
		n, err := strconv.Atoi(size)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("pairs="+size, func(b *testing.B) {
			s := scale{B: b, dir: b.TempDir()}
			if err := repeatPairs(filepath.Join(dir, demo.DataFile), filepath.Join(s.dir, "pairs.jsonl"), 1000, n); err != nil {
				b.Fatal(err)
			}
			s.both(filepath.Join(dir, demo.ModelDir), "pairs.jsonl", n, n, "pair", "--column-id", "nr")
		})
	}
}

// BenchmarkScaleTokens is the cost against the length of completions, of as many tokens in
// all. A token is one of prompts and completions to the reference pass, and one of
// completions to training.
func BenchmarkScaleTokens(b *testing.B) {
	const prompt = 16
	model := &referenceBench{referenceShape: benchShape(), dir: b.TempDir()}
	model.write(b)
	for _, length := range scaled([]int{2, 32}, []int{2, 8, 32, 128, 512, 2048}) {
		pairs := scaled(512, 1<<16) / (2 * length)
		b.Run(fmt.Sprintf("model=%s/tokens=%d", model.name, length), func(b *testing.B) {
			s := scale{B: b, dir: b.TempDir()}
			writeLengths(b, filepath.Join(s.dir, "pairs.jsonl"), pairs, prompt, length)
			s.both(model.dir, "pairs.jsonl", pairs*(prompt+2*length), pairs*2*length, "token",
				"--chat-template", "none", "--max-length", "4096")
		})
	}
}

// writeLengths writes pairs in letters, whose completions have length tokens with the end token.
func writeLengths(b *testing.B, path string, pairs, prompt, length int) {
	rng := rand.New(rand.NewPCG(1, 2))
	letters := func(n int) string {
		text := make([]byte, n)
		for i := range text {
			text[i] = byte('a' + rng.IntN(26))
		}
		return string(text)
	}
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	encoder := json.NewEncoder(f)
	for i := range pairs {
		first := i % 25 // the other begins with the next letter: equal completions would be refused
		p := conversation{letters(prompt), string(rune('a'+first)) + letters(length-2), string(rune('b'+first)) + letters(length-2)}
		if err := encoder.Encode(p); err != nil {
			b.Fatal(err)
		}
	}
}

// scaleHead is a frozen head and the rank that is trained on it.
type scaleHead struct{ d, v, rank int }

// BenchmarkScaleHead is the cost of training against the sizes of the head, and the peak of
// memory at the largest.
func BenchmarkScaleHead(b *testing.B) {
	rt, err := newRuntime(runtimeOptions{provider: "cpu"})
	if err != nil {
		b.Fatal(err)
	}
	heads := scaled([]scaleHead{{64, 512, 4}}, []scaleHead{
		{128, 512, 16},
		{128, 4096, 16},
		{128, 32768, 16},
		{128, 128256, 16},
		{576, 49152, 4},
		{576, 49152, 16},
		{576, 49152, 64},
		{576, 49152, 128},
		{2048, 128256, 16},
	})
	const tokens = 40
	for _, h := range heads {
		pairs := 64
		if h.d*h.v > 1<<27 {
			pairs = 16 // a step is enough for the peak
		}
		b.Run(fmt.Sprintf("D=%d/V=%d/R=%d", h.d, h.v, h.rank), func(b *testing.B) {
			s := scale{B: b, dir: b.TempDir()}
			writeRandomCache(b, rt, filepath.Join(s.dir, "cache"), h.d, h.v, pairs, tokens)
			var training cost
			s.each(func(out string) {
				s.run(&training, pairs*2*tokens, "token", "train", "--cache", "cache", "--out", "run-"+out, "--rank", strconv.Itoa(h.rank))
			})
		})
	}
}
