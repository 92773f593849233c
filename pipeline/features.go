package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
)

// cachedPairs are the pairs of a reference cache, with their hidden states wherever these
// come from.
type cachedPairs struct {
	*refcache.Reader
	features featureSource
}

// featureSource is where the hidden states of cached pairs come from.
type featureSource interface {
	// complete adds their hidden states to pairs as the cache has them. What it adds depends
	// on these pairs and their order alone.
	complete(ctx context.Context, pairs []refcache.Row) error
	close() error
}

// read reads rows by their numbers, as many as rows has room for.
func (c cachedPairs) read(ctx context.Context, numbers []int64, rows []refcache.Row) error {
	for i, number := range numbers {
		if err := c.Row(number, &rows[i]); err != nil {
			return err
		}
	}
	return c.features.complete(ctx, rows[:len(numbers)])
}

// openPairs gives the pairs of a cache their features: those that it keeps or, where it keeps
// none, those of the model that it was made from. The caller has checked that with checkInputs.
func openPairs(cache *refcache.Reader, model, file string, engines Engines) (cachedPairs, error) {
	c := cachedPairs{cache, stored{}}
	m := cache.Manifest()
	if m.FeatureDType != refcache.None {
		return c, nil
	}
	r, err := openRecomputed(m, model, file, engines)
	if err != nil {
		return c, fmt.Errorf("pipeline: the cache keeps no features, the model has to be run: %w", err)
	}
	c.features = r
	return c, nil
}

// checkInputs refuses a model or data that the cache was not made from, and no model where
// it is needed.
func checkInputs(ctx context.Context, m refcache.Manifest, model, file string, data []string) error {
	if model == "" && m.FeatureDType == refcache.None {
		return &NoFeaturesError{Model: m.Identity["model"]}
	}
	want, err := inputIdentity(ctx, model, file, data)
	if err != nil {
		return err
	}
	return m.Check(want)
}

// A NoFeaturesError is a cache without features where the model that gives them was not named.
type NoFeaturesError struct {
	// Model is the SHA-256 of the model.
	Model string
}

func (e *NoFeaturesError) Error() string {
	return fmt.Sprintf("pipeline: the cache keeps no features, want the model that it was made from (SHA-256 %s)", e.Model)
}

// stored features come with the rows of the cache.
type stored struct{}

func (stored) complete(context.Context, []refcache.Row) error { return nil }

func (stored) close() error { return nil }

// recomputed features are those of the model, run again. What the pairs have in common is run
// once; batches are planned as in the reference pass, under its bounds.
type recomputed struct {
	transformer
	limits limits
	mu     sync.Mutex // one call at a time keeps to the memory of a pass
}

func openRecomputed(m refcache.Manifest, model, file string, engines Engines) (*recomputed, error) {
	tokens, errTokens := strconv.Atoi(m.Identity["batch_tokens"])
	memory, errMemory := strconv.ParseInt(m.Identity["memory"], 10, 64)
	if err := errors.Join(errTokens, errMemory); err != nil {
		return nil, fmt.Errorf("batch_tokens and memory of the cache's identity: %w", err)
	}
	rt, err := engines.Runtime()
	if err != nil {
		return nil, err
	}
	split, err := findSplit(model, file)
	if err != nil {
		return nil, err
	}
	defer split.model.Close()
	backbone, err := split.openBackbone(rt)
	if err != nil {
		return nil, err
	}
	r := &recomputed{transformer: transformer{backbone, m.D, spareCaches(memory)}}
	r.limits = r.bounds(tokens, memory)
	return r, nil
}

func (r *recomputed) complete(ctx context.Context, pairs []refcache.Row) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	window := make([]encode.Pair, len(pairs))
	for i := range pairs {
		window[i] = encode.Pair{Prompt: pairs[i].Prompt, Chosen: pairs[i].Chosen, Rejected: pairs[i].Rejected}
	}
	seqs := sequences(window)
	features := make([][]float32, len(seqs))
	err := r.forward(ctx, seqs, plan(seqs, r.limits), features, func(batch, []int) error { return nil })
	if err != nil {
		return fmt.Errorf("pipeline: run the model for pair %v and %d more: %w", pairs[0].ID, len(pairs)-1, err)
	}
	for i, s := range seqs {
		for _, u := range s.uses {
			setFeatures(&pairs[u.pair], u.chosen, features[i])
		}
	}
	return nil
}

func (r *recomputed) close() error { return r.backbone.Close() }

func setFeatures(row *refcache.Row, chosen bool, features []float32) {
	if chosen {
		row.ChosenFeatures = features
	} else {
		row.RejectedFeatures = features
	}
}
