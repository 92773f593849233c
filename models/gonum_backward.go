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

// backwardTile does tile j of every row that has a coefficient. Sums over rows are flushed to the
// gradients every tileRows rows, which keeps chains of float32 additions short.
func (g *gonum) backwardTile(s *scratch, j int, coef []float64, grad AdditionGrad) {
	lo, hi := g.span(j)
	n, r := hi-lo, g.add.R
	if grad.U != nil {
		transpose(s.bt, n, g.add.B[lo*r:hi*r], n, r)
		clear(g.partial[j*len(grad.U) : (j+1)*len(grad.U)])
	}
	for i := 0; i < g.rows.N; {
		rows := 0
		for ; i < g.rows.N && rows < tileRows; i++ {
			if coef[i] == 0 {
				continue
			}
			dz := s.block[rows*n : (rows+1)*n]
			g.logitGrad(s, dz, i, lo, hi, coef[i])
			if grad.U != nil {
				g.projectionGrad(s, i, j, dz)
			}
			if grad.B != nil {
				transpose(s.ut[rows:], tileRows, g.add.U[i*r:(i+1)*r], 1, r)
			}
			rows++
		}
		g.flush(s, rows, lo, hi, grad)
	}
}

// logitGrad writes to dz Scale · ∂L/∂z before the softcap for row i and tokens [lo,hi):
//
//	coef · (onehot(target) - softmax(z)) · (1 - (z/Softcap)²) · Scale
func (g *gonum) logitGrad(s *scratch, dz []float32, i, lo, hi int, coef float64) {
	coef *= float64(g.v.Scale)
	z := g.logits[i*g.v.V+lo : i*g.v.V+hi]
	e := s.e[:hi-lo]
	shiftRow(e, z, g.shift[i], s.wide) // a NaN row has a NaN sum, which spreads below
	expRow(s.e, len(e))
	vek32.MulNumber_Into(dz, e, float32(-coef/g.sum[i]))
	// Rounds what is next to zero to zero: products of denormal numbers take many times as long, and
	// gradients of pairs that are learnt are of these.
	const grain = 1e-18
	vek32.AddNumber_Inplace(dz, grain)
	vek32.SubNumber_Inplace(dz, grain)
	if t := int(g.rows.Targets[i]) - lo; t >= 0 && t < len(dz) {
		dz[t] += float32(coef)
	}
	if limit := g.v.Softcap; limit > 0 {
		for k, x := range z {
			x /= limit
			dz[k] *= 1 - x*x
		}
	}
}

// projectionGrad keeps tile j's share of row i of ∂L/∂U = ∂L/∂z B.
func (g *gonum) projectionGrad(s *scratch, i, j int, dz []float32) {
	du := g.partial[(j*g.rows.N+i)*g.add.R:][:g.add.R]
	for r := range du {
		du[r] = dot(dz, s.bt[r*len(dz):(r+1)*len(dz)])
	}
}

// flush adds the sums over the rows of the block to the gradients of tokens [lo,hi).
func (g *gonum) flush(s *scratch, rows, lo, hi int, grad AdditionGrad) {
	n, r := hi-lo, g.add.R
	if rows == 0 {
		return
	}
	if grad.C != nil {
		dc := s.dc[:n]
		clear(dc)
		for i := range rows {
			vek32.Add_Inplace(dc, s.block[i*n:(i+1)*n])
		}
		vek32.Add_Inplace(grad.C[lo:hi], dc)
	}
	if grad.B == nil {
		return
	}
	for k := range r {
		ut := s.ut[k*tileRows : k*tileRows+rows]
		vek32.MatMul_Into(s.dbt[k*n:(k+1)*n], ut, s.block[:rows*n], rows)
	}
	for v := range n {
		for k := range r {
			grad.B[(lo+v)*r+k] += s.dbt[k*n+v]
		}
	}
}
