package pipeline

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/loss"
)

// marginPair is the window of one pair with this reward margin, β being 1.
func marginPair(t testing.TB, margin float64) *loss.Metrics {
	t.Helper()
	opts := loss.DefaultOptions()
	opts.Beta = 1
	o, err := loss.Parse("sigmoid", opts)
	must(t, err)
	p := loss.Pairs{PolicyChosen: []float64{margin}, PolicyRejected: []float64{0}, RefChosen: []float64{0}, RefRejected: []float64{0}}
	var terms loss.Terms
	o.Terms(&terms, &p, p.Totals())
	m := new(loss.Metrics)
	m.AddPair(o, &p, &terms, 0)
	return m
}

// promptKey is a key as good as that of prompt i.
func promptKey(seed uint64, i int) (key [16]byte) {
	r := rand.New(rand.NewPCG(seed, uint64(i)))
	for k := range key {
		key[k] = byte(r.Uint32())
	}
	return key
}

// interval is the named one of a bootstrap.
func interval(b *bootstrap, name string) Interval {
	var figures Values
	new(loss.Metrics).Means().Named(func(n string, v float64) { figures = append(figures, Value{n, v}) })
	return intervalsOf(figures, b.table()).Get(name)
}

func TestPoisson(t *testing.T) {
	const n = 1 << 16
	var counts [16]float64
	for i := range uint64(n) {
		counts[poisson(i<<48|1<<47)]++
	}
	p := math.Exp(-1) // e^-1/k!
	for k := range 8 {
		// Each step of the grid lies wholly on one side of a threshold, but for one.
		if got := counts[k] / n; math.Abs(got-p) > 2./n {
			t.Errorf("P(%d) is %.6f, want %.6f", k, got, p)
		}
		p /= float64(k + 1)
	}
}

func TestQuantile(t *testing.T) {
	for _, tt := range []struct {
		x       []float64
		q, want float64
	}{
		{[]float64{4}, 0.025, 4},
		{[]float64{5, 1, 4, 2, 3}, 0.5, 3},
		{[]float64{5, 1, 4, 2, 3}, 0.025, 1.1},
		{[]float64{5, 1, 4, 2, 3}, 0.975, 4.9},
		{[]float64{1, 2}, 1, 2},
		{nil, 0.5, math.NaN()},
		{[]float64{1, math.NaN(), 2}, 0.5, math.NaN()},
	} {
		got := quantile(slices.Clone(tt.x), tt.q)
		if !(math.Abs(got-tt.want) < 1e-12 || math.IsNaN(got) && math.IsNaN(tt.want)) {
			t.Errorf("%g-quantile of %v is %v, want %v", tt.q, tt.x, got, tt.want)
		}
	}
}

// quantileNoise is how far the width of an interval from 1,000 resamples may be from
// its limit: the quantiles of a normal have a standard error of 4 %.
const quantileNoise = 0.15

func TestIntervalOfAMean(t *testing.T) {
	const n = 400
	r := rand.New(rand.NewPCG(1, 2))
	b := newBootstrap()
	var sum, squares float64
	for i := range n {
		x := r.NormFloat64()
		sum, squares = sum+x, squares+x*x
		b.add(promptKey(3, i), marginPair(t, x))
	}
	mean := sum / n
	want := 1.96 * math.Sqrt((squares/n-mean*mean)/n)
	in := interval(b, "rewards/margins")
	for side, got := range map[string]float64{"low": mean - in.Low, "high": in.High - mean} {
		if math.Abs(got/want-1) > quantileNoise {
			t.Errorf("the %s end is %.4f from the mean, the normal distribution says %.4f", side, got, want)
		}
	}
}

// Of the intervals of many evaluations, about 95 in 100 hold the true accuracy.
func TestIntervalsCover(t *testing.T) {
	const evaluations, n, truth = 200, 60, 0.7
	r := rand.New(rand.NewPCG(4, 5))
	right, wrong := marginPair(t, 1), marginPair(t, -1)
	held := 0
	for e := range evaluations {
		b := newBootstrap()
		for i := range n {
			pair := wrong
			if r.Float64() < truth {
				pair = right
			}
			b.add(promptKey(uint64(e), i), pair)
		}
		if in := interval(b, "rewards/accuracies"); in.Low <= truth && truth <= in.High {
			held++
		}
	}
	// Four standard deviations of a binomial count below 95 %, and a percent for the
	// coarseness of shares of 60.
	const want = 0.95 - 0.01 - 4*0.0154
	if got := float64(held) / evaluations; got < want {
		t.Errorf("%.3f of the intervals hold the true accuracy, want %.3f or more", got, want)
	}
}

// Pairs of one prompt are no more evidence than one of them, whatever their order.
func TestIntervalsResamplePrompts(t *testing.T) {
	const n = 30
	one, four, backwards, apart := newBootstrap(), newBootstrap(), newBootstrap(), newBootstrap()
	for i := range n {
		pair := marginPair(t, float64(i%7)-2)
		one.add(promptKey(6, i), pair)
		for k := range 4 {
			four.add(promptKey(6, i), pair)
			apart.add(promptKey(6, i+k*n), pair)
		}
		backwards.add(promptKey(6, n-1-i), marginPair(t, float64((n-1-i)%7)-2))
	}
	want := interval(one, "rewards/margins")
	for name, b := range map[string]*bootstrap{"four pairs a prompt": four, "backwards": backwards} {
		got := interval(b, "rewards/margins")
		if math.Abs(got.Low-want.Low) > 1e-12 || math.Abs(got.High-want.High) > 1e-12 {
			t.Errorf("%s: interval is %+v, want %+v", name, got, want)
		}
	}
	// Four times the prompts: half the width.
	got := interval(apart, "rewards/margins")
	if share := (got.High - got.Low) / (want.High - want.Low); math.Abs(share-0.5) > quantileNoise {
		t.Errorf("four times the prompts have an interval %.2f times as wide, want 0.5", share)
	}
}

func TestIntervalsInJSON(t *testing.T) {
	got, err := json.Marshal(Intervals{{"b", -1, 0.5}, {"a", math.NaN(), math.Inf(1)}})
	must(t, err)
	if want := `{"b":[-1,0.5],"a":[null,null]}`; string(got) != want {
		t.Errorf("JSON is %s, want %s", got, want)
	}
	if in := (Intervals{}).Get("a"); !math.IsNaN(in.Low) || !math.IsNaN(in.High) {
		t.Errorf("an interval that is not there is %v", fmt.Sprint(in))
	}
}
