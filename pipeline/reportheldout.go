package pipeline

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/loss"
)

// heldOut is the section about the held-out pairs.
type heldOut struct {
	Figures   []heldFigure
	Intervals bool // are known
	Plots     []plot
}

// heldFigure is a metric of the held-out pairs before the first step and at the last evaluation.
type heldFigure struct{ Name, Before, After, Interval string }

// Unit is that of the figure, or empty.
func (f heldFigure) Unit() string { return units[f.Name] }

// newHeldOut tells the held-out metrics of the first and the newest evaluation, and what
// else e says of the newest, unless it is nil or of another step: a killed run may have
// lost the metrics that belong to it.
func newHeldOut(c *curves, e *Evaluation) (*heldOut, []Alarm) {
	h := new(heldOut)
	var after Values
	newest := 0.0
	for _, name := range c.names {
		held, is := strings.CutPrefix(name, evalPrefix)
		if !is {
			continue
		}
		points := c.of[name]
		f := heldFigure{Name: held, Before: beforeText(held, points[0].y), After: "–"}
		if last := points[len(points)-1]; len(points) > 1 {
			newest = last.x
			f.After = heldText(last.y)
			after = append(after, Value{held, last.y})
		}
		h.Figures = append(h.Figures, f)
	}
	if len(h.Figures) == 0 {
		return nil, nil
	}
	if e != nil && e.Step == int64(newest) {
		h.add(e)
	}
	return h, alarms(after)
}

// add tells what an evaluation says beside its metrics.
func (h *heldOut) add(e *Evaluation) {
	h.Intervals = len(e.Intervals) > 0
	for i, f := range h.Figures {
		in := e.Intervals.Get(f.Name)
		h.Figures[i].Interval = heldText(in.Low) + " … " + heldText(in.High)
	}
	h.Plots = []plot{calibrationPlot(e), lengthPlot(e)}
}

// units of held-out figures; the others have none.
var units = map[string]string{
	"logps/chosen": "nats", "logps/rejected": "nats", "entropy": "nats a token", "kl": "nats a token",
	"drift/chosen": "nats a token", "drift/rejected": "nats a token",
	"rewards/accuracies": "of pairs", "logps/accuracies": "of pairs", "drift/chosen_lowered": "of pairs", "clamped": "of pairs",
	"mean_token_accuracy": "of tokens",
}

// beforeText is a figure of the untrained head.
func beforeText(name string, v float64) string {
	if slices.Contains(ofRounding, name) {
		return "–"
	}
	return heldText(v)
}

// heldText is a held-out figure, in which float rounding reads as 0.
func heldText(v float64) string {
	const rounding = 1e-7 // of log-ratios of the untrained head, nats a token
	if math.Abs(v) < rounding {
		return "0"
	}
	return figure(v)
}

// calibrationPlot is a reliability diagram: for each bin of confidence how often the
// policy is right, a dot at the mean confidence, and the line of a policy that is as
// often right as it is sure.
func calibrationPlot(e *Evaluation) plot {
	x, y := axis{0.5, 1, plotLeft, plotRight}, shareAxis
	p := plot{Title: "share right, by confidence σ(|margin|)", XTicks: x.ticks(), YTicks: y.ticks(), Empty: len(e.Calibration) == 0}
	dots := plotLine{Name: "mean confidence in the bin", Color: 1}
	for _, b := range e.Calibration {
		p.addShare(x.position(b.From), x.position(b.To), b.Accuracy, b.Pairs,
			fmt.Sprintf("confidence %.2f to %.2f, mean %.3f", b.From, b.To, b.Confidence))
		dots.Dots = append(dots.Dots, xyText{x.at(b.Confidence), y.at(b.Accuracy)})
	}
	p.Lines = []plotLine{
		{
			Name: "right as often as sure; calibration error", Last: figure(e.Metrics.Get("calibration/error")), Color: 2, Held: true,
			Points: fmt.Sprintf("%s,%s %s,%s", x.at(0.5), y.at(0.5), x.at(1), y.at(1)),
		}, dots,
	}
	return p
}

// lengthPlot tells how often the policy is right by how many tokens longer the chosen
// completion is, beside the line of all pairs.
func lengthPlot(e *Evaluation) plot {
	x, y := axis{0, float64(max(1, len(e.LengthBuckets))), plotLeft, plotRight}, shareAxis
	p := plot{Title: "share right, by extra tokens of chosen", YTicks: y.ticks(), Empty: len(e.LengthBuckets) == 0}
	var all float64
	for i, b := range e.LengthBuckets {
		from, to := x.position(float64(i)), x.position(float64(i+1))
		p.addShare(from, to, b.Accuracy, b.Pairs, "chosen longer by "+b.Difference+" tokens")
		p.XTicks = append(p.XTicks, tick{fixed1((from + to) / 2), strings.Replace(b.Difference, " to ", "…", 1)})
		all += b.Accuracy * float64(b.Pairs) / float64(pairsIn(e.LengthBuckets))
	}
	p.Lines = []plotLine{{
		Name: "all pairs", Last: figure(all), Color: 2, Held: true,
		Points: fmt.Sprintf("%g,%s %g,%s", plotLeft, y.at(all), plotRight, y.at(all)),
	}}
	return p
}

func pairsIn(buckets []loss.LengthBucket) (n int) {
	for _, b := range buckets {
		n += b.Pairs
	}
	return n
}
