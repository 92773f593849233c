package job

import (
	"math"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// TestGates judges one evaluation by bounds on both sides of its figures.
func TestGates(t *testing.T) {
	at := func(x float64) *float64 { return &x }
	result := &pipeline.EvalResult{Evaluation: pipeline.Evaluation{
		Metrics: pipeline.Values{
			{Name: "rewards/accuracies", Value: 0.75},
			{Name: "logps/accuracies", Value: 0.5},
			{Name: "kl", Value: 0.25},
			{Name: "drift/chosen", Value: -0.5},
			{Name: "rewards/margins", Value: 2},
		},
		Intervals: pipeline.Intervals{{Name: "rewards/accuracies", Low: 0.625, High: 0.875}},
	}}
	for _, tc := range []struct {
		name  string
		gates Gates
		met   bool
		text  string
	}{
		{"accuracy at its bound", Gates{MinAccuracy: at(0.75)}, true, "rewards/accuracies is 0.75, want at least 0.75"},
		{"accuracy below", Gates{MinAccuracy: at(0.76)}, false, "rewards/accuracies is 0.75, want at least 0.76"},
		{"another accuracy", Gates{Accuracy: "logps/accuracies", MinAccuracy: at(0.6)}, false, "logps/accuracies is 0.5, want at least 0.6"},
		{"lower end at its bound", Gates{MinAccuracyLow: at(0.625)}, true, "lower end of rewards/accuracies is 0.625"},
		{"lower end below", Gates{MinAccuracyLow: at(0.7)}, false, "lower end of rewards/accuracies is 0.625, want at least 0.7"},
		{"kl at its bound", Gates{MaxKL: at(0.25)}, true, "kl is 0.25, want at most 0.25"},
		{"kl above", Gates{MaxKL: at(0.2)}, false, "kl is 0.25, want at most 0.2"},
		{"drift above its bound", Gates{MinChosenDrift: at(-0.6)}, true, "drift/chosen is -0.5"},
		{"drift below", Gates{MinChosenDrift: at(-0.4)}, false, "drift/chosen is -0.5, want at least -0.4"},
		{"margin", Gates{MinMargin: at(3)}, false, "rewards/margins is 2, want at least 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.gates.Accuracy == "" {
				tc.gates.Accuracy = "rewards/accuracies"
			}
			gates, err := tc.gates.judge(result, false)
			if err != nil || len(gates) != 1 || gates[0].Met != tc.met || !strings.HasPrefix(gates[0].Text, tc.text) {
				t.Errorf("got %+v and %v, want met %v: %s", gates, err, tc.met, tc.text)
			}
		})
	}
	all := Gates{Accuracy: "rewards/accuracies", MinAccuracy: at(0.9), MaxKL: at(0.1), MinMargin: at(1)}
	gates, err := all.judge(result, false)
	if err != nil || len(gates) != 3 || len(unmet(gates)) != 2 {
		t.Fatalf("got %+v and %v, want two of three unmet", gates, err)
	}
	if text := (&GateError{unmet(gates)}).Error(); strings.Contains(text, "\n") || !strings.Contains(text, "0.75, want at least 0.9; kl is 0.25") {
		t.Errorf("the reason is %q, want both gates in one line", text)
	}
}

// TestGatesThatCannotBeJudged wants an error where there is no figure: never a pass.
func TestGatesThatCannotBeJudged(t *testing.T) {
	bound := -1e9
	nan := &pipeline.EvalResult{Evaluation: pipeline.Evaluation{
		Metrics: pipeline.Values{{Name: "rewards/accuracies", Value: math.NaN()}, {Name: "kl", Value: math.Inf(-1)}},
	}}
	compared := &pipeline.EvalResult{Against: &pipeline.Against{Differences: pipeline.Values{{Name: "rewards/accuracies", Value: 1}}}}
	for name, tc := range map[string]struct {
		result *pipeline.EvalResult
		gates  Gates
		beside bool
	}{
		"no number":        {nan, Gates{MinAccuracy: &bound}, false},
		"no interval":      {nan, Gates{MinAccuracyLow: &bound}, false},
		"infinite":         {nan, Gates{MaxKL: new(float64)}, false},
		"not there":        {nan, Gates{MinMargin: &bound}, false},
		"no difference":    {&pipeline.EvalResult{Against: &pipeline.Against{}}, Gates{Published: NotWorse}, true},
		"no test of these": {compared, Gates{Published: Better}, true},
	} {
		tc.gates.Accuracy, tc.gates.P = "rewards/accuracies", 0.05
		if gates, err := tc.gates.judge(tc.result, tc.beside); err == nil {
			t.Errorf("%s: got %+v, want an error", name, gates)
		}
	}
}

// TestGateBesideThePublishedPolicy goes through what a paired test can say.
func TestGateBesideThePublishedPolicy(t *testing.T) {
	for _, tc := range []struct {
		name             string
		difference, p    float64
		better, notWorse bool
	}{
		{"surely better", 0.1, 0.01, true, true},
		{"better by chance perhaps", 0.1, 0.05, false, true},
		{"equal", 0, 1, false, true},
		{"worse by chance perhaps", -0.1, 0.05, false, true},
		{"surely worse", -0.1, 0.01, false, false},
	} {
		r := &pipeline.EvalResult{
			Evaluation: pipeline.Evaluation{Metrics: pipeline.Values{{Name: "rewards/accuracies", Value: 0.6 + tc.difference}}},
			Against: &pipeline.Against{
				Metrics:     pipeline.Values{{Name: "rewards/accuracies", Value: 0.6}},
				Differences: pipeline.Values{{Name: "rewards/accuracies", Value: tc.difference}},
				Tests:       []pipeline.McNemar{{Metric: "logps/accuracies"}, {Metric: "rewards/accuracies", P: tc.p}},
			},
		}
		for published, want := range map[string]bool{Better: tc.better, NotWorse: tc.notWorse} {
			g := Gates{Accuracy: "rewards/accuracies", Published: published, P: 0.05}
			if gates, err := g.judge(r, true); err != nil || len(gates) != 1 || gates[0].Met != want {
				t.Errorf("%s, %s: got %+v and %v, want met %v", tc.name, published, gates, err, want)
			}
		}
	}
	g := Gates{Accuracy: "rewards/accuracies", Published: Better, P: 0.05}
	if gates, err := g.judge(&pipeline.EvalResult{}, true); err != nil || !gates[0].Met || !strings.Contains(gates[0].Text, "nothing is published yet") {
		t.Errorf("a first run: got %+v and %v, want met with a note", gates, err)
	}
}
