package pipeline

import (
	"time"

	"github.com/dpo-pipe/dpo-pipe/loss"
)

// log writes the means of the window as one line of metrics.
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
	t.logged = m
	return t.metrics.append(line)
}

// position is where a line of metrics stands.
func (t *trainer) position() Values {
	perEpoch := stepsPerEpoch(t.stream.part.train, t.cfg.BatchPairs)
	return Values{{"step", float64(t.state.Step)}, {"epoch", float64(t.state.Step) / float64(perEpoch)}}
}

func means(m loss.Means) (v Values) {
	m.Named(func(name string, value float64) { v = append(v, Value{name, value}) })
	return v
}
