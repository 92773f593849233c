package models

import (
	"math"

	"github.com/viterin/vek"
	"github.com/viterin/vek/vek32"
)

// tileStats are the sums over one row of a tile, relative to its greatest logit m.
type tileStats struct {
	max      float32
	sum      float64 // Σ e, e = exp(z - m)
	sumSq    float64 // Σ e²
	energy   float64 // Σ e (z - m)
	addition float64 // Σ e (z - z under the frozen head)
}

// sums takes the sums of one row of a tile; added may be nil. NaN among the logits makes them NaN.
func (s *scratch) sums(z, added []float32) tileStats {
	n := len(z)
	e, t, wide := s.e[:n], s.t[:n], s.wide[:n]
	st := tileStats{max: vek32.Max(z)}
	if !shiftRow(t, z, st.max, wide) {
		st.sum = math.NaN()
		return st
	}
	copy(e, t)
	expRow(s.e, n)
	wideE := vek32.ToFloat64_Into(s.wideE, e)
	st.sum = vek.Sum(wideE)
	st.sumSq = vek.Dot(wideE, wideE)
	st.energy = vek.Dot(wideE, vek32.ToFloat64_Into(wide, t))
	if added != nil {
		st.addition = vek.Dot(wideE, vek32.ToFloat64_Into(wide, added))
	}
	return st
}

// merge puts the sums of row i's tiles together, in their order.
//
// With Z = Σ exp(z-m): entropy = log Z - E[z-m], and with the frozen head's normaliser, which the
// reference's log-prob of the target reveals, KL = E[z - z_0] - log Z - m + (z_0(target) - ref).
func (g *gonum) merge(i int, out *Tokens) {
	row := g.stats[i*g.tiles() : (i+1)*g.tiles()]
	best := 0
	for j, st := range row {
		if st.max > row[best].max {
			best = j
		}
	}
	m := row[best].max
	var all tileStats
	for _, st := range row {
		by := float64(st.max) - float64(m)
		w := math.Exp(by)
		all.sum += w * st.sum
		all.sumSq += w * w * st.sumSq
		if w > 0 {
			all.energy += w * (st.energy + by*st.sum)
		}
		all.addition += w * st.addition
	}
	g.shift[i], g.sum[i] = m, all.sum

	logZ := math.Log(all.sum)
	target := g.logits[i*g.v.V+int(g.rows.Targets[i])]
	out.Logps[i] = float64(target) - float64(m) - logZ
	out.Entropy[i] = logZ - all.energy/all.sum
	out.LogSumSq[i] = math.Log(all.sumSq) - 2*logZ
	out.Top[i] = g.find(i, best, m)
	if g.rows.RefLogps != nil {
		frozenLSE := float64(g.frozen[i]) - float64(g.rows.RefLogps[i])
		// Rounding may leave less than 0, which no divergence is.
		out.KL[i] = max(0, all.addition/all.sum-logZ-float64(m)+frozenLSE)
	}
}

// find returns the first token of tile j in row i whose logit is z.
func (g *gonum) find(i, j int, z float32) int32 {
	lo, hi := g.span(j)
	for k, x := range g.logits[i*g.v.V+lo : i*g.v.V+hi] {
		if x == z {
			return int32(lo + k)
		}
	}
	return int32(lo) // NaN
}
