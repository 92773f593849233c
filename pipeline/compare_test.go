package pipeline

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func (w *world) compareConfig(prompts ...string) CompareConfig {
	cfg := DefaultCompareConfig()
	cfg.Model, cfg.Policy, cfg.Prompts = w.path("model"), w.path("model"), prompts
	return cfg
}

func TestCompareLeavesOutTheEndToken(t *testing.T) {
	w := newWorld(t)
	w.rt.says = "hello"
	for limit, want := range map[int]string{1: "h", 4: "hell", 5: "hello", 6: "hello", 60: "hello"} {
		cfg := w.compareConfig("a, b")
		cfg.MaxTokens = limit
		all, err := Compare(context.Background(), cfg, w.rt, nil)
		must(t, err)
		ids := bytesAsIDs(w.rt.says + "\x00")[:min(limit, len(w.rt.says)+1)]
		if limit > len(w.rt.says) {
			ids[len(w.rt.says)] = worldVocabulary - 1 // the end token is among the tokens
		}
		if d := cmp.Diff([]Comparison{{"a, b", want, want, bytesAsIDs("a, b"), ids, ids}}, all); d != "" {
			t.Errorf("at most %d tokens, -want +got:\n%s", limit, d)
		}
	}
}

// bytesAsIDs are the tokens of a text in the world's tokenizer.
func bytesAsIDs(text string) (ids []int32) {
	for _, b := range []byte(text) {
		ids = append(ids, int32(b))
	}
	return ids
}

// What is shown while it is written adds up to the completion, whole characters
// at a time: é and 日 are several tokens here.
func TestCompareShowsWholeCharacters(t *testing.T) {
	w := newWorld(t)
	w.rt.says = "né 日本"
	var pieces []string
	_, err := Compare(context.Background(), w.compareConfig("p"), w.rt, func(who, piece string) {
		if who == "policy" {
			pieces = append(pieces, piece)
		}
	})
	must(t, err)
	if got := strings.Join(pieces, ""); got != w.rt.says || pieces[len(pieces)-1] != "" {
		t.Errorf("pieces are %q, want %q and an empty one at the end", pieces, w.rt.says)
	}
	for _, p := range pieces {
		if strings.ContainsRune(p, 0xfffd) {
			t.Errorf("piece %q holds half a character", p)
		}
	}
}

func TestComparePromptsFromFilesAndRuns(t *testing.T) {
	w := newWorld(t)
	train := w.trainConfig(w.cache(40))
	_, err := Train(context.Background(), train, gonumEngine, nil)
	must(t, err)
	w.write("prompts.txt", "one\n\ntwo\nthree\n")
	for name, tt := range map[string]struct {
		set  func(*CompareConfig)
		want func(prompt string) bool
		n    int
	}{
		"lines": {func(c *CompareConfig) { c.File, c.Limit = w.path("prompts.txt"), 2 }, func(p string) bool { return p == "one" || p == "two" }, 2},
		"data":  {func(c *CompareConfig) { c.File, c.Limit = w.path("pairs.jsonl"), 3 }, func(p string) bool { return p == "q0:" || p == "q1:" || p == "q2:" }, 3},
		"run": {func(c *CompareConfig) { c.Run, c.Limit = train.Out, 100 }, func(p string) bool {
			var n int
			_, err := fmt.Sscanf(p, "q%d:", &n)
			return err == nil
		}, -1},
	} {
		cfg := w.compareConfig()
		tt.set(&cfg)
		all, err := Compare(context.Background(), cfg, w.rt, nil)
		must(t, err)
		if tt.n >= 0 && len(all) != tt.n || len(all) == 0 || len(all) == 20 {
			t.Errorf("%s: %d prompts", name, len(all))
		}
		seen := map[string]bool{}
		for _, c := range all {
			if !tt.want(c.Prompt) || seen[c.Prompt] {
				t.Errorf("%s: prompt %q is not wanted, or comes twice", name, c.Prompt)
			}
			seen[c.Prompt] = true
		}
	}
}
