package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/loss"
)

func TestByGap(t *testing.T) {
	for _, tt := range []struct {
		name  string
		gaps  []float64
		right string // x where the pair is right
		want  []GapSlice
	}{
		{"none", nil, "", []GapSlice{}},
		{"one", []float64{2}, "x", []GapSlice{{2, 2, 1, 1}}},
		{"four, unsorted", []float64{4, 1, 3, 2}, "x..x", []GapSlice{{1, 1, 1, 0}, {2, 2, 1, 1}, {3, 3, 1, 0}, {4, 4, 1, 1}}},
		{"all the same", []float64{1, 1, 1, 1, 1}, "x.x..", []GapSlice{{1, 1, 5, 0.4}}},
		// Of eight, the first two buckets of two end inside the ones.
		{
			"ties over two buckets",
			[]float64{0, 1, 1, 1, 2, 3, 4, 5},
			".x.xxx..",
			[]GapSlice{{0, 1, 4, 0.5}, {2, 3, 2, 1}, {4, 5, 2, 0}},
		},
		{"negative", []float64{-1, 0.5}, ".x", []GapSlice{{-1, -1, 1, 0}, {0.5, 0.5, 1, 1}}},
	} {
		var b breakdown
		for i, gap := range tt.gaps {
			b.gaps = append(b.gaps, scoredPair{gap, tt.right[i] == 'x'})
		}
		if diff := cmp.Diff(b.byGap(), tt.want); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestBySource(t *testing.T) {
	b := breakdown{sources: map[string]*loss.Metrics{}}
	for _, p := range []struct {
		source string
		margin float64
	}{{"web", 1}, {"", -1}, {"books", 2}, {"web", -2}, {"web", 4}, {"", 0}} {
		b.count(&datasets.Pair{Source: p.source}, marginPair(t, p.margin))
	}
	want := []SourceSlice{{"web", 3, 2. / 3, 1}, {"(none)", 2, 0, -0.5}, {"books", 1, 1, 2}}
	if diff := cmp.Diff(b.bySource(), want); diff != "" {
		t.Error(diff)
	}
	b.sources = map[string]*loss.Metrics{}
	b.count(&datasets.Pair{}, marginPair(t, 1))
	if got := b.bySource(); got == nil || len(got) != 0 {
		t.Errorf("data without sources gives %v", got)
	}
	for i := range maxSources + 5 {
		b.count(&datasets.Pair{Source: fmt.Sprint(i)}, marginPair(t, 1))
	}
	got := b.bySource()
	if len(got) != maxSources+1 || got[0].Source != otherSources || got[0].Pairs != 6 {
		t.Errorf("%d sources, the largest %+v; want %d and the rest together", len(got), got[0], maxSources+1)
	}
}

// Sources and scores are joined with the pairs they belong to, past rows that
// were refused; other data is refused.
func TestEvaluateBySourceAndGap(t *testing.T) {
	w := newWorld(t)
	var rows strings.Builder
	for i := range 24 {
		if i%5 == 2 {
			rows.WriteString(`{"prompt": "p", "chosen": "a"}` + "\n")
		}
		// One pair in three teaches the contrary.
		source, chosen, rejected := "easy", "aaa", "zzz"
		if i%3 == 0 {
			source, chosen, rejected = "odd", "zzz", "aaa"
		}
		fmt.Fprintf(&rows, `{"prompt": "q%d:", "chosen": "%s%d", "rejected": "%s%d", "origin": "%s", "score_chosen": %d, "score_rejected": 1}`+"\n",
			i, chosen, i, rejected, i, source, 2+i%3)
	}
	w.write("sourced.jsonl", rows.String())
	pre := w.precomputeConfig(w.path("sourced.jsonl"))
	pre.MaxBadFrac, pre.Reading.Columns.Source = 0.5, "origin"
	_, err := Precompute(context.Background(), pre, w.rt, nil)
	must(t, err)
	cfg := w.trainConfig(pre.Out)
	cfg.Epochs, cfg.LR = 8, 0.02
	_, err = Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	e := EvalConfig{Cache: cfg.Cache, Checkpoint: filepath.Join(cfg.Out, lastName), All: true, Data: pre.Data}
	r := evaluated(t, e)
	// Two thirds of the pairs teach that a is better: the others are what it gets wrong.
	if len(r.Sources) != 2 || r.Sources[0].Source != "easy" || r.Sources[0].Pairs != 16 || r.Sources[1].Source != "odd" || r.Sources[1].Pairs != 8 {
		t.Fatalf("sources are %+v, want 16 easy and 8 odd", r.Sources)
	}
	if r.Sources[0].Accuracy != 1 || r.Sources[1].Accuracy != 0 {
		t.Errorf("accuracies are %+v, want all of the easy ones and none of the odd", r.Sources)
	}
	// The gap is 1 exactly where the source is odd.
	want := []GapSlice{{1, 1, 8, 0}, {2, 2, 8, 1}, {3, 3, 8, 1}}
	if diff := cmp.Diff(r.ScoreGaps, want); diff != "" {
		t.Error(diff)
	}
	e.All = false
	r = evaluated(t, e)
	held := 0
	for _, s := range r.Sources {
		held += s.Pairs
	}
	if int64(held) != r.Pairs || held == 0 || held == 24 {
		t.Errorf("sources hold %d pairs, evaluated are %d held-out ones", held, r.Pairs)
	}
	e.Data, e.Engine = []string{w.pairs("others.jsonl", 24)}, "gonum"
	var stale *refcache.StaleError
	if _, err := Evaluate(context.Background(), e, gonumEngine, nil); !errors.As(err, &stale) || stale.Key != "data" {
		t.Errorf("with other data: error is %v, want a *StaleError of data", err)
	}
}
