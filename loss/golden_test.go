package loss

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	// Both sides are float64; what is left is the order of a few additions.
	goldenTol64 = 1e-12
	// The reference ran this case in float32.
	goldenTol32 = 2e-6
	// exo_pair's log ε is float32 in the reference, all else float64.
	goldenTolEXO = 5e-8
)

type goldenFile struct {
	Inputs struct {
		PolicyChosen   []float64 `json:"policy_chosen"`
		PolicyRejected []float64 `json:"policy_rejected"`
		RefChosen      []float64 `json:"ref_chosen"`
		RefRejected    []float64 `json:"ref_rejected"`
		LenChosen      []int     `json:"len_chosen"`
		LenRejected    []int     `json:"len_rejected"`
	} `json:"A_inputs"`
	Cases []struct {
		Name         string
		Opts         goldenOpts
		BatchLoss    float64   `json:"batch_loss"`
		GradChosen   []float64 `json:"batch_grad_chosen"`
		GradRejected []float64 `json:"batch_grad_rejected"`
		PerPair      []float64 `json:"per_pair_loss"`
		Dtype        string
	} `json:"A_cases"`
	MetricsA  map[string]float64                 `json:"A_metrics_sigmoid_beta0.1"`
	TorchTune struct{ PC, PR, RC, RR []float64 } `json:"torchtune_inputs"`
	TorchLoss []float64                          `json:"torchtune_sigmoid_per_pair"`
	OldAlpha  oldTRL                             `json:"oldTRL_finite alpha_div 0.5"`
	OldJS     oldTRL                             `json:"oldTRL_finite js_div"`
	Collated  collated                           `json:"B_collated"`
	KeepStart collated                           `json:"B_collated_max_length4_keep_start"`
	CasesB    []caseB                            `json:"B_cases"`
	Extremes  []extremes                         `json:"-"` // its key holds a comma, which a field tag can't
}

type goldenOpts struct {
	Types      []string  `json:"loss_types"`
	Weights    []float64 `json:"loss_weights"`
	Beta       *float64
	Smoothing  float64  `json:"label_smoothing"`
	LDAlpha    *float64 `json:"ld_alpha"`
	Weighting  bool     `json:"use_weighting"`
	Divergence string   `json:"f_divergence_type"`
	AlphaCoef  *float64 `json:"f_alpha_divergence_coef"`
}

type oldTRL struct {
	PC   []float64 `json:"policy_chosen"`
	PR   []float64 `json:"policy_rejected"`
	RC   []float64 `json:"ref_chosen"`
	RR   []float64 `json:"ref_rejected"`
	Want []float64 `json:"per_pair"`
}

type collated struct {
	Ids  [][]int `json:"input_ids"`
	Mask [][]int `json:"completion_mask"`
}

type caseB struct {
	Name        string
	Opts        goldenOpts
	RefChosen   []float64 `json:"ref_chosen_logps"`
	RefRejected []float64 `json:"ref_rejected_logps"`
	Loss        float64
	Metrics     map[string]float64
}

type extremes map[string]any

func readGolden(t *testing.T) *goldenFile {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "shared", "golden", "trl_golden.json"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("shared/golden/trl_golden.json is not beside the checkout")
	}
	if err != nil {
		t.Fatal(err)
	}
	var g goldenFile
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	var keys map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(data, &keys), json.Unmarshal(keys["extremes_float32 (policy_chosen=delta, others 0, len 1)"], &g.Extremes)); err != nil {
		t.Fatal(err)
	}
	return &g
}

// parse makes our objective of TRL's options.
func (o goldenOpts) parse(t *testing.T) *Objective {
	t.Helper()
	opts := DefaultOptions()
	opts.LabelSmoothing, opts.WPO = o.Smoothing, o.Weighting
	if o.Beta != nil {
		opts.Beta = *o.Beta
	}
	if o.LDAlpha != nil {
		opts.LDAlpha = *o.LDAlpha
	}
	if o.AlphaCoef != nil {
		opts.DivergenceAlpha = *o.AlphaCoef
	}
	if o.Divergence != "" {
		d, err := ParseDivergence(strings.TrimSuffix(o.Divergence, "_divergence"))
		if err != nil {
			t.Fatal(err)
		}
		opts.Divergence = d
	}
	spec := "sigmoid"
	if len(o.Types) > 0 {
		weights := make([]string, len(o.Types))
		for i, name := range o.Types {
			weights[i] = name
			if o.Weights != nil {
				w, _ := json.Marshal(o.Weights[i])
				weights[i] += ":" + string(w)
			}
		}
		spec = strings.Join(weights, ",")
	}
	obj, err := Parse(spec, opts)
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

func TestGoldenLossAndGradient(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	for _, c := range g.Cases {
		t.Run(c.Name, func(t *testing.T) {
			in := g.Inputs
			p := Pairs{
				PolicyChosen: in.PolicyChosen, PolicyRejected: in.PolicyRejected,
				RefChosen: in.RefChosen, RefRejected: in.RefRejected,
				ChosenTokens: in.LenChosen, RejectedTokens: in.LenRejected,
			}
			// The golden ld_alpha cases spread s evenly over its tokens and leave ρ alone.
			shareC, shareR := ones(4), ones(4)
			if c.Opts.LDAlpha != nil {
				shareC = scaleLD(&p.PolicyChosen, in.LenChosen, in.LenRejected, *c.Opts.LDAlpha)
				shareR = scaleLD(&p.PolicyRejected, in.LenRejected, in.LenChosen, *c.Opts.LDAlpha)
			}
			o := c.Opts.parse(t)
			var terms Terms
			o.Terms(&terms, &p, p.Totals())
			loss, wantLoss := terms.Batch, c.BatchLoss
			gc, gr := terms.GradChosen, terms.GradRejected
			perPair := c.PerPair
			if strings.Contains(c.Name, "(ignored)") {
				wantLoss, perPair = smoothByHand(&p, c.PerPair, c.GradChosen, c.GradRejected)
			}
			tol := goldenTol64
			if c.Dtype == "float32" {
				tol = goldenTol32
			}
			if strings.HasPrefix(c.Name, "exo_pair") {
				tol = goldenTolEXO
			}
			near(t, "batch loss", loss, wantLoss, tol)
			for i := range gc {
				near(t, "grad chosen", gc[i]*shareC[i], c.GradChosen[i], tol)
				near(t, "grad rejected", gr[i]*shareR[i], c.GradRejected[i], tol)
				if perPair != nil {
					near(t, "pair loss", terms.Loss[i], perPair[i], tol)
				}
			}
		})
	}
}

// smoothByHand turns TRL's result for sigmoid, which leaves ε out, into cDPO's for
// ε = 0.1 by log σ(-h) = log σ(h) - h and σ(-h)(1-ε) - εσ(h) = σ(-h) - ε.
func smoothByHand(p *Pairs, perPair, gc, gr []float64) (batch float64, pairs []float64) {
	const beta, eps = 0.1, 0.1
	for i, l := range perPair {
		h := beta * (p.PolicyChosen[i] - p.RefChosen[i] - p.PolicyRejected[i] + p.RefRejected[i])
		pairs = append(pairs, l+eps*h)
		batch += pairs[i] / float64(len(perPair))
		gc[i] += beta * eps / float64(len(perPair))
		gr[i] -= beta * eps / float64(len(perPair))
	}
	return batch, pairs
}

// scaleLD weighs sums whose tokens are all alike and returns the factor of each row.
func scaleLD(sums *[]float64, n, other []int, alpha float64) []float64 {
	out, share := make([]float64, len(n)), make([]float64, len(n))
	for i := range n {
		tokens := make([]float64, n[i])
		for k := range tokens {
			tokens[k] = 1 / float64(n[i])
		}
		share[i] = Sum(tokens, alpha, min(n[i], other[i]))
		out[i] = share[i] * (*sums)[i]
	}
	*sums = out
	return share
}

func TestGoldenOtherTrainers(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	alpha, js := DefaultOptions(), DefaultOptions()
	alpha.Divergence, js.Divergence = Alpha, JS
	tune := oldTRL{g.TorchTune.PC, g.TorchTune.PR, g.TorchTune.RC, g.TorchTune.RR, g.TorchLoss}
	for _, c := range []struct {
		name string
		rows oldTRL
		opts Options
	}{{"torchtune", tune, DefaultOptions()}, {"alpha", g.OldAlpha, alpha}, {"js", g.OldJS, js}} {
		p := Pairs{PolicyChosen: c.rows.PC, PolicyRejected: c.rows.PR, RefChosen: c.rows.RC, RefRejected: c.rows.RR}
		terms := evaluate(t, "sigmoid", c.opts, &p)
		for i, want := range c.rows.Want {
			near(t, c.name, terms.Loss[i], want, goldenTol32)
		}
	}
}

func TestGoldenExtremes(t *testing.T) {
	t.Parallel()
	for _, row := range readGolden(t).Extremes {
		p := onePair(row["delta"].(float64), 0, 0, 0)
		for name, value := range row {
			if name == "delta" {
				continue
			}
			opts := DefaultOptions()
			spec, _, _ := strings.Cut(name, " f=")
			if spec != name {
				opts.Divergence = ForwardKL
			}
			if spec == "exo_pair" {
				opts.LabelSmoothing = 1e-3
			}
			got := evaluate(t, spec, opts, &p).Batch
			if want, finite := value.(float64); finite {
				near(t, name, got, want, goldenTol32)
			} else if math.IsInf(got, 0) || math.IsNaN(got) {
				t.Errorf("%s at %v: got %v, want a finite loss", name, row["delta"], got)
			}
		}
	}
}

// logitsB is the file's formula for the logits of part B.
func logitsB(policy bool, b, t int) []float64 {
	z := make([]float64, 8)
	for v := range z {
		if policy {
			z[v] = float64((7*b+5*t+3*v)*11%17)/4 - 2
		} else {
			z[v] = float64((5*b+3*t+7*v)*13%19)/4 - 2
		}
	}
	return z
}

// rowB scores the completion tokens of collated row b.
func rowB(c collated, policy bool, b int) (logps, logSumSq, entropy []float64) {
	for t := 0; t+1 < len(c.Ids[b]); t++ {
		if c.Mask[b][t+1] == 0 {
			continue
		}
		z := logitsB(policy, b, t)
		var sum float64
		for _, x := range z {
			sum += math.Exp(x)
		}
		var squares, h float64
		for _, x := range z {
			p := math.Exp(x) / sum
			squares += p * p
			h -= p * math.Log(p)
		}
		logps = append(logps, z[c.Ids[b][t+1]]-math.Log(sum))
		logSumSq, entropy = append(logSumSq, math.Log(squares)), append(entropy, h)
	}
	return logps, logSumSq, entropy
}

// The reference's token log-probs pass through float32, as they do in the cache.
const goldenTolB = 1e-6

func TestGoldenFromTokens(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	for _, c := range g.CasesB {
		t.Run(c.Name, func(t *testing.T) {
			rows := g.Collated
			if strings.Contains(c.Name, "max_length=4") {
				rows = g.KeepStart
			}
			o := c.Opts.parse(t)
			var p Pairs
			var metrics Metrics
			o.Resize(&p, 2)
			for i := range 2 {
				var pt PairTokens
				var hc, hr []float64
				pt.Chosen, pt.ChosenLogSumSq, hc = rowB(rows, true, i)
				pt.Rejected, pt.RejectedLogSumSq, hr = rowB(rows, true, i+2)
				refC, _, _ := rowB(rows, false, i)
				refR, _, _ := rowB(rows, false, i+2)
				pt.RefChosen, pt.RefRejected, pt.Weight = narrow(refC), narrow(refR), 1
				o.Set(&p, i, &pt)
				near(t, "ρ_c", p.RefChosen[i], c.RefChosen[i], goldenTolB)
				near(t, "ρ_r", p.RefRejected[i], c.RefRejected[i], goldenTolB)
				metrics.AddTokens(true, len(hc), 0, hc, nil)
				metrics.AddTokens(false, len(hr), 0, hr, nil)
			}
			var terms Terms
			o.Terms(&terms, &p, p.Totals())
			metrics.Add(o, &p, &terms)
			near(t, "loss", terms.Batch, c.Loss, goldenTolB)
			metrics.Means().Named(func(name string, got float64) {
				if want, ok := c.Metrics[name]; ok {
					near(t, name, got, want, goldenTolB)
				}
			})
		})
	}
}

func TestGoldenMetrics(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	in := g.Inputs
	p := Pairs{PolicyChosen: in.PolicyChosen, PolicyRejected: in.PolicyRejected, RefChosen: in.RefChosen, RefRejected: in.RefRejected}
	o := mustParse(t, "sigmoid", DefaultOptions())
	var terms Terms
	o.Terms(&terms, &p, p.Totals())
	var m Metrics
	m.Add(o, &p, &terms)
	got := map[string]float64{}
	m.Means().Named(func(name string, v float64) { got[name] = v })
	for name, want := range g.MetricsA {
		near(t, name, got[name], want, goldenTol64)
	}
}

func narrow(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

func ones(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = 1
	}
	return x
}
