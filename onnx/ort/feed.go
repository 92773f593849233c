//go:build cgo

package ort

import (
	"fmt"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// feeder makes the inputs of a decoder graph.
type feeder struct {
	io *onnx.IO
	// names are the inputs the graph really has, in the order they are fed, and
	// fills make their values.
	names []string
	fills []func(b *batch, vs *values) ortgo.Value
}

// batch is what one run of a decoder reads: B rows of up to T new tokens behind up to P
// cached ones. New tokens are padded on the right with token 0: attention is causal, so that never
// reaches the tokens before it. Pasts are padded on the left, which the mask hides.
type batch struct {
	rows, width, past int
	// pasts are the rows' own cached tokens; nil where every row has past of them.
	pasts []int
	// ids holds the rows' new tokens.
	ids [][]int32
	// cache holds the bytes of the past of every cache input, or is nil where past is 0.
	cache [][]byte
	// keep is how many last positions need logits, 0 for all.
	keep int
}

// newBatch pads seqs to the longest.
func newBatch(seqs [][]int32) *batch {
	b := &batch{rows: len(seqs), ids: seqs}
	for _, s := range seqs {
		b.width = max(b.width, len(s))
	}
	return b
}

// newFeeder sorts out which of io's inputs g still has: a graph that was cut at
// the hidden state may have lost some.
func newFeeder(g *onnx.Graph, io *onnx.IO) *feeder {
	f := &feeder{io: io}
	f.add(g, io.InputIDs, (*batch).inputIDs)
	f.add(g, io.AttentionMask, (*batch).attentionMask)
	f.add(g, io.PositionIDs, (*batch).positionIDs)
	f.add(g, io.KeepLogits, (*batch).keepLogits)
	f.add(g, io.UseCache, (*batch).useCache)
	for i, c := range io.Cache {
		f.add(g, onnx.Port{Name: c.Name}, func(b *batch, vs *values, _ onnx.Port) ortgo.Value {
			return b.pastCache(vs, c, i)
		})
	}
	return f
}

func (f *feeder) add(g *onnx.Graph, p onnx.Port, fill func(*batch, *values, onnx.Port) ortgo.Value) {
	if p.Name == "" || g.Input(p.Name) == nil {
		return
	}
	f.names = append(f.names, p.Name)
	f.fills = append(f.fills, func(b *batch, vs *values) ortgo.Value { return fill(b, vs, p) })
}

// inputs makes the values of b in the order of names.
func (f *feeder) inputs(vs *values, b *batch) []ortgo.Value {
	in := make([]ortgo.Value, len(f.fills))
	for i, fill := range f.fills {
		in[i] = fill(b, vs)
	}
	return in
}

func (b *batch) inputIDs(vs *values, p onnx.Port) ortgo.Value {
	return vs.matrix(p.DType, b.rows, b.width, func(row, t int) int64 {
		if t < len(b.ids[row]) {
			return int64(b.ids[row][t])
		}
		return 0
	})
}

func (b *batch) attentionMask(vs *values, p onnx.Port) ortgo.Value {
	return vs.matrix(p.DType, b.rows, b.past+b.width, func(row, t int) int64 {
		if t >= b.past-b.pastOf(row) && t < b.past+len(b.ids[row]) {
			return 1
		}
		return 0
	})
}

// positionIDs repeat the last one in the padding: any valid position will do there.
func (b *batch) positionIDs(vs *values, p onnx.Port) ortgo.Value {
	return vs.matrix(p.DType, b.rows, b.width, func(row, t int) int64 {
		return int64(b.pastOf(row) + min(t, len(b.ids[row])-1))
	})
}

func (b *batch) pastOf(row int) int {
	if b.pasts == nil {
		return b.past
	}
	return b.pasts[row]
}

func (b *batch) keepLogits(vs *values, p onnx.Port) ortgo.Value {
	if p.Rank == 0 {
		return vs.scalar(p.DType, int64(b.keep))
	}
	if p.DType == onnx.Int32 {
		return vs.tensor(p.DType, bytesOf([]int32{int32(b.keep)}), 1)
	}
	return vs.tensor(p.DType, bytesOf([]int64{int64(b.keep)}), 1)
}

func (b *batch) useCache(vs *values, p onnx.Port) ortgo.Value {
	if p.Rank == 0 {
		return vs.boolean(b.past > 0)
	}
	return vs.tensor(p.DType, bytesOf([]bool{b.past > 0}), 1)
}

func (b *batch) pastCache(vs *values, c onnx.CachePort, i int) ortgo.Value {
	var data []byte
	if b.past > 0 {
		data = b.cache[i]
	}
	return vs.tensor(c.DType, data, int64(b.rows), int64(c.Heads), int64(b.past), int64(c.HeadDim))
}

// checkIDs refuses tokens that the embedding has no row for. V is 0 where the
// graph does not say; ONNX Runtime then finds out.
func checkIDs(seqs [][]int32, v int) error {
	for i, s := range seqs {
		for t, id := range s {
			if id < 0 || v > 0 && int(id) >= v {
				return fmt.Errorf("ort: sequence %d position %d: token id %d is outside the vocabulary [0, %d)", i, t, id, v)
			}
		}
	}
	return nil
}
