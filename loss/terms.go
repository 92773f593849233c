package loss

import "fmt"

// Pairs are the summed log-probs (nats) of N pairs under policy and reference. All
// slices have N elements or, where it is said, are nil.
type Pairs struct {
	PolicyChosen, PolicyRejected []float64
	// RefChosen and RefRejected are nil for a reference-free objective.
	RefChosen, RefRejected []float64
	// ChosenTokens and RejectedTokens count scored tokens, at least 1 each; nil where
	// the objective does not need them.
	ChosenTokens, RejectedTokens []int
	// Weight is the pairs' weight, ≥ 0; nil means 1.
	Weight []float64
	// PlainChosen is PolicyChosen without ld_alpha; nil where they are the same.
	PlainChosen []float64
	// WPO is the product of both completions' [WPOWeight]; nil unless Options.WPO.
	WPO []float64
}

// Len returns N.
func (p *Pairs) Len() int { return len(p.PolicyChosen) }

// Totals returns the totals of p, for a p that is the whole optimizer batch.
func (p *Pairs) Totals() Totals {
	var t Totals
	for i := range p.PolicyChosen {
		n := 0
		if p.ChosenTokens != nil {
			n = p.ChosenTokens[i]
		}
		t.Add(p.weight(i), n)
	}
	return t
}

func (p *Pairs) weight(i int) float64 {
	if p.Weight == nil {
		return 1
	}
	return p.Weight[i]
}

func (p *Pairs) wpo(o *Options, i int) float64 {
	if !o.WPO {
		return 1
	}
	return p.WPO[i]
}

// Totals are the denominators of an optimizer batch, known before any forward pass.
type Totals struct {
	// Pairs is N.
	Pairs int
	// Weight is Σ w.
	Weight float64
	// ChosenTokens is Σ w·n_c.
	ChosenTokens float64
}

// Add counts one pair.
func (t *Totals) Add(weight float64, chosenTokens int) {
	t.Pairs++
	t.Weight += weight
	t.ChosenTokens += weight * float64(chosenTokens)
}

// Terms are losses and gradients of N pairs. Reused, they are not allocated again.
type Terms struct {
	// Loss is the loss of each pair [N]; their weighted mean over the optimizer batch is
	// L. sft's part is the pair's share of the token mean.
	Loss []float64
	// GradChosen is ∂L/∂s_c and GradRejected ∂L/∂s_r, [N], L being the loss of the
	// whole optimizer batch.
	GradChosen, GradRejected []float64
	// GradPlain is ∂L/∂(s_c without ld_alpha) [N], which every chosen token receives in
	// full. It is zero unless ld_alpha ≠ 1 and sft is in the mix: elsewhere the two
	// sums are the same and GradChosen holds it.
	GradPlain []float64
	// Batch is the part of L that these pairs contribute: all of it for a whole
	// batch.
	Batch float64
	// Clamped counts pairs whose exponents had to be bounded.
	Clamped int

	bounded               []bool    // which pairs Clamped counts
	row                   pair      // here so that formulas called through the table don't make it escape
	scale                 []float64 // w_i / Σ w
	left, right           []float64 // scratch of the sorting objectives
	leftOrder, rightOrder []int
}

// Terms fills dst with the losses and gradients of p, which is the optimizer batch
// whose totals are given or, where the objective is Separable, any part of it.
//
// It panics where slices of p differ in length, a needed one is nil, a token count is
// below 1, or a part is given to an objective that needs the whole batch.
func (o *Objective) Terms(dst *Terms, p *Pairs, totals Totals) {
	o.mustFit(p, totals)
	dst.reset(p, totals)
	o.separable(dst, p, totals)
	for _, t := range o.terms {
		if t.batch != nil {
			t.batch(&o.opts, dst, p, t.weight)
		}
	}
	for i, l := range dst.Loss {
		dst.Batch += dst.scale[i] * l
	}
}

// separable adds the terms that need one pair at a time.
func (o *Objective) separable(dst *Terms, p *Pairs, totals Totals) {
	x := &dst.row
	*x = pair{nc: 1, nr: 1}
	if totals.ChosenTokens > 0 {
		x.share = totals.Weight / totals.ChosenTokens
	}
	for i := range dst.Loss {
		o.load(x, p, i)
		for _, t := range o.terms {
			if t.pair == nil {
				continue
			}
			loss, dc, dr := t.pair(&o.opts, x)
			switch {
			case !t.plain:
				dst.add(i, i, t.weight*p.wpo(&o.opts, i), loss, dc, dr)
			case p.PlainChosen == nil:
				dst.add(i, i, t.weight, loss, dc, 0)
			default:
				dst.add(i, i, t.weight, loss, 0, 0)
				dst.GradPlain[i] += t.weight * dst.scale[i] * dc
			}
		}
		if x.clamped {
			dst.Clamped++
		}
		dst.bounded[i] = x.clamped
	}
}

// load makes x pair i of p.
func (o *Objective) load(x *pair, p *Pairs, i int) {
	x.sc, x.sr = p.PolicyChosen[i], p.PolicyRejected[i]
	x.uc, x.ur = x.sc, x.sr
	if p.RefChosen != nil {
		x.uc, x.ur = x.sc-p.RefChosen[i], x.sr-p.RefRejected[i]
	}
	if p.ChosenTokens != nil {
		x.nc, x.nr = float64(p.ChosenTokens[i]), float64(p.RejectedTokens[i])
	}
	x.all = x.sc
	if p.PlainChosen != nil {
		x.all = p.PlainChosen[i]
	}
	var clampedC, clampedR bool
	x.c, x.dc, clampedC = o.opts.score(x.uc)
	x.r, x.dr, clampedR = o.opts.score(x.ur)
	x.clamped = clampedC || clampedR
}

// add gives a loss and its derivatives, of pair i's chosen and pair j's rejected, the
// weight of pair i.
func (t *Terms) add(i, j int, weight, loss, dc, dr float64) {
	t.Loss[i] += weight * loss
	t.GradChosen[i] += weight * t.scale[i] * dc
	t.GradRejected[j] += weight * t.scale[i] * dr
}

// reset sizes and clears the slices and sets the weights of pairs in the batch.
func (t *Terms) reset(p *Pairs, totals Totals) {
	n := p.Len()
	for _, s := range []*[]float64{&t.Loss, &t.GradChosen, &t.GradRejected, &t.GradPlain, &t.scale, &t.left, &t.right} {
		*s = resize(*s, n)
		clear(*s)
	}
	t.leftOrder, t.rightOrder, t.bounded = resize(t.leftOrder, n), resize(t.rightOrder, n), resize(t.bounded, n)
	t.Batch, t.Clamped = 0, 0
	// A batch whose weights are all 0 has nothing to say: loss and gradient 0.
	if totals.Weight > 0 {
		for i := range n {
			t.scale[i] = p.weight(i) / totals.Weight
		}
	}
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// mustFit panics where the caller mixed up its slices.
func (o *Objective) mustFit(p *Pairs, totals Totals) {
	n := p.Len()
	fit := func(name string, have int, absent, needed bool) {
		if absent && needed {
			panic(fmt.Sprintf("loss: %s needs %s, which is nil", o, name))
		}
		if !absent && have != n {
			panic(fmt.Sprintf("loss: %s has %d pairs, PolicyChosen has %d", name, have, n))
		}
	}
	fit("PolicyRejected", len(p.PolicyRejected), false, true)
	fit("RefChosen", len(p.RefChosen), p.RefChosen == nil, o.NeedsReference())
	fit("RefRejected", len(p.RefRejected), p.RefRejected == nil, p.RefChosen != nil)
	fit("ChosenTokens", len(p.ChosenTokens), p.ChosenTokens == nil, o.NeedsLengths())
	fit("RejectedTokens", len(p.RejectedTokens), p.RejectedTokens == nil, p.ChosenTokens != nil)
	fit("Weight", len(p.Weight), p.Weight == nil, false)
	fit("WPO", len(p.WPO), p.WPO == nil, o.opts.WPO)
	fit("PlainChosen", len(p.PlainChosen), p.PlainChosen == nil, o.opts.LDAlpha != 1 && o.has(func(e *entry) bool { return e.plain }))
	for i := range p.ChosenTokens {
		if min(p.ChosenTokens[i], p.RejectedTokens[i]) < 1 {
			panic(fmt.Sprintf("loss: pair %d has %d chosen and %d rejected tokens, want at least 1", i, p.ChosenTokens[i], p.RejectedTokens[i]))
		}
	}
	if totals.Pairs < n || (totals.Pairs != n && !o.Separable()) {
		panic(fmt.Sprintf("loss: %s is given %d pairs of a batch of %d", o, n, totals.Pairs))
	}
}
