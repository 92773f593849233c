package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/dpo-pipe/dpo-pipe/loss"
)

// log writes the means of the window as one line of metrics and reports them.
func (t *trainer) log() error {
	m := t.window.Means()
	if m.Pairs == 0 {
		return nil
	}
	seconds := time.Since(t.windowStart).Seconds()
	line := append(t.position(), means(m)...)
	line = append(line,
		Value{"grad_norm", t.gradNorm}, Value{"learning_rate", t.lr},
		Value{"pairs_per_second", float64(m.Pairs) / seconds}, Value{"tokens_per_second", float64(m.Tokens) / seconds})
	t.window.Reset()
	t.windowStart = time.Now()
	t.report.report(Progress{
		Stage: "train", Done: t.state.Step, Total: t.total, Unit: "steps", Tokens: t.tokens,
		Elapsed: time.Since(t.start), Fresh: t.state.Step - t.resumedAt,
		Note: fmt.Sprintf("loss %.4f  accuracy %.3f  margin %.3f", m.Loss, m.RewardsAccuracies, m.RewardsMargins),
	})
	return t.metrics.append(line)
}

// position is where a line of metrics stands.
func (t *trainer) position() Values {
	perEpoch := stepsPerEpoch(t.part.train, t.cfg.BatchPairs)
	return Values{{"step", float64(t.state.Step)}, {"epoch", float64(t.state.Step) / float64(perEpoch)}}
}

func means(m loss.Means) (v Values) {
	m.Named(func(name string, value float64) { v = append(v, Value{name, value}) })
	return v
}

// evaluate scores the held-out pairs and logs the result; nil without any.
func (t *trainer) evaluate(ctx context.Context) (*Evaluation, error) {
	if t.part.held == 0 {
		return nil, nil
	}
	e, err := evaluationOf(ctx, t.scorer, t.cache, t.part.split.heldOut, t.cfg.BatchPairs, t.state.Step)
	if err != nil {
		return nil, err
	}
	return e, t.metrics.append(append(t.position(), e.Metrics.Prefixed(evalPrefix)...))
}

// evaluateFresh evaluates before the first step.
func (t *trainer) evaluateFresh(ctx context.Context) error {
	e, err := t.evaluate(ctx)
	if e != nil {
		t.state.Before = e.Metrics
	}
	return err
}

// evaluateStep evaluates, for the report too, and reports whether the head must be kept.
func (t *trainer) evaluateStep(ctx context.Context) (keep bool, err error) {
	e, err := t.evaluate(ctx)
	if err != nil || e == nil {
		return false, err
	}
	t.after = e.Metrics
	return t.rank(), e.write(t.cfg.Out)
}
