//go:build cgo

package ort

import (
	"context"
	"math"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// How far, relative to their root mean square, the states of a continued text may be
// from those of the whole one: rounding, which 16 bits make larger. A wrong mask or position moves
// them by tens of per cent.
const (
	continuedTolerance     = 1e-3
	continuedHalfTolerance = 1e-2
)

// Graphs differ in what they make of a cache that does not begin with a token, and nothing
// in a file says so: positions may be an input, be counted in the mask or follow from the length of
// the cache; fused attention may take one text only. So it is tried.

// probe finds out how runs can be continued: the states of short texts that were
// read in two pieces must be those of the texts read in one.
func (b *Backbone) probe() {
	if len(b.presents) == 0 || len(b.presents) != len(b.feed.io.Cache) {
		return
	}
	long, short := b.probeText(17, 12, 1), b.probeText(8, 3, 2)
	other := b.probeText(15, 12, 1)
	for _, try := range []struct {
		kind  models.Continuation
		texts []probeText
	}{
		{models.AnyPast, []probeText{long, short, other}},
		{models.EqualPast, []probeText{long, other}},
		{models.OneByOne, []probeText{long}},
	} {
		if b.traits.Continuation = try.kind; b.continues(try.texts) {
			return
		}
	}
	b.traits.Continuation = models.NoContinuation
}

// probeText is a text and where it is cut.
type probeText struct {
	ids []int32
	cut int
}

// probeText draws n tokens; those behind the cut differ between texts of different length.
func (b *Backbone) probeText(n, cut, seed int) probeText {
	v := b.feed.io.V
	if v == 0 {
		v = 16 // no vocabulary is smaller
	}
	ids := make([]int32, n)
	for t := range ids {
		x := seed + 5*t
		if t >= cut {
			x += 3 * n
		}
		ids[t] = int32(x*x%v+v) % int32(v)
	}
	return probeText{ids, cut}
}

// continues reports whether a batch of continued texts has the states of the whole ones.
func (b *Backbone) continues(texts []probeText) bool {
	ctx := context.Background()
	var pieces []*models.Run
	var want [][]float32
	for _, x := range texts {
		whole := &models.Run{IDs: x.ids, From: x.cut}
		first := &models.Run{IDs: x.ids[:x.cut], From: x.cut, Keep: true}
		if b.Run(ctx, []*models.Run{whole}) != nil || b.Run(ctx, []*models.Run{first}) != nil {
			return false
		}
		want = append(want, whole.Hidden)
		pieces = append(pieces, &models.Run{Past: []*models.Cache{first.Cache}, IDs: x.ids[x.cut:]})
	}
	if b.Run(ctx, pieces) != nil {
		return false
	}
	for i, r := range pieces {
		if !(distance(r.Hidden, want[i]) <= b.tolerance()) {
			return false
		}
	}
	return true
}

func (b *Backbone) tolerance() float64 {
	for _, c := range b.presents {
		if c.DType != onnx.Float32 {
			return continuedHalfTolerance
		}
	}
	return continuedTolerance
}

// distance is |a-b| relative to |b|, in root mean squares.
func distance(a, b []float32) float64 {
	var diff, norm float64
	for i := range b {
		d := float64(a[i]) - float64(b[i])
		diff += d * d
		norm += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(diff / norm)
}
