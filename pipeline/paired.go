package pipeline

import (
	"math"

	"github.com/dpo-pipe/dpo-pipe/loss"
)

// Against sets a checkpoint beside the evaluated one, on the same pairs and under
// the objective of the evaluated one, its β included.
type Against struct {
	Checkpoint string `json:"checkpoint"`
	Step       int64  `json:"step"`
	// Metrics are those of this checkpoint.
	Metrics Values `json:"metrics"`
	// Differences are the evaluated checkpoint's metrics less these, Intervals where
	// 95 % of the resamples of the pairs put them: chance that both share cancels.
	Differences Values    `json:"differences"`
	Intervals   Intervals `json:"intervals"`
	// Tests say whether the accuracies differ by more than chance.
	Tests []McNemar `json:"tests"`
}

// McNemar is the exact test of two accuracies on the same pairs: of the pairs that
// only one of two checkpoints gets right, each should have half if neither is
// better (McNemar 1947, in its binomial form).
type McNemar struct {
	// Metric is the accuracy that is tested.
	Metric string `json:"metric"`
	// Only counts pairs that the evaluated checkpoint alone gets right, OnlyAgainst
	// those that the other alone does.
	Only        int64 `json:"only_checkpoint"`
	OnlyAgainst int64 `json:"only_against"`
	// P is the two-sided probability of a split at least as uneven by chance.
	P float64 `json:"p"`
}

// accuracies names the metrics of which a pair is right or not, and tells which.
var accuracies = []struct {
	name  string
	right func(loss.Means) bool
}{
	{"rewards/accuracies", func(m loss.Means) bool { return m.RewardsAccuracies == 1 }},
	{"logps/accuracies", func(m loss.Means) bool { return m.LogpsAccuracies == 1 }},
}

// discordance counts, for each of the accuracies, the pairs that one alone gets right.
type discordance [2]struct{ only, onlyAgainst int64 }

// add counts a pair by its metrics under both checkpoints.
func (d *discordance) add(subject, against *loss.Metrics) {
	a, b := subject.Means(), against.Means()
	for i, acc := range accuracies {
		switch x, y := acc.right(a), acc.right(b); {
		case x && !y:
			d[i].only++
		case y && !x:
			d[i].onlyAgainst++
		}
	}
}

func (d *discordance) tests() []McNemar {
	tests := make([]McNemar, len(accuracies))
	for i, acc := range accuracies {
		tests[i] = McNemar{acc.name, d[i].only, d[i].onlyAgainst, evenSplit(d[i].only, d[i].onlyAgainst)}
	}
	return tests
}

// evenSplit is the probability that a+b fair coins fall at least as unevenly:
// min(1, 2 P(X ≤ min(a,b))), X ~ Bin(a+b, ½).
func evenSplit(a, b int64) float64 {
	n, m := float64(a+b), float64(min(a, b))
	lgamma := func(x float64) float64 { y, _ := math.Lgamma(x); return y }
	// The largest term of the sum, then each from the one above it.
	term := math.Exp(lgamma(n+1) - lgamma(m+1) - lgamma(n-m+1) - n*math.Ln2)
	var sum float64
	for k := m; k >= 0 && term > 0; k-- {
		sum += term
		term *= k / (n - k + 1)
	}
	return min(1, 2*sum)
}

// compare sets the figures of two checkpoints beside each other.
func compare(subject, against *subject, checkpoint string, d *discordance) *Against {
	a, b := means(subject.window.Means()), means(against.window.Means())
	differences := make(Values, len(a))
	for i := range a {
		differences[i] = Value{a[i].Name, a[i].Value - b[i].Value}
	}
	// The resamples of both hold the same pairs, so row by row they are a paired one.
	columns, other := subject.boot.table(), against.boot.table()
	for i := range columns {
		for k := range columns[i] {
			columns[i][k] -= other[i][k]
		}
	}
	return &Against{
		Checkpoint: checkpoint, Step: against.state.Step, Metrics: b,
		Differences: differences, Intervals: intervalsOf(differences, columns), Tests: d.tests(),
	}
}
