package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
)

// A reference pass that is split runs window k in shard k mod N. What a window holds
// depends on all rows before it, which may be dropped, truncated or long, so every shard
// reads and encodes all of the data; the model runs the shard's windows alone. Going round
// in turn needs no count ahead, and spreads data that is sorted by length.

// shard is the share of the pass that cfg asks for; nil for all of it.
func (c PrecomputeConfig) shard() *refcache.Shard {
	if c.Shards == 0 {
		return nil
	}
	return &refcache.Shard{Index: c.Shard, Of: c.Shards}
}

// dir is the folder that the pass writes.
func (c PrecomputeConfig) dir() string { return c.shard().Dir(c.Out) }

// fillShard writes the shard, or goes on with it, or finds nothing to do.
func (p *precompute) fillShard(ctx context.Context) error {
	joined, err := p.joined()
	if joined || err != nil {
		return err
	}
	if p.cfg.Elsewhere != nil {
		return p.cfg.Elsewhere.CheckAll(p.ref.identity)
	}
	if err = p.goOn(ctx); err == nil {
		return nil
	}
	// Where the shard ran twice at once, the other one's may be joined by now.
	if joined, _ := p.joined(); joined && ctx.Err() == nil {
		return nil
	}
	return err
}

// joined reports whether the finished cache of this pass is there already. The error is a
// *refcache.StaleError where that is another's: a split pass updates none.
func (p *precompute) joined() (bool, error) {
	m, err := refcache.ReadManifest(p.cfg.Out)
	if errors.Is(err, refcache.ErrNotCache) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !m.Complete {
		return false, &FieldError{"--out", p.cfg.Out, "another folder for shards; that one holds an unfinished cache of a single process"}
	}
	if err := m.CheckAll(p.ref.identity); err != nil {
		return false, fmt.Errorf("pipeline: a split pass makes a new cache and updates none: %w", err)
	}
	p.result.Joined = true
	return true, nil
}

// shardPart scores a window of the shard's, and passes over those of others.
func (p *precompute) shardPart(ctx context.Context, window []encode.Pair) error {
	if p.cfg.shard().Has(p.windows) {
		return p.part(ctx, window)
	}
	p.kept += int64(len(window))
	return nil
}

// A ShardEstimate is what one shard of a pass would run.
type ShardEstimate struct {
	Shard int `json:"shard"`
	// Parts hold Pairs; Tokens are run, padding included, in about Seconds.
	Parts   int     `json:"parts"`
	Pairs   int64   `json:"pairs"`
	Tokens  int64   `json:"tokens"`
	Seconds float64 `json:"seconds"`
}

// shard adds a window to the shard that would run it.
func (e *estimator) shard(pairs int, tokens int64) {
	if len(e.result.Shards) == 0 || pairs == 0 {
		return
	}
	s := &e.result.Shards[e.pass.windows%len(e.result.Shards)]
	s.Parts++
	s.Pairs += int64(pairs)
	s.Tokens += tokens
	e.pass.windows++
}

// JoinConfig says which shards to make a cache of.
type JoinConfig struct {
	// Out is the cache folder, with the shards below it; Shards is their number, 0 takes
	// it from what is there.
	Out    string `json:"out" yaml:"out"`
	Shards int    `json:"shards,omitempty" yaml:"shards,omitempty"`
	// KeepShards leaves them where they are.
	KeepShards bool `json:"keep_shards,omitempty" yaml:"keep_shards,omitempty"`
	// Model and Data, where given, must be those that the shards were made from.
	Model     string   `json:"model,omitempty" yaml:"model,omitempty"`
	ModelFile string   `json:"model_file,omitempty" yaml:"model_file,omitempty"`
	Data      []string `json:"data,omitempty" yaml:"data,omitempty"`
	// Bring is refcache.Assembly's, for shards that are kept elsewhere.
	Bring func(ctx context.Context, files []string) error `json:"-" yaml:"-"`
}

// JoinResult says what became of shards.
type JoinResult struct {
	// Cache is the folder, complete.
	Cache  string          `json:"cache"`
	Counts refcache.Counts `json:"counts"`
	Parts  int             `json:"parts"`
	// Shards were joined by this call; 0 where all was done before.
	Shards  int     `json:"shards"`
	Seconds float64 `json:"seconds"`
}

// Join makes the cache cfg.Out of the shards below it, as refcache.Assemble does; one that
// was joined before is left as it is.
func Join(ctx context.Context, cfg JoinConfig, report Reporter) (JoinResult, error) {
	var k check
	k.that(cfg.Out != "", "--out", "", "the folder that holds the shards of a cache")
	k.that(cfg.Shards >= 0, "--shards", cfg.Shards, "0 (all that are there) or more")
	if err := k.err(); err != nil {
		return JoinResult{}, err
	}
	start := time.Now()
	want, err := inputIdentity(ctx, cfg.Model, cfg.ModelFile, cfg.Data)
	if err != nil {
		return JoinResult{}, err
	}
	shards := cfg.Shards
	if all, err := refcache.Shards(cfg.Out); err == nil && shards == 0 && len(all) > 0 {
		shards = all[0].Of
	}
	err = refcache.Assemble(ctx, cfg.Out, refcache.Assembly{
		Of: cfg.Shards, Want: want, Keep: cfg.KeepShards, Bring: cfg.Bring,
		Progress: func(done, total int64) {
			report.report(Progress{Stage: "check shards", Done: done / 1e6, Total: total / 1e6, Unit: "MB", Fresh: done / 1e6, Elapsed: time.Since(start)})
		},
	})
	if errors.Is(err, refcache.ErrComplete) {
		shards, err = 0, nil
	}
	if err != nil {
		return JoinResult{}, err
	}
	m, err := refcache.ReadManifest(cfg.Out)
	return JoinResult{Cache: cfg.Out, Counts: m.Counts, Parts: len(m.Parts), Shards: shards, Seconds: time.Since(start).Seconds()}, err
}

// inputIdentity is what a cache's manifest says of a model and of data, where they are given.
func inputIdentity(ctx context.Context, model, file string, data []string) (map[string]string, error) {
	id := map[string]string{}
	if model != "" {
		dir, err := FindModel(model, file)
		if err != nil {
			return nil, err
		}
		if id["model"], err = modelSHA256(dir.ONNX); err != nil {
			return nil, err
		}
	}
	if len(data) > 0 {
		var err error
		if id["data"], err = datasets.Fingerprint(ctx, data); err != nil {
			return nil, err
		}
	}
	return id, nil
}
