package loss

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// near fails unless got is within tol of want, relative where want is above 1.
func near(t interface {
	Helper()
	Errorf(string, ...any)
}, what string, got, want, tol float64,
) {
	t.Helper()
	if !(math.Abs(got-want) <= tol*math.Max(1, math.Abs(want))) {
		t.Errorf("%s: got %.17g, want %.17g (tolerance %g)", what, got, want, tol)
	}
}

func mustParse(t interface {
	Helper()
	Fatal(...any)
}, spec string, opts Options,
) *Objective {
	t.Helper()
	o, err := Parse(spec, opts)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func evaluate(t *testing.T, spec string, opts Options, p *Pairs) *Terms {
	t.Helper()
	var terms Terms
	mustParse(t, spec, opts).Terms(&terms, p, p.Totals())
	return &terms
}

func onePair(sc, sr, rc, rr float64) Pairs {
	return Pairs{
		PolicyChosen: []float64{sc}, PolicyRejected: []float64{sr}, RefChosen: []float64{rc}, RefRejected: []float64{rr},
		ChosenTokens: []int{1}, RejectedTokens: []int{1},
	}
}

// everyObjective runs f for each entry of the table under each set of options that it
// takes, and for two mixes.
func everyObjective(t *testing.T, f func(t *testing.T, o *Objective)) {
	specs := []string{"sigmoid:0.8,bco_pair:0.2,sft:1", "aot:0.5,sft:2"}
	for _, info := range List() {
		specs = append(specs, info.Name)
	}
	for _, spec := range specs {
		ran := 0
		for _, d := range []Divergence{ReverseKL, ForwardKL, JS, Alpha} {
			for _, eps := range []float64{0, 1e-3, 0.1} {
				opts := DefaultOptions()
				opts.Divergence, opts.LabelSmoothing = d, eps
				o, err := Parse(spec, opts)
				if err != nil {
					continue
				}
				ran++
				t.Run(spec+"/"+d.String(), func(t *testing.T) { f(t, o) })
			}
		}
		if ran == 0 {
			t.Errorf("%s ran under no set of options", spec)
		}
	}
}

// drawPairs draws N pairs whose log-ratios are within ±reach.
func drawPairs(t *rapid.T, n int, reach float64) Pairs {
	var p Pairs
	num := rapid.Float64Range(-reach, reach)
	for range n {
		nc, nr := rapid.IntRange(1, 9).Draw(t, "n_c"), rapid.IntRange(1, 9).Draw(t, "n_r")
		// Below 0 by enough for a probability: the reference-free objectives take logs of 1 - exp(s/n).
		sc, sr := -reach-1+num.Draw(t, "s_c"), -reach-1+num.Draw(t, "s_r")
		p.PolicyChosen, p.PolicyRejected = append(p.PolicyChosen, sc), append(p.PolicyRejected, sr)
		p.RefChosen, p.RefRejected = append(p.RefChosen, sc-num.Draw(t, "u_c")), append(p.RefRejected, sr-num.Draw(t, "u_r"))
		p.ChosenTokens, p.RejectedTokens = append(p.ChosenTokens, nc), append(p.RejectedTokens, nr)
		p.Weight = append(p.Weight, rapid.Float64Range(0.1, 3).Draw(t, "w"))
	}
	return p
}

func TestHandWorkedRows(t *testing.T) {
	t.Parallel()
	ln2 := math.Ln2
	// β = 0.1 throughout. Row 1: u_c = 3, u_r = -2, so Δ = 5 and h = 0.5; n_c = 2, n_r = 4.
	p := Pairs{
		PolicyChosen: []float64{-7}, PolicyRejected: []float64{-12}, RefChosen: []float64{-10}, RefRejected: []float64{-10},
		ChosenTokens: []int{2}, RejectedTokens: []int{4},
	}
	soft := func(x float64) float64 { return math.Log(1 + math.Exp(x)) } // -log σ(-x)
	logistic := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	for _, c := range []struct {
		spec string
		want float64
	}{
		{"sigmoid", soft(-0.5)},
		{"hinge", 0.5},
		{"ipo", 3 * 3},           // 3/2 - (-2/4) - 5 = -3
		{"ipo_sum", 0},           // 3 + 2 - 5
		{"sppo_hard", 2*2 + 3*3}, // 3-5, -2+5
		{"nca_pair", soft(-0.3) + 0.5*soft(0.3) + 0.5*soft(-0.2)},
		{"bco_pair", soft(-0.3) + soft(-0.2)},
		{"apo_zero", 1 - logistic(0.3) + logistic(-0.2)},
		{"apo_down", logistic(0.3) + 1 - logistic(0.5)},
		{"sigmoid_norm", soft(-0.1 * (1.5 + 0.5))},
		{"sft", 3.5},
		{"dpop", soft(-0.5)}, // the chosen is above the reference
		{"cal_dpo", soft(-5) + 0.5*(4+9)},
		{"simpo", soft(-0.1*(-3.5+3) + 0.5)},
		{"cpo", soft(-0.5) + 3.5},
		{"aot", soft(-0.5)},
		{"aot_unpaired", soft(-0.5)},
		{"sigmoid:0.8,sft:2", 0.8*soft(-0.5) + 2*3.5},
	} {
		near(t, c.spec, evaluate(t, c.spec, DefaultOptions(), &p).Batch, c.want, goldenTol64)
	}
	below := onePair(-3, -2, -1, -2) // u_c = -2, u_r = 0: Δ = -2, shortfall 2
	near(t, "dpop below", evaluate(t, "dpop", DefaultOptions(), &below).Batch, soft(-0.1*(-2-50*2)), goldenTol64)
	// orpo, ā_c = 1/2, ā_r = 1/4: odds ratio 1 : 1/3.
	odds := onePair(-ln2, -2*ln2, 0, 0)
	near(t, "orpo", evaluate(t, "orpo", DefaultOptions(), &odds).Batch, ln2-0.1*math.Log(logistic(math.Log(3))), goldenTol64)
}

func TestFreshHead(t *testing.T) {
	t.Parallel()
	const fresh = 0.6931471805599453
	want := map[string]float64{
		"sigmoid": fresh, "hinge": 1, "ipo": 25, "ipo_sum": 25, "robust": fresh, "bco_pair": 2 * fresh, "nca_pair": 2 * fresh,
		"sppo_hard": 50, "apo_zero": 1, "apo_down": 1, "discopop": (fresh + 1) / 2, "sigmoid_norm": fresh, "dpop": fresh, "cal_dpo": fresh + 25,
	}
	for name, loss := range want {
		got, ok := mustParse(t, name, DefaultOptions()).InitialLoss()
		if !ok {
			t.Errorf("%s has no initial loss", name)
		}
		near(t, name, got, loss, goldenTol64)
	}
	if got, _ := mustParse(t, "sigmoid", DefaultOptions()).InitialLoss(); got != fresh {
		t.Errorf("sigmoid starts at %v, want exactly %v", got, fresh)
	}
	if _, ok := mustParse(t, "sigmoid,sft", DefaultOptions()).InitialLoss(); ok {
		t.Error("a mix with sft depends on the data, yet has an initial loss")
	}
}

// gradientTol allows for a central difference of step 1e-4 on losses of magnitude 1: truncation
// 1e-8·f”' and cancellation 1e-12, both relative to the gradient's own scale below.
const gradientTol = 2e-5

func TestGradientIsTheCentralDifference(t *testing.T) {
	everyObjective(t, func(t *testing.T, o *Objective) {
		rapid.Check(t, func(t *rapid.T) {
			p := drawPairs(t, rapid.IntRange(1, 4).Draw(t, "N"), 3)
			var terms, moved Terms
			totals := p.Totals()
			o.Terms(&terms, &p, totals)
			if !o.Separable() && (tied(terms.left) || tied(terms.right)) {
				return // no derivative where two ranks change places
			}
			at := func(x *float64, step float64) float64 {
				keep := *x
				defer func() { *x = keep }()
				*x += step
				o.Terms(&moved, &p, totals)
				return moved.Batch
			}
			for i := range p.Len() {
				for _, side := range []struct {
					x    *float64
					grad float64
				}{{&p.PolicyChosen[i], terms.GradChosen[i]}, {&p.PolicyRejected[i], terms.GradRejected[i]}} {
					const step = 1e-4
					up, down := (at(side.x, step)-terms.Batch)/step, (terms.Batch-at(side.x, -step))/step
					// At a kink (hinge, dpop) the two sides differ: no derivative to check.
					if math.Abs(up-down) > 1e-3*(1+math.Abs(up)) {
						continue
					}
					near(t, o.String(), side.grad, (up+down)/2, gradientTol)
				}
			}
		})
	})
}

// tied reports whether two values are within a few steps of the central difference.
func tied(values []float64) bool {
	for i, a := range values {
		for _, b := range values[:i] {
			if math.Abs(a-b) < 1e-3 {
				return true
			}
		}
	}
	return false
}

// invarianceTol allows for s - ρ after both were shifted by up to 1e3: 1e3·2^-53·few, times slopes up to 1e3.
const invarianceTol = 1e-8

func TestShiftOfPolicyAndReferenceChangesNothing(t *testing.T) {
	everyObjective(t, func(t *testing.T, o *Objective) {
		for _, info := range o.Infos() {
			if !info.Reference {
				return
			}
		}
		rapid.Check(t, func(t *rapid.T) {
			p := drawPairs(t, rapid.IntRange(1, 5).Draw(t, "N"), 3)
			if !o.Separable() {
				p.Weight = nil // rounding may reorder equal ranks, which only weights tell apart
			}
			var before, after Terms
			o.Terms(&before, &p, p.Totals())
			for i := range p.Len() {
				both := rapid.Float64Range(-1e3, 1e3).Draw(t, "both sides")
				for _, s := range [][]float64{p.PolicyChosen, p.RefChosen, p.PolicyRejected, p.RefRejected} {
					s[i] += both
				}
			}
			o.Terms(&after, &p, p.Totals())
			near(t, "loss", after.Batch, before.Batch, invarianceTol)
		})
	})
}

func TestMicroBatchesSumToTheBatch(t *testing.T) {
	everyObjective(t, func(t *testing.T, o *Objective) {
		if !o.Separable() {
			return
		}
		rapid.Check(t, func(t *rapid.T) {
			n := rapid.IntRange(1, 7).Draw(t, "N")
			p := drawPairs(t, n, 3)
			totals := p.Totals()
			var whole, part Terms
			o.Terms(&whole, &p, totals)
			var sum float64
			for at := 0; at < n; {
				end := min(n, at+rapid.IntRange(1, 3).Draw(t, "size"))
				q := Pairs{
					PolicyChosen: p.PolicyChosen[at:end], PolicyRejected: p.PolicyRejected[at:end],
					RefChosen: p.RefChosen[at:end], RefRejected: p.RefRejected[at:end],
					ChosenTokens: p.ChosenTokens[at:end], RejectedTokens: p.RejectedTokens[at:end], Weight: p.Weight[at:end],
				}
				o.Terms(&part, &q, totals)
				sum += part.Batch
				for i := range q.Len() {
					if part.GradChosen[i] != whole.GradChosen[at+i] || part.GradRejected[i] != whole.GradRejected[at+i] {
						t.Fatalf("pair %d has another gradient in a micro-batch", at+i)
					}
				}
				at = end
			}
			near(t, "loss", sum, whole.Batch, goldenTol64)
		})
	})
}

func TestFiniteEverywhere(t *testing.T) {
	everyObjective(t, func(t *testing.T, o *Objective) {
		values := []float64{-1e6, -1e4, -800, -1, -1e-9, 0, 1e-9, 1, 800, 1e4, 1e6}
		for _, sc := range values {
			for _, sr := range values {
				p := onePair(sc, sr, 0, 0)
				var terms Terms
				o.Terms(&terms, &p, p.Totals())
				for _, x := range []float64{terms.Batch, terms.GradChosen[0], terms.GradRejected[0]} {
					if math.IsNaN(x) || math.IsInf(x, 0) {
						t.Fatalf("s_c = %v, s_r = %v: loss %v, gradient %v and %v", sc, sr, terms.Batch, terms.GradChosen[0], terms.GradRejected[0])
					}
				}
			}
		}
	})
}

func TestSwapNegatesTheMargin(t *testing.T) {
	t.Parallel()
	o := mustParse(t, "sigmoid", DefaultOptions())
	rapid.Check(t, func(t *rapid.T) {
		p := drawPairs(t, rapid.IntRange(1, 5).Draw(t, "N"), 3)
		swapped := p
		swapped.PolicyChosen, swapped.PolicyRejected = p.PolicyRejected, p.PolicyChosen
		swapped.RefChosen, swapped.RefRejected = p.RefRejected, p.RefChosen
		var a, b Terms
		o.Terms(&a, &p, p.Totals())
		o.Terms(&b, &swapped, swapped.Totals())
		var ma, mb Metrics
		ma.Add(o, &p, &a)
		mb.Add(o, &swapped, &b)
		near(t, "margin", ma.Means().RewardsMargins, -mb.Means().RewardsMargins, goldenTol64)
		for i := range p.Len() {
			h := 0.1 * (p.PolicyChosen[i] - p.RefChosen[i] - p.PolicyRejected[i] + p.RefRejected[i])
			// -log σ(h) + log σ(-h) = -h.
			near(t, "difference", a.Loss[i]-b.Loss[i], -h, goldenTol64)
		}
	})
}

func TestSmallStepRaisesTheMargin(t *testing.T) {
	t.Parallel()
	o := mustParse(t, "sigmoid", DefaultOptions())
	rapid.Check(t, func(t *rapid.T) {
		p := drawPairs(t, 1, 20)
		var terms Terms
		o.Terms(&terms, &p, p.Totals())
		if !(terms.GradChosen[0] < 0 && terms.GradRejected[0] > 0) {
			t.Fatalf("gradient %v and %v: a descent step must raise the chosen and lower the rejected", terms.GradChosen[0], terms.GradRejected[0])
		}
		before := terms.Batch
		p.PolicyChosen[0] -= 0.1 * terms.GradChosen[0]
		p.PolicyRejected[0] -= 0.1 * terms.GradRejected[0]
		o.Terms(&terms, &p, p.Totals())
		if !(terms.Batch < before) {
			t.Fatalf("loss went from %v to %v", before, terms.Batch)
		}
	})
}

func TestLossFallsAsThePolicyFavoursTheChosen(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"sigmoid", "hinge", "robust", "apo_zero", "bco_pair", "sigmoid_norm", "dpop", "simpo", "cpo", "aot", "aot_unpaired"} {
		last := math.Inf(1)
		for shift := -20.0; shift <= 20; shift++ {
			p := onePair(-30+shift, -30-shift, -30, -30)
			loss := evaluate(t, spec, DefaultOptions(), &p).Batch
			if loss > last || (loss == last && spec != "hinge") {
				t.Errorf("%s: loss %v at shift %v is not below %v", spec, loss, shift, last)
			}
			last = loss
		}
	}
}

func TestTokenCoefficients(t *testing.T) {
	t.Parallel()
	opts := DefaultOptions()
	opts.LDAlpha = 0.25
	o := mustParse(t, "sigmoid,sft:2", opts)
	pt := PairTokens{
		Chosen: []float64{-1, -2, -3, -4}, Rejected: []float64{-2, -1},
		RefChosen: []float32{-1, -1, -1, -1}, RefRejected: []float32{-1, -1}, Weight: 1,
	}
	lossOf := func() float64 {
		var p Pairs
		var terms Terms
		o.Resize(&p, 1)
		o.Set(&p, 0, &pt)
		o.Terms(&terms, &p, p.Totals())
		return terms.Batch
	}
	// Weighted: s_c = -3 - 7/4, ρ_c = -2 - 2/4, s_r = -3, ρ_r = -2: Δ = -1.25; NLL = 10/4.
	near(t, "loss", lossOf(), math.Log(1+math.Exp(0.125))+2*2.5, goldenTol64)
	var p Pairs
	var terms Terms
	o.Resize(&p, 1)
	o.Set(&p, 0, &pt)
	o.Terms(&terms, &p, p.Totals())
	chosen, rejected := make([]float64, 4), make([]float64, 2)
	o.Coefs(chosen, rejected, &terms, 0)
	for _, side := range []struct{ tokens, coefs []float64 }{{pt.Chosen, chosen}, {pt.Rejected, rejected}} {
		for k := range side.tokens {
			const step = 1e-5
			side.tokens[k] += step
			up := lossOf()
			side.tokens[k] -= 2 * step
			down := lossOf()
			side.tokens[k] += step
			near(t, "token coefficient", side.coefs[k], (up-down)/(2*step), 1e-8)
		}
	}
}

func TestWPOWeight(t *testing.T) {
	t.Parallel()
	// π uniform over 4: p = -ln 4, Σπ² = 1/4, so every token gives weight 1.
	ln4 := math.Log(4)
	near(t, "uniform", WPOWeight([]float64{-ln4, -ln4}, []float64{-ln4, -ln4}), 1, goldenTol64)
	// π = (3/4, 1/4): Σπ² = 5/8; tokens 0 and 1 give (6/5 · 2/5)^½.
	s := math.Log(5.0 / 8)
	near(t, "skewed", WPOWeight([]float64{math.Log(0.75), math.Log(0.25)}, []float64{s, s}), math.Sqrt(6.0/5*2/5), goldenTol64)
}

func TestWeightsAreRelative(t *testing.T) {
	t.Parallel()
	p := Pairs{
		PolicyChosen: []float64{-1, -5}, PolicyRejected: []float64{-3, -1}, RefChosen: []float64{-2, -2}, RefRejected: []float64{-2, -2},
		ChosenTokens: []int{2, 3}, RejectedTokens: []int{2, 3}, Weight: []float64{3, 1},
	}
	repeated := Pairs{ // the first pair three times
		PolicyChosen: []float64{-1, -1, -1, -5}, PolicyRejected: []float64{-3, -3, -3, -1}, RefChosen: []float64{-2, -2, -2, -2}, RefRejected: []float64{-2, -2, -2, -2},
		ChosenTokens: []int{2, 2, 2, 3}, RejectedTokens: []int{2, 2, 2, 3},
	}
	for _, spec := range []string{"sigmoid", "sft", "ipo:2,sft:0.5", "cpo", "orpo"} {
		near(t, spec, evaluate(t, spec, DefaultOptions(), &p).Batch, evaluate(t, spec, DefaultOptions(), &repeated).Batch, goldenTol64)
	}
	p.Weight = []float64{0, 0}
	if got := evaluate(t, "sigmoid,sft", DefaultOptions(), &p); got.Batch != 0 || got.GradChosen[0] != 0 {
		t.Errorf("a batch without weight has loss %v, gradient %v, want 0", got.Batch, got.GradChosen)
	}
}

func TestAccuracyIsStrict(t *testing.T) {
	t.Parallel()
	p := onePair(-1, -2, -1, -2)
	o := mustParse(t, "sigmoid", DefaultOptions())
	var terms Terms
	o.Terms(&terms, &p, p.Totals())
	var m, both Metrics
	m.Add(o, &p, &terms)
	if got := m.Means().RewardsAccuracies; got != 0 {
		t.Errorf("accuracy of a fresh head is %v, want 0", got)
	}
	both.Merge(&m)
	both.Merge(&m)
	if got := both.Means(); got.Pairs != 2 || got.Loss != math.Ln2 {
		t.Errorf("merged window is %+v", got)
	}
	both.Reset()
	if got := both.Means(); got != (Means{}) {
		t.Errorf("means of nothing are %+v, want zeros", got)
	}
}

// The reference's own preference has nothing to do with rewards: rows by hand.
func TestLogpsAccuracyIsOfThePolicyAlone(t *testing.T) {
	t.Parallel()
	o := mustParse(t, "sigmoid", DefaultOptions())
	for _, tt := range []struct {
		name                   string
		sc, sr, rc, rr         float64
		logps, rewardsAccuracy float64
	}{
		{"likelier and moved towards", -1, -3, -2, -2, 1, 1},
		{"likelier, moved away", -1, -3, -1, -9, 1, 0},
		{"less likely, moved towards", -4, -3, -9, -3, 0, 1},
		{"a tie", -2, -2, -2, -2, 0, 0},
	} {
		p := onePair(tt.sc, tt.sr, tt.rc, tt.rr)
		var terms Terms
		o.Terms(&terms, &p, p.Totals())
		var m Metrics
		m.Add(o, &p, &terms)
		if got := m.Means(); got.LogpsAccuracies != tt.logps || got.RewardsAccuracies != tt.rewardsAccuracy {
			t.Errorf("%s: log-prob accuracy %v, reward accuracy %v, want %v and %v",
				tt.name, got.LogpsAccuracies, got.RewardsAccuracies, tt.logps, tt.rewardsAccuracy)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	with := func(change func(*Options)) Options {
		o := DefaultOptions()
		change(&o)
		return o
	}
	for _, c := range []struct {
		name, spec string
		opts       Options
		want       string // part of the error; "" accepts
	}{
		{"plain", "sigmoid", DefaultOptions(), ""},
		{"mix", "sigmoid:0.8, sft:1", DefaultOptions(), ""},
		{"empty", "", DefaultOptions(), `unknown objective ""`},
		{"unknown", "dpo", DefaultOptions(), `unknown objective "dpo", want one of sigmoid`},
		{"twice", "sft,sft:2", DefaultOptions(), "names sft twice"},
		{"weight text", "sft:x", DefaultOptions(), `weight of sft is "x"`},
		{"weight zero", "sft:0", DefaultOptions(), `weight of sft is "0"`},
		{"weight NaN", "sft:NaN", DefaultOptions(), `weight of sft is "NaN"`},
		{"beta NaN", "sigmoid", with(func(o *Options) { o.Beta = math.NaN() }), "beta is NaN, want a finite number > 0"},
		{"two faults", "sigmoid", with(func(o *Options) { o.Beta, o.LDAlpha = -1, 2 }), "ld_alpha is 2"},
		{"smoothing half", "sigmoid", with(func(o *Options) { o.LabelSmoothing = 0.5 }), "label smoothing is 0.5"},
		{"smoothing unused", "ipo", with(func(o *Options) { o.LabelSmoothing = 0.1 }), "ipo does not use label smoothing"},
		{"smoothing used by one", "sigmoid,sft", with(func(o *Options) { o.LabelSmoothing = 0.1 }), ""},
		{"divergence unused", "apo_zero", with(func(o *Options) { o.Divergence = JS }), "does not use a divergence (js given)"},
		{"exo without smoothing", "exo_pair", DefaultOptions(), "exo_pair needs label smoothing"},
		{"ld_alpha for sft alone", "sft", with(func(o *Options) { o.LDAlpha = 0.5 }), "neither ld_alpha nor WPO"},
		{"WPO for orpo", "orpo", with(func(o *Options) { o.WPO = true }), "neither ld_alpha nor WPO"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := Parse(c.spec, c.opts)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("got error %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got error %v, want %q in it", err, c.want)
			case c.want != "" && o != nil:
				t.Error("an error came with an objective")
			}
		})
	}
	if got := mustParse(t, "sigmoid:0.80, sft:1", DefaultOptions()).String(); got != "sigmoid:0.8,sft" {
		t.Errorf("shortest form is %q", got)
	}
	for d := ReverseKL; d <= Alpha; d++ {
		if got, err := ParseDivergence(d.String()); err != nil || got != d {
			t.Errorf("%v reads back as %v, %v", d, got, err)
		}
	}
}

func TestMisusePanics(t *testing.T) {
	t.Parallel()
	o := mustParse(t, "ipo", DefaultOptions())
	aot := mustParse(t, "aot", DefaultOptions())
	good := onePair(-1, -1, -1, -1)
	for name, call := range map[string]func(t *Terms){
		"short":       func(t *Terms) { p := good; p.RefChosen = []float64{1, 2}; o.Terms(t, &p, p.Totals()) },
		"nil":         func(t *Terms) { p := good; p.RefChosen = nil; o.Terms(t, &p, p.Totals()) },
		"no tokens":   func(t *Terms) { p := good; p.ChosenTokens = []int{0}; o.Terms(t, &p, p.Totals()) },
		"part of aot": func(t *Terms) { aot.Terms(t, &good, Totals{Pairs: 2, Weight: 2, ChosenTokens: 2}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if text, ok := recover().(string); !ok || !strings.HasPrefix(text, "loss: ") {
					t.Errorf("panic is %q, want one that starts with loss:", text)
				}
			}()
			call(&Terms{})
		})
	}
}

func TestTermsDoNotAllocate(t *testing.T) {
	for _, spec := range []string{"sigmoid:0.8,sft:1", "aot", "aot_unpaired", "discopop", "orpo"} {
		o := mustParse(t, spec, DefaultOptions())
		p := Pairs{
			PolicyChosen: []float64{-3, -1, -2}, PolicyRejected: []float64{-1, -3, -9}, RefChosen: []float64{-2, -2, -5}, RefRejected: []float64{-3, -1, -1},
			ChosenTokens: []int{1, 2, 3}, RejectedTokens: []int{3, 2, 1},
		}
		var terms Terms
		totals := p.Totals()
		if n := testing.AllocsPerRun(100, func() { o.Terms(&terms, &p, totals) }); n != 0 {
			t.Errorf("%s: %v allocations a call, want 0", spec, n)
		}
	}
}
