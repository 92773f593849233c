package pipeline

import (
	"context"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets"
)

// TestPlanCache plans for each state that a cache can be in, and wants the model not run.
func TestPlanCache(t *testing.T) {
	const rows = 4
	for _, tc := range []struct {
		name  string
		made  func(w *world, cfg PrecomputeConfig) // what is there
		ask   func(cfg *PrecomputeConfig)          // how what is wanted differs
		state CacheState
		stale string
	}{
		{name: "nothing", made: func(*world, PrecomputeConfig) {}, state: CacheMissing},
		{name: "as wanted", state: CacheCurrent},
		{name: "more data", ask: func(cfg *PrecomputeConfig) { cfg.Data = append(cfg.Data, cfg.Data...) }, state: CacheChanged},
		{name: "a limit", ask: func(cfg *PrecomputeConfig) { cfg.Limit = 2 }, state: CacheChanged},
		{name: "a mix", ask: func(cfg *PrecomputeConfig) { cfg.Reading.Mix = []datasets.Share{{Weight: 2}} }, state: CacheChanged},
		{name: "longer texts", ask: func(cfg *PrecomputeConfig) { cfg.Encode.MaxLength++ }, state: CacheStale, stale: "max_length"},
		{name: "interrupted", made: interruptedPass, state: CacheUnfinished},
		{name: "interrupted, more data", made: interruptedPass, ask: func(cfg *PrecomputeConfig) { cfg.Data = append(cfg.Data, cfg.Data...) }, state: CacheStale, stale: "data"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			cfg := w.precomputeConfig(w.pairs("pairs.jsonl", rows))
			cfg.Out, cfg.PartPairs = w.path("cache"), 2
			if tc.made != nil {
				tc.made(w, cfg)
			} else if _, err := Precompute(context.Background(), cfg, w.rt, nil); err != nil {
				t.Fatal(err)
			}
			if tc.ask != nil {
				tc.ask(&cfg)
			}
			w.rt.calls = 0
			p, err := PlanCache(context.Background(), cfg, w.rt)
			if err != nil || p.State != tc.state || w.rt.calls != 0 {
				t.Fatalf("got %q and %v with %d runs of the model, want %q and none", p.State, err, w.rt.calls, tc.state)
			}
			if p.Identity["model"] == "" || p.Identity["data"] == "" {
				t.Errorf("the identity %v lacks model or data", p.Identity)
			}
			if have := p.Stale; (tc.stale == "") != (have == nil) || have != nil && have.Key != tc.stale {
				t.Errorf("stale is %v, want %q", have, tc.stale)
			}
		})
	}
}

// interruptedPass leaves the first part of a cache.
func interruptedPass(w *world, cfg PrecomputeConfig) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := Precompute(ctx, cfg, w.rt, func(p Progress) {
		if p.Done >= int64(cfg.PartPairs) {
			cancel()
		}
	})
	if err == nil {
		w.t.Fatal("the pass was not interrupted")
	}
}
