package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// stream is what runs share that train on the same batches: the pairs in their order, and
// the product of each with the frozen matrix. A single run is alone on its stream.
type stream struct {
	cfgs    []TrainConfig // of the runs; the first says what all share
	pass    string        // which of several, for people; "" for the only one
	cache   cachedPairs
	part    partition
	product *product
	report  Reporter
	start   time.Time
	create  func() error // is called before the first run folder is made

	runs   []*trainer
	tokens int64 // of completions trained on by this process
	fresh  int64 // steps taken by this process
}

// newStreams puts runs together that train on the same batches, in the order of the first
// of each.
func newStreams(ctx context.Context, cfgs []TrainConfig, cache cachedPairs, report Reporter) ([]*stream, error) {
	groups := batchGroups(cfgs)
	streams := make([]*stream, len(groups))
	for i, group := range groups {
		var err error
		if streams[i], err = newStream(ctx, group, cache, report); err != nil {
			return nil, err
		}
		if len(groups) > 1 {
			streams[i].pass = fmt.Sprintf(" of pass %d of %d", i+1, len(groups))
		}
	}
	return streams, nil
}

// batchGroups puts settings together that give the same batches.
func batchGroups(cfgs []TrainConfig) (groups [][]TrainConfig) {
	for _, cfg := range cfgs {
		at := slices.IndexFunc(groups, func(g []TrainConfig) bool {
			return g[0].Seed == cfg.Seed && g[0].BatchPairs == cfg.BatchPairs
		})
		if at < 0 {
			at = len(groups)
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], cfg)
	}
	return groups
}

// newStream counts the pairs and checks what needs the count.
func newStream(ctx context.Context, cfgs []TrainConfig, cache cachedPairs, report Reporter) (*stream, error) {
	s := &stream{cfgs: cfgs, cache: cache, report: report, create: func() error { return nil }}
	var err error
	if s.part, err = newPartition(ctx, cache.Reader, cfgs[0].EvalFrac); err != nil {
		return nil, err
	}
	for _, cfg := range cfgs {
		flag := ""
		switch {
		case cfg.EarlyStop > 0:
			flag = "--early-stop"
		case cfg.RestoreBest:
			flag = "--restore-best"
		}
		if flag != "" && s.part.held == 0 {
			return nil, &FieldError{"--eval-frac", cfg.EvalFrac, "a larger share: it holds out no pair, and " + flag + " needs some"}
		}
	}
	return s, nil
}

// train trains every run of the stream to its end.
func (s *stream) train(ctx context.Context, engine models.Engine) (ends []outcome, err error) {
	defer s.close()
	s.start = time.Now()
	s.product = newProduct(engine, s.cfgs[0].MicroTokens)
	for _, cfg := range s.cfgs {
		t, err := newTrainer(cfg, s)
		if err != nil {
			return nil, err
		}
		s.runs = append(s.runs, t)
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	if err := s.loop(ctx); err != nil {
		return nil, err
	}
	for _, t := range s.runs {
		ends = append(ends, t.outcome)
	}
	return ends, nil
}

// close ends the runs and lets go of their heads.
func (s *stream) close() {
	for _, t := range s.runs {
		t.close()
	}
	s.runs = nil
}

// begin loads the last checkpoint of each run or checks that its fresh head is the
// reference, and scores the held-out pairs before the first step.
func (s *stream) begin(ctx context.Context) error {
	var fresh []*trainer
	for _, t := range s.runs {
		if err := t.resume(); err != nil {
			return err
		}
		if t.state.Step == 0 {
			fresh = append(fresh, t)
		}
	}
	if err := s.checkFresh(ctx, fresh); err != nil {
		return err
	}
	if err := s.create(); err != nil {
		return err
	}
	for _, t := range s.runs {
		if err := t.create(); err != nil {
			return err
		}
	}
	before, err := s.evaluate(ctx, fresh)
	for i, t := range fresh {
		if before[i] != nil {
			t.state.Before = before[i].Metrics
		}
	}
	return err
}

// loop takes the remaining steps. A run that is ahead of the stream waits for it.
func (s *stream) loop(ctx context.Context) error {
	// A step that has begun is finished: cancellation is looked at between steps.
	whole := context.WithoutCancel(ctx)
	open, err := s.open(whole)
	if err != nil || len(open) == 0 {
		return err
	}
	step := slices.MinFunc(open, func(a, b *trainer) int { return int(a.state.Step - b.state.Step) }).state.Step
	last := slices.MaxFunc(open, func(a, b *trainer) int { return int(a.total - b.total) }).total
	feed := openFeed(whole, s.cache, s.cfgs[0].BatchPairs, trainingBatches(s.cache.Reader, s.part, s.cfgs[0], step, last))
	defer feed.close()
	for ; len(open) > 0; step++ {
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), s.save(whole))
		}
		rows, err := feed.next()
		if err != nil {
			return err
		}
		turn := slices.DeleteFunc(open, func(t *trainer) bool { return t.state.Step != step })
		if len(turn) > 0 {
			err = s.step(whole, turn, rows)
		}
		if err != nil {
			return err
		}
		feed.giveBack(rows)
		if open, err = s.open(whole); err != nil {
			return err
		}
	}
	return nil
}

// open lists the runs that have steps left, and finishes those that have none.
func (s *stream) open(ctx context.Context) (open []*trainer, err error) {
	for _, t := range s.runs {
		if !t.done() {
			open = append(open, t)
		} else if err := t.finish(ctx); err != nil {
			return nil, err
		}
	}
	return open, nil
}

// step takes an optimizer step of each of runs on one batch, then logs, evaluates and saves
// where the step is due for it.
func (s *stream) step(ctx context.Context, runs []*trainer, batch []refcache.Row) error {
	for _, t := range runs {
		t.head.ZeroGrad()
	}
	if err := s.product.score(ctx, batch, scorersOf(runs), true); err != nil {
		return fmt.Errorf("pipeline: step %d: %w", runs[0].state.Step+1, err)
	}
	var tokens int64
	for i := range batch {
		tokens += int64(len(batch[i].Chosen) + len(batch[i].Rejected))
	}
	for _, t := range runs {
		if err := t.head.Finish(ctx, s.product.engine); err != nil {
			return fmt.Errorf("pipeline: step %d: %w", t.state.Step+1, err)
		}
		if err := t.update(tokens); err != nil {
			t.failed = fmt.Errorf("pipeline: step %d: %w", t.state.Step+1, err)
		}
	}
	runs = slices.DeleteFunc(runs, func(t *trainer) bool { return t.failed != nil })
	s.tokens += tokens
	s.fresh++
	return s.afterStep(ctx, runs)
}

// afterStep logs, evaluates and saves where the step is due for it.
func (s *stream) afterStep(ctx context.Context, runs []*trainer) error {
	var evaluated, logged []*trainer
	for _, t := range runs {
		// A checkpoint closes the window too, so that a resumed run begins with an
		// empty one, as this one goes on with.
		if t.due(t.cfg.LogEvery) || t.due(t.cfg.SaveEvery) {
			if err := t.log(); err != nil {
				return err
			}
			logged = append(logged, t)
		}
		if t.due(t.cfg.EvalEvery) {
			evaluated = append(evaluated, t)
		}
	}
	s.tell(logged)
	after, err := s.evaluate(ctx, evaluated)
	if err != nil {
		return err
	}
	for i, t := range evaluated {
		if after[i] == nil {
			continue
		}
		t.after = after[i].Metrics
		t.rank()
		if err := after[i].write(t.cfg.Out); err != nil {
			return err
		}
	}
	for _, t := range runs {
		if t.due(t.cfg.SaveEvery) || t.state.Best.has(t.state.Step) || t.state.Stopped {
			if err := t.save(); err != nil {
				return err
			}
		}
	}
	return nil
}

// evaluate scores the held-out pairs under the head of each of runs and logs the results;
// they are nil where none are held out.
func (s *stream) evaluate(ctx context.Context, runs []*trainer) ([]*Evaluation, error) {
	all := make([]*Evaluation, len(runs))
	if s.part.held == 0 || len(runs) == 0 {
		return all, nil
	}
	tallies := make([]*tally, len(runs))
	for i := range runs {
		tallies[i] = newTally()
	}
	scorers := scorersOf(runs)
	err := eachBatch(ctx, s.cache, s.part.split.heldOut, s.cfgs[0].BatchPairs, func(ctx context.Context, rows []refcache.Row) error {
		if err := s.product.score(ctx, rows, scorers, false); err != nil {
			return err
		}
		for i, one := range scorers {
			tallies[i].add(one, rows)
		}
		return nil
	})
	if err != nil {
		return all, err
	}
	for i, t := range runs {
		all[i] = tallies[i].evaluation(t.state.Step)
		if err := t.metrics.append(append(t.position(), all[i].Metrics.Prefixed(evalPrefix)...)); err != nil {
			return all, err
		}
	}
	return all, nil
}

// save writes checkpoint and report of every run where it stands.
func (s *stream) save(ctx context.Context) error {
	var errs []error
	for _, t := range s.runs {
		if t.failed != nil {
			continue
		}
		errs = append(errs, t.save(), writeReport(ctx, t.cfg.Out, t.cfg.Folders))
	}
	return errors.Join(errs...)
}

// tell reports how far the stream is, after runs wrote a line of metrics.
func (s *stream) tell(runs []*trainer) {
	if len(runs) == 0 {
		return
	}
	p := Progress{
		Stage: "train", Done: runs[0].state.Step, Unit: "steps", Tokens: s.tokens, Elapsed: time.Since(s.start), Fresh: s.fresh,
	}
	for _, t := range s.runs {
		p.Total = max(p.Total, t.total)
	}
	m, epoch := runs[0].logged, runs[0].position().Get("epoch")
	p.Note = fmt.Sprintf("epoch %.2f  loss %.4f  accuracy %.3f  margin %.3f", epoch, m.Loss, m.RewardsAccuracies, m.RewardsMargins)
	if len(s.runs) > 1 {
		low, high := m.RewardsAccuracies, m.RewardsAccuracies
		for _, t := range runs {
			low, high = min(low, t.logged.RewardsAccuracies), max(high, t.logged.RewardsAccuracies)
		}
		p.Note = fmt.Sprintf("epoch %.2f  %d runs%s  accuracy %.3f … %.3f", epoch, len(s.runs), s.pass, low, high)
	}
	s.report.report(p)
}

func scorersOf(runs []*trainer) []*scorer {
	scorers := make([]*scorer, len(runs))
	for i, t := range runs {
		scorers[i] = t.scorer
	}
	return scorers
}
