package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/loss"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// EvalConfig says which pairs to score under which checkpoint.
type EvalConfig struct {
	Cache      string `json:"cache" yaml:"cache"`
	Checkpoint string `json:"checkpoint" yaml:"checkpoint"`
	// Against, where given, is a checkpoint to compare with on the same pairs.
	Against string `json:"against,omitempty" yaml:"against,omitempty"`
	// Model, where given, must be the one that the cache was made from. A cache without
	// features needs it; by default that is the one that training named.
	Model     string `json:"model,omitempty" yaml:"model,omitempty"`
	ModelFile string `json:"model_file,omitempty" yaml:"model_file,omitempty"`
	// Data, where given, are the files that the cache was made from: accuracy is then
	// told by their sources and scores too.
	Data []string `json:"data,omitempty" yaml:"data,omitempty"`
	// Mix is that of the cache's data.
	Mix []datasets.Share `json:"mix,omitempty" yaml:"-"`
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

// EvalResult is an Evaluation of a checkpoint, with what was scored.
type EvalResult struct {
	Cache      string `json:"cache"`
	Checkpoint string `json:"checkpoint"`
	// HeldOut says that the pairs are those the checkpoint's training held out (where the
	// cache is another one: would have), and that of Against too.
	HeldOut bool `json:"held_out"`
	Evaluation
	// Sources and ScoreGaps tell accuracy by what the data says of its pairs; nil
	// without EvalConfig.Data, empty where that has no such columns.
	Sources   []SourceSlice `json:"sources,omitempty"`
	ScoreGaps []GapSlice    `json:"score_gaps,omitempty"`
	// Against is the comparison with another checkpoint, where one was asked for.
	Against *Against `json:"against,omitempty"`
}

// Evaluate scores the pairs of a cache that training held out (the split is by
// prompt alone, so it holds for any cache) under a checkpoint of dpo-pipe. The cache
// is checked for damage first: a flipped bit moves figures silently.
func Evaluate(ctx context.Context, cfg EvalConfig, engines Engines, report Reporter) (EvalResult, error) {
	if err := cfg.Validate(); err != nil {
		return EvalResult{}, err
	}
	e, err := newEvaluator(ctx, cfg, engines)
	if err != nil {
		return EvalResult{}, err
	}
	defer e.close()
	if err := verifyCache(ctx, e.cache.Reader, report); err != nil {
		return EvalResult{}, err
	}
	if len(cfg.Data) > 0 {
		if e.groups, err = openBreakdown(ctx, cfg.Data, cfg.Mix, e.cache.Manifest()); err != nil {
			return EvalResult{}, err
		}
	}
	e.report, e.start = report, time.Now()
	if err := eachBatch(ctx, e.cache, e.pick(), e.subject.state.Config.BatchPairs, e.score); err != nil {
		return EvalResult{}, err
	}
	return e.result()
}

// evaluator scores pairs of a cache under a checkpoint, or two.
type evaluator struct {
	cfg     EvalConfig
	cache   cachedPairs
	engine  models.Engine
	product *product
	subject subject
	against *subject // nil: none
	discord discordance
	groups  *breakdown // nil: not asked for

	report Reporter
	start  time.Time
}

// subject is a checkpoint and what is known of it so far.
type subject struct {
	*tally
	state  trainerState
	scorer *scorer
}

func newEvaluator(ctx context.Context, cfg EvalConfig, engines Engines) (e *evaluator, err error) {
	e = &evaluator{cfg: cfg}
	if e.subject.state, err = readState(cfg.Checkpoint); err != nil {
		return nil, err
	}
	if cfg.Against != "" {
		e.against = new(subject)
		if e.against.state, err = readState(cfg.Against); err != nil {
			return nil, err
		}
	}
	objective, err := e.subject.state.Config.objective()
	if err != nil {
		return nil, err
	}
	if err := e.openCache(ctx, engines); err != nil {
		return nil, err
	}
	opened := e // a return of nil takes e away
	defer func() {
		if err != nil {
			opened.close()
		}
	}()
	v, err := vocabulary(e.cache.Reader)
	if err != nil {
		return nil, err
	}
	if e.engine, err = engines.Head(cfg.Engine, v); err != nil {
		return nil, err
	}
	e.product = newProduct(e.engine, e.subject.state.Config.MicroTokens)
	err = e.subject.open(cfg.Checkpoint, e, objective)
	if err == nil && e.against != nil {
		err = e.against.open(cfg.Against, e, objective)
	}
	return e, err
}

// openCache opens the cache, and the model where that keeps no features.
func (e *evaluator) openCache(ctx context.Context, engines Engines) error {
	cache, err := refcache.Open(e.cfg.Cache)
	if err != nil {
		return err
	}
	m, model, file := cache.Manifest(), e.cfg.Model, e.cfg.ModelFile
	if model == "" && m.FeatureDType == refcache.None {
		model, file = e.subject.state.Config.Model, e.subject.state.Config.ModelFile
	}
	if err = checkInputs(ctx, m, model, file, nil); err == nil {
		e.cache, err = openPairs(cache, model, file, engines)
	}
	if err != nil {
		return errors.Join(err, cache.Close())
	}
	return nil
}

// open reads the head of a checkpoint, which must have been trained on the model of the cache.
func (s *subject) open(checkpoint string, e *evaluator, objective *loss.Objective) error {
	if err := e.cache.Manifest().Check(map[string]string{"model": s.state.Identity["model"]}); err != nil {
		return err
	}
	head, _, err := models.ReadAdapter(checkpoint)
	if err != nil {
		return err
	}
	s.scorer = newScorer(head, objective)
	s.tally = newTally()
	return nil
}

func (e *evaluator) close() {
	if e.engine != nil {
		e.engine.Close()
	}
	if e.groups != nil {
		e.groups.close()
	}
	e.cache.features.close()
	e.cache.Close()
}

// pick chooses the pairs to score.
func (e *evaluator) pick() func(prompt [16]byte) bool {
	if e.cfg.All {
		return everyPair
	}
	return newSplit(e.share()).heldOut
}

// share is that of the prompts that no training saw: a smaller share holds out a part
// of what a larger one does.
func (e *evaluator) share() float64 {
	frac := e.subject.state.Config.EvalFrac
	if e.against != nil {
		frac = min(frac, e.against.state.Config.EvalFrac)
	}
	return frac
}

func (e *evaluator) score(ctx context.Context, rows []refcache.Row) error {
	subjects := []*subject{&e.subject}
	if e.against != nil {
		subjects = append(subjects, e.against)
	}
	scorers := make([]*scorer, len(subjects))
	for i, s := range subjects {
		scorers[i] = s.scorer
	}
	if err := e.product.score(ctx, rows, scorers, false); err != nil {
		return err
	}
	for _, s := range subjects {
		s.add(s.scorer, rows)
	}
	m := e.subject.window.Means()
	e.report.report(Progress{
		Stage: "eval", Done: int64(m.Pairs), Unit: "pairs", Tokens: int64(m.Tokens), Elapsed: time.Since(e.start), Fresh: int64(m.Pairs),
	})
	if e.groups != nil {
		if err := e.groups.add(ctx, rows, e.subject.scorer.each); err != nil {
			return err
		}
	}
	if e.against == nil {
		return nil
	}
	for i := range rows {
		e.discord.add(&e.subject.scorer.each[i], &e.against.scorer.each[i])
	}
	return nil
}

func (e *evaluator) result() (EvalResult, error) {
	s := &e.subject
	r := EvalResult{
		Cache: e.cfg.Cache, Checkpoint: e.cfg.Checkpoint, HeldOut: !e.cfg.All, Evaluation: *s.evaluation(s.state.Step),
	}
	if r.Pairs == 0 {
		return EvalResult{}, fmt.Errorf("pipeline: the cache has no held-out pair (--eval-frac was %g); --all scores every pair",
			e.share())
	}
	if e.groups != nil {
		r.Sources, r.ScoreGaps = e.groups.bySource(), e.groups.byGap()
	}
	if e.against != nil {
		r.Against = compare(s, e.against, e.cfg.Against, &e.discord)
	}
	return r, nil
}

// verifyCache compares every byte of a cache with its checksum.
func verifyCache(ctx context.Context, cache *refcache.Reader, report Reporter) error {
	start := time.Now()
	return cache.Verify(ctx, func(done, total int64) {
		report.report(Progress{Stage: "check cache", Done: done, Total: total, Unit: "bytes", Fresh: done, Elapsed: time.Since(start)})
	})
}

// eachBatch reads the pairs whose prompts pick chooses, in cache order, one batch ahead of do.
func eachBatch(ctx context.Context, cache cachedPairs, pick func(prompt [16]byte) bool, size int,
	do func(context.Context, []refcache.Row) error,
) error {
	feed := openFeed(ctx, cache, size, pickedBatches(ctx, cache.Reader, pick, size))
	defer feed.close()
	for {
		rows, err := feed.next()
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := do(ctx, rows); err != nil {
			return err
		}
		feed.giveBack(rows)
	}
}

// vocabulary reads the frozen LM head of a cache.
func vocabulary(cache *refcache.Reader) (*models.Vocabulary, error) {
	h, err := cache.Head()
	if err != nil {
		return nil, err
	}
	return &models.Vocabulary{V: h.V, D: h.D, Weight: h.Weight, Bias: h.Bias, Scale: h.Scale, Softcap: h.Softcap}, nil
}
