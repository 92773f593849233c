package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
)

// CostEstimate is what a reference pass would cost; nothing has been written.
type CostEstimate struct {
	Counts refcache.Counts `json:"counts"`
	// Update is there where a finished cache of other data would be updated: then Tokens
	// are of computed pairs alone, and nothing was measured.
	Update *UpdateCounts `json:"update,omitempty"`
	// PromptLengths and CompletionLengths are in tokens.
	PromptLengths     Lengths `json:"prompt_lengths"`
	CompletionLengths Lengths `json:"completion_lengths"`
	// CacheBytes is the size of the cache's parts and head.
	CacheBytes int64 `json:"cache_bytes"`
	// Work would be done at TokensPerSecond, padding included, which was
	// measured on Calibrated pairs of this data.
	Work
	PaddingShare    float64 `json:"padding_share"`
	SharedShare     float64 `json:"shared_share"`
	TokensPerSecond float64 `json:"tokens_per_second"`
	Calibrated      int     `json:"calibrated_pairs"`
	Seconds         float64 `json:"seconds"`
	// Shards are there where the pass would be split.
	Shards []ShardEstimate `json:"shards,omitempty"`
}

// Lengths summarises numbers of tokens.
type Lengths struct {
	Count int64 `json:"count"`
	Min   int   `json:"min"`
	Max   int   `json:"max"`
	Sum   int64 `json:"sum"`
}

func (l *Lengths) add(n int) {
	if l.Count == 0 || n < l.Min {
		l.Min = n
	}
	l.Max = max(l.Max, n)
	l.Sum += int64(n)
	l.Count++
}

// Mean is the mean length, 0 of none.
func (l Lengths) Mean() float64 { return float64(l.Sum) / float64(max(l.Count, 1)) }

func (l Lengths) String() string {
	return fmt.Sprintf("%.1f tokens on average, %d to %d", l.Mean(), l.Min, l.Max)
}

// The calibration runs calibrationPairs at a time, and ends after calibrationTime.
const (
	calibrationTime  = 3 * time.Second
	calibrationPairs = 8
)

// bytesPerPair is what a pair takes beside its tokens: id, weight and the offsets of its seven lists.
const bytesPerPair = 16 + 4 + 7*4

// Estimate reads and encodes all of the data, runs a few batches of it, and says
// what Precompute would cost.
func Estimate(ctx context.Context, cfg PrecomputeConfig, rt Runtime, report Reporter) (CostEstimate, error) {
	if err := cfg.Validate(); err != nil {
		return CostEstimate{}, err
	}
	ref, err := openReference(ctx, cfg, rt)
	if err != nil {
		return CostEstimate{}, err
	}
	defer ref.close()
	p := &precompute{cfg: cfg, ref: ref, report: report, start: time.Now()}
	e := &estimator{pass: p}
	for i := range cfg.Shards {
		e.result.Shards = append(e.result.Shards, ShardEstimate{Shard: i})
	}
	if cfg.Shards == 0 && refcache.IsCache(cfg.Out) {
		p.update, err = openUpdate(cfg.Out, ref.identity)
		// A cache made otherwise is in no way of asking what this one would cost.
		if _, stale := errors.AsType[*refcache.StaleError](err); err != nil && !stale {
			return CostEstimate{}, err
		}
	}
	if p.update == nil {
		err = e.run(ctx)
	} else {
		err = errors.Join(p.update.plan(ctx, e), p.update.close())
	}
	if err != nil {
		return CostEstimate{}, err
	}
	return e.estimate(), nil
}

// estimator walks the windows of a pass without scoring them.
type estimator struct {
	pass   *precompute
	result CostEstimate
	tokens [3]int64 // of prompts, chosen and rejected completions
	spent  time.Duration
	ran    int64 // tokens of the calibration
}

func (e *estimator) run(ctx context.Context) error {
	p := e.pass
	s, err := openSource(ctx, p.cfg.Data, p.cfg.Reading, p.ref.encoder, 0)
	if err != nil {
		return err
	}
	defer s.close()
	for end := false; !end; {
		var window []encode.Pair
		if window, end, err = p.window(ctx, s); err != nil {
			return err
		}
		if err := e.window(ctx, window); err != nil {
			return err
		}
		p.report.report(Progress{Stage: "count", Done: p.kept, Unit: "pairs", Fresh: p.kept, Elapsed: time.Since(p.start)})
	}
	if p.kept == 0 {
		return p.noRows()
	}
	return nil
}

// window counts the pairs of one part and calibrates on them while there is time for it.
func (e *estimator) window(ctx context.Context, window []encode.Pair) error {
	for _, pair := range window {
		e.result.PromptLengths.add(len(pair.Prompt))
		e.result.CompletionLengths.add(len(pair.Chosen))
		e.result.CompletionLengths.add(len(pair.Rejected))
		for i, n := range []int{len(pair.Prompt), len(pair.Chosen), len(pair.Rejected)} {
			e.tokens[i] += int64(n)
		}
	}
	first := e.pass.kept
	e.pass.kept += int64(len(window))
	pairs := window
	if u := e.pass.update; u != nil {
		var err error
		if pairs, err = u.count(first, window); err != nil {
			return err
		}
	}
	seqs := sequences(pairs)
	for _, s := range seqs {
		e.result.addSequence(s)
	}
	before := e.result.PaddedTokens
	for _, b := range plan(seqs, e.pass.bounds()) {
		e.result.add(b)
	}
	e.shard(len(window), e.result.PaddedTokens-before)
	if e.pass.update != nil {
		return nil
	}
	for pairs := range slices.Chunk(window, calibrationPairs) {
		if e.spent > calibrationTime {
			return nil
		}
		if err := e.calibrate(ctx, pairs); err != nil {
			return err
		}
	}
	return nil
}

// calibrate times a few pairs; the very first is run before as a warm-up.
func (e *estimator) calibrate(ctx context.Context, pairs []encode.Pair) error {
	if e.result.Calibrated == 0 {
		if _, err := e.time(ctx, pairs[:1]); err != nil {
			return err
		}
	}
	start := time.Now()
	w, err := e.time(ctx, pairs)
	e.spent += time.Since(start)
	e.ran += w.PaddedTokens
	e.result.Calibrated += len(pairs)
	return err
}

// time runs pairs as the pass does, and says what that was.
func (e *estimator) time(ctx context.Context, pairs []encode.Pair) (w Work, err error) {
	ref := e.pass.ref
	seqs := sequences(pairs)
	features := make([][]float32, len(seqs))
	err = ref.forward(ctx, seqs, plan(seqs, e.pass.bounds()), features, func(b batch, ended []int) error {
		w.add(b)
		var batch []sequence
		var states [][]float32
		for _, i := range ended {
			u := seqs[i].uses[0]
			if err := e.pass.round(features[i], pairs[u.pair].ID, u.chosen); err != nil {
				return err
			}
			batch, states = append(batch, seqs[i]), append(states, features[i])
		}
		_, err := ref.logps(ctx, batch, states)
		return err
	})
	return w, err
}

// time is how long tokens take, in seconds.
func (e CostEstimate) time(tokens int64) float64 {
	return math.Ceil(10*float64(tokens)/e.TokensPerSecond) / 10
}

func (e *estimator) estimate() CostEstimate {
	p, v := e.pass, e.pass.ref.vocabulary
	r := e.result
	r.Counts = refcache.Counts{
		Read: p.position.Rows, Kept: p.kept, Dropped: p.position.Dropped, Apart: p.position.Apart, Truncated: p.position.Truncated,
		PromptTokens: e.tokens[0], ChosenTokens: e.tokens[1], RejectedTokens: e.tokens[2],
	}
	if p.update != nil {
		r.Update = &p.update.counts
	}
	completion := e.tokens[1] + e.tokens[2]
	perToken := int64(4 + 4 + v.D*p.cfg.Features.Size())
	r.CacheBytes = p.kept*bytesPerPair + 4*e.tokens[0] + completion*perToken + 4*int64(len(v.Weight)+len(v.Bias))
	r.PaddingShare, r.SharedShare = r.Padding(), r.Shared()
	if seconds := e.spent.Seconds(); seconds > 0 {
		r.TokensPerSecond = float64(e.ran) / seconds
		r.Seconds = r.time(r.PaddedTokens)
		for i := range r.Shards {
			r.Shards[i].Seconds = r.time(r.Shards[i].Tokens)
		}
	}
	return r
}
