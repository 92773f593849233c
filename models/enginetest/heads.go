package enginetest

import (
	"math"
	"math/rand/v2"

	"github.com/dpo-pipe/dpo-pipe/models"
)

// headCase is a kind of head as the tests make it. naive gives its logits by the definition, in
// float64, from copies of its parameters in the order of Params.
type headCase struct {
	name  string
	opts  models.HeadOptions
	naive func(y *toy, o models.HeadOptions, params [][]float64, h []float64) []float64
}

// headCases has every kind of models.Kinds, and the stabilised scale of those with a rank.
func headCases() (cases []headCase) {
	naive := map[string]func(*toy, models.HeadOptions, [][]float64, []float64) []float64{
		"lora": naiveLoRA, "bias": naiveBias, "adapter": naiveAdapter,
	}
	for _, k := range models.Kinds {
		o := models.HeadOptions{Kind: k.Name, R: 2, Alpha: 3, Seed: 5}
		cases = append(cases, headCase{k.Name, o, naive[k.Name]})
		if k.Ranked {
			o.Stabilised = true
			cases = append(cases, headCase{k.Name + ", stabilised", o, naive[k.Name]})
		}
	}
	return cases
}

// fresh makes the head for a toy.
func (c headCase) fresh(y *toy) models.Head {
	o := c.opts
	o.V, o.D = y.voc.V, y.voc.D
	return models.NewHead(o)
}

// trained is a head none of whose parameters is zero, so that all have a gradient.
func (c headCase) trained(y *toy) models.Head {
	h := c.fresh(y)
	rng := rand.New(rand.NewPCG(8, 8))
	for _, p := range h.Params() {
		for i := range p.Value {
			p.Value[i] = float32(rng.NormFloat64() / 4)
		}
	}
	return h
}

func (c headCase) scale() float64 {
	if c.opts.Stabilised {
		return c.opts.Alpha / math.Sqrt(float64(c.opts.R))
	}
	return c.opts.Alpha / float64(c.opts.R)
}

// product is M x for a row-major M [rows,len(x)].
func product(m []float64, x []float64) []float64 {
	out := make([]float64, len(m)/len(x))
	for i := range out {
		for k, v := range x {
			out[i] += m[i*len(x)+k] * v
		}
	}
	return out
}

func naiveLoRA(y *toy, o models.HeadOptions, params [][]float64, h []float64) []float64 {
	z := y.frozen(h)
	for v, add := range product(params[1], product(params[0], h)) {
		z[v] += headCase{opts: o}.scale() * add
	}
	return z
}

func naiveBias(y *toy, _ models.HeadOptions, params [][]float64, h []float64) []float64 {
	z := y.frozen(h)
	for v, add := range params[0] {
		z[v] += add
	}
	return z
}

// naiveAdapter moves the hidden state itself, where the head multiplies W with U; Φ is a
// series that converges fast for the values of the tests.
func naiveAdapter(y *toy, o models.HeadOptions, params [][]float64, h []float64) []float64 {
	inner := product(params[0], h)
	for k, x := range inner {
		inner[k] = x * (0.5 + normalSeries(x))
	}
	moved := append([]float64(nil), h...)
	for d, add := range product(params[1], inner) {
		moved[d] += headCase{opts: o}.scale() * add
	}
	return y.frozen(moved)
}

// normalSeries is Φ(x) - ½ = Σ (-1)^k x^(2k+1) / (√(2π) 2^k k! (2k+1)), Abramowitz and
// Stegun 26.2.10.
func normalSeries(x float64) (sum float64) {
	term := x / math.Sqrt(2*math.Pi)
	for k := range 60 {
		sum += term / float64(2*k+1)
		term *= -x * x / (2 * float64(k+1))
	}
	return sum
}
