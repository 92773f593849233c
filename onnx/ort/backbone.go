//go:build cgo

package ort

import (
	"context"
	"fmt"
	"sync"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// Backbone is a decoder without its LM head. It is safe for concurrent use.
type Backbone struct {
	session  *session
	feed     *feeder
	output   onnx.Port
	presents []onnx.CachePort // the outputs behind the hidden states
	d        int
	traits   models.Traits

	mu   sync.Mutex
	idle []*workspace
}

// maxLanes is how many runs go on at once at most: with more, the levels of a window's
// prefix tree have too few batches for all of them.
const maxLanes = 4

// lanes are Lanes or what suits the provider. On a CPU the operations between the products are too
// small to be shared out well: a thread for each of several runs gives more than all threads for
// one (630 tokens a second against 520, on two cores).
func (o Options) lanes() int {
	switch {
	case o.Lanes > 0:
		return o.Lanes
	case o.Provider == DefaultOptions().Provider:
		return min(o.Threads, maxLanes)
	default:
		return 1
	}
}

// NewBackbone opens m, the result of [onnx.Model.Backbone], whose inputs io
// describes. Where m keeps every present output of io, runs are tried after others, to see how
// they can be continued. m must stay open until NewBackbone returns.
func (r *Runtime) NewBackbone(m *onnx.Model, io *onnx.IO, opt Options) (*Backbone, error) {
	out := m.Graph.Outputs[0]
	if n := len(out.Shape); n != 3 || out.Shape[2].Size < 1 || !out.DType.IsFloat() {
		return nil, fmt.Errorf("ort: backbone output %q is %s with %d dimensions, want floats [B,T,D] with a fixed D", out.Name, out.DType, n)
	}
	b := &Backbone{
		feed: newFeeder(m.Graph, io), output: onnx.Port{Name: out.Name, DType: out.DType}, d: int(out.Shape[2].Size),
	}
	outputs := []string{out.Name}
	for _, v := range m.Graph.Outputs[1:] {
		c, ok := io.CacheOf(v.Name)
		if !ok {
			return nil, fmt.Errorf("ort: backbone output %q is neither hidden states nor cache", v.Name)
		}
		outputs, b.presents = append(outputs, v.Name), append(b.presents, c)
		b.traits.CacheBytes += int64(c.Heads * c.VectorBytes())
	}
	b.traits.Lanes = opt.lanes()
	opt.Threads = max(1, opt.Threads-b.traits.Lanes+1) // a run brings its own thread to the session's pool
	var err error
	if b.session, err = r.newSession(m, b.feed.names, outputs, opt); err != nil {
		return nil, err
	}
	b.probe()
	return b, nil
}

// D is the width of a hidden state.
func (b *Backbone) D() int { return b.d }

// Traits says what the graph can do.
func (b *Backbone) Traits() models.Traits { return b.traits }

// Close frees the graph.
func (b *Backbone) Close() error { return b.session.close() }

// Run runs a batch and sets Hidden, and Cache where it is to be kept, of every run. New
// tokens are padded on the right and pasts on the left.
//
// Neither padding nor the order of the batch changes a row beyond float rounding.
// A token outside the vocabulary is an error, and so is a hidden state that is not
// finite (*NonFiniteError). When ctx ends the run is stopped and its cause returned.
func (b *Backbone) Run(ctx context.Context, runs []*models.Run) error {
	if len(runs) == 0 {
		return nil
	}
	batch := &batch{rows: len(runs)}
	for i, r := range runs {
		if len(r.IDs) == 0 || r.From < 0 || r.From > len(r.IDs) {
			return fmt.Errorf("ort: run %d of %d tokens, states from %d: want a token or more and a position inside", i, len(r.IDs), r.From)
		}
		past := r.PastTokens()
		batch.ids, batch.pasts = append(batch.ids, r.IDs), append(batch.pasts, past)
		batch.width, batch.past = max(batch.width, len(r.IDs)), max(batch.past, past)
	}
	if err := checkIDs(batch.ids, b.feed.io.V); err != nil {
		return err
	}
	if batch.past > 0 && b.traits.Continuation == models.NoContinuation {
		return fmt.Errorf("ort: a run after %d tokens: the graph can't go on behind a cache", batch.past)
	}
	w := b.workspace()
	defer b.release(w)
	if batch.past > 0 {
		batch.cache = w.gather(b.feed.io.Cache, batch, runs)
	}
	if err := b.run(ctx, batch, w); err != nil {
		return err
	}
	return b.read(batch, w, runs)
}

// run leaves the hidden states of every position and the grown caches in w.
func (b *Backbone) run(ctx context.Context, batch *batch, w *workspace) error {
	var vs values
	defer vs.destroy()
	inputs := b.feed.inputs(&vs, batch)
	rows, width := int64(batch.rows), int64(batch.width)
	data := w.hidden.resize(rows * width * int64(b.d))
	outputs := []ortgo.Value{vs.tensor(w.hidden.dtype, data, rows, width, int64(b.d))}
	w.present = grow(w.present, len(b.presents))
	for i, c := range b.presents {
		shape := []int64{rows, int64(c.Heads), int64(batch.past + batch.width), int64(c.HeadDim)}
		w.present[i] = grow(w.present[i], int(elements(shape)*c.DType.Bits()/8))
		outputs = append(outputs, vs.tensor(c.DType, w.present[i], shape...))
	}
	if vs.err != nil {
		return vs.err
	}
	return b.session.run(ctx, inputs, outputs)
}

// read copies what is wanted out of w.
func (b *Backbone) read(batch *batch, w *workspace, runs []*models.Run) error {
	for i, r := range runs {
		n := len(r.IDs) - r.From
		r.Hidden = grow(r.Hidden, n*b.d)
		w.hidden.read(r.Hidden, (i*batch.width+r.From)*b.d)
		for t := range n {
			if x, bad := firstNonFinite(r.Hidden[t*b.d : (t+1)*b.d]); bad {
				return &NonFiniteError{"hidden state", i, r.From + t, x}
			}
		}
		if r.Keep {
			r.Cache = w.keep(r.Cache, b.presents, batch, i)
		}
	}
	return nil
}
