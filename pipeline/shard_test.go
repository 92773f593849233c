package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// mixedPairs are n rows of which some can't be used: the parts of the cache depend on them.
func (w *world) mixedPairs(name string, n int) string {
	var b strings.Builder
	for i := range n {
		chosen := strings.Repeat("a", 1+i%4)
		if i%7 == 3 {
			chosen = "z" // both completions are the same
		}
		fmt.Fprintf(&b, `{"prompt": "q%d:", "chosen": " %s", "rejected": " z"}`+"\n", i/2, chosen)
	}
	w.write(name, b.String())
	return w.path(name)
}

// split runs every shard of a pass and joins them.
func (w *world) split(cfg PrecomputeConfig, of int) {
	w.t.Helper()
	for i := range of {
		cfg.Shards, cfg.Shard = of, i
		result, err := Precompute(context.Background(), cfg, w.rt, nil)
		must(w.t, err)
		if *result.Shard != (refcache.Shard{Index: i, Of: of}) || result.Joined {
			w.t.Errorf("the result is of shard %v, joined %v", result.Shard, result.Joined)
		}
	}
	joined, err := Join(context.Background(), JoinConfig{Out: cfg.Out}, nil)
	must(w.t, err)
	if joined.Shards != of {
		w.t.Errorf("joined %d shards, want %d", joined.Shards, of)
	}
}

// A pass that is split has the bytes of one that is not, also where rows are dropped, the
// data is cut off, or there are more shards than parts.
func TestJoinedShardsAreThePassOfOneProcess(t *testing.T) {
	for _, tc := range []struct {
		name  string
		limit int64
		parts int
	}{{"all", 0, 6}, {"limit at the end of a part", 20, 4}, {"limit inside a part", 18, 4}, {"one part", 3, 1}} {
		for _, of := range []int{1, 2, 3, 8} {
			t.Run(fmt.Sprintf("%s/shards=%d", tc.name, of), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				cfg := w.precomputeConfig(w.mixedPairs("pairs.jsonl", 31))
				cfg.Limit, cfg.MaxBadFrac = tc.limit, 1
				result, err := Precompute(context.Background(), cfg, w.rt, nil)
				must(t, err)
				if result.Parts != tc.parts || result.Counts.Dropped.Rows() == 0 && tc.parts > 1 {
					t.Fatalf("the pass makes %d parts and drops %d rows, want %d parts, and drops", result.Parts, result.Counts.Dropped.Rows(), tc.parts)
				}
				want := tree(t, cfg.Out)
				cfg.Out = w.path("split")
				w.split(cfg, of)
				sameTree(t, tree(t, cfg.Out), want)
			})
		}
	}
}

// The same of random data, in shards and parts of random number and size.
func TestSplitProperty(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		for _, name := range []string{"cache", "split"} {
			must(w.t, os.RemoveAll(w.path(name)))
		}
		words := rapid.SliceOfN(rapid.StringMatching(`[1-9]=(no|[ab]{1,4})`), 1, 6).Draw(t, "data")
		cfg := w.precomputeConfig(w.path("rows.jsonl"))
		w.write("rows.jsonl", prefs(append(words, "0=a")...))
		cfg.MaxBadFrac, cfg.PartPairs = 1, rapid.IntRange(1, 4).Draw(t, "pairs of a part")
		_, err := Precompute(context.Background(), cfg, w.rt, nil)
		must(w.t, err)
		want := tree(w.t, cfg.Out)
		cfg.Out = w.path("split")
		w.split(cfg, rapid.IntRange(1, 3).Draw(t, "shards"))
		sameTree(w.t, tree(w.t, cfg.Out), want)
	})
}

// A shard that dies at any batch and is run again leaves the bytes of one that did not,
// and runs no batch of a whole part twice.
func TestShardResumesInTheSameBytes(t *testing.T) {
	w := newWorld(t)
	cfg := w.precomputeConfig(w.mixedPairs("pairs.jsonl", 40))
	cfg.Shards, cfg.Shard, cfg.MaxBadFrac = 2, 1, 1
	if last := w.killAtEveryBatch(cfg, 8); last.Resumed != last.Parts-1 {
		t.Errorf("killed at the last batch, %d of %d parts were kept", last.Resumed, last.Parts)
	}
}

// A shard that is finished, or whose cache is joined, runs no batch.
func TestFinishedShardIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	cfg := w.precomputeConfig(w.pairs("pairs.jsonl", 23))
	cfg.Shards = 2
	run := func() PrecomputeResult {
		t.Helper()
		result, err := Precompute(context.Background(), cfg, w.rt, nil)
		must(t, err)
		return result
	}
	run()
	want := tree(t, cfg.Out)
	w.rt.calls = 0
	if again := run(); again.Joined || again.Resumed != again.Parts || w.rt.calls > 0 {
		t.Errorf("a finished shard runs %d batches: %+v", w.rt.calls, again)
	}
	sameTree(t, tree(t, cfg.Out), want)
	w.split(cfg, 2)
	want = tree(t, cfg.Out)
	w.rt.calls = 0
	if again := run(); !again.Joined || again.Cache != cfg.Out || again.Counts.Kept != 23 || w.rt.calls > 0 {
		t.Errorf("a shard of a joined cache runs %d batches: %+v", w.rt.calls, again)
	}
	joined, err := Join(context.Background(), JoinConfig{Out: cfg.Out}, nil)
	if err != nil || joined.Shards != 0 || joined.Counts.Kept != 23 {
		t.Errorf("joined again: %+v, %v", joined, err)
	}
	sameTree(t, tree(t, cfg.Out), want)
}

// A shard that runs several times at once ends once or more, the others are refused or
// find nothing to do, and the bytes are those of one.
func TestShardTwiceAtOnce(t *testing.T) {
	w := newWorld(t)
	cfg := w.precomputeConfig(w.pairs("pairs.jsonl", 40))
	_, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	want := tree(t, cfg.Out)
	cfg.Out, cfg.Shards = w.path("split"), 2
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			cfg := cfg
			cfg.Shard = i % 2
			_, err := Precompute(context.Background(), cfg, w.rt, nil)
			_, locked := errors.AsType[*LockedError](err)
			if err != nil && !locked && !strings.Contains(err.Error(), "from another process meanwhile") {
				t.Errorf("shard %d: %v", cfg.Shard, err)
			}
		})
	}
	wg.Wait()
	w.split(cfg, 2)
	sameTree(t, tree(t, cfg.Out), want)
}

// Where a shard runs twice and the cache is joined under the slower one, that has nothing
// left to do.
func TestJoinedUnderARunningShard(t *testing.T) {
	w := newWorld(t)
	cfg := w.precomputeConfig(w.pairs("pairs.jsonl", 23))
	_, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	finished := w.path("finished")
	must(t, os.Rename(cfg.Out, finished))
	cfg.Shards = 2
	last := w.rt.calls/2 - 1
	w.rt.calls = 0
	w.rt.stop = func(call int) error {
		if call != last {
			return nil
		}
		// As refcache.Assemble does, and while the shard's writer goes on: shards go last, at once.
		if err := os.CopyFS(cfg.Out, os.DirFS(finished)); err != nil {
			return err
		}
		return atomicfile.RemoveDir(filepath.Join(cfg.Out, refcache.ShardsName))
	}
	result, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	if !result.Joined || result.Counts.Kept != 23 {
		t.Errorf("the result is %+v, want that of the joined cache", result)
	}
	sameTree(t, tree(t, cfg.Out), tree(t, finished))
}

func TestShardsAreRefused(t *testing.T) {
	shard := func(c *PrecomputeConfig) { c.Shards, c.Shard = 2, 1 }
	for _, tc := range []struct {
		name   string
		before func(c *PrecomputeConfig) // of a pass that is there
		stop   int                       // its batch that fails; 0 for none
		set    func(c *PrecomputeConfig)
		want   string
	}{
		{name: "index past the end", set: func(c *PrecomputeConfig) { c.Shards, c.Shard = 2, 2 }, want: "--shard is 2, want 0 to 1, as --shards is 2"},
		{name: "negative index", set: func(c *PrecomputeConfig) { c.Shards, c.Shard = 2, -1 }, want: "--shard is -1, want 0 to 1"},
		{name: "negative number", set: func(c *PrecomputeConfig) { c.Shards = -1 }, want: "--shards is -1"},
		{name: "prune", set: func(c *PrecomputeConfig) { shard(c); c.Prune = true }, want: "--prune is true, want none with --shards"},
		{name: "other settings", before: shard, set: func(c *PrecomputeConfig) { shard(c); c.BatchTokens++ }, want: `stale batch_tokens: have "40", want "41"`},
		{
			name: "finished cache of other settings", before: func(*PrecomputeConfig) {}, set: func(c *PrecomputeConfig) { shard(c); c.Limit = 3 },
			want: `a split pass makes a new cache and updates none: refcache: stale limit: have "0", want "3"`,
		},
		{name: "unfinished cache", before: func(*PrecomputeConfig) {}, stop: 8, set: shard, want: "holds an unfinished cache of a single process"},
		{name: "single process among shards", before: shard, set: func(*PrecomputeConfig) {}, want: "another folder; that one holds shards of a cache"},
		{name: "no usable row", set: func(c *PrecomputeConfig) { shard(c); c.Reading.Columns.Prompt, c.MaxBadFrac = "none", 1 }, want: "rows can't be used"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			data := w.pairs("pairs.jsonl", 23)
			if tc.before != nil {
				cfg := w.precomputeConfig(data)
				tc.before(&cfg)
				w.rt.stop = func(call int) error {
					if call == tc.stop {
						return errKilled
					}
					return nil
				}
				_, err := Precompute(context.Background(), cfg, w.rt, nil)
				if (err != nil) != (tc.stop > 0) {
					t.Fatal(err)
				}
				w.rt.stop = nil
			}
			cfg := w.precomputeConfig(data)
			tc.set(&cfg)
			_, err := Precompute(context.Background(), cfg, w.rt, nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want %q", err, tc.want)
			}
			if _, err := os.Stat(cfg.Out); tc.before == nil && err == nil {
				t.Error("a folder was made")
			}
		})
	}
}

// Join takes nothing but what was asked for.
func TestJoinChecksModelAndData(t *testing.T) {
	w := newWorld(t)
	cfg := w.precomputeConfig(w.pairs("pairs.jsonl", 6))
	cfg.Shards = 1
	_, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	other := w.pairs("other.jsonl", 7)
	_, err = Join(context.Background(), JoinConfig{Out: cfg.Out, Data: []string{other}}, nil)
	stale, ok := errors.AsType[*refcache.StaleError](err)
	if !ok || stale.Key != "data" {
		t.Errorf("of other data: error is %v, want that it is stale", err)
	}
	_, err = Join(context.Background(), JoinConfig{Out: filepath.Join(cfg.Out, "nowhere")}, nil)
	if _, ok := errors.AsType[*refcache.ShardsError](err); !ok {
		t.Errorf("of nothing: error is %v, want that there are no shards", err)
	}
	_, err = Join(context.Background(), JoinConfig{Out: cfg.Out, Model: cfg.Model, Data: cfg.Data}, nil)
	must(t, err)
}

// What shards would run adds up to the pass, and is what they run.
func TestEstimateOfShards(t *testing.T) {
	w := newWorld(t)
	cfg := w.precomputeConfig(w.mixedPairs("pairs.jsonl", 40))
	cfg.MaxBadFrac, cfg.Shards = 1, 3
	e, err := Estimate(context.Background(), cfg, w.rt, nil)
	must(t, err)
	if len(e.Shards) != 3 {
		t.Fatalf("%d shards are estimated, want 3", len(e.Shards))
	}
	var tokens int64
	for i, s := range e.Shards {
		cfg.Shard = i
		result, err := Precompute(context.Background(), cfg, w.rt, nil)
		must(t, err)
		if s.Shard != i || s.Parts != result.Parts || s.Pairs != result.Counts.Kept || s.Tokens != result.PaddedTokens {
			t.Errorf("shard %d is estimated as %+v, and has %d pairs in %d parts, %d tokens", i, s, result.Counts.Kept, result.Parts, result.PaddedTokens)
		}
		tokens += s.Tokens
	}
	if tokens != e.PaddedTokens {
		t.Errorf("the shards' tokens add up to %d, want %d", tokens, e.PaddedTokens)
	}
}
