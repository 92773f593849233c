package models

import (
	"context"

	"github.com/viterin/vek/vek32"
)

// hidden returns the hidden state of row i.
func (r Rows) hidden(i, d int) []float32 { return r.Hidden[i*d : (i+1)*d] }

// down writes s · A h of every row to dst [N,R], for a [R,D].
func (r Rows) down(ctx context.Context, dst, a []float32, rank, d int, s float32) error {
	return Each(ctx, r.N, func(_, i int) {
		h := r.hidden(i, d)
		for k := range rank {
			dst[i*rank+k] = s * dot(h, a[k*d:(k+1)*d])
		}
	})
}

// addDown adds s · duᵀ H to grad [R,D], for du [N,R]: the gradient of A. Shares of tileRows
// rows are summed apart in block [R,D], which keeps chains of float32 additions short. A task takes a few ranks.
func (r Rows) addDown(ctx context.Context, grad, block, du []float32, rank, d int, s float32) error {
	const ranks = 4
	return Each(ctx, (rank+ranks-1)/ranks, func(_, task int) {
		lo, hi := task*ranks, min((task+1)*ranks, rank)
		share := block[lo*d : hi*d]
		var ut [ranks * tileRows]float32
		for first := 0; first < r.N; first += tileRows {
			rows := min(tileRows, r.N-first)
			for k := lo; k < hi; k++ {
				for i := range rows {
					ut[(k-lo)*rows+i] = du[(first+i)*rank+k]
				}
			}
			vek32.MatMul_Into(share, ut[:(hi-lo)*rows], r.Hidden[first*d:(first+rows)*d], rows)
			axpy(grad[lo*d:hi*d], s, share)
		}
	})
}

// roundLogps rounds log-probs to float32, as a cache keeps those of the reference.
func roundLogps(out *Tokens) {
	for i, lp := range out.Logps {
		out.Logps[i] = float64(float32(lp))
	}
}

func fits(e Engine, h Head) error { return Fits(h, e.Vocabulary()) }
