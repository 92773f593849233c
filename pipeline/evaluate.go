package pipeline

import (
	"context"
	"fmt"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/loss"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// EvalConfig says which pairs to score under which checkpoint.
type EvalConfig struct {
	Cache      string `json:"cache" yaml:"cache"`
	Checkpoint string `json:"checkpoint" yaml:"checkpoint"`
	// All scores every pair instead of those that training held out.
	All bool `json:"all,omitempty" yaml:"all,omitempty"`
	// Engine multiplies matrices: ort or gonum.
	Engine string `json:"engine" yaml:"engine"`
}

// Validate reports every setting that can't be used, joined.
func (c EvalConfig) Validate() error {
	var k check
	k.that(c.Cache != "", "--cache", "", "a reference cache")
	k.that(c.Checkpoint != "", "--checkpoint", "", "a checkpoint folder, for example RUN/last")
	k.engine(c.Engine)
	return k.err()
}

// EvalResult holds the metrics of the pairs.
type EvalResult struct {
	Cache      string `json:"cache"`
	Checkpoint string `json:"checkpoint"`
	Step       int64  `json:"step"`
	Pairs      int64  `json:"pairs"`
	Metrics    Values `json:"metrics"`
}

// Evaluate scores the pairs of a cache that training held out (the split is by
// prompt alone, so it holds for any cache) under a checkpoint of dpo-pipe.
func Evaluate(ctx context.Context, cfg EvalConfig, open OpenEngine) (EvalResult, error) {
	if err := cfg.Validate(); err != nil {
		return EvalResult{}, err
	}
	state, err := readState(cfg.Checkpoint)
	if err != nil {
		return EvalResult{}, err
	}
	head, _, err := models.ReadAdapter(cfg.Checkpoint)
	if err != nil {
		return EvalResult{}, err
	}
	cache, err := refcache.Open(cfg.Cache)
	if err != nil {
		return EvalResult{}, err
	}
	defer cache.Close()
	if err := cache.Manifest().Check(map[string]string{"model": state.Identity["model"]}); err != nil {
		return EvalResult{}, err
	}
	objective, err := state.Config.objective()
	if err != nil {
		return EvalResult{}, err
	}
	v, err := vocabulary(cache)
	if err != nil {
		return EvalResult{}, err
	}
	engine, err := open(cfg.Engine, v)
	if err != nil {
		return EvalResult{}, err
	}
	defer engine.Close()
	pick := newSplit(state.Config.EvalFrac).heldOut
	if cfg.All {
		pick = everyPair
	}
	s := newScorer(head, engine, objective, state.Config.MicroTokens)
	m, err := meansOf(ctx, s, cache, pick, state.Config.BatchPairs)
	if err != nil {
		return EvalResult{}, err
	}
	if m.Pairs == 0 {
		return EvalResult{}, fmt.Errorf("pipeline: the cache has no held-out pair (--eval-frac was %g); --all scores every pair",
			state.Config.EvalFrac)
	}
	return EvalResult{
		Cache: cfg.Cache, Checkpoint: cfg.Checkpoint, Step: state.Step, Pairs: int64(m.Pairs), Metrics: means(m),
	}, nil
}

// meansOf scores the pairs of the cache whose prompts pick chooses, in cache order.
func meansOf(ctx context.Context, s *scorer, cache *refcache.Reader, pick func(prompt [16]byte) bool, batch int) (loss.Means, error) {
	var window loss.Metrics
	rows := make([]refcache.Row, batch)
	n := 0
	flush := func() error {
		if n == 0 {
			return nil
		}
		err := s.score(ctx, rows[:n], &window, false)
		n = 0
		return err
	}
	for i := range cache.Len() {
		if err := context.Cause(ctx); err != nil {
			return loss.Means{}, err
		}
		key, err := cache.Key(i)
		if err != nil {
			return loss.Means{}, err
		}
		if !pick(key) {
			continue
		}
		if err := cache.Row(i, &rows[n]); err != nil {
			return loss.Means{}, err
		}
		if n++; n == len(rows) {
			if err := flush(); err != nil {
				return loss.Means{}, err
			}
		}
	}
	if err := flush(); err != nil {
		return loss.Means{}, err
	}
	return window.Means(), nil
}

// vocabulary reads the frozen LM head of a cache.
func vocabulary(cache *refcache.Reader) (*models.Vocabulary, error) {
	h, err := cache.Head()
	if err != nil {
		return nil, err
	}
	return &models.Vocabulary{V: h.V, D: h.D, Weight: h.Weight, Bias: h.Bias, Scale: h.Scale, Softcap: h.Softcap}, nil
}
