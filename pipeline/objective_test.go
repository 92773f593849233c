package pipeline

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/loss"
)

// Every objective of the table trains from one cache, which none of them changes:
// a new objective never needs a new reference pass.
func TestEveryObjectiveTrainsFromOneCache(t *testing.T) {
	w := newWorld(t)
	cache := w.cache(24)
	before := tree(t, cache)
	for _, o := range loss.List() {
		t.Run(o.Name, func(t *testing.T) {
			cfg := w.trainConfig(cache)
			cfg.Out, cfg.Loss, cfg.Epochs, cfg.LR = w.path("run-"+o.Name), o.Name, 4, 0.003
			if o.Name == "exo_pair" {
				cfg.LabelSmoothing = 1e-3 // 0 is refused: its log is taken
			}
			r, err := Train(context.Background(), cfg, gonumEngine, nil)
			must(t, err)
			first, last := r.Before.Get("loss"), r.After.Get("loss")
			if !(last < first) || math.IsInf(first, 0) {
				t.Errorf("held-out loss goes from %g to %g", first, last)
			}
		})
	}
	sameTree(t, tree(t, cache), before)
}

func TestContradictoryObjectivesAreRefused(t *testing.T) {
	w := newWorld(t)
	cache := w.cache(8)
	for name, set := range map[string]func(*TrainConfig){
		"unknown":                 func(c *TrainConfig) { c.Loss = "dpo2" },
		"smoothing without use":   func(c *TrainConfig) { c.Loss, c.LabelSmoothing = "ipo", 0.1 },
		"divergence without use":  func(c *TrainConfig) { c.Loss, c.FDivergence = "sft", "js" },
		"exo_pair without ε":      func(c *TrainConfig) { c.Loss = "exo_pair" },
		"one objective twice":     func(c *TrainConfig) { c.Loss = "sigmoid:1,sigmoid:2" },
		"a weight that is no one": func(c *TrainConfig) { c.Loss = "sigmoid:x" },
		"ld_alpha with sft alone": func(c *TrainConfig) { c.Loss, c.LDAlpha = "sft", 0.5 },
	} {
		cfg := w.trainConfig(cache)
		set(&cfg)
		var field *FieldError
		if _, err := Train(context.Background(), cfg, gonumEngine, nil); !errors.As(err, &field) || field.Field != "--loss" {
			t.Errorf("%s: error is %v", name, err)
		}
		if exists(cfg.Out) {
			t.Fatalf("%s: a run folder was made", name)
		}
	}
}
