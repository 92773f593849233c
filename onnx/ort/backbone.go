//go:build cgo

package ort

import (
	"context"
	"fmt"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// Backbone is a decoder without its LM head. It is not safe for concurrent use.
type Backbone struct {
	session *session
	feed    *feeder
	output  string
	d       int
	hidden  floats // the last batch's output, [B,T,D]
}

// NewBackbone opens m, the result of [onnx.Model.Backbone], whose inputs io
// describes. m must stay open until NewBackbone returns.
func (r *Runtime) NewBackbone(m *onnx.Model, io *onnx.IO, opt Options) (*Backbone, error) {
	if n := len(m.Graph.Outputs); n != 1 {
		return nil, fmt.Errorf("ort: backbone has %d outputs, want the hidden states alone", n)
	}
	out := m.Graph.Outputs[0]
	if n := len(out.Shape); n != 3 || out.Shape[2].Size < 1 || !out.DType.IsFloat() {
		return nil, fmt.Errorf("ort: backbone output %q is %s with %d dimensions, want floats [B,T,D] with a fixed D", out.Name, out.DType, n)
	}
	b := &Backbone{
		feed: newFeeder(m.Graph, io), output: out.Name, d: int(out.Shape[2].Size),
		hidden: floats{dtype: out.DType},
	}
	var err error
	b.session, err = r.newSession(m, b.feed.names, []string{out.Name}, opt)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// D is the width of a hidden state.
func (b *Backbone) D() int { return b.d }

// Close frees the graph.
func (b *Backbone) Close() error { return b.session.close() }

// Hidden runs seqs as one batch, padded on the right, and sets dst[i] to the
// hidden states of positions from[i] … len(seqs[i])-2, float32 row-major [n,D]:
// the rows that predict seqs[i][from[i]+1:]. It grows dst[i] where it is too small.
//
// Neither padding nor the order of the batch changes a row beyond float rounding.
// A token outside the vocabulary is an error, and so is a hidden state that is not
// finite (*NonFiniteError). When ctx ends the run is stopped and its cause returned.
func (b *Backbone) Hidden(ctx context.Context, seqs [][]int32, from []int, dst [][]float32) error {
	if len(from) != len(seqs) || len(dst) != len(seqs) {
		panic(fmt.Sprintf("ort: %d sequences with %d starts and %d results", len(seqs), len(from), len(dst)))
	}
	if len(seqs) == 0 {
		return nil
	}
	// The last token predicts nothing, so it is not run.
	run := make([][]int32, len(seqs))
	for i, s := range seqs {
		if len(s) < 2 || from[i] < 0 || from[i] >= len(s) {
			return fmt.Errorf("ort: sequence %d of %d tokens from position %d: want 2 tokens or more and a position inside", i, len(s), from[i])
		}
		run[i] = s[:len(s)-1]
	}
	if err := checkIDs(seqs, b.feed.io.V); err != nil {
		return err
	}
	batch := newBatch(run)
	if err := b.run(ctx, batch); err != nil {
		return err
	}
	for i, s := range run {
		n := len(s) - from[i]
		dst[i] = grow(dst[i], n*b.d)
		b.hidden.read(dst[i], (i*batch.width+from[i])*b.d)
		for t := range n {
			if x, bad := firstNonFinite(dst[i][t*b.d : (t+1)*b.d]); bad {
				return &NonFiniteError{"hidden state", i, from[i] + t, x}
			}
		}
	}
	return nil
}

// run leaves the hidden states of every position in b.hidden.
func (b *Backbone) run(ctx context.Context, batch *batch) error {
	var vs values
	defer vs.destroy()
	inputs := b.feed.inputs(&vs, batch)
	rows, width := int64(batch.rows), int64(batch.width)
	data := b.hidden.resize(rows * width * int64(b.d))
	output := vs.tensor(b.hidden.dtype, data, rows, width, int64(b.d))
	if vs.err != nil {
		return vs.err
	}
	return b.session.run(ctx, inputs, []ortgo.Value{output})
}
