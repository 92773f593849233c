package models

import (
	"math"

	"github.com/viterin/vek"
	"github.com/viterin/vek/vek32"
)

// sums takes the sums of one row of a tile, all but Top; added may be nil. NaN among the
// logits makes them NaN.
func (s *scratch) sums(z, added []float32) TileSums {
	n := len(z)
	e, t, wide := s.e[:n], s.t[:n], s.wide[:n]
	st := TileSums{Max: vek32.Max(z)}
	if !shiftRow(t, z, st.Max, wide) {
		st.Sum = math.NaN()
		return st
	}
	copy(e, t)
	expRow(s.e, n)
	wideE := vek32.ToFloat64_Into(s.wideE, e)
	st.Sum = vek.Sum(wideE)
	st.SumSq = vek.Dot(wideE, wideE)
	st.Energy = vek.Dot(wideE, vek32.ToFloat64_Into(wide, t))
	if added != nil {
		st.Shift = vek.Dot(wideE, vek32.ToFloat64_Into(wide, added))
	}
	return st
}

// merge puts the sums of row i's tiles together.
func (g *gonum) merge(i int, out *Tokens) {
	all := MergeTiles(g.stats[i*g.tiles() : (i+1)*g.tiles()])
	g.shift[i], g.sum[i] = all.Max, all.Sum
	row := g.logits[i*g.v.V : (i+1)*g.v.V]
	all.Top = find(row, all.Max)
	out.Put(i, &g.rows, all, row[g.rows.Targets[i]], g.frozen[i])
}

// find returns the first token whose logit is z, or 0 where none is: z is NaN.
func find(row []float32, z float32) int32 {
	for v, x := range row {
		if x == z {
			return int32(v)
		}
	}
	return 0
}
