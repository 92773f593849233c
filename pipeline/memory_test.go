package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/models"
)

func TestFirstBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"MemTotal:       24099876 kB\nMemFree: 1 kB\n": 24099876 << 10, "8589934592\n": 8589934592, "max\n": 0, "": 0,
	} {
		if got := firstBytes(text); got != want {
			t.Errorf("%q gives %d, want %d", text, got, want)
		}
	}
	if m := defaultMemory(); m < leastMemory || m > mostMemory {
		t.Errorf("the default is %d bytes", m)
	}
}

// Four pairs on each of two prompts of 30 tokens. With memory the 8 completions behind a prompt cost
// it once; without, each is a whole text. The log-probs are the model's either way.
func TestLessMemoryMeansLessSharing(t *testing.T) {
	w := newWorld(t)
	var rows strings.Builder
	for i := range 8 {
		fmt.Fprintf(&rows, `{"prompt": "%s", "chosen": "%c", "rejected": "%c"}`+"\n", strings.Repeat(string(rune('p'+i%2)), 30), 'a'+i, 'A'+i)
	}
	w.write("pairs.jsonl", rows.String())
	// Two tokens of completion each, with the end; the last is not run.
	const whole, once = 16 * 31, 2*30 + 16
	for memory, want := range map[int64]int64{1: whole, 4 * 4 * 2 * 29: whole, 4 * 4 * 2 * 30: once, 1 << 30: once} {
		cfg := w.precomputeConfig(w.path("pairs.jsonl"))
		cfg.Memory, cfg.PartPairs, cfg.Out, cfg.Features = memory, 8, w.path(fmt.Sprint("cache-", memory)), refcache.F32
		result, err := Precompute(context.Background(), cfg, w.rt, nil)
		must(t, err)
		if result.Tokens != want || result.SequenceTokens != whole || result.SharedShare != 1-float64(want)/whole {
			t.Errorf("memory %d: %d of %d tokens were run, a share of %g saved; want %d of %d",
				memory, result.Tokens, result.SequenceTokens, result.SharedShare, want, whole)
		}
		checkLogps(t, w, cfg.Out)
		cfg.Memory++
		var stale *refcache.StaleError
		if _, err := Precompute(context.Background(), cfg, w.rt, nil); !errors.As(err, &stale) || stale.Key != "memory" {
			t.Errorf("memory %d: error is %v, want a stale memory", cfg.Memory, err)
		}
	}
}

// checkLogps compares every log-prob of a cache of float32 features with the model's.
func checkLogps(t *testing.T, w *world, path string) {
	t.Helper()
	cache, err := refcache.Open(path)
	must(t, err)
	defer cache.Close()
	var row refcache.Row
	for i := range cache.Len() {
		must(t, cache.Row(i, &row))
		for _, chosen := range []bool{true, false} {
			ids, logps, _ := completionRow(&row, chosen)
			for k, want := range w.decoder.Logps(slices.Concat(row.Prompt, ids), len(row.Prompt)) {
				if d := math.Abs(float64(logps[k]) - want); !(d <= float32Logps) {
					t.Errorf("row %d token %d: log-prob %.6f, want %.6f ± %g", i, k, logps[k], want, float32Logps)
				}
			}
		}
	}
}

// A completion that several pairs have on one prompt is run and scored once, and every pair gets it.
func TestEqualSequencesAreOne(t *testing.T) {
	w := newWorld(t)
	w.write("pairs.jsonl", `{"prompt": "p", "chosen": "a", "rejected": "b"}
{"prompt": "p", "chosen": "a", "rejected": "c"}
{"prompt": "p", "chosen": "c", "rejected": "a"}
`)
	cfg := w.precomputeConfig(w.path("pairs.jsonl"))
	cfg.Features = refcache.F32
	result, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	if result.Tokens != 3*2 || result.SequenceTokens != 6*2 {
		t.Errorf("%d of %d tokens were run, want 6 of 12", result.Tokens, result.SequenceTokens)
	}
	checkLogps(t, w, cfg.Out)
}

// A window is as long as what has to be run: a prompt that every pair has counts once.
func TestASharedPromptCountsOnce(t *testing.T) {
	pair := encode.Pair{Prompt: []int32{1, 2, 3, 4}}
	before := []encode.Pair{{Prompt: []int32{1, 2, 5}}}
	for _, c := range []struct {
		kind   models.Continuation
		window []encode.Pair
		want   int64
	}{
		{models.NoContinuation, before, 8},
		{models.NoContinuation, nil, 8},
		{models.AnyPast, nil, 4},
		{models.AnyPast, before, 2},
		{models.OneByOne, []encode.Pair{pair}, 0},
	} {
		rt := &fakeRuntime{traits: models.Traits{Continuation: c.kind}}
		p := &precompute{ref: &reference{transformer: transformer{backbone: fakeBackbone{rt}}}}
		if got := p.promptTokens(c.window, pair); got != c.want {
			t.Errorf("%s behind %v: %d tokens, want %d", c.kind, c.window, got, c.want)
		}
	}
}
