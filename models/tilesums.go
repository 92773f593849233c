package models

import (
	"context"
	"math"
)

// TileSums are the sums over one row of logits z within one tile of tokens, relative to
// the greatest of them. Engines that go through the vocabulary tile by tile fill them and put
// them together with [Tokens.Put].
type TileSums struct {
	// Max is the greatest logit, Top the first token that has it. Engines may leave Top wrong in a tile that has
	// not the row's greatest logit.
	Max float32
	Top int32
	// Sum is Σ e with e = exp(z - Max); NaN where a logit is not a number.
	Sum float64
	// SumSq is Σ e², Energy Σ e (z - Max), Shift Σ e (z - z0), z0 being the frozen head's logit.
	SumSq, Energy, Shift float64
}

// MergeTiles puts the sums of a row's tiles together, in their order.
func MergeTiles(tiles []TileSums) TileSums {
	best := 0
	for j := range tiles {
		if tiles[j].Max > tiles[best].Max {
			best = j
		}
	}
	all := TileSums{Max: tiles[best].Max, Top: tiles[best].Top}
	for j := range tiles {
		t := &tiles[j]
		by := float64(t.Max) - float64(all.Max)
		w := math.Exp(by)
		all.Sum += w * t.Sum
		all.SumSq += w * w * t.SumSq
		if w > 0 {
			all.Energy += w * (t.Energy + by*t.Sum)
		}
		all.Shift += w * t.Shift
	}
	return all
}

// Put sets the results of row i from the sums over all of its logits and the target's logit,
// under the head and under the frozen one.
//
// With Z = Σ exp(z-m): entropy = log Z - E[z-m], and with the frozen head's normaliser, which the
// reference's log-prob of the target reveals, KL = E[z - z_0] - log Z - m + (z_0(target) - ref).
func (t *Tokens) Put(i int, rows *Rows, all TileSums, logit, frozen float32) {
	logZ, m := math.Log(all.Sum), float64(all.Max)
	t.Logps[i] = float64(logit) - m - logZ
	t.Entropy[i] = logZ - all.Energy/all.Sum
	t.LogSumSq[i] = math.Log(all.SumSq) - 2*logZ
	t.Top[i] = all.Top
	if rows.RefLogps != nil {
		frozenLSE := float64(frozen) - float64(rows.RefLogps[i])
		// Rounding may leave less than 0, which no divergence is.
		t.KL[i] = max(0, all.Shift/all.Sum-logZ-m+frozenLSE)
	}
}

// SumShares writes to dst the sums of shares [n,len(dst)] over n, in float64 and in their order, on all cores. It returns the
// cause of ctx's end.
func SumShares(ctx context.Context, dst, shares []float32) error {
	const block = 1024
	return Each(ctx, (len(dst)+block-1)/block, func(_, task int) {
		lo := task * block
		part := dst[lo:min(lo+block, len(dst))]
		var sum, wide [block]float64
		for ; lo < len(shares); lo += len(dst) {
			addWide(sum[:len(part)], shares[lo:lo+len(part)], wide[:])
		}
		for k := range part {
			part[k] = float32(sum[k])
		}
	})
}
