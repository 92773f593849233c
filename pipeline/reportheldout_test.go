package pipeline

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/loss"
)

// The frame is 298 wide from 52 and 164 high up from 174: a tenth of the width is 29.8,
// a share of ¾ is 123 high.
func TestCalibrationPlot(t *testing.T) {
	p := calibrationPlot(&Evaluation{
		Metrics: Values{{"calibration/error", 0.25}},
		Calibration: []loss.CalibrationBin{
			{From: 0.5, To: 0.55, Pairs: 4, Confidence: 0.52, Accuracy: 0.75},
			{From: 0.95, To: 1, Pairs: 12_345, Confidence: 1, Accuracy: 1},
		},
	})
	want := plot{
		Title: "share right, by confidence σ(|margin|)",
		Bars: []plotBar{
			{"52.0", "51.0", "27.8", "123.0", "confidence 0.50 to 0.55, mean 0.520: 0.75 of 4 pairs"},
			{"320.2", "10.0", "27.8", "164.0", "confidence 0.95 to 1.00, mean 1.000: 1 of 12345 pairs"},
		},
		Counts: []tick{{"66.9", "4"}, {"335.1", "12k"}},
		XTicks: []tick{{"52.0", "0.5"}, {"111.6", "0.6"}, {"171.2", "0.7"}, {"230.8", "0.8"}, {"290.4", "0.9"}, {"350.0", "1"}},
		YTicks: []tick{{"174.0", "0"}, {"141.2", "0.2"}, {"108.4", "0.4"}, {"75.6", "0.6"}, {"42.8", "0.8"}, {"10.0", "1"}},
		Lines: []plotLine{
			{Name: "right as often as sure; calibration error", Last: "0.25", Color: 2, Held: true, Points: "52.0,92.0 350.0,10.0"},
			{Name: "mean confidence in the bin", Color: 1, Dots: []xyText{{"63.9", "51.0"}, {"350.0", "10.0"}}},
		},
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// One of three pairs and none of one are right: one of four.
func TestLengthPlot(t *testing.T) {
	p := lengthPlot(&Evaluation{LengthBuckets: []loss.LengthBucket{
		{Difference: "-8 to -1", Pairs: 3, Accuracy: 1. / 3}, {Difference: "0", Pairs: 1, Accuracy: 0},
	}})
	want := plot{
		Title: "share right, by extra tokens of chosen",
		Bars: []plotBar{
			{"52.0", "119.3", "147.0", "54.7", "chosen longer by -8 to -1 tokens: 0.3333 of 3 pairs"},
			{"201.0", "174.0", "147.0", "0.0", "chosen longer by 0 tokens: 0 of 1 pairs"},
		},
		Counts: []tick{{"126.5", "3"}, {"275.5", "1"}},
		XTicks: []tick{{"126.5", "-8…-1"}, {"275.5", "0"}},
		YTicks: []tick{{"174.0", "0"}, {"141.2", "0.2"}, {"108.4", "0.4"}, {"75.6", "0.6"}, {"42.8", "0.8"}, {"10.0", "1"}},
		Lines:  []plotLine{{Name: "all pairs", Last: "0.25", Color: 2, Held: true, Points: "52,133.0 350,133.0"}},
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestFewDigits(t *testing.T) {
	for n, want := range map[int]string{0: "0", 9999: "9999", 10_000: "10k", 9_999_999: "9999k", 10_000_000: "10M"} {
		if got := fewDigits(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}

func TestHeldOutFigures(t *testing.T) {
	var c curves
	must(t, c.add(Values{{"step", 0}, {"eval_loss", 0.6931}, {"eval_rewards/accuracies", 0.4}, {"eval_kl", 3e-9}}))
	must(t, c.add(Values{{"step", 5}, {"loss", 0.5}}))
	before := []heldFigure{{"loss", "0.6931", "–", ""}, {"rewards/accuracies", "–", "–", ""}, {"kl", "0", "–", ""}}
	h, _ := newHeldOut(&c, &Evaluation{Step: 5})
	if d := cmp.Diff(&heldOut{Figures: before}, h); d != "" {
		t.Errorf("one evaluation, -want +got:\n%s", d)
	}
	must(t, c.add(Values{{"step", 8}, {"eval_loss", 0.25}, {"eval_rewards/accuracies", 0.5}, {"eval_kl", 0.125}}))
	after := []heldFigure{{"loss", "0.6931", "0.25", ""}, {"rewards/accuracies", "–", "0.5", ""}, {"kl", "0", "0.125", ""}}
	for name, e := range map[string]*Evaluation{"none": nil, "of another step": {Step: 7, Intervals: Intervals{{"loss", 0, 1}}}} {
		h, _ = newHeldOut(&c, e)
		if d := cmp.Diff(&heldOut{Figures: after}, h); d != "" {
			t.Errorf("evaluation %s, -want +got:\n%s", name, d)
		}
	}
	h, _ = newHeldOut(&c, &Evaluation{Step: 8, Intervals: Intervals{{"loss", 0.125, 0.5}, {"rewards/accuracies", 0, 1}, {"kl", 0.0625, 0.25}}})
	for i, want := range []string{"0.125 … 0.5", "0 … 1", "0.0625 … 0.25"} {
		if got := h.Figures[i].Interval; got != want || !h.Intervals || len(h.Plots) != 2 {
			t.Errorf("interval of %s is %q with %d plots, want %q with 2", h.Figures[i].Name, got, len(h.Plots), want)
		}
	}
}

// The file says what the evaluation does: a bar for each bin and bucket, with its count.
func TestReportDrawsTheEvaluation(t *testing.T) {
	w := newWorld(t)
	cfg := w.trained()
	e, err := readEvaluation(cfg.Out)
	must(t, err)
	page, text := readReport(t, cfg.Out)
	bars, counts := strings.Count(page, `<rect class="share"`), strings.Count(page, `<text class="count"`)
	if want := len(e.Calibration) + len(e.LengthBuckets); bars != want || counts != want || want < 3 {
		t.Errorf("%d bars and %d counts, want %d", bars, counts, want)
	}
	loss := e.Intervals.Get("loss")
	if want := figure(loss.Low) + " … " + figure(loss.High); !strings.Contains(text, want) {
		t.Errorf("the report lacks the interval %q", want)
	}
}

// Before the first step the two sides of a pair are equal but for rounding: which is
// larger is not drawn.
func TestCurvesLeaveRoundingOut(t *testing.T) {
	var c curves
	for _, step := range []float64{0, 1} {
		must(t, c.add(Values{{"step", step}, {"eval_rewards/accuracies", 0.4}, {"eval_logps/accuracies", 0.4}}))
	}
	for name, want := range map[string]int{"eval_rewards/accuracies": 1, "eval_logps/accuracies": 2} {
		if points := c.drawn(name); len(points) != want || points[want-1].x != 1 {
			t.Errorf("%s is drawn at %v, want %d points up to step 1", name, points, want)
		}
	}
}
