package pipeline

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/loss"
)

// Sides on which a metric can be better.
const (
	autoDirection = "auto"
	lower         = "lower"
	higher        = "higher"
)

// betterSide tells which metrics say by themselves what is better. Entropy and the
// correlation with length don't.
var betterSide = map[string]string{
	"loss": lower, "kl": lower, "rewards/rejected": lower, "logps/rejected": lower, "drift/rejected": lower,
	"drift/chosen_lowered": lower, "calibration/error": lower, "clamped": lower,
	"rewards/chosen": higher, "rewards/margins": higher, "rewards/accuracies": higher, "logps/chosen": higher,
	"logps/accuracies": higher, "mean_token_accuracy": higher, "drift/chosen": higher,
}

// metricNames lists what an evaluation tells, in order.
func metricNames() (names []string) {
	loss.Means{}.Named(func(name string, _ float64) { names = append(names, name) })
	return names
}

// best checks the settings of what is best and when to stop.
func (k *check) best(c TrainConfig) {
	names := metricNames()
	k.that(slices.Contains(names, c.BestMetric), "--best-metric", c.BestMetric, "one of "+strings.Join(names, ", "))
	known := slices.Contains([]string{autoDirection, lower, higher}, c.BestDirection)
	k.that(known, "--best-direction", c.BestDirection, "auto, lower or higher")
	if slices.Contains(names, c.BestMetric) && c.BestDirection == autoDirection {
		_, told := betterSide[c.BestMetric]
		k.that(told, "--best-direction", c.BestDirection, "lower or higher: "+c.BestMetric+" is not better on one side by itself")
	}
	k.that(c.KeepBest >= 1, "--keep-best", c.KeepBest, "1 or more checkpoints")
	k.that(c.EarlyStop >= 0, "--early-stop", c.EarlyStop, "0 (never) or more evaluations")
	if c.EarlyStop > 0 {
		k.that(c.EvalEvery > 0, "--eval-every", c.EvalEvery, "1 or more steps: --early-stop counts evaluations")
		k.that(c.EvalFrac > 0, "--eval-frac", c.EvalFrac, "a share above 0: --early-stop needs held-out pairs")
	}
	if c.RestoreBest {
		k.that(c.EvalEvery > 0, "--eval-every", c.EvalEvery, "1 or more steps: --restore-best chooses among evaluations")
		k.that(c.EvalFrac > 0, "--eval-frac", c.EvalFrac, "a share above 0: --restore-best needs held-out pairs")
	}
}

// better reports whether a value of BestMetric is strictly better than another; NaN never is.
func (c TrainConfig) better(a, b float64) bool {
	side := c.BestDirection
	if side == autoDirection {
		side = betterSide[c.BestMetric]
	}
	if side == higher {
		return a > b
	}
	return a < b
}

// A RankedCheckpoint is a checkpoint with its value of the metric that ranks them.
type RankedCheckpoint struct {
	Step  int64   `json:"step"`
	Value float64 `json:"value"`
}

// ranking holds the best checkpoints, the best first; of equal ones the earlier.
type ranking []RankedCheckpoint

// add puts a checkpoint into the best k and reports whether it is among them, and
// whether it is the first.
func (r ranking) add(one RankedCheckpoint, k int, better func(a, b float64) bool) (out ranking, kept, first bool) {
	if !finite(one.Value) {
		return r, false, false
	}
	at := len(r)
	for at > 0 && better(one.Value, r[at-1].Value) {
		at--
	}
	if at == k {
		return r, false, false
	}
	out = slices.Insert(slices.Clone(r), at, one)
	return out[:min(k, len(out))], true, at == 0
}

func (r ranking) has(step int64) bool {
	return slices.ContainsFunc(r, func(one RankedCheckpoint) bool { return one.Step == step })
}

// rank takes the newest evaluation into account: what is best, and whether training
// has not become better for too long.
func (t *trainer) rank() {
	one := RankedCheckpoint{t.state.Step, t.after.Get(t.cfg.BestMetric)}
	var first bool
	t.state.Best, _, first = t.state.Best.add(one, t.cfg.KeepBest, t.cfg.better)
	t.state.Stale++
	if first {
		t.state.Stale = 0
	}
	t.state.Stopped = t.cfg.EarlyStop > 0 && t.state.Stale >= t.cfg.EarlyStop
}

// done reports whether no step is left to take.
func (t *trainer) done() bool { return t.state.Step >= t.total || t.state.Stopped || t.failed != nil }

// handOver writes into a result which checkpoint it is of, with its metrics: the newest one
// or, under RestoreBest, the best. The newest stays in the run folder for --resume.
func (t *trainer) handOver(r *TrainResult) error {
	link, state := lastName, t.state
	if t.cfg.RestoreBest && len(state.Best) > 0 {
		link = bestName
		var err error
		if state, err = readState(filepath.Join(t.cfg.Out, checkpointPath(state.Best[0].Step))); err != nil {
			return err
		}
	}
	r.Checkpoint, r.CheckpointStep = filepath.Join(t.cfg.Out, link), state.Step
	r.After, r.Alarms = state.After, alarms(state.After)
	return nil
}

// tellBest writes into a result what is best.
func (t *trainer) tellBest(r *TrainResult) {
	r.StoppedEarly = t.state.Stopped && t.state.Step < t.total
	if len(t.state.Best) == 0 {
		return
	}
	r.Best, r.BestMetric, r.BestCheckpoints = filepath.Join(t.cfg.Out, bestName), t.cfg.BestMetric, t.state.Best
}
