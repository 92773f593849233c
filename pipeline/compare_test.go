package pipeline

import (
	"context"
	"testing"
)

func TestCompareLeavesOutTheEndToken(t *testing.T) {
	w := newWorld(t)
	w.rt.says = "hello"
	for limit, want := range map[int]string{1: "h", 4: "hell", 5: "hello", 6: "hello", 60: "hello"} {
		cfg := CompareConfig{Model: w.path("model"), Policy: w.path("model"), Prompts: []string{"a, b"}, MaxTokens: limit}
		all, err := Compare(context.Background(), cfg, w.rt)
		must(t, err)
		if len(all) != 1 || all[0] != (Comparison{Prompt: "a, b", Reference: want, Policy: want}) {
			t.Errorf("at most %d tokens: %+v, want %q from both", limit, all, want)
		}
	}
}
