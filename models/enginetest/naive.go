package enginetest

import (
	"math"
	"math/rand/v2"

	"github.com/dpo-pipe/dpo-pipe/models"
)

// problem is one micro-batch with everything an engine needs to score it.
type problem struct {
	voc  models.Vocabulary
	rows models.Rows
	add  models.Addition
	coef []float64
}

// truth is what an engine's [models.Tokens] should say, and the greatest |logit|.
type truth struct {
	models.Tokens
	lse, frozenLSE []float64
	limit          float64
}

// products returns W h + bias of row i in float64.
func (p *problem) products(i int) []float64 {
	z := make([]float64, p.voc.V)
	h := p.rows.Hidden[i*p.voc.D : (i+1)*p.voc.D]
	for v := range z {
		for d, x := range p.voc.Weight[v*p.voc.D : (v+1)*p.voc.D] {
			z[v] += float64(x) * float64(h[d])
		}
		if p.voc.Bias != nil {
			z[v] += float64(p.voc.Bias[v])
		}
	}
	return z
}

// logit finishes one product: addition, scale and softcap.
func (p *problem) logit(product, added float64) float64 {
	z := float64(p.voc.Scale) * (product + added)
	if c := float64(p.voc.Softcap); c > 0 {
		z = c * math.Tanh(z/c)
	}
	return z
}

func (p *problem) added(i, v int) float64 {
	var x float64
	if p.add.B != nil {
		for r := range p.add.R {
			x += float64(p.add.B[v*p.add.R+r]) * float64(p.add.U[i*p.add.R+r])
		}
	}
	if p.add.C != nil {
		x += float64(p.add.C[v])
	}
	return x
}

// solve scores the problem in float64, by the definitions of [models.Tokens].
func (p *problem) solve() truth {
	var t truth
	for i := range p.rows.N {
		z, z0 := p.products(i), make([]float64, p.voc.V)
		for v, product := range z {
			z[v], z0[v] = p.logit(product, p.added(i, v)), p.logit(product, 0)
		}
		lse, lse0 := logSumExp(z), logSumExp(z0)
		var entropy, kl float64
		top := 0
		squares := make([]float64, len(z))
		for v, x := range z {
			prob := math.Exp(x - lse)
			entropy -= prob * (x - lse)
			kl += prob * ((x - lse) - (z0[v] - lse0))
			squares[v] = 2 * (x - lse)
			if x > z[top] {
				top = v
			}
			t.limit = max(t.limit, math.Abs(x), math.Abs(z0[v]))
		}
		target := p.rows.Targets[i]
		t.Logps = append(t.Logps, z[target]-lse)
		t.Entropy = append(t.Entropy, entropy)
		t.KL = append(t.KL, kl)
		t.LogSumSq = append(t.LogSumSq, logSumExp(squares))
		t.Top = append(t.Top, int32(top))
		t.lse = append(t.lse, lse)
		t.frozenLSE = append(t.frozenLSE, z0[target]-lse0)
	}
	return t
}

// objective is L = Σ coef · log-prob, whose gradient Backward computes, given the
// products of all rows.
func (p *problem) objective(products [][]float64) float64 {
	var sum float64
	z := make([]float64, p.voc.V)
	for i, row := range products {
		for v, product := range row {
			z[v] = p.logit(product, p.added(i, v))
		}
		sum += p.coef[i] * (z[p.rows.Targets[i]] - logSumExp(z))
	}
	return sum
}

// slope returns the directional derivative of the objective as x moves along
// dir, by a central difference. The step is a power of two, and large enough that x's rounding
// to float32 does not matter: what was really added is what is divided by.
func (p *problem) slope(x, dir []float32) float64 {
	const h = 1.0 / 128
	at := append([]float32(nil), x...)
	var products [][]float64
	for i := range p.rows.N {
		products = append(products, p.products(i))
	}
	move := func(by float32) float64 {
		for i := range x {
			x[i] = at[i] + by*dir[i]
		}
		return p.objective(products)
	}
	// Richardson's extrapolation takes the error from h² to h⁴.
	near := (move(h) - move(-h)) / (2 * h)
	far := (move(2*h) - move(-2*h)) / (4 * h)
	copy(x, at)
	return (4*near - far) / 3
}

func logSumExp(z []float64) float64 {
	m := math.Inf(-1)
	for _, x := range z {
		m = max(m, x)
	}
	var sum float64
	for _, x := range z {
		sum += math.Exp(x - m)
	}
	return m + math.Log(sum)
}

// shape names the sizes of a random problem and which parts it has.
type shape struct {
	n, v, d, r   int
	bias, c      bool
	scale, limit float32
}

// random draws a problem. Values are multiples of 2^-10, so that the steps of a
// central difference are exact in float32.
func random(s shape, seed uint64) *problem {
	rng := rand.New(rand.NewPCG(seed, 0x70a57))
	draw := func(n int, spread float64) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(math.Round(rng.NormFloat64()*spread*1024) / 1024)
		}
		return x
	}
	p := &problem{voc: models.Vocabulary{V: s.v, D: s.d, Scale: s.scale, Softcap: s.limit}}
	if s.scale == 0 {
		p.voc.Scale = 1
	}
	p.voc.Weight = draw(s.v*s.d, 2/math.Sqrt(float64(s.d)))
	if s.bias {
		p.voc.Bias = draw(s.v, 1)
	}
	p.rows = models.Rows{N: s.n, Hidden: draw(s.n*s.d, 1)}
	for range s.n {
		p.rows.Targets = append(p.rows.Targets, int32(rng.IntN(s.v)))
		p.coef = append(p.coef, rng.NormFloat64())
	}
	if s.r > 0 {
		p.add = models.Addition{R: s.r, U: draw(s.n*s.r, 0.5), B: draw(s.v*s.r, 0.5)}
	}
	if s.c {
		p.add.C = draw(s.v, 0.5)
	}
	p.rows.RefLogps = make([]float32, s.n)
	for i, lp := range p.solve().frozenLSE {
		p.rows.RefLogps[i] = float32(lp)
	}
	return p
}
