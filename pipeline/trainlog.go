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
func (t *trainer) evaluate(ctx context.Context) (Values, error) {
	if t.part.held == 0 {
		return nil, nil
	}
	m, err := meansOf(ctx, t.scorer, t.cache, t.part.split.heldOut, t.cfg.BatchPairs)
	if err != nil {
		return nil, err
	}
	v := means(m)
	return v, t.metrics.append(append(t.position(), v.Prefixed("eval_")...))
}

// evaluateStep evaluates and reports whether the head must be kept.
func (t *trainer) evaluateStep(ctx context.Context) (keep bool, err error) {
	if t.after, err = t.evaluate(ctx); err != nil || t.after == nil {
		return false, err
	}
	return t.rank(), nil
}
