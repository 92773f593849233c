package pipeline

import (
	"math"
	"slices"
	"strings"
)

// evalPrefix begins the names of metrics of held-out pairs.
const evalPrefix = "eval_"

// curves are the points of each metric, in the order they came.
type curves struct {
	names []string
	of    map[string][]xy
	last  float64 // step
}

type xy struct{ x, y float64 }

func (c *curves) add(line Values) error {
	step := line.Get("step")
	if math.IsNaN(step) {
		return nil
	}
	if c.of == nil {
		c.of = map[string][]xy{}
	}
	c.last = max(c.last, step)
	for _, v := range line {
		if v.Name == "step" || v.Name == "epoch" {
			continue
		}
		if c.of[v.Name] == nil {
			c.names = append(c.names, v.Name)
		}
		c.of[v.Name] = append(c.of[v.Name], xy{step, v.Value})
	}
	return nil
}

// together are metrics that share a plot, under a title with their unit; they come first,
// in this order.
var together = []struct {
	title string
	names []string
}{
	{"loss", []string{"loss"}},
	{"reward margin", []string{"rewards/margins"}},
	{"accuracy of rewards, share of pairs", []string{"rewards/accuracies"}},
	{"accuracy of log-probs, share of pairs", []string{"logps/accuracies"}},
	{"log-probs of chosen and rejected, nats", []string{"logps/chosen", "logps/rejected"}},
	{"rewards of chosen and rejected", []string{"rewards/chosen", "rewards/rejected"}},
	{"KL to the reference, nats a token", []string{"kl"}},
	{"drift from the reference, nats a token", []string{"drift/chosen", "drift/rejected"}},
	{"chosen became less likely, share of pairs", []string{"drift/chosen_lowered"}},
	{"chosen token is the likeliest, share", []string{"mean_token_accuracy"}},
	{"entropy, nats a token", []string{"entropy"}},
	{"calibration error of σ(|margin|)", []string{"calibration/error"}},
	{"correlation of margin and length", []string{"length/correlation"}},
	{"learning rate", []string{"learning_rate"}},
	{"gradient norm", []string{"grad_norm"}},
	{"pairs a second", []string{"pairs_per_second"}},
	{"tokens a second", []string{"tokens_per_second"}},
}

// ofRounding are metrics that tell which of two numbers is larger: those of an
// untrained head are equal but for rounding.
var ofRounding = []string{"rewards/accuracies", "drift/chosen_lowered", "length/correlation", "calibration/error"}

// drawn leaves out what says nothing of an untrained head.
func (c *curves) drawn(name string) []xy {
	points := c.of[name]
	if slices.Contains(ofRounding, strings.TrimPrefix(name, evalPrefix)) && len(points) > 0 && points[0].x == 0 {
		return points[1:]
	}
	return points
}

// plots draws every metric, training and held-out pairs in one plot.
func (c *curves) plots() (out []plot) {
	drawn := map[string]bool{}
	draw := func(title string, names []string) {
		var all []series
		for _, name := range names {
			drawn[name] = true
			for _, n := range []string{name, evalPrefix + name} {
				if points := c.drawn(n); len(points) > 0 {
					all = append(all, series{name: n, points: points, held: n != name})
				}
			}
		}
		if len(all) > 0 {
			out = append(out, lines(title, all))
		}
	}
	for _, t := range together {
		draw(t.title, t.names)
	}
	for _, name := range c.names {
		if base := strings.TrimPrefix(name, evalPrefix); !drawn[base] {
			draw(base, []string{base})
		}
	}
	return out
}

// maxPoints is what a line of a plot shows at its width; longer ones become means
// of as many stretches.
const maxPoints = 300

// thin keeps the finite points, few enough to draw.
func thin(points []xy) []xy {
	points = slices.DeleteFunc(slices.Clone(points), func(p xy) bool { return !finite(p.y) })
	each := (len(points) + maxPoints - 1) / maxPoints
	if each <= 1 {
		return points
	}
	var out []xy
	for stretch := range slices.Chunk(points, each) {
		var mean xy
		for _, p := range stretch {
			mean.x += p.x / float64(len(stretch))
			mean.y += p.y / float64(len(stretch))
		}
		out = append(out, mean)
	}
	return out
}
