package job

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// A Gate is what was asked of a policy and what it is.
type Gate struct {
	// Key is that of the job file.
	Key string `json:"key"`
	Met bool   `json:"met"`
	// Text says what was found and wanted, in a line.
	Text string `json:"text"`
}

// A GateError is a run whose policy is not published: a gate was not met.
type GateError struct {
	// Unmet are the gates that were not.
	Unmet []Gate
}

func (e *GateError) Error() string {
	texts := make([]string, len(e.Unmet))
	for i, g := range e.Unmet {
		texts[i] = g.Text
	}
	return "job: gate not met, nothing was published: " + strings.Join(texts, "; ")
}

// bound is a gate on one figure.
type bound struct {
	key    string
	bound  *float64
	figure string // whose value is judged
	name   string // of the figure, for people
	most   bool   // the bound is the most, else the least
	low    bool   // the lower end of the interval is judged
}

func (g *Gates) bounds() []bound {
	return []bound{
		{key: "gates.min_accuracy", bound: g.MinAccuracy, figure: g.Accuracy, name: g.Accuracy},
		{key: "gates.min_accuracy_low", bound: g.MinAccuracyLow, figure: g.Accuracy, name: "lower end of " + g.Accuracy, low: true},
		{key: "gates.max_kl", bound: g.MaxKL, figure: "kl", name: "kl", most: true},
		{key: "gates.min_chosen_drift", bound: g.MinChosenDrift, figure: "drift/chosen", name: "drift/chosen"},
		{key: "gates.min_margin", bound: g.MinMargin, figure: "rewards/margins", name: "rewards/margins"},
	}
}

// judge holds an evaluation against the bounds and, where there is one, the published policy.
// A figure that is no number can't be judged, which is an error.
func (g *Gates) judge(r *pipeline.EvalResult, compare bool) (gates []Gate, err error) {
	for _, b := range g.bounds() {
		if b.bound == nil {
			continue
		}
		value := r.Metrics.Get(b.figure)
		if b.low {
			value = r.Intervals.Get(b.figure).Low
		}
		if math.IsNaN(value) || math.IsInf(value, 0) {
			return nil, fmt.Errorf("job: %s can't be judged: %s is %v", b.key, b.name, value)
		}
		side := "least"
		met := value >= *b.bound
		if b.most {
			side, met = "most", value <= *b.bound
		}
		gates = append(gates, Gate{b.key, met, fmt.Sprintf("%s is %s, want at %s %s", b.name, figure(value), side, figure(*b.bound))})
	}
	if !compare {
		return gates, nil
	}
	one, err := g.beside(r)
	return append(gates, one), err
}

// beside compares accuracies on the same pairs.
func (g *Gates) beside(r *pipeline.EvalResult) (Gate, error) {
	const key = "gates.published"
	if r.Against == nil {
		return Gate{key, true, "nothing is published yet to compare with"}, nil
	}
	difference := r.Against.Differences.Get(g.Accuracy)
	if math.IsNaN(difference) {
		return Gate{}, fmt.Errorf("job: %s can't be judged: the difference of %s is no number", key, g.Accuracy)
	}
	for _, t := range r.Against.Tests {
		if t.Metric != g.Accuracy {
			continue
		}
		found := fmt.Sprintf("%s is %s, the published policy's %s (%d pairs right here alone, %d there alone, p = %.2g)", g.Accuracy,
			figure(r.Metrics.Get(g.Accuracy)), figure(r.Against.Metrics.Get(g.Accuracy)), t.Only, t.OnlyAgainst, t.P)
		if g.Published == Better {
			return Gate{key, difference > 0 && t.P < g.P, fmt.Sprintf("%s, want better with p < %v", found, g.P)}, nil
		}
		return Gate{key, !(difference < 0 && t.P < g.P), fmt.Sprintf("%s, want not worse with p < %v", found, g.P)}, nil
	}
	return Gate{}, fmt.Errorf("job: %s can't be judged: there is no test of %s", key, g.Accuracy)
}

// newPairs is the gate that is judged before training; since says from where on n is counted.
func (g *Gates) newPairs(n int64, since string) Gate {
	return Gate{
		"gates.min_new_pairs", n >= g.MinNewPairs,
		fmt.Sprintf("%d pairs are new since %s, want at least %d", n, since, g.MinNewPairs),
	}
}

// unmet are those of gates that were not.
func unmet(gates []Gate) (not []Gate) {
	for _, g := range gates {
		if !g.Met {
			not = append(not, g)
		}
	}
	return not
}

func figure(x float64) string { return strconv.FormatFloat(x, 'g', 4, 64) }

// compares reports whether policies are held against the published one.
func (c *Config) compares() bool { return c.Publish.To != "" && c.Gates.Published != Off }
