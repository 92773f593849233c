package models

import (
	"context"

	"github.com/viterin/vek/vek32"
)

// Backward implements [Engine]. A tile's columns belong to one worker, which
// goes through all rows; ∂L/∂U, to which every column adds, is kept per tile and summed after.
func (g *gonum) Backward(ctx context.Context, coef []float64, grad AdditionGrad) error {
	CheckBackward(g.v, g.rows.N, g.add, coef, grad)
	if grad.U != nil {
		g.partial = resize(g.partial, g.tiles()*g.rows.N*g.add.R)
	}
	err := g.each(ctx, g.tiles(), func(s *scratch, task int) { g.backwardTile(s, task, coef, grad) })
	if err != nil {
		return err
	}
	return SumShares(ctx, grad.U, g.partial)
}

// backwardTile does tile j of every row. Sums over rows are flushed to the
// gradients every tileRows rows, which keeps chains of float32 additions short.
func (g *gonum) backwardTile(s *scratch, j int, coef []float64, grad AdditionGrad) {
	lo, hi := g.span(j)
	if grad.U != nil {
		transpose(s.bt, g.cols, g.add.B[lo*g.add.R:hi*g.add.R], hi-lo, g.add.R)
	}
	for first := 0; first < g.rows.N; first += tileRows {
		clear(s.dbt)
		clear(s.dc)
		for i := first; i < min(first+tileRows, g.rows.N); i++ {
			dz := g.logitGrad(s, i, lo, hi, coef[i])
			if grad.U != nil {
				g.projectionGrad(s, i, j, dz)
			}
			if grad.B != nil {
				for r, u := range g.add.U[i*g.add.R : (i+1)*g.add.R] {
					axpy(s.dbt[r*g.cols:r*g.cols+len(dz)], u, dz)
				}
			}
			if grad.C != nil {
				vek32.Add_Inplace(s.dc[:len(dz)], dz)
			}
		}
		g.flush(s, lo, hi, grad)
	}
}

// logitGrad returns Scale · ∂L/∂z before the softcap for row i and tokens [lo,hi):
//
//	coef · (onehot(target) - softmax(z)) · (1 - (z/Softcap)²) · Scale
func (g *gonum) logitGrad(s *scratch, i, lo, hi int, coef float64) []float32 {
	dz := s.e[:hi-lo]
	if coef == 0 {
		clear(dz)
		return dz
	}
	coef *= float64(g.v.Scale)
	z := g.logits[i*g.v.V+lo : i*g.v.V+hi]
	shiftRow(dz, z, g.shift[i], s.wide) // a NaN row has a NaN sum, which spreads below
	expRow(s.e, len(dz))
	vek32.MulNumber_Inplace(dz, float32(-coef/g.sum[i]))
	if t := int(g.rows.Targets[i]) - lo; t >= 0 && t < len(dz) {
		dz[t] += float32(coef)
	}
	if limit := g.v.Softcap; limit > 0 {
		for k, x := range z {
			x /= limit
			dz[k] *= 1 - x*x
		}
	}
	return dz
}

// projectionGrad keeps tile j's share of row i of ∂L/∂U = ∂L/∂z B.
func (g *gonum) projectionGrad(s *scratch, i, j int, dz []float32) {
	du := g.partial[(j*g.rows.N+i)*g.add.R:][:g.add.R]
	for r := range du {
		du[r] = dot(dz, s.bt[r*g.cols:r*g.cols+len(dz)])
	}
}

// flush adds the sums of the last rows to the gradients of tokens [lo,hi).
func (g *gonum) flush(s *scratch, lo, hi int, grad AdditionGrad) {
	if grad.C != nil {
		vek32.Add_Inplace(grad.C[lo:hi], s.dc[:hi-lo])
	}
	if grad.B == nil {
		return
	}
	for k := lo; k < hi; k++ {
		for r := range g.add.R {
			grad.B[k*g.add.R+r] += s.dbt[r*g.cols+k-lo]
		}
	}
}
