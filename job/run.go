package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// A Place is where policies are published; package publish has it.
type Place interface {
	// Publish copies folder from to a new version and makes it current. The same version
	// with the same files again changes nothing. The error has a method Withdrawn() where that
	// was rolled back.
	Publish(ctx context.Context, version, from string, meta map[string]string) error
	// Current names the version in use and its folder.
	Current() (version, folder string, ok bool, err error)
	// Verify compares what is below a folder of the version, whose files are in folder from, with what was
	// published.
	Verify(ctx context.Context, version, from, below string) error
	// Made names the newest version published with this value in its meta; "" where there is none.
	Made(key, value string) (version string, err error)
	// Retain removes all but the newest versions.
	Retain(ctx context.Context, keep int) (removed []string, err error)
}

// Options are what a run works with, beside its job file.
type Options struct {
	// MaxDuration ends the run behind the batch or step in progress; 0 never.
	MaxDuration time.Duration
	// Log is told what is done, Report how far a stage is. Both may be nil.
	Log    slog.Handler
	Report pipeline.Reporter
	// Locate brings what a config names elsewhere (URLs of a store) to this machine and writes
	// paths for it; records keep what was named. What a run writes elsewhere is Kept; nil where
	// all of it stays here. Where nothing is to be written, it keeps nobody out. Locate may be nil.
	Locate func(ctx context.Context, cfg *Config, writes bool) (Kept, error)
	// OpenRuntime and OpenPlace open what a config names.
	OpenRuntime func(Runtime) (pipeline.Runtime, error)
	Engines     func(Runtime) pipeline.Engines
	OpenPlace   func(path string) (Place, error)
}

// A BusyError says that another process runs the job.
type BusyError struct {
	// Runs is the folder of the job's runs, Holder who has it.
	Runs, Holder string
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("job: another run of this job is at work in %q: %s", e.Runs, e.Holder)
}

// A TimeUpError says that a run ended at its Options.MaxDuration; the next start goes on.
type TimeUpError struct{ After time.Duration }

func (e *TimeUpError) Error() string {
	return fmt.Sprintf("job: %v were over; the next start goes on where this one stopped", e.After)
}

// execution is the state of one run.
type execution struct {
	named   *Config // the job file
	cfg     *Config // the same with everything on this machine
	kept    Kept    // what of that belongs elsewhere
	opt     Options
	log     *slog.Logger
	rt      pipeline.Runtime
	place   Place // nil: nothing is published
	earlier []*Result
	run     *Result
	cache   pass  // of the data
	pairs   *pass // of the evaluation's own pairs; nil: there are none
	start   time.Time
	already float64 // seconds of earlier attempts

	trained    string // checkpoint that training hands over
	evaluation *pipeline.EvalResult
}

// Run does what the job file says and writes a record of it. The error is a *[GateError] where
// a gate was not met, a *[BusyError] where the job is at work already, and a *[TimeUpError]
// at Options.MaxDuration; the next start goes on with a run that was interrupted or failed.
func Run(ctx context.Context, cfg Config, opt Options) (_ Result, err error) {
	local, kept, err := located(ctx, &cfg, opt, true)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	lock, err := acquire(local.Runs.Path)
	if err != nil {
		return Result{}, err
	}
	defer lock.Release()
	ctx, stop := kept.Guard(ctx)
	defer stop()
	x, err := open(ctx, &cfg, local, kept, opt)
	if err != nil {
		return Result{}, err
	}
	if err := x.begin(ctx); err != nil {
		return Result{}, err
	}
	file, err := os.OpenFile(x.run.path(logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return Result{}, fmt.Errorf("job: log: %w", err)
	}
	defer file.Close()
	x.log = logger(opt.Log, slog.NewJSONHandler(file, nil)).With("run", x.run.ID)
	limited, cancel := limit(ctx, opt.MaxDuration)
	defer cancel()
	err = x.end(limited, x.stages(limited))
	return *x.run, err
}

// acquire locks the folder of the runs, made if need be.
func acquire(runs string) (*lockfile.Lock, error) {
	if err := os.MkdirAll(runs, 0o777); err != nil {
		return nil, fmt.Errorf("job: runs: %w", err)
	}
	lock, err := lockfile.Acquire(runs)
	if locked, ok := errors.AsType[*lockfile.LockedError](err); ok {
		return nil, &BusyError{Runs: runs, Holder: locked.Holder}
	}
	return lock, err
}

// logger hands what is logged to all of the handlers that there are.
func logger(handlers ...slog.Handler) *slog.Logger {
	var all []slog.Handler
	for _, h := range handlers {
		if h != nil {
			all = append(all, h)
		}
	}
	return slog.New(slog.NewMultiHandler(all...))
}

// limit ends a context after a while, with a *TimeUpError as its cause.
func limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, d, &TimeUpError{After: d})
}

// open reads what is there: earlier runs, the cache, what is published.
func open(ctx context.Context, named, cfg *Config, kept Kept, opt Options) (x *execution, err error) {
	x = &execution{named: named, cfg: cfg, kept: kept, opt: opt, start: time.Now(), log: logger(opt.Log)}
	if x.earlier, err = readRuns(cfg.Runs.Path); err != nil {
		return nil, err
	}
	for _, r := range x.earlier {
		if r.Status == Damaged {
			x.log.Warn("the record of a run is damaged and counts for nothing; its file from a copy mends it", "run", r.ID, "problem", r.Reason)
		}
	}
	if cfg.Publish.To != "" {
		if x.place, err = opt.OpenPlace(cfg.Publish.To); err != nil {
			return nil, err
		}
	}
	if x.rt, err = opt.OpenRuntime(cfg.Runtime); err != nil {
		return nil, err
	}
	if x.cache, err = x.planPass(ctx, cfg.precompute()); err != nil || len(cfg.Evaluation.Pairs) == 0 {
		return x, err
	}
	pairs, err := x.planPass(ctx, cfg.precomputePairs())
	x.pairs = &pairs
	return x, err
}

// located is a copy of the config in which all is on this machine.
func located(ctx context.Context, named *Config, opt Options, writes bool) (*Config, Kept, error) {
	cfg := *named
	cfg.Data, cfg.Evaluation.Pairs = slices.Clone(cfg.Data), slices.Clone(cfg.Evaluation.Pairs)
	if opt.Locate == nil {
		return &cfg, here{}, nil
	}
	kept, err := opt.Locate(ctx, &cfg, writes)
	if err != nil {
		return nil, nil, err
	}
	if kept == nil {
		return &cfg, here{}, nil
	}
	if cfg.Cache.Out != named.Cache.Out {
		cfg.cacheName = kept.Named(cfg.Cache.Out)
	}
	return &cfg, kept, nil
}

// inputs is the identity of all that a run begins with.
func (x *execution) inputs() (string, error) {
	c := x.cfg
	var pairs map[string]string
	if x.pairs != nil {
		pairs = x.pairs.plan.Identity
	}
	return hashOf(x.cache.plan.Identity, pairs, settings(&c.Train, "train"), c.Train.Sweep, settings(&c.Evaluation, "evaluation"),
		settings(&c.Gates, "gates"), settings(&c.Export, "export"), c.Cache.Prune, c.Publish.To)
}

// unfinished is the newest run, if it never ended and began with the same.
func (x *execution) unfinished() (*Result, string, error) {
	inputs, err := x.inputs()
	if err != nil || len(x.earlier) == 0 {
		return nil, inputs, err
	}
	last := x.earlier[len(x.earlier)-1]
	if last.Status.ended() || last.Status == Damaged || last.identities.Inputs != inputs {
		return nil, inputs, nil
	}
	return last, inputs, nil
}

// begin takes up the run that was not finished, or makes a new one.
func (x *execution) begin(ctx context.Context) error {
	last, inputs, err := x.unfinished()
	if err := errors.Join(err, removeUnrecorded(x.cfg.Runs.Path)); err != nil {
		return err
	}
	if last != nil {
		x.run, x.earlier = last, x.earlier[:len(x.earlier)-1]
		if err := errors.Join(x.kept.Bring(ctx, last.path(logName)), atomicfile.RemoveTemp(last.folder)); err != nil {
			return err
		}
	} else {
		if err := x.supersede(ctx); err != nil {
			return err
		}
		number := 1
		if n := len(x.earlier); n > 0 {
			number += x.earlier[n-1].Number
		}
		if x.run, err = createRun(x.cfg.Runs.Path, number, x.start); err != nil {
			return err
		}
		x.run.Before = x.cached()
	}
	r := x.run
	r.Job, r.Status, r.Reason, r.Finished, r.Gates = x.cfg.file, Running, "", time.Time{}, nil
	r.Attempts++
	r.identities.Inputs, r.identities.Cache = inputs, x.cache.plan.Identity
	x.already = r.Seconds
	if err := x.writeConfig(ctx); err != nil {
		return err
	}
	return x.save(ctx, r)
}

// save writes the record of a run, where it is kept too.
func (x *execution) save(ctx context.Context, r *Result) error {
	if err := r.save(); err != nil {
		return err
	}
	return x.kept.Save(ctx, r.folder)
}

// supersede notes which of the earlier runs, now not gone on with, were killed, and removes
// what they left half written.
func (x *execution) supersede(ctx context.Context) error {
	for _, r := range x.earlier {
		err := atomicfile.RemoveTemp(r.folder) // one that ended may have been killed behind that
		if r.killed() {
			err = errors.Join(err, x.save(ctx, r))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// end writes how the run ended, and returns that.
func (x *execution) end(ctx context.Context, err error) error {
	r := x.run
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	switch {
	case err == nil:
	case is[*GateError](err):
		r.Status, r.Reason = Refused, err.Error()
	case is[*TimeUpError](err):
		r.Status, r.Reason = TimeUp, err.Error()
	case ctx.Err() != nil:
		r.Status, r.Reason = Interrupted, err.Error()
	default:
		r.Status, r.Reason = Failed, err.Error()
	}
	r.Reason = x.kept.Named(r.Reason)
	r.Finished = time.Now().UTC().Truncate(time.Second)
	r.Seconds = x.already + time.Since(x.start).Seconds()
	level := slog.LevelInfo
	if err != nil {
		level = slog.LevelError
	}
	ctx = context.WithoutCancel(ctx) // its end is on record too
	x.log.Log(ctx, level, "end", "status", r.Status, "reason", r.Reason, "seconds", r.Seconds)
	return errors.Join(err, x.save(ctx, r), x.retain(ctx))
}

// is reports whether err is or wraps an error of type E.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// retain removes checkpoints and policies of runs that are neither new nor of use to one.
func (x *execution) retain(ctx context.Context) error {
	keep := x.cfg.Runs.Keep
	all := append(x.earlier[:len(x.earlier):len(x.earlier)], x.run)
	if keep == 0 || len(all) <= keep {
		return nil
	}
	used := map[string]bool{}
	for _, r := range all[len(all)-keep:] {
		for _, m := range r.identities.Stages {
			used[m.Output] = true
		}
	}
	for _, r := range all[:len(all)-keep] {
		for _, name := range []string{trainName, policyName} {
			if used[filepath.Join(r.ID, name)] {
				continue
			}
			if err := x.remove(ctx, r.path(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove removes what a run made, where it is kept too.
func (x *execution) remove(ctx context.Context, path string) error {
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("job: runs: %w", err)
	}
	return x.kept.Remove(ctx, path)
}
