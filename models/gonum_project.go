package models

import "context"

// Project implements [Engine].
func (g *gonum) Project(ctx context.Context, x []float32, r int, dst []float32) error {
	CheckProject(g.v, x, r, dst)
	d := g.v.D
	return g.each(ctx, g.tiles(), func(_ *scratch, j int) {
		lo, hi := g.span(j)
		for v := lo; v < hi; v++ {
			w := g.v.Weight[v*d : (v+1)*d]
			for k := range r {
				dst[v*r+k] = dot(w, x[k*d:(k+1)*d])
			}
		}
	})
}

// Gather implements [Engine]. Each tile of tokens has a sum of its own; the sums are added in
// the order of the tiles, in float64.
func (g *gonum) Gather(ctx context.Context, grad []float32, r int, dst []float32) error {
	CheckProject(g.v, dst, r, grad)
	size := r * g.v.D
	g.partial = resize(g.partial, g.tiles()*size)
	err := g.each(ctx, g.tiles(), func(_ *scratch, j int) {
		g.gatherTile(grad, r, j, g.partial[j*size:(j+1)*size])
	})
	if err != nil {
		return err
	}
	return SumShares(ctx, dst, g.partial)
}

// gatherTile writes tile j's share of gᵀ W, [R,D].
func (g *gonum) gatherTile(grad []float32, r, j int, share []float32) {
	d := g.v.D
	clear(share)
	lo, hi := g.span(j)
	for v := lo; v < hi; v++ {
		w := g.v.Weight[v*d : (v+1)*d]
		for k, x := range grad[v*r : (v+1)*r] {
			axpy(share[k*d:(k+1)*d], x, w)
		}
	}
}
