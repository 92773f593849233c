package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"math/big"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/loss"
)

// lgammaTol is the relative error that log-gamma of numbers up to 2,000 leaves.
const lgammaTol = 1e-10

func TestEvenSplit(t *testing.T) {
	for _, tt := range []struct {
		a, b int64
		want float64
	}{
		{0, 0, 1},
		{1, 0, 1},
		{5, 0, 2. / 32},
		{10, 2, 2 * (1 + 12 + 66) / 4096.},
		{3, 3, 1},
		{4, 3, 1},
	} {
		for _, got := range []float64{evenSplit(tt.a, tt.b), evenSplit(tt.b, tt.a)} {
			if math.Abs(got-tt.want) > lgammaTol {
				t.Errorf("%d to %d: p = %.12f, want %.12f", tt.a, tt.b, got, tt.want)
			}
		}
	}
	// Sums of binomial coefficients in whole numbers.
	for _, n := range []int64{1, 2, 17, 40, 1000, 1999} {
		sum, all := new(big.Int), new(big.Int).Lsh(big.NewInt(1), uint(n-1))
		for m := int64(0); 2*m <= n; m++ {
			sum.Add(sum, new(big.Int).Binomial(n, m))
			want, _ := new(big.Rat).SetFrac(sum, all).Float64()
			want = min(1, want)
			if got := evenSplit(m, n-m); math.Abs(got-want) > lgammaTol*want+1e-300 { // denormal numbers round
				t.Fatalf("%d to %d: p = %g, want %g", m, n-m, got, want)
			}
		}
	}
}

// pairOf is the window of one pair by its log-probs.
func pairOf(t testing.TB, sc, sr, rc, rr float64) *loss.Metrics {
	t.Helper()
	o, err := loss.Parse("sigmoid", loss.DefaultOptions())
	must(t, err)
	p := loss.Pairs{PolicyChosen: []float64{sc}, PolicyRejected: []float64{sr}, RefChosen: []float64{rc}, RefRejected: []float64{rr}}
	var terms loss.Terms
	o.Terms(&terms, &p, p.Totals())
	m := new(loss.Metrics)
	m.AddPair(o, &p, &terms, 0)
	return m
}

func TestDiscordance(t *testing.T) {
	var d discordance
	// The reference of every pair is -4 and -2: margins compare s_c+2 with s_r, and
	// log-probs s_c with s_r.
	both, reward, neither := pairOf(t, -1, -3, -4, -2), pairOf(t, -3, -2, -4, -2), pairOf(t, -5, -1, -4, -2)
	for _, pair := range [][2]*loss.Metrics{
		{both, both}, {both, reward}, {both, neither}, {reward, neither}, {neither, both}, {neither, neither},
	} {
		d.add(pair[0], pair[1])
	}
	got := d.tests()
	// Rewards: rows 3 and 4 against row 5. Log-probs: rows 2 and 3 against row 5. Three
	// coins always fall 2 to 1 or more unevenly.
	want := []McNemar{{"rewards/accuracies", 2, 1, 1}, {"logps/accuracies", 2, 1, 1}}
	for i := range want {
		if math.Abs(got[i].P-want[i].P) > lgammaTol {
			t.Errorf("p is %g, want %g", got[i].P, want[i].P)
		}
		got[i].P = want[i].P
		if got[i] != want[i] {
			t.Errorf("test is %+v, want %+v", got[i], want[i])
		}
	}
}

// What two checkpoints share cancels in the interval of their difference.
func TestDifferencesArePaired(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	a, b := &subject{tally: newTally()}, &subject{tally: newTally()}
	for i := range 50 {
		x := 5 * r.NormFloat64()
		for s, margin := range map[*subject]float64{a: x + 0.25, b: x} {
			m := marginPair(t, margin)
			s.window.Merge(m)
			s.boot.add(promptKey(9, i), m)
		}
	}
	c := compare(a, b, "other", new(discordance))
	in := c.Intervals.Get("rewards/margins")
	for _, got := range []float64{c.Differences.Get("rewards/margins"), in.Low, in.High} {
		if math.Abs(got-0.25) > 1e-9 {
			t.Errorf("margins that differ by ¼ in every pair: difference %g, interval [%g, %g]",
				c.Differences.Get("rewards/margins"), in.Low, in.High)
			break
		}
	}
	if in := interval(a.boot, "rewards/margins"); in.High-in.Low < 1 {
		t.Errorf("the interval of one is [%g, %g]: this test shows nothing", in.Low, in.High)
	}
}

func TestEvaluateAgainst(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(40))
	cfg.Keep = 10
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	last, early := filepath.Join(cfg.Out, lastName), filepath.Join(cfg.Out, checkpointsName, stepName(3))
	alone, other := EvalConfig{Cache: cfg.Cache, Checkpoint: last}, EvalConfig{Cache: cfg.Cache, Checkpoint: early}
	a, b := evaluated(t, alone), evaluated(t, other)
	alone.Against = early
	both := evaluated(t, alone)
	for i, m := range both.Metrics {
		against, difference := both.Against.Metrics[i].Value, both.Against.Differences[i].Value
		if m.Value != a.Metrics[i].Value || against != b.Metrics[i].Value || difference != m.Value-against {
			t.Errorf("%s: %g and %g, difference %g; alone %g and %g",
				m.Name, m.Value, against, difference, a.Metrics[i].Value, b.Metrics[i].Value)
		}
	}
	test := both.Against.Tests[0]
	if got, want := float64(test.Only-test.OnlyAgainst)/float64(both.Pairs), both.Against.Differences.Get(test.Metric); math.Abs(got-want) > 1e-12 {
		t.Errorf("pairs right under one alone make %g of accuracy, the difference is %g", got, want)
	}
	alone.Against = last
	for _, in := range evaluated(t, alone).Against.Intervals {
		if in.Low != 0 || in.High != 0 {
			t.Errorf("a checkpoint differs from itself in %+v", in)
		}
	}
	alone.Against = w.path("nowhere")
	alone.Engine = "gonum"
	if _, err := Evaluate(context.Background(), alone, gonumEngine, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("against a folder that is not there: error is %v", err)
	}
}

// Pairs that one of two trainings saw are held out for neither.
func TestAgainstTakesPairsHeldOutByBoth(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(40))
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	wide := cfg
	wide.Out, wide.EvalFrac = w.path("wide"), 0.6
	_, err = Train(context.Background(), wide, gonumEngine, nil)
	must(t, err)
	narrow := evaluated(t, EvalConfig{Cache: cfg.Cache, Checkpoint: filepath.Join(cfg.Out, lastName)})
	for _, order := range [][2]string{{cfg.Out, wide.Out}, {wide.Out, cfg.Out}} {
		r := evaluated(t, EvalConfig{
			Cache: cfg.Cache, Checkpoint: filepath.Join(order[0], lastName), Against: filepath.Join(order[1], lastName),
		})
		if r.Pairs != narrow.Pairs {
			t.Errorf("%s against %s: %d pairs, want the %d that both hold out", order[0], order[1], r.Pairs, narrow.Pairs)
		}
	}
}
