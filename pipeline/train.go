package pipeline

import (
	"context"
	"errors"
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

// OpenEngine opens a head engine by its name, "ort" or "gonum".
type OpenEngine func(name string, v *models.Vocabulary) (models.Engine, error)

// TrainResult says what a training run did.
type TrainResult struct {
	Out        string `json:"out"`
	Checkpoint string `json:"checkpoint"`
	// Best is the link to the checkpoint that is best by BestMetric on the held-out pairs,
	// the first of BestCheckpoints; empty without such pairs. Checkpoint stays the newest.
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
	// Before and After are metrics of the held-out pairs under the fresh and the
	// trained head; empty where none are held out.
	Before Values `json:"before,omitempty"`
	After  Values `json:"after,omitempty"`
	// Alarms say what is wrong with the trained head.
	Alarms []Alarm `json:"alarms,omitempty"`
}

// Train trains a policy head against the cache cfg.Cache and writes the run folder
// cfg.Out. Cancelling ctx ends it after the step in progress, with a checkpoint.
// Resumed from any checkpoint, it ends in the same bytes as a run that was
// never interrupted.
func Train(ctx context.Context, cfg TrainConfig, open OpenEngine, report Reporter) (TrainResult, error) {
	cfg, err := cfg.resolve()
	if err != nil {
		return TrainResult{}, err
	}
	if err := checkRun(cfg); err != nil {
		return TrainResult{}, err
	}
	cache, err := refcache.Open(cfg.Cache)
	if err != nil {
		return TrainResult{}, err
	}
	defer cache.Close()
	if err := checkInputs(ctx, cfg, cache.Manifest()); err != nil {
		return TrainResult{}, err
	}
	t, err := newTrainer(ctx, cfg, cache, open, report)
	if err != nil {
		return TrainResult{}, err
	}
	defer t.close()
	if err := t.begin(ctx); err != nil {
		return TrainResult{}, err
	}
	if err := t.loop(ctx); err != nil {
		return TrainResult{}, err
	}
	if err := WriteReport(context.WithoutCancel(ctx), cfg.Out); err != nil {
		return TrainResult{}, err
	}
	return t.finish()
}

// resolve validates the settings and makes paths independent of where the
// command was given: they are read again on --resume and by export.
func (c TrainConfig) resolve() (TrainConfig, error) {
	if err := c.Validate(); err != nil {
		return c, err
	}
	var err error
	if c.Cache, err = filepath.Abs(c.Cache); err == nil && c.Model != "" {
		c.Model, err = filepath.Abs(c.Model)
	}
	if err != nil {
		return c, fmt.Errorf("pipeline: %w", err)
	}
	c.Out = filepath.Clean(c.Out)
	return c, nil
}

// trainer is the state of one run. Everything that a resumed run needs to end in
// the same bytes is in the head, the optimizer and trainerState.
type trainer struct {
	cfg       TrainConfig
	cache     *refcache.Reader
	part      partition
	engine    models.Engine
	head      *models.LoRA
	optimizer *models.AdamW
	schedule  models.Schedule
	scorer    *scorer
	metrics   *metricsLog
	lock      *lockfile.Lock
	report    Reporter

	state     trainerState
	total     int64 // steps
	saved     int64 // step of the newest checkpoint
	resumedAt int64
	start     time.Time
	tokens    int64 // trained on by this process

	window      loss.Metrics // since the last line of metrics
	windowStart time.Time
	gradNorm    float64 // of the last step
	lr          float64
	after       Values
}

func newTrainer(ctx context.Context, cfg TrainConfig, cache *refcache.Reader, open OpenEngine, report Reporter) (*trainer, error) {
	objective, err := cfg.objective()
	if err != nil {
		return nil, err
	}
	t := &trainer{cfg: cfg, cache: cache, report: report, start: time.Now(), windowStart: time.Now()}
	if err := verifyCache(ctx, cache, report); err != nil {
		return nil, err
	}
	if t.part, err = newPartition(ctx, cache, cfg.EvalFrac); err != nil {
		return nil, err
	}
	if cfg.EarlyStop > 0 && t.part.held == 0 {
		return nil, &FieldError{"--eval-frac", cfg.EvalFrac, "a larger share: it holds out no pair, and --early-stop needs some"}
	}
	t.total = stepsPerEpoch(t.part.train, cfg.BatchPairs) * int64(cfg.Epochs)
	if cfg.MaxSteps > 0 {
		t.total = min(t.total, cfg.MaxSteps)
	}
	if t.schedule, err = models.NewSchedule(cfg.Schedule, cfg.LR, cfg.Warmup, int(t.total)); err != nil {
		return nil, err
	}
	// The rate of the first warm-up step is 0: a run that is all warm-up would learn nothing.
	t.schedule.Warmup = min(t.schedule.Warmup, int(t.total)-1)
	v, err := vocabulary(cache)
	if err != nil {
		return nil, err
	}
	if t.engine, err = open(cfg.Engine, v); err != nil {
		return nil, err
	}
	t.head = models.NewLoRA(v.D, v.V, cfg.Rank, cfg.Alpha, cfg.Seed)
	t.optimizer = models.NewAdamW(t.head.Params())
	t.optimizer.WeightDecay = cfg.WeightDecay
	t.scorer = newScorer(t.head, t.engine, objective, cfg.MicroTokens)
	return t, nil
}

func (t *trainer) close() {
	t.engine.Close()
	if t.metrics != nil {
		t.metrics.close()
	}
	if t.lock != nil {
		t.lock.Release()
	}
}

// begin loads the last checkpoint or checks that the fresh head is the
// reference, and scores the held-out pairs before the first step.
func (t *trainer) begin(ctx context.Context) error {
	err := t.resume()
	if err != nil {
		return err
	}
	if t.state.Step == 0 {
		if err := t.checkFresh(ctx); err != nil {
			return err
		}
	}
	if err := t.create(); err != nil {
		return err
	}
	if t.metrics, err = openMetrics(filepath.Join(t.cfg.Out, metricsName), t.state.MetricsBytes); err != nil {
		return err
	}
	if t.state.Step == 0 {
		return t.evaluateFresh(ctx)
	}
	return nil
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

// create makes the run folder, locked.
func (t *trainer) create() (err error) {
	if err := createRun(t.cfg); err != nil || t.lock != nil {
		return err
	}
	t.lock, err = lockfile.Acquire(t.cfg.Out)
	return err
}

// loop takes the remaining steps.
func (t *trainer) loop(ctx context.Context) error {
	// A step that has begun is finished: cancellation is looked at between steps.
	whole := context.WithoutCancel(ctx)
	feed := openFeed(whole, t.cache, t.part, t.cfg, t.state.Step)
	defer feed.close()
	for !t.done() {
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), t.save(), WriteReport(whole, t.cfg.Out))
		}
		rows, err := feed.next()
		if err != nil {
			return err
		}
		if err := t.update(whole, rows); err != nil {
			return fmt.Errorf("pipeline: step %d: %w", t.state.Step+1, err)
		}
		feed.giveBack(rows)
		t.state.Step++
		if err := t.afterStep(whole); err != nil {
			return err
		}
	}
	return nil
}

// update takes one optimizer step on a batch.
func (t *trainer) update(ctx context.Context, batch []refcache.Row) error {
	t.head.ZeroGrad()
	if err := t.scorer.score(ctx, batch, &t.window, true); err != nil {
		return err
	}
	norm, err := models.ClipGradNorm(t.head.Params(), t.cfg.MaxGradNorm)
	if err != nil {
		return err
	}
	t.gradNorm = norm
	t.lr = t.schedule.At(int(t.state.Step))
	t.optimizer.Step(t.lr)
	for i := range batch {
		t.tokens += int64(len(batch[i].Chosen) + len(batch[i].Rejected))
	}
	return nil
}

// afterStep logs, evaluates and saves where the step is due for it.
func (t *trainer) afterStep(ctx context.Context) error {
	step, last := t.state.Step, t.state.Step == t.total
	due := func(every int64) bool { return last || every > 0 && step%every == 0 }
	save := due(t.cfg.SaveEvery)
	// A checkpoint closes the window too, so that a resumed run begins with an
	// empty one, as this one goes on with.
	if due(t.cfg.LogEvery) || save {
		if err := t.log(); err != nil {
			return err
		}
	}
	if due(t.cfg.EvalEvery) {
		keep, err := t.evaluateStep(ctx)
		if err != nil {
			return err
		}
		save = save || keep || t.state.Stopped
	}
	if save {
		return t.save()
	}
	return nil
}

// finish writes the summary of a run whose last checkpoint is saved.
func (t *trainer) finish() (TrainResult, error) {
	seconds := time.Since(t.start).Seconds()
	r := TrainResult{
		Out: t.cfg.Out, Checkpoint: filepath.Join(t.cfg.Out, lastName), Steps: t.state.Step, ResumedAt: t.resumedAt,
		TrainPairs: t.part.train, HeldOutPairs: t.part.held, Seconds: seconds,
		TokensPerSecond: float64(t.tokens) / seconds, Before: t.state.Before, After: t.state.After,
		Alarms: alarms(t.state.After),
	}
	t.tellBest(&r)
	summary := filepath.Join(t.cfg.Out, summaryName)
	if t.resumedAt == t.state.Step && exists(summary) {
		return r, nil // the figures of the process that did the work stay
	}
	return r, atomicfile.WriteFile(summary, func(w io.Writer) error { return writeJSON(w, r) })
}
