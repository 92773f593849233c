package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// CacheState says what [Precompute] would find in its folder.
type CacheState string

// What a cache folder can hold.
const (
	CacheMissing    CacheState = "missing"    // nothing
	CacheUnfinished CacheState = "unfinished" // an interrupted pass of the same identity
	CacheCurrent    CacheState = "current"    // all that is wanted
	CacheChanged    CacheState = "changed"    // a finished cache of other data, to be updated
	CacheStale      CacheState = "stale"      // one that was made otherwise, which Precompute refuses
)

// CachePlan says what is to be done for a cache. Nothing was run.
type CachePlan struct {
	State CacheState `json:"state"`
	// Identity is what the cache is to have, by content; only what opening the model's graph
	// tells is not in it.
	Identity map[string]string `json:"identity"`
	// Stale names the first setting in which the one that is there differs; nil elsewhere.
	Stale *refcache.StaleError `json:"-"`
}

// graphKey is the one key of an identity that is known only when the graph is open. It follows
// from model, provider and library version, which are others.
const graphKey = "continuation"

// PlanCache compares the cache cfg.Out with what cfg asks for: model, tokenizer and data are
// read, the model is not run.
func PlanCache(ctx context.Context, cfg PrecomputeConfig, rt Runtime) (CachePlan, error) {
	if err := cfg.Validate(); err != nil {
		return CachePlan{}, err
	}
	if err := checkCacheFolder(cfg); err != nil {
		return CachePlan{}, err
	}
	identity, err := wantedIdentity(ctx, cfg, rt)
	if err != nil {
		return CachePlan{}, err
	}
	p := CachePlan{State: CacheMissing, Identity: identity}
	m, err := refcache.ReadManifest(cfg.Out)
	if errors.Is(err, refcache.ErrNotCache) {
		return p, nil
	}
	if err != nil {
		return CachePlan{}, err
	}
	want := maps.Clone(identity)
	if graph, known := m.Identity[graphKey]; known {
		want[graphKey] = graph
	}
	err = m.CheckAll(want)
	switch changed, otherwise := dataChanged(m, want); {
	case err == nil && m.Complete:
		p.State = CacheCurrent
	case err == nil:
		p.State = CacheUnfinished
	case changed && otherwise == nil:
		p.State = CacheChanged
	default:
		p.State = CacheStale
		p.Stale, _ = errors.AsType[*refcache.StaleError](errors.Join(otherwise, err))
	}
	return p, nil
}

// wantedIdentity is cacheIdentity of a model that is not opened to be run.
func wantedIdentity(ctx context.Context, cfg PrecomputeConfig, rt Runtime) (_ map[string]string, err error) {
	dir, err := FindModel(cfg.Model, cfg.ModelFile)
	if err != nil {
		return nil, err
	}
	m, err := onnx.Load(dir.ONNX)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	enc, err := encode.Open(dir.Root, cfg.Encode)
	if err != nil {
		return nil, fmt.Errorf("pipeline: %w", err)
	}
	return cacheIdentity(ctx, cfg, m, enc, rt)
}
