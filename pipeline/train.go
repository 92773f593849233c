package pipeline

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
	"github.com/dpo-pipe/dpo-pipe/loss"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// Engines open what computes in training and evaluation, when it is needed.
type Engines struct {
	// Head opens a head engine by its name, "ort" or "gonum".
	Head func(name string, v *models.Vocabulary) (models.Engine, error)
	// Runtime opens what runs the model of a cache without features; others don't need it.
	Runtime func() (Runtime, error)
}

// TrainResult says what a training run did.
type TrainResult struct {
	Out string `json:"out"`
	// Checkpoint is what the run hands over: the link to the newest checkpoint or, under
	// TrainConfig.RestoreBest, to the best; CheckpointStep is its step.
	Checkpoint     string `json:"checkpoint"`
	CheckpointStep int64  `json:"checkpoint_step"`
	// Best is the link to the checkpoint that is best by BestMetric on the held-out pairs,
	// the first of BestCheckpoints; empty without such pairs.
	Best            string             `json:"best,omitempty"`
	BestMetric      string             `json:"best_metric,omitempty"`
	BestCheckpoints []RankedCheckpoint `json:"best_checkpoints,omitempty"`
	Steps           int64              `json:"steps"`
	// StoppedEarly says that training ended before its last step, for want of progress.
	StoppedEarly bool `json:"stopped_early,omitempty"`
	// ResumedAt is the step of the checkpoint that this process went on from; equal to
	// Steps for a run that was finished before.
	ResumedAt    int64   `json:"resumed_at_step,omitempty"`
	TrainPairs   int64   `json:"train_pairs"`
	HeldOutPairs int64   `json:"held_out_pairs"`
	Seconds      float64 `json:"seconds"`
	// TokensPerSecond counts completion tokens trained on by this process.
	TokensPerSecond float64 `json:"tokens_per_second"`
	// Before and After are metrics of the held-out pairs under the fresh head and under
	// Checkpoint; empty where none are held out.
	Before Values `json:"before,omitempty"`
	After  Values `json:"after,omitempty"`
	// Alarms say what is wrong with Checkpoint.
	Alarms []Alarm `json:"alarms,omitempty"`
}

// Train trains a policy head against the cache cfg.Cache and writes the run folder
// cfg.Out. Cancelling ctx ends it after the step in progress, with a checkpoint.
// Resumed from any checkpoint, it ends in the same bytes as a run that was
// never interrupted.
func Train(ctx context.Context, cfg TrainConfig, engines Engines, report Reporter) (TrainResult, error) {
	runs, err := trainAll(ctx, []TrainConfig{cfg}, engines, report, nil)
	if err != nil {
		return TrainResult{}, err
	}
	return runs[0].result, runs[0].failed
}

// outcome is how a run ended: with a result, or failed.
type outcome struct {
	result TrainResult
	failed error
}

// trainAll trains a head for each of cfgs, which have cache and engine in common. Those
// that train on the same batches do so together, in one pass over the cache.
// create, unless nil, is called when all is checked, before the first run folder is made.
func trainAll(ctx context.Context, cfgs []TrainConfig, engines Engines, report Reporter, create func() error) ([]outcome, error) {
	for i := range cfgs {
		var err error
		if cfgs[i], err = cfgs[i].resolve(); err != nil {
			return nil, err
		}
		if err := checkRun(cfgs[i]); err != nil {
			return nil, err
		}
	}
	cache, err := refcache.Open(cfgs[0].here(cfgs[0].Cache))
	if err != nil {
		return nil, err
	}
	defer cache.Close()
	if err := checkInputs(ctx, cache.Manifest(), cfgs[0].here(cfgs[0].Model), cfgs[0].ModelFile, cfgs[0].DataHere()); err != nil {
		return nil, err
	}
	for _, cfg := range cfgs {
		if _, err := cfg.objective(); err != nil {
			return nil, err
		}
	}
	if err := verifyCache(ctx, cache, report); err != nil {
		return nil, err
	}
	pairs, err := openPairs(cache, cfgs[0].here(cfgs[0].Model), cfgs[0].ModelFile, engines)
	if err != nil {
		return nil, err
	}
	defer pairs.features.close()
	streams, err := newStreams(ctx, cfgs, pairs, report)
	if err != nil {
		return nil, err
	}
	v, err := vocabulary(cache)
	if err != nil {
		return nil, err
	}
	engine, err := engines.Head(cfgs[0].Engine, v)
	if err != nil {
		return nil, err
	}
	defer engine.Close()
	if create != nil {
		streams[0].create = create
	}
	var all []outcome
	for _, s := range streams {
		runs, err := s.train(ctx, engine)
		if err != nil {
			return nil, err
		}
		all = append(all, runs...)
	}
	return all, nil
}

// resolve validates the settings and makes paths independent of where the
// command was given: they are read again on --resume and by export.
func (c TrainConfig) resolve() (TrainConfig, error) {
	if err := c.Validate(); err != nil {
		return c, err
	}
	return c.located()
}

func (c TrainConfig) located() (TrainConfig, error) {
	for _, path := range []*string{&c.Cache, &c.Model} {
		if _, elsewhere := c.Folders[*path]; elsewhere || *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return c, fmt.Errorf("pipeline: %w", err)
		}
	}
	c.Out = filepath.Clean(c.Out)
	return c, nil
}

// here is where a path of the settings is on this machine.
func (c TrainConfig) here(path string) string {
	if folder := c.Folders[path]; len(folder) > 0 {
		return folder[0]
	}
	return path
}

// DataHere lists where the data is on this machine.
func (c TrainConfig) DataHere() (paths []string) {
	for _, path := range c.Data {
		if there, elsewhere := c.Folders[path]; elsewhere {
			paths = append(paths, there...)
		} else {
			paths = append(paths, path)
		}
	}
	return paths
}

// trainer is the state of one run. Everything that a resumed run needs to end in
// the same bytes is in the head, the optimizer and trainerState.
type trainer struct {
	cfg       TrainConfig
	stream    *stream
	head      models.Head
	optimizer *models.AdamW
	schedule  models.Schedule
	scorer    *scorer
	metrics   *metricsLog
	lock      *lockfile.Lock

	state     trainerState
	total     int64 // steps
	saved     int64 // step of the newest checkpoint
	resumedAt int64
	tokens    int64 // trained on by this process

	window      loss.Metrics // since the last line of metrics
	windowStart time.Time
	logged      loss.Means // of the last line
	gradNorm    float64    // of the last step
	lr          float64
	after       Values
	finished    bool
	outcome
}

func newTrainer(cfg TrainConfig, s *stream) (*trainer, error) {
	objective, err := cfg.objective()
	if err != nil {
		return nil, err
	}
	t := &trainer{cfg: cfg, stream: s, windowStart: time.Now()}
	t.total = stepsPerEpoch(s.part.train, cfg.BatchPairs) * int64(cfg.Epochs)
	if cfg.MaxSteps > 0 {
		t.total = min(t.total, cfg.MaxSteps)
	}
	if t.schedule, err = models.NewSchedule(cfg.Schedule, cfg.LR, cfg.Warmup, int(t.total)); err != nil {
		return nil, err
	}
	// The rate of the first warm-up step is 0: a run that is all warm-up would learn nothing.
	t.schedule.Warmup = min(t.schedule.Warmup, int(t.total)-1)
	v := s.product.engine.Vocabulary()
	t.head = models.NewHead(cfg.headOptions(v))
	t.optimizer = models.NewAdamW(t.head.Params())
	t.optimizer.WeightDecay = cfg.WeightDecay
	t.scorer = newScorer(t.head, objective)
	return t, nil
}

func (t *trainer) close() {
	if t.metrics != nil {
		t.metrics.close()
	}
	if t.lock != nil {
		t.lock.Release()
	}
}

// resume locks the run folder, if there is one, and loads its last checkpoint.
func (t *trainer) resume() (err error) {
	if !exists(filepath.Join(t.cfg.Out, configName)) {
		return nil
	}
	if t.lock, err = lockfile.Acquire(t.cfg.Out); err != nil {
		return err
	}
	return t.load()
}

// create makes the run folder, locked, and opens its metrics.
func (t *trainer) create() (err error) {
	if err := createRun(t.cfg); err != nil {
		return err
	}
	if t.lock == nil {
		if t.lock, err = lockfile.Acquire(t.cfg.Out); err != nil {
			return err
		}
	}
	t.metrics, err = openMetrics(filepath.Join(t.cfg.Out, metricsName), t.state.MetricsBytes)
	return err
}

// update takes one optimizer step on a batch of so many tokens, which was scored.
func (t *trainer) update(tokens int64) error {
	t.scorer.addTo(&t.window)
	norm, err := models.ClipGradNorm(t.head.Params(), t.cfg.MaxGradNorm)
	if err != nil {
		return err
	}
	t.gradNorm = norm
	t.lr = t.schedule.At(int(t.state.Step))
	t.optimizer.Step(t.lr)
	t.tokens += tokens
	t.state.Step++
	return nil
}

// due reports whether the step behind the run is one of every so many, or its last.
func (t *trainer) due(every int64) bool {
	return t.state.Step == t.total || every > 0 && t.state.Step%every == 0
}

// finish writes report and summary of a run whose last checkpoint is saved.
func (t *trainer) finish(ctx context.Context) error {
	if t.finished || t.failed != nil {
		return nil
	}
	t.finished = true
	if err := writeReport(ctx, t.cfg.Out, t.cfg.Folders); err != nil {
		return err
	}
	seconds := time.Since(t.stream.start).Seconds()
	t.result = TrainResult{
		Out: t.cfg.Out, Steps: t.state.Step, ResumedAt: t.resumedAt,
		TrainPairs: t.stream.part.train, HeldOutPairs: t.stream.part.held, Seconds: seconds,
		TokensPerSecond: float64(t.tokens) / seconds, Before: t.state.Before,
	}
	if err := t.handOver(&t.result); err != nil {
		return err
	}
	t.tellBest(&t.result)
	summary := filepath.Join(t.cfg.Out, summaryName)
	if t.resumedAt == t.state.Step && exists(summary) {
		return nil // the figures of the process that did the work stay
	}
	return atomicfile.WriteFile(summary, func(w io.Writer) error { return writeJSON(w, t.result) })
}
