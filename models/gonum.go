package models

import (
	"context"
	"math"

	"github.com/viterin/vek/vek32"
)

const (
	// tileRows and tileCols bound one piece of work: tileRows rows of logits times at
	// most tileCols tokens, so that its scratch stays in a core's own cache.
	tileRows = 64
	tileCols = 512
	// bandCols tokens of W are gone through for all rows of a tile before the
	// next ones: at D = 2048 they fill half a megabyte.
	bandCols = 64
)

// gonum is the engine in pure Go. The frozen products of one micro-batch are kept, and the
// logits of the last Forward, from which Backward gets the softmax again; everything else is per tile. The tiling depends on V
// only and every sum has a fixed order, so results are the same bits whatever GOMAXPROCS is,
// and the results of a row are the same bits whatever its neighbours are.
type gonum struct {
	v    *Vocabulary
	cols int

	rows    Rows
	add     Addition
	base    []float32  // [N,V] Scale · (W h + Bias)
	logits  []float32  // [N,V]
	stats   []TileSums // [N,tiles per row]
	frozen  []float32  // [N] logit of the target under the frozen head
	shift   []float32  // [N] greatest logit
	sum     []float64  // [N] Σ exp(z - shift)
	partial []float32  // [tiles per row,N,R] shares of ∂L/∂U
	scratch []*scratch
}

// scratch is what one worker needs for one tile.
type scratch struct {
	e, t, z0    []float32 // [cols]
	wide, wideE []float64 // [cols]
	block       []float32 // [tileRows,cols]: what is added to the logits of a row block, or their gradient
	bt, dbt     []float32 // [R,cols]: B transposed, and the gradient of that
	ut          []float32 // [R,tileRows]: U of a row block transposed
	dc          []float32 // [cols]
}

// NewGonum returns the engine in pure Go. It panics where v is not valid.
func NewGonum(v *Vocabulary) Engine {
	if err := v.Validate(); err != nil {
		panic(err)
	}
	return &gonum{v: v, cols: colsOf(v.V)}
}

// colsOf is the number of tokens of a tile of a vocabulary of v, the last one excepted: a
// small vocabulary is cut finer, to have work for every core.
func colsOf(v int) int {
	return min(max(roundUp(v/16, bandCols), bandCols), tileCols)
}

func (g *gonum) Name() string            { return "gonum" }
func (g *gonum) Vocabulary() *Vocabulary { return g.v }

func (g *gonum) Close() error {
	*g = gonum{v: g.v}
	return nil
}

// tiles returns the number of tiles that a row of logits is cut into.
func (g *gonum) tiles() int { return (g.v.V + g.cols - 1) / g.cols }

// span returns the first token of tile j, and the one after its last.
func (g *gonum) span(j int) (lo, hi int) { return j * g.cols, min((j+1)*g.cols, g.v.V) }

// Rows implements [Engine].
func (g *gonum) Rows() Rows { return g.rows }

// Load implements [Engine].
func (g *gonum) Load(ctx context.Context, rows Rows) error {
	g.rows = Rows{}
	if err := CheckRows(g.v, rows); err != nil {
		return err
	}
	g.base = resize(g.base, rows.N*g.v.V)
	// Row blocks run fastest: neighbours in time share a band of W.
	blocks := rowBlocks(rows.N)
	err := g.each(ctx, blocks*g.tiles(), func(_ *scratch, task int) {
		g.multiplyTile(rows, task%blocks, task/blocks)
	})
	if err != nil {
		return err
	}
	g.rows = rows
	return nil
}

func rowBlocks(n int) int { return (n + tileRows - 1) / tileRows }

// Forward implements [Engine].
func (g *gonum) Forward(ctx context.Context, add Addition, out *Tokens) error {
	n := g.rows.N
	CheckAddition(g.v, n, add)
	g.add = add
	g.logits = resize(g.logits, n*g.v.V)
	g.stats = resize(g.stats, n*g.tiles())
	g.frozen = resize(g.frozen, n)
	g.shift = resize(g.shift, n)
	g.sum = resize(g.sum, n)
	out.Resize(n, g.rows.RefLogps != nil)

	blocks := rowBlocks(n)
	err := g.each(ctx, blocks*g.tiles(), func(s *scratch, task int) {
		g.forwardTile(s, task%blocks, task/blocks)
	})
	if err != nil {
		return err
	}
	for i := range n {
		g.merge(i, out)
	}
	return nil
}

// each runs do for every task in [0,n) on all cores.
func (g *gonum) each(ctx context.Context, n int, do func(s *scratch, task int)) error {
	for len(g.scratch) < Workers(n) {
		g.scratch = append(g.scratch, newScratch(g.cols))
	}
	for _, s := range g.scratch {
		s.bt = resize(s.bt, g.add.R*g.cols)
		s.dbt = resize(s.dbt, g.add.R*g.cols)
		s.ut = resize(s.ut, g.add.R*tileRows)
	}
	return Each(ctx, n, func(worker, task int) { do(g.scratch[worker], task) })
}

func newScratch(cols int) *scratch {
	row := func() []float32 { return make([]float32, cols) }
	return &scratch{
		e: row(), t: row(), z0: row(), dc: row(), block: make([]float32, tileRows*cols),
		wide: make([]float64, cols), wideE: make([]float64, cols),
	}
}

// multiplyTile computes the frozen products of row block b and tile j.
func (g *gonum) multiplyTile(rows Rows, b, j int) {
	lo, hi := g.span(j)
	first, last := b*tileRows, min((b+1)*tileRows, rows.N)
	for band := lo; band < hi; band += bandCols {
		for i := first; i < last; i++ {
			g.multiply(rows.hidden(i, g.v.D), i, band, min(band+bandCols, hi))
		}
	}
	for i := first; i < last; i++ {
		z := g.base[i*g.v.V+lo : i*g.v.V+hi]
		if g.v.Bias != nil {
			vek32.Add_Inplace(z, g.v.Bias[lo:hi])
		}
		scaleRow(z, g.v.Scale)
	}
}

// forwardTile computes the logits of row block b and tile j, and their sums.
func (g *gonum) forwardTile(s *scratch, b, j int) {
	lo, hi := g.span(j)
	first, last := b*tileRows, min((b+1)*tileRows, g.rows.N)
	added := g.addition(s, first, last, lo, hi)
	for i := first; i < last; i++ {
		if added == nil {
			g.finishRow(s, i, j, nil)
		} else {
			g.finishRow(s, i, j, added[(i-first)*(hi-lo):(i-first+1)*(hi-lo)])
		}
	}
}

// multiply writes W h of row i for tokens [lo,hi) to the frozen products.
func (g *gonum) multiply(h []float32, i, lo, hi int) {
	d := g.v.D
	z := g.base[i*g.v.V:]
	for k := lo; k < hi; k++ {
		z[k] = dot(h, g.v.Weight[k*d:(k+1)*d])
	}
}

// finishRow turns the frozen products of row i, tile j into logits and takes their sums. added is Scale · (B u + C), or
// nil, and is overwritten.
func (g *gonum) finishRow(s *scratch, i, j int, added []float32) {
	lo, hi := g.span(j)
	z, base := g.logits[i*g.v.V+lo:i*g.v.V+hi], g.base[i*g.v.V+lo:i*g.v.V+hi]
	if added == nil {
		copy(z, base)
	} else {
		vek32.Add_Into(z, base, added)
	}
	if g.v.Softcap > 0 {
		capRow(z, g.v.Softcap)
		if added != nil {
			base = s.z0[:copy(s.z0, base)]
			capRow(base, g.v.Softcap)
			vek32.Sub_Into(added, z, base)
		} else {
			base = z
		}
	}
	if t := int(g.rows.Targets[i]); t >= lo && t < hi {
		g.frozen[i] = base[t-lo]
	}
	if g.rows.RefLogps == nil {
		added = nil
	}
	g.stats[i*g.tiles()+j] = s.sums(z, added)
}

// addition returns Scale · (B u + C) of rows [first,last) for tokens [lo,hi), or nil where there is none.
func (g *gonum) addition(s *scratch, first, last, lo, hi int) []float32 {
	r, n := g.lowRank(), hi-lo
	if r == 0 && g.add.C == nil {
		return nil
	}
	d := s.block[:(last-first)*n]
	if r > 0 {
		transpose(s.bt, n, g.add.B[lo*r:hi*r], n, r)
		for i := range last - first {
			vek32.MatMul_Into(d[i*n:(i+1)*n], g.add.U[(first+i)*r:(first+i+1)*r], s.bt[:r*n], r)
		}
	} else {
		clear(d)
	}
	if g.add.C != nil {
		for ; first < last; first++ {
			vek32.Add_Inplace(d[(last-first-1)*n:][:n], g.add.C[lo:hi])
		}
	}
	scaleRow(d, g.v.Scale)
	return d
}

// lowRank returns R, or 0 where the addition has no low-rank part.
func (g *gonum) lowRank() int {
	if g.add.B == nil {
		return 0
	}
	return g.add.R
}

func scaleRow(x []float32, by float32) {
	if by != 1 {
		vek32.MulNumber_Inplace(x, by)
	}
}

// capRow writes cap · tanh(x/cap) to x, or leaves it where cap is 0.
func capRow(x []float32, limit float32) {
	if limit == 0 {
		return
	}
	l := float64(limit)
	for i, v := range x {
		x[i] = float32(l * math.Tanh(float64(v)/l))
	}
}
