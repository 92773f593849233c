package pipeline

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func sweepOf(metric string, figures ...[2]float64) *SweepResult {
	r := &SweepResult{Metric: metric, Config: DefaultTrainConfig()}
	for i, f := range figures {
		r.Runs = append(r.Runs, SweepRun{
			Name:   fmt.Sprint(i),
			Result: &TrainResult{After: Values{{accuracyMetric, f[0]}, {klMetric, f[1]}, {"loss", f[1] - f[0]}}},
		})
	}
	return r
}

func TestSweepRank(t *testing.T) {
	nan := math.NaN()
	figures := [][2]float64{
		{0.8, 0.2}, // 0: as accurate as 3, further away
		{0.9, 0.3}, // 1: the most accurate
		{nan, nan}, // 2
		{0.8, 0.1}, // 3: the nearest of those as accurate
		{0.9, 0.3}, // 4: equal to 1
		{0.7, 0.1}, // 5: as near as 3, less accurate
		{0.5, 0.0}, // 6: the reference, almost
		{0.9, nan}, // 7: accurate, how far is not known
	}
	for metric, want := range map[string]string{
		accuracyMetric: "1* 4* 7 3* 0 5 6* 2", // of equals the nearer, then the earlier
		klMetric:       "6* 3* 5 0 1* 4* 2 7",
		// kl - accuracy: -0.7 (3), -0.6 (0, 1, 4, 5 but for rounding), -0.5 (6)
		"loss": "3* 5 1* 4* 0 6* 2 7",
	} {
		r := sweepOf(metric, figures...)
		if metric == "loss" {
			// Exact sums, so that ties are ties.
			for i, loss := range []float64{-0.6, -0.6, nan, -0.7, -0.6, -0.6, -0.5, nan} {
				r.Runs[i].Result.After[2].Value = loss
			}
			want = "3* 5 0 1* 4* 6* 2 7"
		}
		r.rank()
		got := ""
		for _, one := range r.Runs {
			mark := map[bool]string{true: "*"}[one.Front]
			got += " " + one.Name + mark
		}
		if got[1:] != want || r.Best != r.Runs[0].Name {
			t.Errorf("by %s: %s, best %s; want %s", metric, got[1:], r.Best, want)
		}
	}
	if r := sweepOf("loss", [2]float64{nan, nan}); true {
		if r.rank(); r.Best != "" || r.Runs[0].Front {
			t.Errorf("without figures, the best is %q", r.Best)
		}
	}
}

// Whatever is not on the front is beaten by a run that is, and no run of the front is.
func TestSweepFront(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		figure := rapid.Custom(func(t *rapid.T) [2]float64 {
			return [2]float64{float64(rapid.IntRange(0, 4).Draw(t, "accuracy")), float64(rapid.IntRange(0, 4).Draw(t, "kl"))}
		})
		r := sweepOf(accuracyMetric, rapid.SliceOfN(figure, 1, 9).Draw(t, "runs")...)
		r.rank()
		beats := func(a, b SweepRun) bool {
			less, more := a.Get(klMetric)-b.Get(klMetric), a.Get(accuracyMetric)-b.Get(accuracyMetric)
			return less <= 0 && more >= 0 && more-less > 0
		}
		for _, one := range r.Runs {
			beaten := false
			for _, other := range r.Runs {
				beaten = beaten || other.Front && beats(other, one)
			}
			if beaten == one.Front {
				t.Fatalf("run %+v is on the front: %v, beaten by one that is: %v", one.Result.After, one.Front, beaten)
			}
		}
		if !r.Runs[0].Front {
			t.Fatal("the most accurate run, of those the nearest, is not on the front")
		}
	})
}

// Losses rank only where they are of one objective.
func TestSweepMetric(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ axis, metric, want string }{
		{"lr=1,2", "loss", "loss"},
		{"beta=1,2", "loss", accuracyMetric},
		{"beta=1,2", "kl", "kl"},
		{"beta=1", "loss", "loss"},
		{"loss=sigmoid,ipo", "loss", accuracyMetric},
		{"wpo=true,false", "loss", accuracyMetric},
	} {
		cfg := w.sweepConfig(w.path("cache"))
		cfg.BestMetric = tt.metric
		plan, err := PlanSweep(cfg, axesOf(t, tt.axis))
		must(t, err)
		if r := plan.result(); r.Metric != tt.want {
			t.Errorf("%s by %s: ranked by %s, want %s", tt.axis, tt.metric, r.Metric, tt.want)
		}
	}
}

// Labels in the plot do not run into each other, the front's stay, and no tick is outside of
// what a share can be.
func TestSweepPlot(t *testing.T) {
	r := sweepOf(accuracyMetric, [2]float64{1, 0.1}, [2]float64{1, 0.1001}, [2]float64{1, 0.5}, [2]float64{1, math.NaN()})
	r.rank()
	var p sweepPage
	p.scatter(r.Runs)
	labels := ""
	for _, d := range p.Dots {
		labels += "," + d.Label
	}
	if labels != ",,3,1" {
		t.Errorf("labels %q, want none beside 1, 3, and the front's 1 on top", labels)
	}
	for _, tick := range p.Plot.YTicks {
		if v, err := strconv.ParseFloat(tick.Text, 64); err != nil || v < 0 || v > 1 {
			t.Errorf("a share of pairs has the tick %s", tick.Text)
		}
	}
	// The better one is no label of the front; the one behind it in rank is.
	dots := []sweepDot{{Label: "1", at: xy{5, 5}}, {Label: "2", Front: true, at: xy{6, 5}}, {Label: "3", at: xy{6, 5 + labelHeight}}}
	thinLabels(dots)
	if dots[0].Label != "" || dots[1].Label != "2" || dots[2].Label != "3" {
		t.Errorf("labels %q, %q, %q, want the front's and the one below", dots[0].Label, dots[1].Label, dots[2].Label)
	}
}

func TestSweepsRunsStayBelowIt(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"../elsewhere", "/etc", "a/../../b", ""} {
		text := fmt.Sprintf(`{"format": %d, "runs": [{"name": %q}]}`, sweepFormat, name)
		w.write("sweep.json", text)
		if _, err := readSweep(w.path("")); err == nil || !strings.Contains(err.Error(), "want a folder below") {
			t.Errorf("a run called %q: error is %v", name, err)
		}
	}
}
